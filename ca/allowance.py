"""How often strangers may try something: counts per key in a sliding window, in memory. Pure but for its own counts."""

from __future__ import annotations

from collections import OrderedDict, deque
from datetime import datetime, timedelta

from ca.errors import TooMany

MOST_KEYS = 10_000


class Allowance:
    """At most *times* within *window* for one key. The oldest keys are forgotten when there are too many."""

    def __init__(self, times: int, window: timedelta) -> None:
        self._times = times
        self._window = window
        self._seen: OrderedDict[str, deque[datetime]] = OrderedDict()

    def spent(self, key: str, *, now: datetime) -> bool:
        """Whether *key* has none left."""
        seen = self._seen.get(key, deque())
        while seen and not now - self._window < seen[0] <= now:
            seen.popleft()
        return len(seen) >= self._times

    def take(self, key: str, *, now: datetime) -> None:
        """Count one."""
        self._seen.setdefault(key, deque()).append(now)
        self._seen.move_to_end(key)
        while len(self._seen) > MOST_KEYS:
            self._seen.popitem(last=False)

    def use(self, key: str, *, now: datetime) -> None:
        """Count one, or raise TooMany."""
        if self.spent(key, now=now):
            raise too_many()
        self.take(key, now=now)


class Doors:
    """How often strangers may knock: asking for a device code, guessing one (OIDC-18), beginning a sign-in."""

    def __init__(self) -> None:
        minute = timedelta(minutes=1)
        self.asking = Allowance(10, minute)
        self.guessing = Allowance(10, minute)
        self.guessing_anywhere = Allowance(100, minute)
        self.beginning = Allowance(30, minute)


def too_many() -> TooMany:
    return TooMany("too many tries: wait a minute")
