"""
Small secrets that lie in the database: refresh tokens, client secrets, the secrets behind one-time codes.

Sealed with AES-256-GCM under a key of the vault. What is sealed is bound to what it is about, so that a row's secret
opens in no other row.
"""

from __future__ import annotations

import base64
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ca.errors import Unavailable

_MARK = "s1:"


class Sealer:
    """Seals and opens with one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, about: str, secret: str) -> str:
        """*secret* as text for the database, bound to *about* (``renewal:ISSUER:SUBJECT``)."""
        nonce = secrets.token_bytes(12)
        return _MARK + base64.b64encode(nonce + self._cipher.encrypt(nonce, secret.encode(), about.encode())).decode()

    def open(self, about: str, sealed: str) -> str:
        """The secret again. Raises Unavailable when the key, the row or what it is about is another."""
        try:
            if not sealed.startswith(_MARK):
                raise ValueError("another format")
            data = base64.b64decode(sealed.removeprefix(_MARK), validate=True)
            return self._cipher.decrypt(data[:12], data[12:], about.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise Unavailable("a sealed secret in the database does not open", code="sealed_row") from error
