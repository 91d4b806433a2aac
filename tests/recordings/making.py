"""Recordings for the tests: a key that signs, a clock that stands where it is put, a writer, and the stock programs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recordings import seal, sshsig
from recordings.format import Header
from recordings.seal import Signer
from recordings.sshkey import PublicKey
from recordings.writer import Recording, countersign

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
RECORDER = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
AUTHORITY = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
STRANGER = Ed25519PrivateKey.from_private_bytes(b"\x03" * 32)
META = {"user": "alice", "node": "web1", "login": "root"}


def signed_by(key: Ed25519PrivateKey) -> Callable[[bytes], str]:
    return lambda message: sshsig.sign(key, message, namespace=seal.NAMESPACE)


sign = signed_by(RECORDER)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def signer(principal: str, key: Ed25519PrivateKey) -> Signer:
    return Signer(principal, PublicKey.of(key.public_key()))


RECORDERS = (signer("bastion-1", RECORDER),)
AUTHORITIES = (signer("authority", AUTHORITY),)


def allowed_signers() -> str:
    """As the authority writes it."""
    lines = []
    for known in (*RECORDERS, *AUTHORITIES):
        options = f'namespaces="{seal.NAMESPACE}",valid-after="20260101000000Z"'
        lines.append(f"{known.principal} {options} {known.key.line()}\n")
    return "".join(lines)


def recording(root: Path, session: str = "s1", *, channel: int | None = 0, pty: bool = False) -> Recording:
    """A live recording, with one open channel."""
    made = Recording.create(root, session, meta=META, now=NOW, sign=sign)
    if channel is not None:
        made.open_channel(channel, Header(timestamp=int(NOW.timestamp())), limit=1 << 30, pty=pty, record_input=False)
    return made


def sealed_and_countersigned(made: Recording, *, after: float = 60) -> Path:
    manifest = made.seal(later(after), "closed")
    countersign(made.folder, signed_by(AUTHORITY)(manifest))
    return made.folder


def run(*command: str | Path, cwd: Path, stdin: bytes = b"") -> bytes:
    """What a stock program prints; AssertionError with its stderr if it fails."""
    program = shutil.which(str(command[0]))
    assert program, f"{command[0]} is not installed"
    done = subprocess.run([program, *command[1:]], cwd=cwd, input=stdin, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout
