"""
Everything we raise on purpose.

    BartizanError
    ├── InvalidInput        the caller sent something we do not take   (show: field and expectation)
    ├── AccessDenied        the caller may not do this                 (show, audit)
    ├── NotSignedIn         the caller is nobody we know               (show: how to sign in)
    ├── NotFound            no such thing, or not yours                (show)
    ├── Conflict            the thing is in another state              (show)
    ├── TooLarge            more than we read                          (show)
    ├── TooMany             more often than we answer                  (show: wait)
    ├── Unavailable         a part we need is down                     (show, retry, alert)
    └── SignerFault         what a key signed did not verify           (alarm; nothing is returned)

Anything else that escapes is a bug: the user sees one line with an incident id.
"""

from __future__ import annotations

from typing import ClassVar


class BartizanError(Exception):
    """Base of all expected failures. Raise a subclass, never this.

    ``str(error)`` is one plain sentence a user may read. ``hint`` is what to do
    next. ``code`` is stable: scripts match on it, and docs/reference/errors.md
    has one heading for each kind. ``code`` may be narrowed for one error
    (``ttl_too_long`` is an ``InvalidInput``). How an error looks over HTTP or on a
    terminal is decided in ``ca/api/render.py`` and ``cli/output.py``, not here.
    """

    kind: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code or self.kind


class InvalidInput(BartizanError):
    """The caller sent something we do not take; the message names the field and what was expected."""

    kind = "invalid_input"


class AccessDenied(BartizanError):
    """The caller is known, and may not do this."""

    kind = "access_denied"


class NotSignedIn(BartizanError):
    """The caller showed no credential, or one that is wrong or over."""

    kind = "not_signed_in"


class NotFound(BartizanError):
    """There is no such thing, or it is not the caller's to see."""

    kind = "not_found"


class Conflict(BartizanError):
    """The thing is in another state than the act needs."""

    kind = "conflict"


class TooLarge(BartizanError):
    """More was sent than we are willing to read."""

    kind = "too_large"


class TooMany(BartizanError):
    """It was tried more often than is allowed from there; nothing was looked at. The answer says how long to wait."""

    kind = "too_many"
    wait_seconds: ClassVar[int] = 60


class Unavailable(BartizanError):
    """A part that we need is down; nothing was done."""

    kind = "unavailable"


class SignerFault(BartizanError):
    """What a key signed does not verify. Nothing is returned, and somebody is told."""

    kind = "signer_fault"
