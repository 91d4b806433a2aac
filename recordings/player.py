"""
When to show what: speed, idle limit, pause, seek, step. Pure: the caller gives the clock and does the waiting.

    player = Player(lambda: reader.events(folder, 0), idle_limit=2.0)
    while not player.ended:
        for event in player.due(clock()): show(event)
        wait(player.wait(clock()))          # or a key, then pause / seek / step
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from recordings.format import Event
from recordings.terminal import TerminalSafe

__all__ = ["Player", "TerminalSafe"]


class Player:
    """
    One playback. ``position`` is in seconds of the recording, whatever the speed and the idle limit.

    *events* gives them from the start each time it is called: that is how a seek backwards is done.
    """

    def __init__(
        self, events: Callable[[], Iterable[Event]], *, speed: float = 1.0, idle_limit: float | None = None
    ) -> None:
        if idle_limit is not None and not idle_limit > 0:
            raise ValueError("the idle limit is more than 0 seconds")
        self.position = 0.0
        self.paused = False
        self._open = events
        self._speed = _checked(speed)
        self._idle_limit = math.inf if idle_limit is None else idle_limit
        self._clock: float | None = None
        """What the clock said when the position was right."""
        self._events: Iterator[Event] = iter(events())
        self._next: Event | None = next(self._events, None)
        self._reached = 0.0
        """The time of the event before the next one."""

    @property
    def ended(self) -> bool:
        """Everything has been shown."""
        return self._next is None

    @property
    def speed(self) -> float:
        return self._speed

    def due(self, clock: float) -> list[Event]:
        """The events to show now, in order. The first call starts the playback."""
        if self._clock is None or self.paused:
            self._clock = clock
        shown: list[Event] = []
        while self._next is not None and not self.paused:
            wait = self._wait(clock)
            if wait > _SOON:
                break
            self._clock = clock + wait  # this event was due a little earlier; the next gap counts from there
            shown.append(self._take())
        if self._next is not None and not self.paused:
            self._move(clock)
        return shown

    def wait(self, clock: float) -> float | None:
        """Seconds until the next event is due; None while paused or when ended: wait for a key."""
        if self._next is None or self.paused:
            return None
        return max(self._wait(clock), 0.0)

    def pause(self, clock: float) -> None:
        """Stop where we are; :meth:`resume` goes on from there."""
        if not self.paused:
            self._move(clock)
            self.paused = True

    def resume(self, clock: float) -> None:
        """Go on after a pause."""
        if self.paused:
            self.paused = False
            self._clock = clock

    def set_speed(self, speed: float, clock: float) -> None:
        """Go on from here at *speed* times the recording's own."""
        _checked(speed)
        if not self.paused:
            self._move(clock)
        self._speed = speed

    def step(self, clock: float) -> list[Event]:
        """Pause, and give the next event at once."""
        self.pause(clock)
        return [] if self._next is None else [self._take()]

    def seek(self, at: float, clock: float) -> tuple[bool, list[Event]]:
        """
        Go to *at* seconds. Gives whether the screen must be reset first, and all events to show at once.

        Backwards there is no other way than from the start: the screen is what all earlier bytes have made of it.
        """
        at = max(at, 0.0)
        back = at < self._reached
        if back:
            self._events = iter(self._open())
            self._next = next(self._events, None)
            self._reached = 0.0
        passed: list[Event] = []
        while self._next is not None and self._next.at <= at:
            passed.append(self._take())
        self.position = at if self._next is not None else self._reached
        self._clock = clock
        return back, passed

    def _take(self) -> Event:
        event = self._next
        assert event is not None  # callers have looked
        self._reached = max(event.at, self._reached)
        self.position = self._reached
        self._next = next(self._events, None)
        return event

    def _wait(self, clock: float) -> float:
        """Seconds until the next event, below 0 if it is late. A pause longer than the idle limit is cut to it."""
        assert self._next is not None
        left = min(self._next.at - self.position, self._idle_limit - self._idle())
        elapsed = clock - (self._clock if self._clock is not None else clock)
        return left / self._speed - elapsed

    def _idle(self) -> float:
        """How long nothing has been shown, in seconds of the recording."""
        return min(self.position - self._reached, self._idle_limit)

    def _move(self, clock: float) -> None:
        """Bring the position up to *clock*, never past the next event."""
        if self._next is not None and self._clock is not None:
            moved = self.position + (clock - self._clock) * self._speed
            self.position = min(max(moved, self.position), max(self._next.at, self.position))
        self._clock = clock


_SOON = 1e-6
"""Seconds that nobody can wait for; less than the resolution of a clock must not be asked for again and again."""


def _checked(speed: float) -> float:
    if not (speed > 0 and math.isfinite(speed)):
        raise ValueError("the speed is a number above 0")
    return speed
