"""
Seals what a writer left behind when it died: cuts torn ends back, and says what the authority had not heard of.

Nothing is guessed: a stream ends with its last whole frame and line, and what differs from what was promised before
(to the journal, to the authority) is named in the manifest and stays as it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from recordings import folder as disk
from recordings import frames, seal
from recordings.folder import JOURNAL, LOCK, RecordingError
from recordings.format import FormatError, decode_header
from recordings.seal import Attestation, Head, Manifest, Part, SealError


@dataclass(slots=True)
class _Found:
    """What the folder holds, and what is wrong with it."""

    journalled: list[Part] = field(default_factory=list)
    leftover: list[Part] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def parts(self) -> list[Part]:
        return self.journalled + self.leftover


def recover(folder: Path, *, attested: Head | None, now: datetime, sign: Callable[[bytes], str]) -> bytes | None:
    """
    Seal the recording in *folder* as ``how: crash``; gives manifest.json, or None if there was nothing to do.

    Nothing is done while its writer lives, or once it is sealed. *attested* is the last head that the authority had
    heard: bytes beyond it are marked ``unattested``, and a disk that disagrees with it is said to.
    """
    try:
        with _own(folder) as about:
            if about is None:
                return None
            # 1. Sealed already: only the tidying up was left.
            if disk.is_sealed(folder):
                disk.tidy(folder)
                return None
            # 2. A manifest without its signature, which fits: sign what was decided then.
            manifest = _unsigned_manifest(folder)
            if manifest is None:
                # 3. Cut, compare, and say what was found.
                manifest = seal.encode(_rebuild(folder, about, attested, now))
            disk.publish(folder, manifest, sign(manifest))
            return manifest
    except OSError as error:
        raise RecordingError(f"cannot recover {folder}: {error}") from error


@contextmanager
def _own(folder: Path) -> Iterator[Mapping[str, Any] | None]:
    """Hold the recording's lock; gives what its writer noted in it, or None if somebody else holds it or is done."""
    path = folder / LOCK
    if disk.is_sealed(folder) and not path.exists():
        yield None
        return
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            still_there = path.exists() and os.path.samestat(os.fstat(lock), path.stat())
        except BlockingIOError:
            still_there = False
        yield _about(os.pread(lock, disk.MAX_PART, 0)) if still_there else None
    finally:
        os.close(lock)


def _about(text: bytes) -> Mapping[str, Any]:
    try:
        about = orjson.loads(text)
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def _unsigned_manifest(folder: Path) -> bytes | None:
    """The bytes of a manifest that was written but not signed, if every part is as it says; else None."""
    path = folder / seal.MANIFEST
    if not path.exists():
        return None
    try:
        data = disk.read(path, limit=seal.MAX_MANIFEST)
        manifest = seal.decode(data)
        if next(seal.disorder(manifest), None) or sorted(part.name for part in manifest.parts) != sorted(
            disk.parts(folder)
        ):
            return None
        fits = all(hashlib.sha256(disk.read(folder / part.name)).hexdigest() == part.sha256 for part in manifest.parts)
    except (OSError, SealError):
        return None
    return data if fits else None


def _rebuild(folder: Path, about: Mapping[str, Any], attested: Head | None, now: datetime) -> Manifest:
    found = _Found()
    session = about.get("session")
    started = _started(about, folder)
    if not isinstance(session, str) or not seal.SESSION.match(session):
        session = folder.name
        found.notes.append("what the recording was of is lost")
    _journalled(folder, found)
    _leftover(folder, found)
    attestation = _compare(session, folder, found, attested)
    return Manifest(
        session=session,
        meta=about.get("meta") or {},
        started=started,
        ended=max([started, *(part.closed for part in found.parts)]),
        sealed=now,
        how="crash",
        channels=tuple(_channels(folder)),
        parts=tuple(found.parts),
        chain=seal.chain_of(session, found.parts),
        attestation=attestation,
        notes=tuple(found.notes),
    )


def _started(about: Mapping[str, Any], folder: Path) -> datetime:
    try:
        return datetime.fromisoformat(str(about.get("started"))).astimezone(UTC)
    except ValueError:
        return _modified(folder)


def _modified(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _journalled(folder: Path, found: _Found) -> None:
    """The parts that were closed, as promised then; a file that is no longer so is named, and its promise kept."""
    path = folder / JOURNAL
    if not path.exists():
        return
    for line in disk.read(path, limit=seal.MAX_MANIFEST).splitlines(keepends=True):
        try:
            if not line.endswith(b"\n"):
                raise SealError("the line is torn")
            part = seal.decode_part(line)
        except SealError as error:
            found.notes.append(f"{JOURNAL} ends with line {len(found.journalled)}: {error}")
            return
        found.journalled.append(part)
        try:
            same = hashlib.sha256(disk.read(folder / part.name)).hexdigest() == part.sha256
        except OSError:
            same = False
        if not same:
            found.problems.append(f"{part.name}: not as it was when it closed")


def _leftover(folder: Path, found: _Found) -> None:
    """The parts that were open: cut back to their last whole frame and line."""
    closed = {part.name for part in found.journalled}
    for name in disk.parts(folder):
        if name in closed:
            continue
        part = _cut_back(folder / name)
        if part.bytes:
            found.leftover.append(part)
        else:
            (folder / name).unlink()
            found.notes.append(f"{name}: held no whole frame; {part.cut} bytes dropped")


def _cut_back(path: Path) -> Part:
    """Cut the file at *path* back to its last whole frame that ends with a line; what it then is."""
    data = disk.read(path)
    kept: list[tuple[int, str]] = []
    whole = size = 0
    times: list[float] = []
    try:
        for frame in frames.split(data):
            content = frames.unpack(frame)
            kept.append((len(frame.data), frames.mark(frame.data)))
            if content.endswith(b"\n"):
                size, whole = frame.offset + len(frame.data), len(kept)
                times += _first_and_last(content)
    except frames.FrameError:
        pass
    if size < len(data):
        os.truncate(path, size)
    return Part(
        name=path.name,
        bytes=size,
        sha256=hashlib.sha256(data[:size]).hexdigest(),
        closed=_modified(path) if size == len(data) else datetime.fromtimestamp(path.stat().st_ctime, UTC),
        first=times[0] if times else None,
        last=times[-1] if times else None,
        frames=tuple(kept[:whole]),
        cut=len(data) - size,
    )


def _first_and_last(content: bytes) -> list[float]:
    """The times of the first and last line that has one."""
    lines = content.splitlines()
    first = next((at for at in map(_time, lines) if at is not None), None)
    last = next((at for at in map(_time, reversed(lines)) if at is not None), None)
    return [at for at in (first, last) if at is not None]


def _time(line: bytes) -> float | None:
    try:
        match orjson.loads(line):
            case [float() | int() as at, *_] | {"at": float() | int() as at}:
                return float(at)
    except ValueError:
        pass
    return None


def _compare(session: str, folder: Path, found: _Found, attested: Head | None) -> Attestation:
    """Mark what lies beyond *attested*, and name what disagrees with it."""
    heard = attested or Head(0, seal.genesis(session), {})
    if len(found.parts) < heard.closed or seal.chain_of(session, found.parts[: heard.closed]) != heard.chain:
        found.problems.append(f"the first {heard.closed} parts are not those that the authority had heard of")
        heard = Head(0, heard.chain, heard.open)
    beyond = found.parts[heard.closed :]
    for name in sorted(set(heard.open) - {part.name for part in beyond}):
        found.problems.append(f"{name}: the authority had heard of it, and it is not there")
    marked = {part.name: _mark(folder, part, heard.open.get(part.name), found.problems) for part in beyond}
    found.journalled = [marked.get(part.name, part) for part in found.journalled]
    found.leftover = [marked.get(part.name, part) for part in found.leftover]
    claimed = attested or heard
    return Attestation(claimed.closed, claimed.chain, tuple(found.problems))


def _mark(folder: Path, part: Part, heard: tuple[int, str] | None, problems: list[str]) -> Part:
    """*part* with what of it the authority has not vouched for."""
    if heard is None:
        return replace(part, unattested=part.bytes)
    size, sha256 = heard
    try:
        data = disk.read(folder / part.name)
    except OSError:
        data = b""
    if len(data) < size or hashlib.sha256(data[:size]).hexdigest() != sha256:
        problems.append(f"{part.name}: its first {size} bytes are not those that the authority had heard of")
        return replace(part, unattested=part.bytes)
    return replace(part, unattested=part.bytes - size)


def _channels(folder: Path) -> Iterator[Mapping[str, Any]]:
    """What the manifest says of the channels, from their headers."""
    names = disk.parts(folder)
    for name in names:
        match = seal.PART.match(name)
        if match is None or match["channel"] is None or match["input"] or int(match["number"]) != 1:
            continue
        channel = int(match["channel"])
        try:
            first = next(frames.contents(disk.read(folder / name)), b"")
            header = decode_header(first.partition(b"\n")[0] + b"\n")
        except (OSError, FormatError, frames.FrameError):
            continue
        yield seal.about_channel(channel, header, keystrokes=any(n.startswith(f"c{channel}.in.") for n in names))
