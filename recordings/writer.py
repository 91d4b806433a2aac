"""
Writes a live recording: takes events in memory at once, puts them on disk as whole frames, closes parts, seals.

Two threads meet here: ``write`` and its kind run on the event loop and never touch the disk; ``flush`` and ``seal`` run
in a worker and hold the lock for a moment only. What cannot be written raises RecordingError and is kept in memory, so
that nothing is dropped silently: the next flush tries again.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import orjson

from recordings import frames, seal
from recordings.folder import (
    JOURNAL,
    LOCK,
    RecordingError,
    append,
    countersign,
    make_folders,
    publish,
    read,
    uncountersigned,
    unsealed,
    write_all,
)
from recordings.format import (
    Data,
    Digest,
    Event,
    Header,
    Input,
    Output,
    Stderr,
    clean,
    encode,
    encode_data,
    encode_header,
    split_character,
)
from recordings.recovery import recover
from recordings.seal import Head, Manifest, Part

__all__ = ["Head", "Recording", "RecordingError", "countersign", "recover", "uncountersigned", "unsealed"]

PART_AGE = timedelta(seconds=10)
PART_BYTES = 1 << 20
PART_CONTENT = 64 << 20
"""A part also closes when its content has come to this, so that one that shrinks a thousandfold can still be read."""

PIECE = 256 << 10
"""Longer messages become several events."""

MAX_EVENT = 4 << 20

LONGEST_MANIFEST = 12 << 20
"""Past this a recording should end: the authority signs no manifest of more than 16 MB."""


@dataclass(slots=True)
class _Stream:
    """A row of parts. What is above the line belongs to both threads under the lock; the rest to the worker alone."""

    name: str
    suffix: str
    waiting: list[tuple[float | None, bytes]] = field(default_factory=list)
    """Lines with their times (None: a header)."""
    last_at: float = 0.0
    ended: bool = False
    """Nothing more will come: close its part as soon as it is written."""
    # --------
    taken: list[tuple[float | None, bytes]] = field(default_factory=list)
    number: int = 0
    """Of the open part, or of the last one closed."""
    part: _OpenPart | None = None

    @property
    def open_name(self) -> str:
        return f"{self.name}.{self.number:06}.{self.suffix}"


@dataclass(slots=True)
class _OpenPart:
    """The part that is being written; of the worker alone."""

    opened: datetime
    size: int = 0
    content: int = 0
    first: float | None = None
    last: float | None = None
    sha256: hashlib._Hash = field(default_factory=hashlib.sha256)
    frames: list[tuple[int, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Direction:
    """How much of one channel and direction has been kept, and what has passed since that was enough."""

    kept: int = 0
    digests: dict[str, tuple[int, hashlib._Hash]] = field(default_factory=dict)


@dataclass(slots=True)
class _Channel:
    """One channel. All under the lock."""

    stream: _Stream
    keystrokes: _Stream | None
    pty: bool
    limit: int
    out: _Direction = field(default_factory=_Direction)
    into: _Direction = field(default_factory=_Direction)
    begun: dict[str, tuple[float, bytes]] = field(default_factory=dict)
    """Code → the first bytes of a character whose rest has not come."""
    stale: set[str] = field(default_factory=set)
    """Codes whose begun character was already there at the last flush: written as it is at the next."""


class Recording:
    """A live recording of one session. Made by :meth:`create`; ended by :meth:`seal` or :meth:`abandon`."""

    def __init__(
        self,
        folder: Path,
        session: str,
        *,
        meta: Mapping[str, object],
        started: datetime,
        sign: Callable[[bytes], str],
        lock: int,
    ) -> None:
        self.folder = folder
        self.session = session
        self.pending = 0
        """Bytes that have been accepted and are not on disk."""
        self._meta = meta
        self._started = started
        self._sign = sign
        self._lock_file: int | None = lock
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._channels: dict[int, _Channel] = {}
        self._opened: list[dict[str, object]] = []
        self._events = _Stream("events", "ndjson.zst")
        self._streams: list[_Stream] = [self._events]
        self._opened_size = 0
        self._closed = 0
        self._chain = seal.genesis(session)
        self._journal_size = 0
        self._ended = False
        """Nothing more is accepted."""
        self._head = Head(0, self._chain, MappingProxyType({}))

    @classmethod
    def create(
        cls,
        root: Path,
        session: str,
        *,
        meta: Mapping[str, object],
        now: datetime,
        sign: Callable[[bytes], str],
    ) -> Recording:
        """
        A new recording in ``root/YYYY/MM/DD/SESSION``. It appears there complete with its lock, or not at all.

        *meta* (user, node, login, …) goes into the manifest. *sign* gives an armored SSHSIG over the manifest.
        """
        if not seal.SESSION.match(session):
            raise ValueError(f"not a session id: {session!r}")
        day = root / now.astimezone(UTC).strftime("%Y/%m/%d")
        folder, made = day / session, day / f".{session}.new"
        about = orjson.dumps({"session": session, "started": seal.stamp(now), "meta": meta}, default=_json)
        try:
            make_folders(root, day)
            made.mkdir(mode=0o700)
            lock = os.open(made / LOCK, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                write_all(lock, about)
                made.rename(folder)
            except BaseException:
                os.close(lock)
                shutil.rmtree(made, ignore_errors=True)
                raise
        except OSError as error:
            raise RecordingError(f"cannot begin a recording in {day}: {error.strerror}") from error
        return cls(folder, session, meta=orjson.loads(about)["meta"], started=now, sign=sign, lock=lock)

    # --- the event loop's side ----------------------------------------------------------------------------------

    def open_channel(self, channel: int, header: Header, *, limit: int, pty: bool, record_input: bool) -> None:
        """
        Channel *channel* begins. *limit* bytes each way are kept in full, after that lengths and hashes.

        Without a *pty* everything is recorded both ways. On a pty, keystrokes go to files of their own if
        *record_input*, and nowhere otherwise.
        """
        header = replace(header, pty=pty)
        line = encode_header(header)
        stream = _Stream(f"c{channel}", "cast.zst", waiting=[(None, line)])
        keystrokes = _Stream(f"c{channel}.in", "cast.zst") if pty and record_input else None
        if keystrokes is not None:
            keystrokes.waiting.append((None, line))
        with self._lock:
            self._still_going()
            if any(entry["channel"] == channel for entry in self._opened):
                raise ValueError(f"channel {channel} of {self.session} has been opened before")
            about = seal.about_channel(channel, header, keystrokes=keystrokes is not None)
            self._opened.append(about)
            self._opened_size += len(orjson.dumps(about))
            self._channels[channel] = _Channel(stream, keystrokes, pty, limit)
            self._streams.append(stream)
            self.pending += len(line)
            if keystrokes is not None:
                self._streams.append(keystrokes)
                self.pending += len(line)

    def write(self, channel: int, event: Event) -> None:
        """Accept *event*. Memory only: cheap, and never waits for the disk."""
        with self._lock:
            to = self._open_channel(channel)
            match event:
                case Output() | Stderr() | Input():
                    self._accept(to, event)
                case _:
                    self._put(to.stream, event.at, encode(event))

    def event(self, at: float, code: str, fields: Mapping[str, object]) -> None:
        """Accept what is not a stream: a request, a file, a refusal. Text from the node is data here."""
        line = orjson.dumps(
            {"at": round(at, 6), "code": code, "fields": _tame(fields)}, option=orjson.OPT_APPEND_NEWLINE
        )
        if len(line) > MAX_EVENT:
            raise ValueError(f"event {code} has {len(line)} bytes")
        with self._lock:
            self._still_going()
            self._put(self._events, at, line)

    def close_channel(self, channel: int) -> None:
        """Nothing more comes on *channel*: its parts close with the next flush."""
        with self._lock:
            to = self._open_channel(channel)
            del self._channels[channel]
            self._settle(to, everything=True)
            to.stream.ended = True
            if to.keystrokes is not None:
                to.keystrokes.ended = True

    @property
    def long(self) -> bool:
        """Whether the manifest is about to become longer than anybody signs."""
        return self._journal_size + self._opened_size > LONGEST_MANIFEST

    def head(self) -> Head:
        """How far the recording is on disk: what the authority is told. As of the last flush."""
        return self._head

    def _still_going(self) -> None:
        if self._ended:
            raise RecordingError(f"{self.session} is not being recorded any more")

    def _open_channel(self, channel: int) -> _Channel:
        self._still_going()
        if channel not in self._channels:
            raise RecordingError(f"channel {channel} of {self.session} is not open")
        return self._channels[channel]

    def _accept(self, to: _Channel, event: Data) -> None:
        """Keep *event* in full up to the limit, and count and hash the rest. Under the lock."""
        stream: _Stream | None = to.stream
        direction = to.into if isinstance(event, Input) else to.out
        if to.pty and isinstance(event, Input):
            stream = to.keystrokes
        if stream is None:
            return
        data = event.data
        room = to.limit - direction.kept
        if len(data) > room:
            data, rest = data[:room], data[room:]
            length, sha256 = direction.digests.get(event.code) or (0, hashlib.sha256())
            sha256.update(rest)
            direction.digests[event.code] = length + len(rest), sha256
        if not data:
            return
        direction.kept += len(data)
        if len(data) <= PIECE:
            self._keep(to, stream, event.at, event.code, data)
            return
        for start in range(0, len(data), PIECE):
            self._keep(to, stream, event.at, event.code, data[start : start + PIECE])

    def _keep(self, to: _Channel, stream: _Stream, at: float, code: str, data: bytes) -> None:
        """Put *data* in its stream, holding back a character that it only begins. Under the lock."""
        begun = to.begun.pop(code, None)
        if begun is not None:
            to.stale.discard(code)
            data = begun[1] + data
        if data[-1] >= 0x80:
            data, rest = split_character(data)
            if rest:
                to.begun[code] = at, rest
                self.pending += len(rest)
        if begun is not None:
            self.pending -= len(begun[1])
        if data:
            at = max(round(at, 6), stream.last_at)
            self._put(stream, at, encode_data(at, code, data, pty=to.pty))

    def _put(self, stream: _Stream, at: float, line: bytes) -> None:
        stream.waiting.append((at, line))
        stream.last_at = max(at, stream.last_at)
        self.pending += len(line)

    def _settle(self, to: _Channel, *, everything: bool) -> None:
        """Write down what has been held back since the last flush, and the hashes of what was not kept."""
        for code in [code for code in to.begun if everything or code in to.stale]:
            at, data = to.begun.pop(code)
            stream = to.keystrokes if to.pty and code == "i" else to.stream
            self.pending -= len(data)
            if stream is not None:
                at = max(round(at, 6), stream.last_at)
                self._put(stream, at, encode_data(at, code, data, pty=to.pty))
        to.stale = set(to.begun)
        for direction in (to.out, to.into):
            for code, (length, sha256) in direction.digests.items():
                stream = to.keystrokes if to.pty and code == "i" else to.stream
                if stream is not None:
                    digest = Digest(stream.last_at, code, length, sha256.hexdigest())
                    self._put(stream, digest.at, encode(digest))
            direction.digests.clear()

    # --- the worker's side --------------------------------------------------------------------------------------

    def flush(self, now: datetime) -> None:
        """
        Put all that was accepted on disk, in whole frames, and close the parts that are old or big enough.

        Not to be called by two threads for one recording (it would wait). Raises RecordingError when something could
        not be written; what was is cut back to its last whole frame, the rest stays in memory for the next flush.
        """
        with self._writing:
            self._flush(now, closing=False, everything=False)

    def seal(self, now: datetime, how: str) -> bytes:
        """
        Flush, close all parts, write the signed manifest, let go of the lock. Gives the bytes of manifest.json.

        When it raises, the recording is not sealed and nothing is let go of: call it again, or :meth:`abandon`.
        """
        with self._writing:
            with self._lock:
                self._ended = True
                for to in self._channels.values():
                    self._settle(to, everything=True)
                self._channels.clear()
            self._flush(now, closing=True, everything=True)
            manifest = seal.encode(
                Manifest(
                    session=self.session,
                    meta=self._meta,
                    started=self._started,
                    ended=now,
                    sealed=now,
                    how=how,
                    channels=tuple(self._opened),
                    parts=self._journalled(),
                    chain=self._chain,
                )
            )
            try:
                publish(self.folder, manifest, self._sign(manifest))
            except OSError as error:
                raise RecordingError(f"cannot seal {self.folder}: {error.strerror}") from error
            self._let_go()
            return manifest

    def abandon(self) -> None:
        """Let go of a recording that cannot be sealed. What is on disk can then be sealed by ``recover``."""
        with self._writing:
            with self._lock:
                self._ended = True
            self._let_go()

    def _let_go(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _flush(self, now: datetime, *, closing: bool, everything: bool) -> None:
        if self._lock_file is None:
            raise RecordingError(f"{self.session} is not being recorded any more")
        with self._lock:
            for to in self._channels.values():
                self._settle(to, everything=everything)
            streams = list(self._streams)
            for stream in streams:
                stream.taken += stream.waiting
                stream.waiting = []
        try:
            for stream in streams:
                self._write_down(stream, now)
                part = stream.part
                if part is not None and (closing or stream.ended or now - part.opened >= PART_AGE):
                    self._close(stream, part, now)
        except OSError as error:
            raise RecordingError(f"cannot write to {self.folder}: {error.strerror}") from error
        finally:
            with self._lock:
                self._streams = [s for s in self._streams if not s.ended or s.waiting or s.taken or s.part]
            self._head = Head(self._closed, self._chain, MappingProxyType(self._open_parts(streams)))

    def _open_parts(self, streams: list[_Stream]) -> dict[str, tuple[int, str]]:
        return {s.open_name: (s.part.size, s.part.sha256.hexdigest()) for s in streams if s.part and s.part.size}

    def _write_down(self, stream: _Stream, now: datetime) -> None:
        """Make frames of what was taken and append them; close the part whenever it is full."""
        while stream.taken:
            count, size = 0, 0
            for _, line in stream.taken:
                count += 1
                size += len(line)
                if size >= frames.TARGET:
                    break
            lines = stream.taken[:count]
            content = b"".join(line for _, line in lines)
            if stream.part is None:
                stream.number += 1
                stream.part = _OpenPart(now)
            part = stream.part
            self._append(stream.open_name, part, frames.pack(content))
            times = [at for at, _ in lines if at is not None]
            if times:
                part.first, part.last = part.first if part.first is not None else times[0], times[-1]
            part.content += size
            del stream.taken[:count]
            with self._lock:
                self.pending -= size
            if part.size >= PART_BYTES or part.content >= PART_CONTENT:
                self._close(stream, part, now)

    def _append(self, name: str, part: _OpenPart, frame: bytes) -> None:
        append(self.folder / name, frame, size=part.size)
        part.sha256.update(frame)
        part.frames.append((len(frame), frames.mark(frame)))
        part.size += len(frame)

    def _close(self, stream: _Stream, part: _OpenPart, now: datetime) -> None:
        """Journal the open part and move the chain on."""
        closed = Part(
            name=stream.open_name,
            bytes=part.size,
            sha256=part.sha256.hexdigest(),
            closed=now,
            first=part.first,
            last=part.last,
            frames=tuple(part.frames),
        )
        line = seal.encode_part(closed) + b"\n"
        append(self.folder / JOURNAL, line, size=self._journal_size)
        self._journal_size += len(line)
        self._closed += 1
        self._chain = seal.link(self._chain, closed)
        stream.part = None

    def _journalled(self) -> tuple[Part, ...]:
        """The closed parts, from disk; the chain in memory says whether they are what was written there."""
        if not self._closed:
            return ()
        try:
            parts = tuple(
                seal.decode_part(line) for line in read(self.folder / JOURNAL, limit=seal.MAX_MANIFEST).splitlines()
            )
        except (OSError, seal.SealError) as error:
            raise RecordingError(f"cannot read {self.folder / JOURNAL}: {error}") from error
        if seal.chain_of(self.session, parts) != self._chain:
            raise RecordingError(f"somebody else has written to {self.folder / JOURNAL}")
        return parts


def _tame(value: object) -> object:
    """*value* with all text made UTF-8, and bytes made text where they are, else base64. For JSON."""
    match value:
        case str():
            return clean(value)
        case bytes():
            return _json(value)
        case Mapping():
            return {clean(str(key)): _tame(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_tame(entry) for entry in value]
        case _:
            return value


def _json(value: object) -> object:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode("ascii")}
    raise TypeError(f"not JSON: {type(value).__name__}")
