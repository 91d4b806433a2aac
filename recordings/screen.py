"""
Terminal bytes → the text that a person saw. Escape sequences are carried out on a screen of ours, never on a real one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from inspect import Parameter

import pyte

from recordings.format import Event, Header, Output, Resize, Stderr
from recordings.terminal import TerminalSafe

MAX_CELLS = 200_000
"""A terminal of 1000 × 1000 that somebody claims to have would cost us a gigabyte."""


class _Lenient(pyte.Screen):
    """Leaves out parameters that a control sequence has too many of, as terminals do; pyte would raise TypeError."""


def _lenient(method: Callable[..., None]) -> Callable[..., None]:
    parameters = inspect.signature(method).parameters.values()
    if any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in parameters):
        return method
    taken = sum(parameter.kind is Parameter.POSITIONAL_OR_KEYWORD for parameter in parameters) - 1

    @wraps(method)
    def called(screen: pyte.Screen, *values: int, **named: bool) -> None:
        method(screen, *values[:taken], **named)

    return called


def _known(method: Callable[..., None], last: int) -> Callable[..., None]:
    """Carry out only the ways to erase that there are, 0 to *last*; pyte would raise UnboundLocalError."""

    @wraps(method)
    def called(screen: pyte.Screen, how: int = 0, *values: int, **named: bool) -> None:
        if how <= last:
            method(screen, how, *values, **named)

    return called


for _name in sorted(set(pyte.Stream.csi.values())):
    setattr(_Lenient, _name, _lenient(getattr(pyte.Screen, _name)))
for _name, _last in (("erase_in_line", 2), ("erase_in_display", 3)):
    setattr(_Lenient, _name, _known(getattr(_Lenient, _name), _last))


class Screen:
    """A terminal of *columns* × *rows* that only we look at."""

    def __init__(self, columns: int, rows: int) -> None:
        self._safe = TerminalSafe()  # what it leaves out also has no meaning for, or would crash, pyte
        self._screen = _Lenient(columns, min(rows, max(MAX_CELLS // columns, 1)))
        self._stream = pyte.Stream(self._screen)

    def feed(self, data: bytes) -> None:
        """Show *data*."""
        self._stream.feed(self._safe.feed(data))

    def resize(self, columns: int, rows: int) -> None:
        """The window has another size now."""
        self._screen.resize(min(rows, max(MAX_CELLS // columns, 1)), columns)

    def lines(self) -> list[str]:
        """What is on the screen, without blanks at the end of lines and lines at the end of the screen."""
        lines = [line.rstrip() for line in self._screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines


def seen(header: Header, events: Iterable[Event], *, every: float = 0.5) -> Iterator[tuple[float, str]]:
    """
    Each line of text that stood on the screen, with the time at which it was first seen there.

    The screen is looked at when *every* seconds have passed, or a screenful has scrolled by, since the last look; a
    line that is still there is not given again.
    """
    screen = Screen(header.width, header.height)
    columns, rows = header.width, header.height
    looked, scrolled, at = 0.0, 0, 0.0
    before: list[str] = []
    for event in events:
        if event.at - looked >= every:
            yield from _new(before, before := screen.lines(), at)
            looked, scrolled = event.at, 0
        at = event.at
        match event:
            case Output(data=data) | Stderr(data=data):
                for piece in _pieces(data, columns):
                    screen.feed(piece)
                    scrolled += 1
                    if scrolled >= rows:
                        yield from _new(before, before := screen.lines(), at)
                        looked, scrolled = at, 0
            case Resize(columns=columns, rows=rows):
                screen.resize(columns, rows)
    yield from _new(before, screen.lines(), at)


def _pieces(data: bytes, columns: int) -> Iterator[bytes]:
    """*data* in pieces that scroll by one line at most. A newline begins one, so each line is seen first."""
    for index, line in enumerate(data.split(b"\n")):
        piece = b"\n" + line if index else line
        for start in range(0, len(piece), columns):
            yield piece[start : start + columns]


def _new(before: list[str], now: list[str], at: float) -> Iterator[tuple[float, str]]:
    """The lines of *now* that were not on the screen *before*."""
    known = set(before)
    for line in now:
        if line and line not in known:
            yield at, line
