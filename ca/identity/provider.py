"""
What every identity provider can do for us, whatever protocol it speaks: send somebody there, take in what comes
back, ask again later. ``oidc.py`` and ``github.py`` are the two kinds; what is made of an answer is in its file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ca.errors import AccessDenied, Unavailable


class Refused(AccessDenied):
    """The provider says no, or what it sent does not hold. ``code`` tells which (docs/explanation/sign-in.md)."""


class Unreachable(Unavailable):
    """The provider cannot be asked now, or what it answers is not an answer. Says nothing about the person."""

    kind = "provider_unreachable"
    renewal: str | None = None
    """What to ask with next time, when the provider gave something new before the rest failed."""

    def __init__(
        self, message: str, *, hint: str | None = None, code: str | None = None, renewal: str | None = None
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.renewal = renewal
        """A secret, never shown: what to ask with from now on, if the provider replaced it before it fell silent."""


@dataclass(frozen=True, slots=True)
class Proven:
    """Somebody whom the provider vouches for. The person is (issuer, subject); claims may change, those two not."""

    issuer: str
    subject: str
    claims: Mapping[str, object]
    renewal: str | None
    """A secret with which the provider is asked again: a refresh token. None: it gave none."""


NEEDS_DISCOVERY = "it needs what discovery finds"
"""Why a step was not tried."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing that was tried to see whether a provider works. ``ok`` None: not tried."""

    what: str
    ok: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sign-in on its way: made before the person is sent off, needed again when they come back."""

    redirect_uri: str
    state: str
    nonce: str
    verifier: str
    """PKCE (RFC 7636), always S256."""


class IdentityProvider(Protocol):
    """A provider as its file describes it, ready to be asked."""

    async def address(self, attempt: Attempt) -> str:
        """Where the browser goes to sign in. Raises Unreachable."""

    async def prove(self, attempt: Attempt, answer: Mapping[str, str], *, now: datetime) -> Proven:
        """Whom *answer* (the query that came to the redirect URI, each name once) proves.

        The caller has compared the state. Raises Refused, Unreachable.
        """

    async def ask_again(self, renewal: str, *, subject: str, now: datetime) -> Proven:
        """Whether the provider still vouches for *subject*, and with which claims. Raises Refused, Unreachable.

        Whoever asks keeps the new renewal, also when it comes with Unreachable: the one before may be dead.
        """

    async def probe(self, *, now: datetime) -> list[Probe]:
        """Try what can be tried without a person: discovery, keys, clock. Never raises for what it finds."""

    async def read_token(self, token: str, *, now: datetime) -> Proven:
        """Whom a pasted ID token proves (its nonce is not ours). Raises Refused, Unreachable."""

    async def close(self) -> None:
        """Let go of connections."""
