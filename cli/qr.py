"""A QR code in the terminal, two rows of it in each line of half blocks. Shown to people only, never to a script."""

from __future__ import annotations

import io
import os
import sys

BORDER = 2
"""Light modules around it. The standard wants four; every camera that we know takes two, and lines are few."""
_LIGHT_ON_DARK, _RESET = "\x1b[40;97m", "\x1b[0m"
"""Colours of its own, NO_COLOR or not: on a light terminal it would be a negative, which not every app reads."""


def show(uri: str) -> bool:
    """Draw *uri* on standard error. Whether it was: not without a terminal, nor on one that is too narrow or plain."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return False
    lines = drawn(uri)
    if _columns() < len(lines[0]) or not _takes(lines[0]):
        return False
    for line in lines:
        sys.stderr.write(f"{_LIGHT_ON_DARK}{line}{_RESET}\n")
    sys.stderr.flush()
    return True


def drawn(uri: str) -> list[str]:
    """*uri* as lines of blocks (light) and blanks (dark)."""
    import segno  # no command but these few should wait for it

    picture = io.StringIO()
    segno.make_qr(uri, error="l").terminal(picture, border=BORDER, compact=True)
    return picture.getvalue().splitlines()


def _columns() -> int:
    """Of standard error: standard output may be a file. A terminal that does not know says 0."""
    return os.get_terminal_size(sys.stderr.fileno()).columns or 80


def _takes(line: str) -> bool:
    """Whether the terminal's character set has blocks."""
    try:
        line.encode(sys.stderr.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
