"""What the stories share: an operator's HTTP door, a session that stays open, and a recording read with stock tools."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.product import Person, Product, Way

T = TypeVar("T")


def eventually(look: Callable[[], T | None], *, within: float = 30, what: str = "") -> T:
    """What *look* gives as soon as it is something; the patience is generous, the machine may be busy."""
    end = time.monotonic() + within
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"not within {within:.0f} s: {what or look}"
        time.sleep(0.05)


@contextmanager
def operator(product: Product) -> Iterator[httpx.Client]:
    """The socket in the data folder, with the token beside it: what `bartizan` uses, without starting a program."""
    token = (product.data / "admin.token").read_text().strip()
    transport = httpx.HTTPTransport(uds=str(product.data / "authority.sock"))
    with httpx.Client(
        transport=transport, base_url="http://localhost", headers={"Authorization": f"Bearer {token}"}, timeout=30
    ) as client:
        yield client


def sessions(product: Product, **narrow: str) -> list[dict[str, Any]]:
    """The sessions that the authority knows, newest first."""
    with operator(product) as door:
        answer = door.get("/v1/sessions", params=narrow)
    found: list[dict[str, Any]] = answer.raise_for_status().json()
    return found


def events(product: Product, code: str, **fields: object) -> list[dict[str, Any]]:
    """The events of the audit log with this code whose fields are these."""
    found: list[dict[str, Any]] = []
    after = 0
    with operator(product) as door:
        while page := door.get("/v1/audit", params={"after": after, "limit": 1000}).raise_for_status().json():
            found += page
            after = page[-1]["seq"]
    return [one for one in found if one["code"] == code and fields.items() <= one["fields"].items()]


# --- a session that stays open ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Live:
    """A running ``ssh`` whose remote command goes on until somebody ends it."""

    id: str
    process: subprocess.Popen[bytes]
    out: Path
    err: Path
    ended: datetime | None = None

    @property
    def output(self) -> bytes:
        return self.out.read_bytes()

    @property
    def said(self) -> str:
        """What the person read on standard error."""
        return self.err.read_text(errors="replace")

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def watch(self) -> None:
        """Note the moment at which ssh ends."""
        self.process.wait()
        self.ended = datetime.now(UTC)

    def stopped(self, *, after: float) -> bool:
        """Whether ssh has ended, looked at in *after* seconds."""
        time.sleep(after)
        return self.process.poll() is not None

    def ends(self, *, within: float = 20) -> int:
        """Wait until ssh has ended; its exit status."""
        eventually(lambda: self.ended, within=within, what=f"the end of {self.id}; so far: {self.said}")
        return self.process.returncode


@contextmanager
def live_session(
    person: Person,
    command: str = "echo in; exec cat",
    *,
    node: str = "web1",
    way: Way = "config",
    options: Sequence[str] = (),
    waits_for: bytes = b"in\n",
) -> Iterator[Live]:
    """Somebody on *node*, past the first line of output; ended on the way out, if not before."""
    person.folder.mkdir(parents=True, exist_ok=True)
    stem = f"live-{time.monotonic_ns()}"
    out, err = person.folder / f"{stem}.out", person.folder / f"{stem}.err"
    before = {one["id"] for one in sessions(person.product, user=person.name)}
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            person.ssh_command(node, command, way=way, options=options),
            env=person.environment,
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
        )
    try:
        eventually(lambda: waits_for in out.read_bytes() or process.poll() is not None, what="the first line")
        assert process.poll() is None, err.read_text()
        (new,) = {one["id"] for one in sessions(person.product, user=person.name)} - before
        live = Live(new, process, out, err)
        watcher = threading.Thread(target=live.watch, daemon=True)
        watcher.start()
        yield live
    finally:
        process.kill()
        process.wait(timeout=10)
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()


def guest(product: Product, name: str, *roles: str) -> Person:
    """Another person, signed in; made without starting a program for it."""
    password = secrets.token_urlsafe(18)
    with operator(product) as door:
        door.post("/v1/users", json={"name": name, "roles": list(roles), "password": password}).raise_for_status()
    person = Person(product, name, password, product.folder / "people" / name)
    person.login()
    return person


def newest(person: Person, node: str = "web1") -> str:
    """The id of the person's latest session on *node*."""
    id: str = sessions(person.product, user=person.name, node=node)[0]["id"]
    return id


# --- recordings ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tape:
    """The folder of one recording, read with stock tools alone."""

    folder: Path
    streams: dict[str, bytes] = field(default_factory=dict)

    def stream(self, name: str = "c0") -> bytes:
        """The lines of one stream so far: ``c0``, ``c1``, ``c0.in``, ``events``."""
        parts = sorted(self.folder.glob(f"{name}.0*.zst"))
        return zstdcat(*parts) if parts else b""

    def notes(self) -> list[dict[str, Any]]:
        """What is not a stream: requests, files, refusals."""
        return [json.loads(line) for line in self.stream("events").splitlines()]

    def noted(self, code: str) -> list[dict[str, Any]]:
        return [note for note in self.notes() if note.get("code") == code]

    def text(self) -> bytes:
        """Everything that it holds, decompressed."""
        return zstdcat(*sorted(self.folder.glob("*.zst")))

    @property
    def manifest(self) -> dict[str, Any]:
        made: dict[str, Any] = json.loads((self.folder / "manifest.json").read_bytes())
        return made

    @property
    def sealed(self) -> bool:
        return (self.folder / "manifest.json.authority.sig").exists()


def tape(product: Product, session: str) -> Tape:
    """A recording, whatever state it is in."""
    return Tape(product.recording_folder(session))


def sealed_tape(product: Product, session: str) -> Tape:
    """A recording once it is sealed and countersigned."""
    found = tape(product, session)
    eventually(lambda: found.sealed, what=f"{session} is sealed")
    return found


def zstdcat(*parts: Path) -> bytes:
    return subprocess.run(["zstdcat", *parts], capture_output=True, check=True, timeout=60).stdout


def stock_verdict(folder: Path, allowed_signers: str, principal: str = "local") -> subprocess.CompletedProcess[bytes]:
    """What stock ``ssh-keygen -Y verify`` says of a manifest, believing *allowed_signers* only."""
    with tempfile.NamedTemporaryFile("w", suffix=".signers") as signers:  # never beside the evidence itself
        signers.write(allowed_signers)
        signers.flush()
        return _stock_verdict(folder, Path(signers.name), principal)


def _stock_verdict(folder: Path, signers: Path, principal: str) -> subprocess.CompletedProcess[bytes]:
    name = "manifest.json.authority.sig" if principal == "authority" else "manifest.json.sig"
    words: list[str | Path] = [
        "-Y",
        "verify",
        "-f",
        signers,
        "-I",
        principal,
        "-n",
        "bartizan-recording",
        "-s",
        folder / name,
    ]
    with (folder / "manifest.json").open("rb") as manifest:
        return subprocess.run(["ssh-keygen", *words], stdin=manifest, capture_output=True, check=False, timeout=30)


# --- processes ----------------------------------------------------------------------------------------------------


def children(product: Product, word: str) -> list[int]:
    """The process ids of what ``bartizan up`` started itself and whose command line holds *word*."""
    pids = Path(f"/proc/{product.process.pid}/task/{product.process.pid}/children").read_text().split()
    return [pid for pid in map(int, pids) if word in " ".join(argv(pid))]


def argv(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except FileNotFoundError:
        return []


def killed(*pids: int) -> None:
    """As if the power had failed for these processes."""
    signalled(signal.SIGKILL, *pids)


def signalled(number: signal.Signals, *pids: int) -> None:
    for pid in pids:
        os.kill(pid, number)
