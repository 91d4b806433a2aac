"""One session's recording as the session sees it: words in, backlog watched, disk work in a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from bastion.channels import Kind, Start, Terminal
from recordings.folder import RecordingError
from recordings.format import Header, Input, Output, Resize, Stderr
from recordings.seal import Head
from recordings.writer import Recording

FULL = 16 << 20
"""Bytes not yet on disk at which the session stops reading until the recorder has caught up."""
FLUSH_AT = 1 << 20
FLUSH_SECONDS = 10.0
"""A disk that takes longer cannot keep a recording."""


class Tape:
    """Wraps a Recording. All but ``flush`` and ``seal`` only take note in memory and may be called per packet."""

    def __init__(self, recording: Recording, *, started: datetime, pool: ThreadPoolExecutor) -> None:
        self.recording = recording
        self.started = started
        self._zero = time.monotonic()
        self._pool = pool
        self._flushing = asyncio.Lock()
        self.wanted = asyncio.Event()

    def _at(self) -> float:
        return round(time.monotonic() - self._zero, 6)

    @property
    def long(self) -> bool:
        """Whether the recording should end, so that its manifest can still be signed."""
        return self.recording.long

    @property
    def full(self) -> bool:
        return self.recording.pending > FULL

    def open_channel(
        self, channel: int, start: Start, terminal: Terminal | None, *, limit: int, record_input: bool
    ) -> None:
        """Channel *channel* now is something; its stream begins."""
        size = (terminal.columns, terminal.rows) if terminal else (80, 24)
        header = Header(
            width=size[0],
            height=size[1],
            timestamp=int(self.started.timestamp()),
            command=start.command.decode("utf-8", "backslashreplace") or None,
            term=terminal.term if terminal else None,
            pty=terminal is not None,
        )
        # SFTP: each operation and each file's hash is an event; the stream itself is kept as hash and length.
        kept = 0 if start.kind is Kind.SFTP else limit
        self.recording.open_channel(channel, header, limit=kept, pty=terminal is not None, record_input=record_input)

    def output(self, channel: int, data: bytes) -> None:
        self.recording.write(channel, Output(self._at(), data))
        self._look()

    def error(self, channel: int, data: bytes) -> None:
        self.recording.write(channel, Stderr(self._at(), data))
        self._look()

    def input(self, channel: int, data: bytes) -> None:
        self.recording.write(channel, Input(self._at(), data))
        self._look()

    def resize(self, channel: int, columns: int, rows: int) -> None:
        self.recording.write(channel, Resize(self._at(), columns, rows))
        self._look()

    def close_channel(self, channel: int) -> None:
        self.recording.close_channel(channel)

    def note(self, code: str, fields: Mapping[str, object]) -> None:
        self.recording.event(self._at(), code, fields)
        self._look()

    def _look(self) -> None:
        if self.recording.pending > FLUSH_AT:
            self.wanted.set()

    async def flush(self) -> None:
        """Bring everything to disk. Raises RecordingError, too when the disk does not answer."""
        self.wanted.clear()
        try:
            async with asyncio.timeout(FLUSH_SECONDS), self._flushing:
                await asyncio.get_running_loop().run_in_executor(self._pool, self.recording.flush, datetime.now(UTC))
        except TimeoutError:
            raise RecordingError(f"the disk took longer than {FLUSH_SECONDS:.0f} s") from None

    async def seal(self, how: str) -> bytes:
        """Close the last parts and sign the manifest; its exact bytes. Raises RecordingError."""
        async with self._flushing:
            now = datetime.now(UTC)
            return await asyncio.get_running_loop().run_in_executor(self._pool, self.recording.seal, now, how)

    def abandon(self) -> None:
        """Let go of a recording that could not be sealed, once the disk is done with it: the sweep seals it."""
        self._pool.submit(self.recording.abandon)

    def head(self) -> Head:
        return self.recording.head()


__all__ = ["FULL", "RecordingError", "Tape"]
