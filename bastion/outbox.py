"""Events that wait for the authority: on disk, in order, until it has taken them. A crash forgets nothing."""

from __future__ import annotations

import json
import os
import secrets
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

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
            for line in file.read_bytes().splitlines():
                try:
                    self._waiting.append(wire.BastionEvent.model_validate_json(line))
                except ValueError:
                    break  # the torn last line of a crash
        self._file = os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab", buffering=0)

    @property
    def full(self) -> bool:
        return len(self._waiting) >= FULL

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, event: audit.Event) -> None:
        """Keep *event* until it is taken. Raises OSError when the disk does not take it."""
        entry = wire.BastionEvent(
            id=secrets.token_hex(12), at=datetime.now(UTC), code=event.code, fields=audit.record(event)
        )
        self._file.write(entry.model_dump_json().encode() + b"\n")
        self._waiting.append(entry)

    def first(self, most: int) -> list[wire.BastionEvent]:
        """The oldest events, at most *most*."""
        return [self._waiting[n] for n in range(min(most, len(self._waiting)))]

    def taken(self, count: int) -> None:
        """The authority has the first *count* events."""
        for _ in range(count):
            self._waiting.popleft()
        if not self._waiting:
            self._file.truncate(0)

    def put_aside(self, why: str) -> None:
        """The authority refuses the oldest event: keep it in a file of its own, for somebody to look at."""
        entry = self._waiting.popleft()
        refused = os.open(self._path.with_suffix(".refused"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(refused, "ab") as file:
            file.write(json.dumps({"why": why, "event": json.loads(entry.model_dump_json())}).encode() + b"\n")

    def close(self) -> None:
        self._file.close()


def event_of(code: str, fields: Mapping[str, object]) -> audit.Event:
    """The event with *code* from notes that may say more than the audit log keeps."""
    kind = audit.EVENTS[code]
    known = {name: fields[name] for name in kind.__dataclass_fields__ if name in fields}
    return kind(**known)
