"""
SFTP version 3 as a bystander reads it, and as a gate where only one direction is granted. Pure.

Each request is read whole before it passes, and what is not granted is answered here with SSH_FX_PERMISSION_DENIED.
Answers of the node pass at once and are read along. Source: draft-ietf-secsh-filexfer-02 and OpenSSH PROTOCOL §4. A
client that offers a later version is told that version 3 is what there is.
"""

from __future__ import annotations

from dataclasses import dataclass

from bastion.relay import Note, Passed
from bastion.tally import Shelf, Tally
from recordings.sshwire import Reader, WireError, string, uint32

REQUEST_BYTES = (256 << 10) + 1024
"""The longest request: what OpenSSH's own server takes. A request must fit into a channel's window."""
REPLY_BYTES = (4 << 20) + 1024
HANDLE_LIMIT = 1024
REQUEST_LIMIT = 16_384

_INIT, _VERSION, _OPEN, _CLOSE, _READ, _WRITE = 1, 2, 3, 4, 5, 6
_STATUS, _HANDLE, _DATA = 101, 102, 103
_EXTENDED = 200
_READDIR = 12
_NAMES = {
    _OPEN: "open", 7: "lstat", 8: "fstat", 9: "setstat", 10: "fsetstat", 11: "opendir", 12: "readdir", 13: "remove",
    14: "mkdir", 15: "rmdir", 16: "realpath", 17: "stat", 18: "rename", 19: "readlink", 20: "symlink",
}  # fmt: skip
_NEUTRAL = frozenset({_INIT, _CLOSE, 7, 8, 16, 17})
"""What either right needs: sessions begin with looking where one is."""
_READING = frozenset({_READ, 11, 12, 19})
_WRITING = frozenset({_WRITE, 9, 10, 13, 14, 15, 18, 20})
_NEUTRAL_EXTENSIONS = frozenset(
    {b"statvfs@openssh.com", b"fstatvfs@openssh.com", b"limits@openssh.com", b"expand-path@openssh.com",
     b"users-groups-by-id@openssh.com", b"home-directory"}
)  # fmt: skip
_WRITING_EXTENSIONS = frozenset(
    {b"posix-rename@openssh.com", b"hardlink@openssh.com", b"fsync@openssh.com", b"lsetstat@openssh.com"}
)
_FLAG_READ, _FLAG_WRITE, _FLAGS_CHANGE = 0x01, 0x02, 0x02 | 0x04 | 0x08 | 0x10
_FX_PERMISSION_DENIED, _FX_FAILURE = 3, 4
_BY_HANDLE = frozenset({8, 10, 12})
_TWO_PATHS = frozenset({18, 20})
_COPY = b"copy-data"
_WRITE_HEAD = 13
"""Bytes of a write before its handle: length, type, number, length of the handle."""
LAST_OFFSET = (1 << 63) - 1
NAME_LIMIT = 64


class _Frames:
    """Cuts a byte stream into SFTP packets (without their length)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        packets = []
        start, size = 0, len(self._buffer)
        while size - start >= 4:
            length = int.from_bytes(self._buffer[start : start + 4], "big")
            if not 1 <= length <= self._limit:
                raise WireError(f"SFTP packet of {length} bytes; at most {self._limit} are taken")
            if size - start - 4 < length:
                break
            packets.append(bytes(self._buffer[start + 4 : start + 4 + length]))
            start += 4 + length
        if start:
            del self._buffer[:start]
        return packets

    @property
    def between(self) -> bool:
        """Whether the last packet has come to its end."""
        return not self._buffer

    @property
    def begun(self) -> memoryview:
        """The beginning of a packet whose end has not come yet, its length in front."""
        return memoryview(self._buffer)


@dataclass(slots=True)
class _File:
    """An open file. ``read`` and ``written`` are what went through, not what lies there."""

    path: str
    for_writing: bool
    read: Tally
    written: Tally
    failed: bool = False


@dataclass(slots=True)
class _Asked:
    """A request that the node has not answered, as far as it concerns a file or changes something."""

    kind: int
    name: str = ""
    path: str = ""
    target: str = ""
    file: _File | None = None
    offset: int = 0
    writes: bool = False


class SftpInspector:
    """Follows one SFTP channel and notes operations and files; lets through what *read* and *write* grant."""

    def __init__(self, *, read: bool, write: bool) -> None:
        self._may_read, self._may_write = read, write
        self._requests, self._replies = _Frames(REQUEST_BYTES), _Frames(REPLY_BYTES)
        self._asked: dict[int, _Asked] = {}
        self._files: dict[bytes, _File] = {}
        self._shelf = Shelf()
        self._first = True
        self._ahead = 0  # bytes of the request that is still arriving which the node has already

    def from_client(self, data: bytes) -> Passed:
        notes: list[Note] = []
        answers: list[bytes] = []
        onward, dropped = bytearray(), 0
        for packet in self._requests.feed(data):
            if self._first:
                packet = self._hello(packet)
                refusal = None
            else:
                refusal = self._request(packet, notes)
            if refusal is None:
                onward += string(packet)[self._ahead :]
                self._ahead = 0
            elif self._ahead:
                raise WireError("a request that has begun to pass is not granted")
            else:
                answers.append(refusal)
                dropped += 4 + len(packet)
        onward += self._early()
        return Passed(bytes(onward), answers, dropped, notes)

    def _early(self) -> bytes:
        """What may go to the node of a request that is still arriving: a granted write to an open file.

        Held back as a whole it could be longer than the node's window, and its end would never come. What decides on a
        write (``_transfer``) stands at its beginning.
        """
        begun = self._requests.begun
        if self._first or not self._may_write or len(begun) < _WRITE_HEAD or begun[4] != _WRITE:
            return b""
        length = int.from_bytes(begun[9:_WRITE_HEAD], "big")
        handle = bytes(begun[_WRITE_HEAD : _WRITE_HEAD + length])
        if len(handle) < length or handle not in self._files:
            return b""  # half a handle may be the whole of another
        early = bytes(begun[self._ahead :])
        self._ahead = len(begun)
        return early

    def from_node(self, data: bytes) -> tuple[bytes, list[Note]]:
        notes: list[Note] = []
        for packet in self._replies.feed(data):
            self._reply(packet, notes)
        return data, notes

    @property
    def whole(self) -> bool:
        return self._replies.between

    def closed(self) -> list[Note]:
        """What was left open, and what the node was asked for and may have done although its answer never came."""
        notes: list[Note] = []
        for asked in self._asked.values():
            if asked.kind == _CLOSE and asked.file is not None:
                notes += _file_notes(asked.file, complete=False)
            elif asked.kind == _OPEN:
                notes.append(Note("sftp.failed", {"operation": "open", "path": asked.path, "status": None}))
            elif asked.writes:
                notes.append(_change_note(asked, "unanswered"))
        for file in self._files.values():
            notes += _file_notes(file, complete=False)
        self._asked.clear()
        self._files.clear()
        return notes

    # --- requests ----------------------------------------------------------------------------------------------

    def _hello(self, packet: bytes) -> bytes:
        self._first = False
        if packet[0] != _INIT or len(packet) < 5:
            raise WireError("an SFTP session begins with SSH_FXP_INIT")
        version = min(int.from_bytes(packet[1:5], "big"), 3)
        return packet[:1] + uint32(version) + packet[5:]

    def _request(self, packet: bytes, notes: list[Note]) -> bytes | None:
        """Take notice of a request; a refusal to send back where it is not granted."""
        kind = packet[0]
        if kind == _INIT:
            raise WireError("an SFTP session begins once")
        reader = Reader(packet[1:])
        number = reader.uint32()
        if number in self._asked:
            # Two requests of one number would let one file's bytes be taken for another's.
            raise WireError("a request number is used again before its answer")
        if len(self._asked) >= REQUEST_LIMIT:
            raise WireError("too many SFTP requests without an answer")
        if kind in (_READ, _WRITE):
            return self._transfer(kind, number, reader, notes)
        if kind == _CLOSE:
            # From here on nothing more counts as read or written through this handle.
            self._asked[number] = _Asked(kind, file=self._files.pop(reader.string(), None))
            return None
        return self._other(kind, number, reader, notes)

    def _transfer(self, kind: int, number: int, reader: Reader, notes: list[Note]) -> bytes | None:
        action, may = ("sftp.read", self._may_read) if kind == _READ else ("sftp.write", self._may_write)
        handle, offset = reader.string(), reader.uint64()
        file = self._files.get(handle)
        path = file.path if file else ""
        if not may:
            return self._refuse(number, action, "read" if kind == _READ else "write", path, notes)
        if file is None:
            # A guessed handle: the node might know it a moment later, and its file would miss these bytes.
            return _status(number, _FX_FAILURE, "no such open file")
        length = reader.uint32() if kind == _READ else 0
        content = reader.string() if kind == _WRITE else b""
        if offset + max(length, len(content)) > LAST_OFFSET:
            raise WireError(f"offset {offset} is beyond any file")
        file.written.add(offset, content)
        self._asked[number] = _Asked(kind, file=file, offset=offset)
        return None

    def _other(self, kind: int, number: int, reader: Reader, notes: list[Note]) -> bytes | None:
        asked = _Asked(kind, _NAMES.get(kind, f"type {kind}"))
        reads, asked.writes = kind in _READING, kind in _WRITING
        if kind == _OPEN:
            asked.path = _text(reader.string())
            flags = reader.uint32()
            asked.writes = bool(flags & _FLAGS_CHANGE)
            reads = bool(flags & _FLAG_READ) or not asked.writes
        elif kind == _EXTENDED:
            reads = self._extension(asked, reader)
        elif kind in _BY_HANDLE:
            asked.path = self._path(reader.string())
        elif kind in _NAMES:
            asked.path = _text(reader.string())
            asked.target = _text(reader.string()) if kind in _TWO_PATHS else ""
        else:
            reads = asked.writes = True
        if asked.writes and not self._may_write:
            return self._refuse(number, "sftp.write", asked.name, asked.path, notes)
        if reads and not self._may_read:
            return self._refuse(number, "sftp.read", asked.name, asked.path, notes)
        if kind == _OPEN and self._open_files() >= HANDLE_LIMIT:
            raise WireError("too many SFTP files open at once")
        self._asked[number] = asked
        if reads and not asked.writes and kind not in (_OPEN, _READDIR):
            notes.append(Note("sftp.operation", {"operation": asked.name, "path": asked.path}))
        return None

    def _open_files(self) -> int:
        return len(self._files) + sum(asked.kind == _OPEN for asked in self._asked.values())

    def _extension(self, asked: _Asked, reader: Reader) -> bool:
        """Understand an extended request as far as it concerns us; whether it reads."""
        extension = reader.string()
        asked.name = _text(extension)[:NAME_LIMIT]
        if extension in _NEUTRAL_EXTENSIONS:
            return False
        asked.writes = True
        if extension == b"fsync@openssh.com":
            asked.path = self._path(reader.string())
        elif extension in _WRITING_EXTENSIONS:
            asked.path = _text(reader.string())
            asked.target = "" if extension == b"lsetstat@openssh.com" else _text(reader.string())
        elif extension == _COPY:
            # OpenSSH PROTOCOL §4.11: handle, offset, length, handle, offset. What is copied there never passes here.
            asked.path = self._path(reader.string())
            reader.uint64(), reader.uint64()
            handle = reader.string()
            asked.target = self._path(handle)
            if handle in self._files:
                self._files[handle].written.give_up()
        return extension not in _WRITING_EXTENSIONS

    def _path(self, handle: bytes) -> str:
        file = self._files.get(handle)
        return file.path if file else ""

    def _refuse(self, number: int, action: str, name: str, path: str, notes: list[Note]) -> bytes:
        reason = f"your role does not grant {action} here"
        notes.append(
            Note("session.refused", {"request": f"sftp {name}", "action": action, "command": path, "reason": reason})
        )
        return _status(number, _FX_PERMISSION_DENIED, reason)

    # --- answers -----------------------------------------------------------------------------------------------

    def _reply(self, packet: bytes, notes: list[Note]) -> None:
        kind = packet[0]
        if kind == _VERSION:
            if int.from_bytes(packet[1:5], "big") != 3:
                raise WireError("the node speaks another version of SFTP than 3")
            return
        reader = Reader(packet[1:])
        asked = self._asked.pop(reader.uint32(), None)
        if asked is None:
            raise WireError("an SFTP answer to a request nobody made")
        if kind == _HANDLE and asked.kind == _OPEN:
            read, written = Tally(self._shelf), Tally(self._shelf)
            self._files[reader.string()] = _File(asked.path, asked.writes, read, written)
        elif kind == _DATA and asked.kind == _READ and asked.file is not None:
            asked.file.read.add(asked.offset, reader.string())
        elif kind == _STATUS:
            notes += _outcome(asked, reader.uint32())


def _outcome(asked: _Asked, status: int) -> list[Note]:
    """What to note when a request ended with *status*."""
    if asked.kind == _CLOSE:
        return [] if asked.file is None else _file_notes(asked.file, complete=True)
    if asked.kind == _OPEN:
        return [Note("sftp.failed", {"operation": "open", "path": asked.path, "status": status})]
    if asked.kind == _WRITE:
        if asked.file is not None and status != 0:
            asked.file.failed = True
        return []
    return [_change_note(asked, "ok" if status == 0 else "failed")] if asked.writes else []


def _change_note(asked: _Asked, outcome: str) -> Note:
    fields = {"operation": asked.name, "path": asked.path, "target": asked.target or None, "outcome": outcome}
    return Note("session.file", fields)


def _file_notes(file: _File, *, complete: bool) -> list[Note]:
    passed = [("write", file.written)] if file.written.size else []
    passed += [("read", file.read)] if file.read.size else []
    passed = passed or [("write", file.written) if file.for_writing else ("read", file.read)]
    return [
        Note(
            "session.file",
            {
                "operation": operation,
                "path": file.path,
                "size": tally.size,
                "sha256": (tally.sha256 or None) if complete and not file.failed else None,
                "outcome": "failed" if file.failed else "ok" if complete else "incomplete",
            },
        )
        for operation, tally in passed
    ]


def _status(number: int, code: int, reason: str) -> bytes:
    """SSH_FXP_STATUS, with its length."""
    return string(bytes([_STATUS]) + uint32(number) + uint32(code) + string(reason.encode()) + string(b"en"))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
