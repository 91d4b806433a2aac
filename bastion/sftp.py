"""
SFTP version 3 as a bystander reads it, and as a gate where only one direction is granted. Pure.

Each request is read whole before it passes, and what is not granted is answered here with SSH_FX_PERMISSION_DENIED.
Answers of the node pass at once and are read along. Source: draft-ietf-secsh-filexfer-02 and OpenSSH PROTOCOL §4. A
client that offers a later version is told that version 3 is what there is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bastion.relay import Note, Passed
from bastion.tally import Tally
from recordings.sshwire import Reader, WireError, string, uint32

REQUEST_BYTES = (256 << 10) + 1024
"""The longest request: what OpenSSH's own server takes. A request must fit into a channel's window."""
REPLY_BYTES = (4 << 20) + 1024
HANDLE_LIMIT = 1024
REQUEST_LIMIT = 16_384

_INIT, _VERSION, _OPEN, _CLOSE, _READ, _WRITE = 1, 2, 3, 4, 5, 6
_STATUS, _HANDLE, _DATA = 101, 102, 103
_EXTENDED = 200
_FSETSTAT, _READDIR = 10, 12
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
_FX_PERMISSION_DENIED = 3


@dataclass(slots=True)
class _File:
    path: str
    read: Tally = field(default_factory=Tally)
    written: Tally = field(default_factory=Tally)
    failed: bool = False


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


class SftpInspector:
    """Follows one SFTP channel and notes operations and files; lets through what *read* and *write* grant."""

    def __init__(self, *, read: bool, write: bool) -> None:
        self._may_read, self._may_write = read, write
        self._requests, self._replies = _Frames(REQUEST_BYTES), _Frames(REPLY_BYTES)
        self._opening: dict[int, str] = {}
        self._files: dict[bytes, _File] = {}
        self._reads: dict[int, tuple[bytes, int]] = {}
        self._writes: dict[int, bytes] = {}
        self._closing: dict[int, bytes] = {}
        self._changes: dict[int, tuple[str, str, str]] = {}
        self._first = True

    def from_client(self, data: bytes) -> Passed:
        notes: list[Note] = []
        onward, answers, dropped = bytearray(), bytearray(), 0
        for packet in self._requests.feed(data):
            if self._first:
                packet = self._hello(packet)
            refusal = self._request(packet, notes)
            if refusal is None:
                onward += uint32(len(packet)) + packet
            else:
                answers += refusal
                dropped += 4 + len(packet)
        return Passed(bytes(onward), bytes(answers), dropped, notes)

    def from_node(self, data: bytes) -> tuple[bytes, list[Note]]:
        notes: list[Note] = []
        for packet in self._replies.feed(data):
            self._reply(packet, notes)
        return data, notes

    def closed(self) -> list[Note]:
        notes: list[Note] = []
        for file in self._files.values():
            notes += _file_notes(file, complete=False)
        self._files.clear()
        return notes

    def _hello(self, packet: bytes) -> bytes:
        self._first = False
        if packet[0] != _INIT or len(packet) < 5:
            raise WireError("an SFTP session begins with SSH_FXP_INIT")
        version = min(int.from_bytes(packet[1:5], "big"), 3)
        return packet[:1] + uint32(version) + packet[5:]

    def _unanswered(self) -> int:
        return len(self._opening) + len(self._reads) + len(self._writes) + len(self._closing) + len(self._changes)

    def _request(self, packet: bytes, notes: list[Note]) -> bytes | None:
        """Take notice of a request; a refusal to send back where it is not granted."""
        kind = packet[0]
        if kind == _INIT:
            return None
        reader = Reader(packet[1:])
        number = reader.uint32()
        if self._unanswered() > REQUEST_LIMIT:
            raise WireError("too many SFTP requests without an answer")
        if kind == _READ:
            if not self._may_read:
                return self._refuse(number, "sftp.read", "read", "", notes)
            handle, offset = reader.string(), reader.uint64()
            self._reads[number] = (handle, offset)
            return None
        if kind == _WRITE:
            if not self._may_write:
                return self._refuse(number, "sftp.write", "write", "", notes)
            handle, offset, content = reader.string(), reader.uint64(), reader.string()
            file = self._files.get(handle)
            if file is not None:
                file.written.add(offset, content)
            self._writes[number] = handle
            return None
        if kind == _CLOSE:
            self._closing[number] = reader.string()
            return None
        return self._other(kind, number, reader, notes)

    def _other(self, kind: int, number: int, reader: Reader, notes: list[Note]) -> bytes | None:
        name, path, more = _NAMES.get(kind, f"type {kind}"), "", ""
        reads, writes = kind in _READING, kind in _WRITING
        if kind == _OPEN:
            path = _text(reader.string())
            flags = reader.uint32()
            reads, writes = bool(flags & _FLAG_READ), bool(flags & _FLAGS_CHANGE)
            if not reads and not writes:
                reads = True
        elif kind == _EXTENDED:
            extension = reader.string()
            name = _text(extension)
            writes = extension in _WRITING_EXTENSIONS or extension not in _NEUTRAL_EXTENSIONS
            reads = writes and extension not in _WRITING_EXTENSIONS
            path = _text(reader.rest()[:512]) if extension not in _NEUTRAL_EXTENSIONS else ""
        elif kind in (8, 10, 12):
            reader.string()
        elif kind in _NAMES:
            path = _text(reader.string())
            more = _text(reader.string()) if kind in (18, 20) else ""
        else:
            reads = writes = True
        if writes and not self._may_write:
            return self._refuse(number, "sftp.write", name, path, notes)
        if reads and not self._may_read:
            return self._refuse(number, "sftp.read", name, path, notes)
        if kind == _OPEN:
            if len(self._files) + len(self._opening) >= HANDLE_LIMIT:
                raise WireError("too many SFTP files open at once")
            self._opening[number] = path
        elif writes and kind != _FSETSTAT:
            self._changes[number] = (name, path, more)
        elif reads and kind != _READDIR:
            notes.append(Note("sftp.operation", {"operation": name, "path": path}))
        return None

    def _refuse(self, number: int, action: str, name: str, path: str, notes: list[Note]) -> bytes:
        reason = f"your role does not grant {action} here"
        notes.append(
            Note("session.refused", {"request": f"sftp {name}", "action": action, "command": path, "reason": reason})
        )
        body = (
            bytes([_STATUS]) + uint32(number) + uint32(_FX_PERMISSION_DENIED) + string(reason.encode()) + string(b"en")
        )
        return string(body)

    def _reply(self, packet: bytes, notes: list[Note]) -> None:
        kind = packet[0]
        if kind == _VERSION:
            if int.from_bytes(packet[1:5], "big") != 3:
                raise WireError("the node speaks another version of SFTP than 3")
            return
        reader = Reader(packet[1:])
        number = reader.uint32()
        if kind == _HANDLE and number in self._opening:
            self._files[reader.string()] = _File(self._opening.pop(number))
        elif kind == _DATA and number in self._reads:
            handle, offset = self._reads.pop(number)
            file = self._files.get(handle)
            if file is not None:
                file.read.add(offset, reader.string())
        elif kind == _STATUS:
            self._status(number, reader.uint32(), notes)

    def _status(self, number: int, status: int, notes: list[Note]) -> None:
        if number in self._closing:
            file = self._files.pop(self._closing.pop(number), None)
            if file is not None:
                notes += _file_notes(file, complete=True)
        elif number in self._opening:
            path = self._opening.pop(number)
            notes.append(Note("sftp.failed", {"operation": "open", "path": path, "status": status}))
        elif number in self._changes:
            name, path, target = self._changes.pop(number)
            fields = {
                "operation": name,
                "path": path,
                "target": target or None,
                "outcome": "ok" if status == 0 else "failed",
            }
            notes.append(Note("session.file", fields))
        elif number in self._writes:
            file = self._files.get(self._writes.pop(number))
            if file is not None and status != 0:
                file.failed = True
        else:
            self._reads.pop(number, None)


def _file_notes(file: _File, *, complete: bool) -> list[Note]:
    notes = []
    for operation, tally in (("write", file.written), ("read", file.read)):
        if tally.size or (operation == "read" and not file.written.size):
            whole = complete and not file.failed
            notes.append(
                Note(
                    "session.file",
                    {
                        "operation": operation,
                        "path": file.path,
                        "size": tally.size,
                        "sha256": (tally.sha256 or None) if whole else None,
                        "outcome": "failed" if file.failed else "ok" if complete else "incomplete",
                    },
                )
            )
    return notes


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
