"""Events that wait for the authority: on disk, in order, until it has taken them. A crash forgets nothing."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from bastion.state import write_private
from ca import audit, wire

FULL = 100_000
"""Waiting events at which no new session starts: what cannot be audited does not happen."""


class Outbox:
    """A queue of audit events backed by one append-only file per worker."""

    def __init__(self, file: Path) -> None:
        self._path = file
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._waiting: deque[wire.BastionEvent] = deque()
        if file.exists():
            self._load(file.read_bytes())
        self._file = os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab", buffering=0)

    def _load(self, text: bytes) -> None:
        """Take up what a worker before us left. What a crash tore is put aside, so that the next event stands alone."""
        whole, _, torn = text.rpartition(b"\n")
        damaged = [torn] if torn else []
        for line in whole.splitlines():
            try:
                self._waiting.append(wire.BastionEvent.model_validate_json(line))
            except ValueError:
                damaged.append(line)
        if damaged:
            for line in damaged:
                self._aside({"why": "damaged", "line": line.decode("utf-8", "backslashreplace")})
            write_private(self._path, "".join(f"{event.model_dump_json()}\n" for event in self._waiting))

    @property
    def full(self) -> bool:
        return len(self._waiting) >= FULL

    @property
    def crowded(self) -> bool:
        """Half full: strangers add nothing more."""
        return len(self._waiting) >= FULL // 2

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, event: audit.Event) -> None:
        """Keep *event* until it is taken. Raises OSError when the disk does not take it, or far too many wait."""
        if len(self._waiting) >= 2 * FULL:
            raise OSError(errno.ENOBUFS, "too many events wait for the authority")
        entry = wire.BastionEvent(
            id=secrets.token_hex(12), at=datetime.now(UTC), code=event.code, fields=audit.record(event)
        )
        line = entry.model_dump_json().encode() + b"\n"
        size = os.fstat(self._file.fileno()).st_size
        written = self._file.write(line)
        if written != len(line):
            self._file.truncate(size)  # half a line would swallow the next
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._waiting.append(entry)

    def first(self, most: int) -> list[wire.BastionEvent]:
        """The oldest events, at most *most*."""
        return list(islice(self._waiting, most))

    def taken(self, count: int) -> None:
        """The authority has the first *count* events."""
        for _ in range(count):
            self._waiting.popleft()
        if not self._waiting:
            self._file.truncate(0)

    def put_aside(self, why: str) -> None:
        """The authority refuses the oldest event: keep it in a file of its own, for somebody to look at."""
        entry = self._waiting.popleft()
        self._aside({"why": why, "event": json.loads(entry.model_dump_json())})

    def _aside(self, what: Mapping[str, object]) -> None:
        refused = os.open(self._path.with_suffix(".refused"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(refused, "ab") as file:
            file.write(json.dumps(what).encode() + b"\n")

    def close(self) -> None:
        self._file.close()


def event_of(code: str, fields: Mapping[str, object]) -> audit.Event:
    """The event with *code* from notes that may say more than the audit log keeps."""
    kind = audit.EVENTS[code]
    known = {name: fields[name] for name in kind.__dataclass_fields__ if name in fields}
    return kind(**known)
