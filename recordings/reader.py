"""
Reads recordings, live or sealed: finds, lists, decodes as a stream, verifies. Never changes one.

Everything read is data from a stranger: sizes are limited before they are believed, damage is named by part and frame,
and one broken recording never hides the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from recordings import folder as disk
from recordings import frames, seal, sshsig
from recordings.format import Event, FormatError, Header, decode_header, decode_lines
from recordings.frames import Frame, FrameError, TooMuch
from recordings.seal import Manifest, Part, SealError, Signer
from recordings.sshkey import SignatureError


class ReadError(Exception):
    """The recording cannot be read on from here. Names the part, and the frame (from 1) where there is one."""

    def __init__(self, message: str, *, part: str | None = None, frame: int | None = None) -> None:
        where = "" if part is None else f"{part}: " if frame is None else f"{part}, frame {frame}: "
        super().__init__(where + message)
        self.part = part
        self.frame = frame


class TooLarge(ReadError):
    """It would unpack to more than we are willing to read (REC-08)."""


# --- finding ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One recording in a list. ``problem`` says why the rest is not known; ``how`` is None while it is not sealed."""

    session: str
    folder: Path
    meta: Mapping[str, Any] = field(default_factory=dict)
    started: datetime | None = None
    ended: datetime | None = None
    how: str | None = None
    bytes: int = 0
    problem: str | None = None


def find(root: Path, session: str) -> Path | None:
    """The folder of *session*, or None."""
    if not seal.SESSION.match(session):
        return None
    return next((folder for folder in disk.folders(root) if folder.name == session), None)


def listing(root: Path) -> list[Entry]:
    """All recordings, newest first. What cannot be read is listed with its problem."""
    entries = [_entry(folder) for folder in disk.folders(root)]
    return sorted(entries, key=lambda entry: (entry.folder.parts[-4:-1], _second(entry)), reverse=True)


def _second(entry: Entry) -> float:
    return entry.started.timestamp() if entry.started is not None else 0.0


def _entry(folder: Path) -> Entry:
    try:
        if (folder / seal.MANIFEST).exists():
            known = manifest(folder)
            size = sum(part.bytes for part in known.parts)
            return Entry(folder.name, folder, known.meta, known.started, known.ended, known.how, size)
        size = sum((folder / name).stat().st_size for name in disk.parts(folder))
        about = orjson.loads(disk.read(folder / disk.LOCK))
        return Entry(folder.name, folder, dict(about["meta"]), seal.time(about["started"]), bytes=size)
    except ReadError as error:
        return Entry(folder.name, folder, problem=str(error))
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Entry(folder.name, folder, problem=f"neither sealed nor live: {error}")


def manifest(folder: Path) -> Manifest:
    """What *folder* says of itself. Only :func:`verify` says whether that is true."""
    try:
        return seal.decode(disk.read(folder / seal.MANIFEST, limit=seal.MAX_MANIFEST))
    except OSError as error:
        raise ReadError(f"cannot be read: {error.strerror}", part=seal.MANIFEST) from error
    except SealError as error:
        raise ReadError(str(error), part=seal.MANIFEST) from error


# --- reading ----------------------------------------------------------------------------------------------------


def channels(folder: Path) -> list[int]:
    """The channels that have been recorded, in the order they were opened."""
    found = {match["channel"] for match in map(seal.PART.match, _names(folder)) if match}
    return sorted(int(channel) for channel in found if channel is not None)


def header(folder: Path, channel: int, *, keystrokes: bool = False) -> Header:
    """The header of a channel."""
    for _, _, content in _contents(folder, _stream(channel, keystrokes=keystrokes)):
        return _header(content, _stream(channel, keystrokes=keystrokes))
    raise ReadError(f"channel {channel} has no header")


def events(folder: Path, channel: int, *, keystrokes: bool = False) -> Iterator[Event]:
    """
    What passed on *channel*, part by part and frame by frame, in the memory of one part.

    Of a live recording, all that is on disk; of a sealed one, all of it or a ReadError where it is damaged.
    *keystrokes*: what was typed on a pty instead, where that was recorded.
    """
    stream = _stream(channel, keystrokes=keystrokes)
    head: Header | None = None
    for name, frame, content in _contents(folder, stream):
        try:
            lines = _lines(content)
            if head is None:
                head = decode_header(lines.pop(0))
            yield from decode_lines(lines, pty=head.pty)
        except FormatError as error:
            raise ReadError(str(error), part=name, frame=frame) from error


def session_events(folder: Path) -> Iterator[dict[str, Any]]:
    """What is not a stream: ``{"at": seconds, "code": …, "fields": {…}}``."""
    for name, frame, content in _contents(folder, "events"):
        for line in _lines(content):
            try:
                event = orjson.loads(line)
            except ValueError as error:
                raise ReadError(f"not JSON: {error}", part=name, frame=frame) from error
            if not isinstance(event, dict):
                raise ReadError("not a JSON object", part=name, frame=frame)
            yield event


def _stream(channel: int, *, keystrokes: bool) -> str:
    return f"c{channel}.in" if keystrokes else f"c{channel}"


def _header(content: bytes, name: str) -> Header:
    try:
        return decode_header(_lines(content)[0])
    except FormatError as error:
        raise ReadError(str(error), part=name) from error


def _lines(content: bytes) -> list[bytes]:
    """Lines with their newline. ``splitlines`` would also split where no line of ours ends."""
    lines = [line + b"\n" for line in content.split(b"\n")]
    lines[-1] = lines[-1][:-1]  # cut off, unless empty
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise FormatError("an empty frame")
    return lines


def _names(folder: Path) -> list[str]:
    try:
        return disk.parts(folder)
    except OSError as error:
        raise ReadError(f"{folder}: {error.strerror}") from error


def _contents(folder: Path, stream: str) -> Iterator[tuple[str, int, bytes]]:
    """(part, frame, content) of a stream, in order."""
    live = not (folder / seal.MANIFEST).exists()
    names = [name for name in _names(folder) if seal.PART.match(name)["stream"] == stream]  # type: ignore[index]
    for index, name in enumerate(names, start=1):
        if int(seal.PART.match(name)["number"]) != index:  # type: ignore[index]  # parts() gives only such names
            raise ReadError(f"part {index:06} of {stream} is missing", part=name)
        try:
            for number, content in enumerate(frames.contents(_read(folder / name)), start=1):
                yield name, number, content
        except TooMuch as error:
            raise TooLarge(str(error), part=name, frame=error.index) from error
        except FrameError as error:
            if not (live and error.torn and index == len(names)):
                raise ReadError(str(error), part=name, frame=error.index) from error


def _read(path: Path) -> bytes:
    try:
        return disk.read(path)
    except OSError as error:
        raise ReadError(f"cannot be read: {error.strerror}", part=path.name) from error


class Tail:
    """Follows one channel of a live recording: each :meth:`poll` gives what has come to the disk since the last one."""

    def __init__(self, folder: Path, channel: int, *, keystrokes: bool = False) -> None:
        self.header: Header | None = None
        """Known once the first frame is there."""
        self.ended = False
        """The recording is sealed and everything has been given."""
        self._folder = folder
        self._stream = _stream(channel, keystrokes=keystrokes)
        self._number = 1
        self._offset = 0

    def poll(self) -> list[Event]:
        """What is new; nothing twice, nothing left out."""
        sealed = disk.is_sealed(self._folder)  # looked at first: what comes after it is the next poll's
        found: list[Event] = []
        while True:
            finished = self._path(self._number + 1).exists()
            if self._path(self._number).exists():
                found += self._read_on()
            if not finished:
                break
            self._number, self._offset = self._number + 1, 0
        self.ended = sealed
        return found

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._stream}.{number:06}.cast.zst"

    def _read_on(self) -> list[Event]:
        path = self._path(self._number)
        data = memoryview(_read(path))[self._offset :]
        found: list[Event] = []
        try:
            for frame in frames.split(data):
                found += self._decode(frame, path.name)
        except FrameError as error:
            if not error.torn:
                raise ReadError(str(error), part=path.name) from error
        return found

    def _decode(self, frame: Frame, name: str) -> list[Event]:
        try:
            lines = _lines(frames.unpack(frame))
            if self.header is None:
                self.header = decode_header(lines.pop(0))
            decoded = list(decode_lines(lines, pty=self.header.pty))
        except FormatError as error:
            raise ReadError(str(error), part=name) from error
        self._offset += len(frame.data)
        return decoded


# --- verifying --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as it was sealed. ``code`` is stable."""

    code: str
    message: str
    part: str | None = None
    frame: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verification found. ``ok``: signed by a known recorder, countersigned, complete, and unchanged since."""

    manifest: Manifest | None
    recorder: Signer | None
    authority: Signer | None
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(folder: Path, *, recorder_keys: Collection[Signer], authority_keys: Collection[Signer]) -> Verdict:
    """
    Check the recording in *folder* against keys that come from elsewhere (``seal.signers`` reads allowed_signers).

    With no *authority_keys* the countersignature is not asked for.
    """
    # 1. There is a manifest, in a shape that we know.
    try:
        data = disk.read(folder / seal.MANIFEST, limit=seal.MAX_MANIFEST)
    except OSError as error:
        return Verdict(None, None, None, (Problem("not_sealed", _unsealed(error), seal.MANIFEST),))
    try:
        sealed = seal.decode(data)
    except SealError as error:
        return Verdict(None, None, None, (Problem("manifest_malformed", str(error), seal.MANIFEST),))
    problems: list[Problem] = []
    # 2. A recorder that was in use then signed exactly these bytes; the authority did so too.
    recorder = _signed(folder, seal.SIGNATURE, data, recorder_keys, sealed.sealed, problems)
    authority = None
    if authority_keys:
        authority = _signed(folder, seal.COUNTERSIGNATURE, data, authority_keys, None, problems)
    # 3. The manifest fits together: numbers without gaps, the chain over all parts.
    problems += [Problem("order", message, part) for part, message in seal.disorder(sealed)]
    # 4. Every part is there, byte for byte, and nothing else is.
    problems += _parts(folder, sealed)
    # 5. What the authority had heard before a crash is what was found afterwards.
    if sealed.attestation is not None:
        problems += [Problem("attestation", message) for message in sealed.attestation.problems]
    return Verdict(sealed, recorder, authority, tuple(problems))


def _signed(
    folder: Path,
    name: str,
    data: bytes,
    keys: Collection[Signer],
    at: datetime | None,
    problems: list[Problem],
) -> Signer | None:
    """Whose signature over *data* the file *name* holds, if it is one of *keys* and was in use *at* that time."""
    try:
        armored = disk.read(folder / name, limit=sshsig.MAX_ARMORED).decode("ascii")
        blob = sshsig.verify(armored, data, namespace=seal.NAMESPACE)
    except FileNotFoundError:
        problems.append(Problem("signature_missing", "there is no such signature", name))
        return None
    except (OSError, UnicodeDecodeError, SignatureError) as error:
        problems.append(Problem("signature_invalid", str(error), name))
        return None
    signer = next((signer for signer in keys if signer.key.blob == blob), None)
    if signer is None:
        problems.append(Problem("signer_unknown", "signed by a key that is not in allowed_signers", name))
    elif at is not None and not signer.was_valid(at):
        problems.append(Problem("signer_not_valid", f"the key of {signer.principal} was not in use at {at}", name))
    return signer


def _unsealed(error: OSError) -> str:
    if not isinstance(error, FileNotFoundError):
        return f"the manifest cannot be read: {error.strerror}"
    return "there is no manifest: the session still goes on, or this is no whole recording"


def _parts(folder: Path, sealed: Manifest) -> Iterator[Problem]:
    try:
        there = disk.parts(folder)
    except OSError as error:
        yield Problem("unreadable", f"{folder}: {error.strerror}")
        return
    by_hash = {part.sha256: part.name for part in sealed.parts}
    for part in sealed.parts:
        if part.name not in there:
            yield Problem("part_missing", "is missing", part.name)
            continue
        try:
            data = disk.read(folder / part.name)
        except OSError as error:
            yield Problem("unreadable", error.strerror or str(error), part.name)
            continue
        digest = hashlib.sha256(data).hexdigest()
        if digest != part.sha256:
            yield _difference(data, part, by_hash.get(digest))
    known = {part.name for part in sealed.parts}
    for name in there:
        if name not in known:
            yield Problem("part_unlisted", "is not in the manifest", name)


def _difference(data: bytes, part: Part, other: str | None) -> Problem:
    """How *data* differs from what *part* was, by the first frame that does."""
    if other is not None:
        return Problem("part_swapped", f"holds what was sealed as {other}", part.name)
    offset = 0
    for index, (size, mark) in enumerate(part.frames, start=1):
        frame = memoryview(data)[offset : offset + size]
        if len(frame) < size:
            return Problem("part_cut", f"ends within frame {index} of {len(part.frames)}", part.name, index)
        if not _is_frame(frame, mark):
            message = f"frame {index} of {len(part.frames)} is not what was sealed: changed, removed or moved"
            return Problem("frame_changed", message, part.name, index)
        offset += size
    if len(data) > part.bytes:
        return Problem("part_longer", f"has {len(data) - part.bytes} bytes more than were sealed", part.name)
    return Problem("part_changed", "is not what was sealed", part.name)


def _is_frame(data: memoryview, mark: str) -> bool:
    """Whether *data* is one undamaged frame with this checksum."""
    if frames.mark(data) != mark:
        return False
    try:
        (frame,) = frames.split(data)
        frames.unpack(frame)
    except (FrameError, ValueError):
        return False
    return True
