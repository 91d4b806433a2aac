"""
A login in progress on a machine without a browser (RFC 8628), and what a terminal shows to be recognised. Pure.

    pending ──approve──► approved ──use──► used
       └──────deny─────► denied            (and over, whatever it is, once its time has passed)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from ca.errors import Conflict

LIFE = timedelta(minutes=10)
INTERVAL = timedelta(seconds=5)
EARLY = timedelta(seconds=1)
"""A poll that comes so much before its time is not held against anybody."""

USER_CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
"""No vowels, so that no code is a word; no digits that look like letters (RFC 8628 §6.1)."""


class State(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    USED = "used"


@dataclass(frozen=True, slots=True)
class DeviceLogin:
    """A machine that asked to be signed in. ``host`` is what it calls itself, ``source`` where it asked from."""

    user_code: str
    challenge: str
    host: str
    source: str
    created: datetime
    expires: datetime
    state: State = State.PENDING
    user: str | None = None
    polled: datetime | None = None
    with_code: bool = False
    """Whether the browser that approved it was signed in with a second factor of ours."""


def asked(challenge: str, *, host: str, source: str, user_code: str, now: datetime) -> DeviceLogin:
    """A new one."""
    return DeviceLogin(user_code, challenge, host, source, created=now, expires=now + LIFE)


def decided(login: DeviceLogin, *, user: str, approve: bool, now: datetime, with_code: bool = False) -> DeviceLogin:
    """Approved or denied by *user*. Nothing is decided twice, nor late."""
    if login.state is not State.PENDING or over(login, now=now):
        raise Conflict("this code was used already, or its time is over", hint="bart login --no-browser")
    return replace(login, state=State.APPROVED if approve else State.DENIED, user=user, with_code=with_code)


def over(login: DeviceLogin, *, now: datetime) -> bool:
    return now >= login.expires or login.state is State.USED


def heard(login: DeviceLogin, *, now: datetime) -> str:
    """What a poll is told: ``pending``, ``slow_down``, ``approved``, ``denied`` or ``over`` (RFC 8628 §3.5)."""
    if over(login, now=now):
        return "over"
    if login.state is State.PENDING and login.polled is not None and now - login.polled < INTERVAL - EARLY:
        return "slow_down"
    return login.state.value


def new_user_code() -> str:
    """``WDJB-MJHT``: 8 letters, 34 bits, good for ten minutes and against a limit of tries."""
    letters = "".join(secrets.choice(USER_CODE_LETTERS) for _ in range(8))
    return f"{letters[:4]}-{letters[4:]}"


def typed_user_code(text: str) -> str | None:
    """The code as we write it, from what somebody typed: case, blanks and hyphens do not matter. None: no code."""
    letters = [letter for letter in text.upper() if letter not in " -\t"]
    if len(letters) != 8 or not set(letters) <= set(USER_CODE_LETTERS):
        return None
    return f"{''.join(letters[:4])}-{''.join(letters[4:])}"


def challenge_of(verifier: str) -> str:
    """PKCE's S256 (RFC 7636 §4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def proves(verifier: str, challenge: str) -> bool:
    return hmac.compare_digest(challenge_of(verifier).encode(), challenge.encode())


def check_word(challenge: str) -> str:
    """Four characters that the terminal and the page both show, so that a person sees that they belong together."""
    return base64.b32encode(hashlib.sha256(challenge.encode()).digest()).decode()[:4]
