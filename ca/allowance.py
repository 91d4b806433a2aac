"""How often strangers may try something: counted per source in a sliding window, in memory. Pure but for its counts."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from ca.errors import NotSignedIn, TooMany
from ca.model import on_this_machine, source_key

MOST_KEYS = 10_000


class Allowance:
    """At most *times* within *window* for one source, an IPv6 line being one. The oldest are forgotten when there are
    too many. *spares_neighbours*: whoever shares the machine with the authority is not counted.
    """

    def __init__(self, times: int, window: timedelta, *, spares_neighbours: bool = False) -> None:
        self._times = times
        self._window = window
        self._spares_neighbours = spares_neighbours
        self._seen: OrderedDict[str, deque[datetime]] = OrderedDict()

    def spent(self, source: str, *, now: datetime) -> bool:
        """Whether *source* has none left."""
        seen = self._seen.get(source_key(source), deque())
        while seen and not now - self._window < seen[0] <= now:
            seen.popleft()
        return len(seen) >= self._times

    def take(self, source: str, *, now: datetime) -> None:
        """Count one."""
        if self._spares_neighbours and on_this_machine(source):
            return
        key = source_key(source)
        self._seen.setdefault(key, deque()).append(now)
        self._seen.move_to_end(key)
        while len(self._seen) > MOST_KEYS:
            self._seen.popitem(last=False)

    def give_back(self, source: str) -> None:
        """Count the latest one no more."""
        seen = self._seen.get(source_key(source))
        if seen:
            seen.pop()

    def use(self, source: str, *, now: datetime) -> None:
        """Count one, or raise TooMany."""
        if self.spent(source, now=now):
            raise too_many()
        self.take(source, now=now)


class Doors:
    """How often strangers may knock: asking for a device code, guessing one (OIDC-18), beginning a sign-in, a nonce to
    sign, a wrong password or code. The last two leave rows behind; many people behind one address must get by.
    """

    def __init__(self) -> None:
        minute = timedelta(minutes=1)
        self.asking = Allowance(10, minute)
        self.guessing = Allowance(10, minute)
        self.guessing_anywhere = Allowance(100, minute)
        self.beginning = Allowance(30, minute)
        self.challenges = Allowance(120, minute, spares_neighbours=True)
        self.failing = Allowance(60, minute, spares_neighbours=True)

    @contextmanager
    def signing_in(self, source: str, *, now: datetime) -> Iterator[None]:
        """One try to sign in with a password. It counts until it is known not to be wrong: many at once are as many."""
        self.failing.use(source, now=now)
        wrong = False
        try:
            yield
        except NotSignedIn:
            wrong = True
            raise
        finally:
            if not wrong:
                self.failing.give_back(source)


def too_many() -> TooMany:
    return TooMany("too many tries: wait a minute")
