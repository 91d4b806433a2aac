"""
Keys in an agent of bart's own: a stock ``ssh-agent`` on ``$BART_HOME/agent.sock``, which ends with the last sign-in.

Never the agent in SSH_AUTH_SOCK: that one people forward. A key goes in with the life time of its certificate and
never lies on the disk. Speaks draft-ietf-sshm-ssh-agent.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from ca.errors import InvalidInput, NotFound, Unavailable
from cli.fresh_key import FreshKey
from recordings import sshkey
from recordings.sshwire import Reader, WireError, string, uint32

SUCCESS = 6
REQUEST_IDENTITIES = 11
IDENTITIES_ANSWER = 12
REMOVE_IDENTITY = 18
ADD_ID_CONSTRAINED = 25
CONSTRAIN_LIFETIME = b"\x01"

CERTIFICATE = b"ssh-ed25519-cert-v01@openssh.com"
PATH_LIMIT = 107
"""Bytes in the path of a Unix socket on Linux (unix(7)), without the final zero."""
ANSWER_LIMIT = 256 * 1024
START_SECONDS = 10.0


class Agent:
    """The agent of one ``$BART_HOME``, running or not."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "agent.sock"
        self._pid = folder / "agent.pid"

    def ensure(self) -> None:
        """Start it, unless it answers already."""
        program = self.found()
        if self.answers():
            return
        self.socket.unlink(missing_ok=True)
        process = subprocess.Popen(
            [program, "-D", "-a", str(self.socket)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # neither Ctrl-C nor a closed terminal ends it
            cwd="/",
            env={name: value for name, value in os.environ.items() if name not in ("SSH_AUTH_SOCK", "SSH_AGENT_PID")},
        )
        _write(self._pid, f"{process.pid}\n")
        end = time.monotonic() + START_SECONDS
        while not self.answers():
            if process.poll() is not None or time.monotonic() > end:
                raise Unavailable("ssh-agent does not start", hint="bart login --no-agent keeps the key in a file")
            time.sleep(0.02)
        process.returncode = 0  # it goes on without us: nobody waits for it

    def found(self) -> str:
        """The program, once it is sure that it can listen here; told before anything is asked."""
        if len(os.fsencode(self.socket)) > PATH_LIMIT:
            raise InvalidInput(
                f"the path of the agent's socket is longer than the system allows: {self.socket}",
                hint="set BART_HOME to a shorter one, or: bart login --no-agent",
            )
        program = shutil.which("ssh-agent")
        if program is None:
            raise NotFound("there is no ssh-agent here", hint="apt-get install openssh-client, or --no-agent")
        return program

    def answers(self) -> bool:
        try:
            self._ask(bytes([REQUEST_IDENTITIES]))
        except (OSError, WireError):
            return False
        return True

    def add(self, key: FreshKey, certificate: str, *, life: timedelta, comment: str) -> None:
        """Put in *key* with its *certificate*, for as long as that lives."""
        seconds = int(life.total_seconds())
        if seconds <= 0:
            raise Unavailable("the certificate is over already; nothing was put into the agent")
        public, secret = key.private.public_key().public_bytes_raw(), key.private.private_bytes_raw()
        halves = string(public) + string(secret + public)
        rest = string(comment.encode("ascii")) + CONSTRAIN_LIFETIME + uint32(seconds)
        blob = sshkey.split_line(certificate)[1]
        self._tell(bytes([ADD_ID_CONSTRAINED]) + string(CERTIFICATE) + string(blob) + halves + rest)
        self._tell(bytes([ADD_ID_CONSTRAINED]) + string(sshkey.ED25519.encode()) + halves + rest)

    def holds(self, line: str) -> bool:
        """Whether the key or certificate of *line* is in there."""
        try:
            return sshkey.split_line(line)[1] in self._blobs()
        except (OSError, WireError, sshkey.KeyFormatError):
            return False

    def remove(self, *lines: str) -> None:
        """Take out the keys and certificates of *lines*; what is not there, or no agent, is no error."""
        for line in lines:
            with suppress(OSError, WireError, Unavailable, sshkey.KeyFormatError):
                self._tell(bytes([REMOVE_IDENTITY]) + string(sshkey.split_line(line)[1]))

    def end(self) -> None:
        """End it and remove what it left, unless it holds somebody's key."""
        with suppress(OSError, WireError):
            if self._blobs():
                return
        pid = self._running()
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        self.socket.unlink(missing_ok=True)
        self._pid.unlink(missing_ok=True)

    def _running(self) -> int | None:
        """The process that listens on our socket, if it is the one that we started: a pid alone may be reused."""
        try:
            kept = int(self._pid.read_text(encoding="ascii"))
            with _connected(self.socket) as connection:
                listens = _peer(connection)
        except (OSError, ValueError):
            return None
        return kept if listens in (None, kept) else None

    def _blobs(self) -> list[bytes]:
        answer = Reader(self._ask(bytes([REQUEST_IDENTITIES])))
        if answer.byte() != IDENTITIES_ANSWER:
            raise WireError("the agent does not tell what it holds")
        found = []
        for _ in range(answer.uint32()):
            found.append(answer.string())
            answer.string()  # its comment
        return found

    def _tell(self, message: bytes) -> None:
        try:
            answer = self._ask(message)
        except OSError as error:
            raise Unavailable(f"bart's agent does not answer: {error}", hint="bart login") from None
        if answer[:1] != bytes([SUCCESS]):
            raise Unavailable("bart's agent refuses the key", hint="bart login --no-agent keeps the key in a file")

    def _ask(self, message: bytes) -> bytes:
        with _connected(self.socket) as connection:
            connection.sendall(string(message))
            (length,) = struct.unpack(">I", _exactly(connection, 4))
            if not 0 < length <= ANSWER_LIMIT:
                raise WireError("the agent's answer has no sensible length")
            return _exactly(connection, length)


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(START_SECONDS)
        connection.connect(str(path))
    except BaseException:
        connection.close()
        raise
    return connection


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise WireError("the agent hung up")
        data += more
    return data


def _peer(connection: socket.socket) -> int | None:
    """The process at the other end; None where the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with open(path, "x", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)
