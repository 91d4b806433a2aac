"""
SSH's way to write values as bytes (RFC 4251 §5). Pure, and strict: a value has one spelling, any other is an error.

``Reader`` never reads past the end, never guesses, and ``end()`` says that nothing was left over.
"""

from __future__ import annotations

import struct

MAX_MPINT = 1025 * 2
"""Bytes of the longest number we read: twice RSA 8192, sign byte included."""


class WireError(ValueError):
    """These bytes are not what SSH says they should be."""


def string(value: bytes) -> bytes:
    """*value* with its length in front."""
    return struct.pack(">I", len(value)) + value


def uint32(value: int) -> bytes:
    return struct.pack(">I", value)


def uint64(value: int) -> bytes:
    return struct.pack(">Q", value)


def boolean(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


def mpint(value: int) -> bytes:
    """The shortest two's complement form of a number that is not negative."""
    if value < 0:
        raise WireError("a negative number has no use in SSH")
    return string(value.to_bytes(value.bit_length() // 8 + 1, "big") if value else b"")


class Reader:
    """Takes values off the front of *data*, one by one."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = bytes(data)
        self._at = 0

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise WireError(f"{count} bytes were announced, {len(self._data) - self._at} are there")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def byte(self) -> int:
        return self._take(1)[0]

    def boolean(self) -> bool:
        """0 or 1; RFC 4251 lets readers take other bytes for true, nobody sends them."""
        value = self.byte()
        if value > 1:
            raise WireError(f"{value} is not a boolean")
        return value == 1

    def uint32(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def uint64(self) -> int:
        return int.from_bytes(self._take(8), "big")

    def string(self) -> bytes:
        return self._take(self.uint32())

    def mpint(self) -> int:
        """A number in its shortest form, not negative and not absurdly long."""
        data = self.string()
        if len(data) > MAX_MPINT:
            raise WireError("the number is too long")
        if data and data[0] & 0x80:
            raise WireError("the number is negative")
        if data and data[0] == 0 and (len(data) == 1 or not data[1] & 0x80):
            raise WireError("the number is not in its shortest form")
        return int.from_bytes(data, "big")

    def name_list(self) -> tuple[str, ...]:
        """Names of printable US-ASCII between commas; none of them empty (RFC 4251 §5)."""
        data = self.string()
        if not data:
            return ()
        if any(not 0x21 <= byte <= 0x7E for byte in data):
            raise WireError("a name holds something other than printable ASCII")
        names = tuple(data.decode("ascii").split(","))
        if "" in names:
            raise WireError("a name is empty")
        return names

    def rest(self) -> bytes:
        """Whatever is left."""
        return self._take(len(self._data) - self._at)

    def more(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._data)

    def end(self) -> None:
        """Refuse anything that is left."""
        if self.more():
            raise WireError(f"{len(self._data) - self._at} bytes too many")
