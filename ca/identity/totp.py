"""
One-time codes of an authenticator app (RFC 6238: SHA-1, six digits, 30 s), and recovery codes for the day it is lost.

A code is good in its own step and in the one before and after, and never again once it, or a later one, was taken.
Knows neither clock nor store: both secrets and times come in. Counting failures is done by ``ca/store/logins.py``.
"""

from __future__ import annotations

import hmac
import re
import secrets
from datetime import datetime

import pyotp

STEP = 30
"""Seconds."""
TOLERANCE = 1
"""Steps that a telephone's clock may be off, either way."""

RECOVERY_CODES = 10
_ALPHABET = "bcdfghjkmnpqrstvwxyz23456789"
"""No vowels, so that no code is a word; nothing that is taken for something else (l, 1, 0)."""
_GROUPS, _GROUP = 3, 5
"""15 of 28 signs: 72 bits."""

_CODE = re.compile(r"[0-9]{6}\Z")
_LEFT_OUT = re.compile(r"[\s\u2010-\u2015-]+")
"""What people and their text programs put between the groups of a code."""


def new_secret() -> str:
    """160 bits, as RFC 4226 §4 recommends, in base32."""
    return pyotp.random_base32(32)


def uri(secret: str, *, user: str, cluster: str) -> str:
    """*secret* as an ``otpauth://`` URI, which apps read from a QR code."""
    return pyotp.TOTP(secret, interval=STEP).provisioning_uri(name=user, issuer_name=cluster)


def step_of(secret: str, code: str, *, now: datetime, after: int) -> int | None:
    """The time step whose code this is, later than *after*; None when there is none.

    Every candidate is compared, each in constant time. Should the code fit two of them it is the later one:
    what was taken must not fit again.
    """
    typed = normalised(code)
    if not _CODE.match(typed):
        return None
    totp = pyotp.TOTP(secret, interval=STEP)
    present = int(now.timestamp()) // STEP
    steps = range(present - TOLERANCE, present + TOLERANCE + 1)
    fitting = [step for step in steps if hmac.compare_digest(totp.generate_otp(step), typed) and step > after]
    return max(fitting, default=None)


def new_recovery_codes() -> tuple[str, ...]:
    """Codes such as ``k7qdw-m3xpb-9fzrt``."""
    return tuple(_recovery_code() for _ in range(RECOVERY_CODES))


def normalised(typed: str) -> str:
    """*typed* without what makes no difference: case, blanks, hyphens."""
    return _LEFT_OUT.sub("", typed).lower()


def _recovery_code() -> str:
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP)) for _ in range(_GROUPS))
