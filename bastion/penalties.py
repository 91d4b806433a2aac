"""Who may connect now: a bound on connections that have not signed in, and penalties per source. Pure; clock given.

After OpenSSH's MaxStartups and PerSourcePenalties (sshd_config(5)). Loopback is never punished.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ca.model import on_this_machine, source_key

STARTUPS = 100
"""Connections that may be signing in at once, per worker."""

FAILED, ABANDONED = 5.0, 1.0
"""Seconds of penalty for sign-in tries that all failed, and for leaving without a try."""
LEAST, MOST = 15.0, 600.0
TRACKED = 65_536


@dataclass(slots=True)
class Penalties:
    """Seconds on a steady clock until which each source is refused."""

    until: dict[str, float] = field(default_factory=dict)
    signing_in: int = 0

    def refuses(self, source: str, now: float) -> str | None:
        """Why a new connection from *source* is dropped, or None. A penalty counts only once it is worth ``LEAST``."""
        if self.signing_in >= STARTUPS:
            return "too_many_at_once"
        if self.until.get(source_key(source), 0.0) - now >= LEAST:
            return "penalty"
        return None

    def punish(self, source: str, seconds: float, now: float) -> None:
        """Add *seconds* to what *source* has to wait."""
        if on_this_machine(source):
            return
        source = source_key(source)
        if len(self.until) >= TRACKED:
            self.until = {s: t for s, t in self.until.items() if t > now}
            if len(self.until) >= TRACKED:
                self.until.pop(next(iter(self.until)))
        self.until[source] = min(max(self.until.get(source, now), now) + seconds, now + MOST)


@dataclass(slots=True)
class Bucket:
    """A token bucket: *burst* at once, then *rate* a second."""

    burst: float
    rate: float
    level: float = field(init=False)
    at: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.level = self.burst

    def take(self, now: float) -> bool:
        self.level = min(self.burst, self.level + (now - self.at) * self.rate) if self.at else self.burst
        self.at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True
