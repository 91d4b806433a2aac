"""What went through a file transfer: size and SHA-256 of the bytes in file order. Pure."""

from __future__ import annotations

import hashlib

REORDER_LIMIT = 4 << 20
"""Bytes kept while waiting for an earlier part of the file."""


class Tally:
    """Size and hash of a file that arrives in pieces, mostly in order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._next = 0
        self._early: dict[int, bytes] = {}
        self._early_bytes = 0
        self._in_order = True
        self.size = 0

    def add(self, offset: int, data: bytes) -> None:
        """*data* stands at *offset* of the file."""
        self.size = max(self.size, offset + len(data))
        if not self._in_order or not data:
            return
        if offset < self._next:
            self._in_order = False
            self._early.clear()
        elif offset > self._next:
            self._early_bytes += len(data)
            if self._early_bytes > REORDER_LIMIT or offset in self._early:
                self._in_order = False
                self._early.clear()
            else:
                self._early[offset] = data
        else:
            self._hash.update(data)
            self._next += len(data)
            while self._next in self._early:
                data = self._early.pop(self._next)
                self._early_bytes -= len(data)
                self._hash.update(data)
                self._next += len(data)

    @property
    def sha256(self) -> str:
        """Hex digest of the whole; empty when the bytes did not come once each from the start."""
        return self._hash.hexdigest() if self._in_order and not self._early else ""
