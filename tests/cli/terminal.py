"""A real terminal with a person in front of it: reads what the program shows, types answers, presses Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROWS, COLUMNS = 50, 100


class Terminal:
    """One program on a pseudo terminal."""

    def __init__(self, keyboard: int, process: subprocess.Popen[bytes]) -> None:
        self._keyboard = keyboard
        self._at = 0
        self.process = process
        self.shown = ""

    def reads(self, text: str, *, within: float = 30) -> str:
        """Wait until *text* is shown after what was read last; gives all from there up to its end."""
        end = time.monotonic() + within
        while (found := self.shown.find(text, self._at)) < 0:
            assert time.monotonic() < end, f"not shown within {within:.0f} s: {text!r}; so far: {self.shown}"
            if not self._more():
                assert text in self.shown[self._at :], f"ended without {text!r}: {self.shown}"
        begin, self._at = self._at, found + len(text)
        return self.shown[begin : self._at]

    def types(self, text: str) -> None:
        os.write(self._keyboard, text.encode())

    def ends(self, *, within: float = 30) -> int:
        """Read to the end; the exit status."""
        end = time.monotonic() + within
        while self._more():
            assert time.monotonic() < end, self.shown
        return self.process.wait(timeout=within)

    def _more(self) -> bool:
        if not select.select([self._keyboard], [], [], 0.5)[0]:
            return True
        try:
            data = os.read(self._keyboard, 65_536)
        except OSError:  # Linux says EIO when the other side is closed
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)


@contextmanager
def terminal(words: Sequence[str | Path], env: Mapping[str, str]) -> Iterator[Terminal]:
    """Run *words* on a terminal of their own; killed on the way out if they still run."""
    keyboard, screen = pty.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    try:
        process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *words], env=env, stdin=screen, stdout=screen, stderr=screen
        )
    finally:
        os.close(screen)
    try:
        yield Terminal(keyboard, process)
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)
