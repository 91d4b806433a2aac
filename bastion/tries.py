"""
How often strangers tried and failed. Pure; clock given.

The first try of a kind is told at once. Those alike that follow within a minute are told as one, with their exact
number: a flood fills no log, and no try goes uncounted.
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW = 60.0
AT_ONCE = 100
"""Tries told one by one within a window; from then on all are only counted."""
KINDS = 1000
"""Kinds of tries counted apart. Beyond, those of one source count together, and in the end all with one reason."""


@dataclass(frozen=True, slots=True)
class Try:
    """Who tried, from where, and why not. An empty user or source stands for several."""

    user: str
    source: str
    reason: str


class Tries:
    """The failed tries of one worker that are not told yet."""

    def __init__(self) -> None:
        self._told: set[Try] = set()
        self._counts: dict[Try, int] = {}
        self._since: float | None = None

    def add(self, one: Try, now: float) -> bool:
        """Whether *one* is to be told by itself, at once. Otherwise it has been counted."""
        if self._since is None:
            self._since = now
        if one not in self._told and len(self._told) < AT_ONCE:
            self._told.add(one)
            return True
        self.count(one)
        return False

    def count(self, one: Try, number: int = 1) -> None:
        """Keep *number* tries of a kind for later."""
        kind = Try("", "", one.reason)
        for narrower, room in ((one, KINDS), (Try("", one.source, one.reason), 2 * KINDS)):
            if narrower in self._counts or len(self._counts) < room:
                kind = narrower
                break
        self._counts[kind] = self._counts.get(kind, 0) + number

    def take(self, now: float, *, early: bool = False) -> dict[Try, int]:
        """What was counted, once the window is over or, with *early*, before. The next try begins a new one."""
        if self._since is None:
            self._since = now if self._counts else None  # what could not be told waits for another window
        if self._since is None or (now - self._since < WINDOW and not early):
            return {}
        counts, self._counts = self._counts, {}
        self._told.clear()
        self._since = None
        return counts
