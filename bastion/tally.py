"""What went through a file transfer: size and SHA-256 of the bytes in file order. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

REORDER_LIMIT = 4 << 20
"""Bytes kept while waiting for an earlier part of a file."""
PIECE_COST = 256
"""What a kept piece takes beside its bytes."""


@dataclass(slots=True)
class Shelf:
    """Room for early pieces, shared by all files of one channel."""

    room: int = REORDER_LIMIT


class Tally:
    """Size and hash of a file that arrives in pieces, mostly in order."""

    def __init__(self, shelf: Shelf | None = None) -> None:
        self._shelf = shelf or Shelf()
        self._hash = hashlib.sha256()
        self._next = 0
        self._early: dict[int, bytes] = {}
        self._in_order = True
        self.size = 0

    def add(self, offset: int, data: bytes) -> None:
        """*data* stands at *offset* of the file."""
        if not data:
            return
        self.size = max(self.size, offset + len(data))
        if not self._in_order:
            return
        if offset > self._next:
            self._keep(offset, data)
        elif offset < self._next:
            self.give_up()
        else:
            self._hash.update(data)
            self._next += len(data)
            while self._next in self._early:
                data = self._early.pop(self._next)
                self._shelf.room += len(data) + PIECE_COST
                self._hash.update(data)
                self._next += len(data)

    def _keep(self, offset: int, data: bytes) -> None:
        if offset in self._early or len(data) + PIECE_COST > self._shelf.room:
            self.give_up()
            return
        self._early[offset] = data
        self._shelf.room -= len(data) + PIECE_COST

    def give_up(self) -> None:
        """There will be no hash; what was kept for it is let go."""
        self._in_order = False
        self._shelf.room += sum(len(data) + PIECE_COST for data in self._early.values())
        self._early.clear()

    @property
    def sha256(self) -> str:
        """Hex digest of the whole; empty when the bytes did not come once each from the start."""
        return self._hash.hexdigest() if self._in_order and not self._early else ""
