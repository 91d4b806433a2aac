"""
The secret that ties a sign-in in a browser to the terminal that asked for it (PKCE, RFC 7636; S256 alone). Pure but for
the random bytes.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass, field

from ca.login import check_word


@dataclass(frozen=True, slots=True)
class Pkce:
    """The verifier stays here until the exchange; only its hash travels before."""

    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48), repr=False)

    @property
    def challenge(self) -> str:
        digest = hashlib.sha256(self.verifier.encode("ascii")).digest()
        return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")

    @property
    def word(self) -> str:
        """What terminal and page both show, so that a person can tell that they belong together."""
        return check_word(self.challenge)
