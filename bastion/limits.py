"""When a session ends by itself: total time, idleness, the certificate's end, a lease that ran out. Pure; clock given.

Only grants that were used bind a session: a strict grant that nobody used must not leak into others.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ca.model import LEASE
from ca.wire import GrantedAction

SILENCE = timedelta(seconds=30)
"""How long without the authority until no new session starts."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a session must end now. ``code`` is stable, ``reason`` is for the user."""

    code: str
    reason: str


@dataclass(slots=True)
class Limits:
    """The limits of one session so far; ``use`` narrows them, ``touch`` restarts idleness."""

    started: datetime
    certificate_expires: datetime
    last_activity: datetime
    max_session: timedelta | None = None
    idle: timedelta | None = None
    lease: timedelta | None = None
    """The shortest of the grants that were used; a minute until one was."""
    ends_with_certificate: bool = False

    def use(self, grant: GrantedAction) -> None:
        """An action of *grant* was used."""
        if grant.max_session_seconds is not None:
            longest = timedelta(seconds=grant.max_session_seconds)
            self.max_session = longest if self.max_session is None else min(self.max_session, longest)
        if grant.idle_seconds is not None:
            idle = timedelta(seconds=grant.idle_seconds)
            self.idle = idle if self.idle is None else min(self.idle, idle)
        lease = timedelta(seconds=grant.lease_seconds)
        self.lease = lease if self.lease is None else min(self.lease, lease)
        if grant.on_expiry == "end":
            self.ends_with_certificate = True

    def touch(self, now: datetime) -> None:
        self.last_activity = now

    def due(self, now: datetime, *, wall: datetime, last_contact: datetime) -> Ending | None:
        """Why the session must end, or None.

        *now* and *last_contact* (the authority's last answer) are on the clock of ``started``, which may be one that
        never jumps; *wall* is the time that certificates mean.
        """
        lease = self.lease or LEASE
        if now - last_contact >= lease:
            reason = f"the authority has not been reached for {_span(lease)}: the session cannot go on"
            return Ending("lease_over", reason)
        if self.max_session is not None and now - self.started >= self.max_session:
            return Ending("max_session", f"the session has reached its longest time ({_span(self.max_session)})")
        if self.idle is not None and now - self.last_activity >= self.idle:
            return Ending("idle", f"nothing happened for {_span(self.idle)}")
        if self.ends_with_certificate and wall >= self.certificate_expires:
            return Ending("certificate_expired", "your certificate has expired: run bart login")
        return None


def _span(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    hours, minutes, rest = seconds // 3600, seconds % 3600 // 60, seconds % 60
    parts = [f"{n} {word}" for n, word in ((hours, "h"), (minutes, "min"), (rest, "s")) if n]
    return " ".join(parts) or "0 s"
