"""
Which channel requests exist, the action each needs, and which of them pass. Pure.

What stands in no table here is refused: a new kind of request is closed until somebody opens it.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from enum import StrEnum

from ca.model import Action
from recordings.sshwire import Reader, WireError


class Kind(StrEnum):
    """How the traffic of a session channel is understood and recorded."""

    SHELL = "shell"
    EXEC = "exec"
    SFTP = "sftp"
    SCP_SEND = "scp-send"
    """The user sends: the node runs ``scp -t``."""
    SCP_FETCH = "scp-fetch"
    """The user fetches: the node runs ``scp -f``."""


@dataclass(frozen=True, slots=True)
class Start:
    """A request that starts something: what it is, which actions it takes, what was asked for (raw bytes)."""

    kind: Kind
    needs: tuple[str, ...]
    """Any one of these suffices for SFTP (each operation is checked again); otherwise there is exactly one."""
    command: bytes = b""


START_REQUESTS = frozenset({b"shell", b"exec", b"subsystem"})

ENVIRONMENT = re.compile(rb"(LANG|LC_[A-Z]+|LANGUAGE|COLORTERM|NO_COLOR|TZ|GIT_PROTOCOL)\Z")
"""Variables that may pass; the node's own AcceptEnv decides after us."""

SIGNALS = frozenset(
    {b"ABRT", b"ALRM", b"FPE", b"HUP", b"ILL", b"INT", b"KILL", b"PIPE", b"QUIT", b"SEGV", b"TERM", b"USR1", b"USR2"}
)
"""RFC 4254 §6.10. Others are dropped: a name is passed on, never interpreted."""

FROM_NODE = frozenset({b"exit-status", b"exit-signal", b"eow@openssh.com", b"xon-xoff", b"keepalive@openssh.com"})
"""Requests of a node that reach the user."""

EMPTY = frozenset({b"eow@openssh.com", b"keepalive@openssh.com"})
"""Requests that say all by their name. A body would be bytes that pass and that nobody records."""

FORWARDS = {
    b"auth-agent-req@openssh.com": Action.FORWARD_AGENT,
    b"x11-req": Action.FORWARD_X11,
}
"""Session requests that ask for a forward, refused by name for now."""

FORWARD_CHANNELS = {
    b"direct-tcpip": Action.FORWARD_LOCAL,
    b"direct-streamlocal@openssh.com": Action.FORWARD_LOCAL,
    b"tun@openssh.com": Action.FORWARD_LOCAL,
}
FORWARD_GLOBALS = {
    b"tcpip-forward": Action.FORWARD_REMOTE,
    b"streamlocal-forward@openssh.com": Action.FORWARD_REMOTE,
}


def start(request: bytes, body: bytes) -> Start:
    """Understand a ``shell``, ``exec`` or ``subsystem`` request (RFC 4254 §6.5). Raises WireError on bad bytes."""
    reader = Reader(body)
    if request == b"shell":
        reader.end()
        return Start(Kind.SHELL, (Action.SHELL,))
    text = reader.string()
    reader.end()
    if request == b"subsystem":
        if text == b"sftp":
            return Start(Kind.SFTP, (Action.SFTP_READ, Action.SFTP_WRITE), b"sftp")
        return Start(Kind.EXEC, (f"subsystem:{text.decode('utf-8', 'backslashreplace')}",), text)
    scp = _scp(text)
    if scp is not None:
        return Start(scp, (Action.SFTP_WRITE if scp is Kind.SCP_SEND else Action.SFTP_READ,), text)
    return Start(Kind.EXEC, (Action.EXEC,), text)


def _scp(command: bytes) -> Kind | None:
    """Whether *command* is a plain remote end of scp and nothing more.

    The shell of the node will read *command*, so every character that a shell could make something else of
    rules it out: ``scp -t x; bash`` is an exec. Known bypass of this family: a test for the prefix ``scp -t``.
    """
    if not re.fullmatch(rb"scp [\w\s./~@%+=:,'\\ -]*", command, re.ASCII) or b"\n" in command:
        return None
    try:
        argv = shlex.split(command.decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        return None
    # Flags, then one path, as scp itself asks for it: `scp host:file -t` would copy from a third host.
    if len(argv) < 3 or argv[0] != "scp" or argv[-1].startswith("-"):
        return None
    flags = argv[1:-1]
    if not all(re.fullmatch(r"-[rpdvqtf]+", flag) for flag in (flags[:-1] if flags[-1] == "--" else flags)):
        return None
    letters = "".join(flags)
    if ("t" in letters) == ("f" in letters):
        return None
    return Kind.SCP_SEND if "t" in letters else Kind.SCP_FETCH


MODES_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Terminal:
    """A ``pty-req`` (RFC 4254 §6.2), its size clamped. ``modes`` are as encoded there (§8)."""

    term: str
    columns: int
    rows: int
    modes: bytes = b""


def terminal(body: bytes) -> tuple[Terminal, bytes]:
    """The terminal asked for, and the request's body with the clamped size."""
    reader = Reader(body)
    term = reader.string()
    columns, rows, width, height = (reader.uint32() for _ in range(4))
    modes = reader.string()
    reader.end()
    if not re.fullmatch(rb"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}|", term):
        raise WireError("the terminal's name has unusual characters")
    if len(modes) > MODES_LIMIT:
        raise WireError(f"more than {MODES_LIMIT} bytes of terminal modes")
    columns, rows = clamp(columns, rows)
    size = b"".join(n.to_bytes(4, "big") for n in (columns, rows, min(width, 65535), min(height, 65535)))
    clean = len(term).to_bytes(4, "big") + term + size + len(modes).to_bytes(4, "big") + modes
    return Terminal(term.decode("ascii"), columns, rows, modes), clean


def span(body: bytes) -> int:
    """The milliseconds of a ``break`` (RFC 4335 §3)."""
    reader = Reader(body)
    length = reader.uint32()
    reader.end()
    return length


def window_change(body: bytes) -> tuple[int, int, bytes]:
    """Columns, rows and the clamped body of a ``window-change`` (RFC 4254 §6.7)."""
    reader = Reader(body)
    columns, rows, width, height = (reader.uint32() for _ in range(4))
    reader.end()
    columns, rows = clamp(columns, rows)
    return columns, rows, b"".join(n.to_bytes(4, "big") for n in (columns, rows, min(width, 65535), min(height, 65535)))


def clamp(columns: int, rows: int) -> tuple[int, int]:
    """A size that terminals and players survive: 1 to 1000 each (SSH-21)."""
    return min(max(columns, 1), 1000), min(max(rows, 1), 1000)
