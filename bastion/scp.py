"""The legacy scp protocol as a bystander reads it: each file's path, size and SHA-256. Pure; it never changes a byte.

The sender writes ``C0644 SIZE NAME\\n``, SIZE bytes and a zero byte; ``D…`` and ``E`` open and close folders, ``T…``
carries times.
Source: OpenSSH scp.c, functions source() and sink().
"""

from __future__ import annotations

import posixpath
import re
import shlex

from bastion.relay import Note, Passed
from bastion.tally import Tally

LINE_LIMIT = 8192
_FILE = re.compile(rb"C[0-7]{4} (\d+) ([^\n]+)\Z")
_FOLDER = re.compile(rb"D[0-7]{4} \d+ ([^\n]+)\Z")


class ScpInspector:
    """Follows one scp transfer. *sending*: the user sends to the node (``scp -t``)."""

    def __init__(self, command: bytes, *, sending: bool) -> None:
        self._sending = sending
        argv = shlex.split(command.decode("utf-8", "replace"))
        self._target = argv[-1]
        flags = "".join(word for word in argv[1:-1] if word.startswith("-"))
        self._into_folder = "d" in flags or "r" in flags or self._target.endswith(("/", ".")) or self._target == "~"
        self._folders: list[str] = []
        self._line = bytearray()
        self._left = 0
        self._tally: Tally | None = None
        self._name = ""
        self._lost = False
        self._complaint = False  # the receiver is in the middle of one

    def from_client(self, data: bytes) -> Passed:
        return Passed(data, notes=self._read(data) if self._sending else self._hear(data))

    def from_node(self, data: bytes) -> tuple[bytes, list[Note]]:
        return data, self._hear(data) if self._sending else self._read(data)

    @property
    def whole(self) -> bool:
        return True  # nothing here is ever answered for the node

    def closed(self) -> list[Note]:
        return [self._note(complete=False)] if self._tally is not None else []

    def _read(self, data: bytes) -> list[Note]:
        notes: list[Note] = []
        view = memoryview(data)
        while view and not self._lost:
            if self._tally is not None and self._left:
                piece = view[: self._left]
                self._tally.add(self._tally.size, bytes(piece))
                self._left -= len(piece)
                view = view[len(piece) :]
                if not self._left:
                    notes.append(self._note(complete=True))
                continue
            end = bytes(view).find(b"\n")
            piece = view[: end + 1] if end >= 0 else view
            self._line += piece
            view = view[len(piece) :]
            if end >= 0:
                line = bytes(self._line[:-1]).lstrip(b"\0")
                self._line.clear()
                notes += self._command(line)
            elif len(self._line) > LINE_LIMIT:
                notes += self._lose()
        return notes

    def _hear(self, data: bytes) -> list[Note]:
        """What the receiver answers: a zero byte, or an error as a line. The content of a refused file never comes.

        Where it is not sure what was refused, nothing more is understood: what follows could be taken for content.
        """
        notes: list[Note] = []
        while data:
            if self._complaint:
                _, end, data = data.partition(b"\n")
                self._complaint = not end
                continue
            data = data.lstrip(b"\0")
            if data and not self._lost:
                self._complaint = True
                if self._tally is not None and self._left and not self._tally.size:
                    self._left = 0
                    notes.append(self._note(complete=False))
                else:
                    notes += self._lose()
            elif data:
                break
        return notes

    def _lose(self) -> list[Note]:
        """Say that the stream can no longer be followed."""
        notes = [self._note(complete=False)] if self._tally is not None else []
        self._lost = True
        return [*notes, Note("channel.unread", {"reason": "the scp stream could not be followed"})]

    def _command(self, line: bytes) -> list[Note]:
        if match := _FILE.match(line):
            self._name = match[2].decode("utf-8", "backslashreplace")
            self._left = int(match[1])
            self._tally = Tally()
            if not self._left:
                return [self._note(complete=True)]
        elif match := _FOLDER.match(line):
            self._folders.append(match[1].decode("utf-8", "backslashreplace"))
        elif line == b"E" and self._folders:
            self._folders.pop()
        elif line and line[:1] not in b"TE\1\2":
            return self._lose()
        return []

    def _note(self, *, complete: bool) -> Note:
        tally, self._tally = self._tally, None
        assert tally is not None
        same = posixpath.basename(self._target) == self._name and not self._folders
        inside = self._folders or (self._into_folder and not same)
        path = posixpath.join(self._target, *self._folders, self._name) if inside else self._target
        return Note(
            "session.file",
            {
                "operation": "write" if self._sending else "read",
                "path": path,
                "size": tally.size,
                "sha256": (tally.sha256 or None) if complete else None,
                "outcome": "ok" if complete else "incomplete",
            },
        )
