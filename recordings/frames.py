"""
Whole zstd frames: make them, find where they end, unpack them within limits. Pure.

Every frame of ours is made in one go, says how long its content is and carries a checksum of it (RFC 8878 §3.1.1). One
that does not is not ours and is refused before anything is unpacked, so no input can make us fill memory.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import zstandard

TARGET = 256 << 10
"""Content of a frame when there is plenty to write."""

MAX_CONTENT = 16 << 20
"""Content of one frame that we are willing to unpack."""

MAX_TOTAL = 1 << 30
"""Content of one part that we are willing to unpack."""

MAX_RATIO = 200
"""How much bigger than itself a part may become, once it has come to MAX_SMALL."""

MAX_SMALL = 128 << 20
"""Below this the ratio is not looked at: a screenful of blanks shrinks a thousandfold."""

_MAGIC = b"\x28\xb5\x2f\xfd"
_CHECKSUM = 4
_local = threading.local()


class FrameError(ValueError):
    """Not a whole frame of ours. ``index`` counts the part's frames from 1, ``offset`` is where this one begins."""

    def __init__(self, message: str, *, index: int = 1, offset: int = 0, torn: bool = False) -> None:
        super().__init__(message)
        self.index = index
        self.offset = offset
        self.torn = torn
        """The data ends within this frame: still being written, or cut off."""


class TooMuch(FrameError):
    """Unpacking this would give more than we are willing to hold or read."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame within a part. ``index`` counts from 1."""

    index: int
    offset: int
    data: memoryview


def pack(content: bytes) -> bytes:
    """*content* as one frame. The compressor is the thread's own: one for each recording would cost 0.7 MB each."""
    compressor = getattr(_local, "compressor", None)
    if compressor is None:
        compressor = _local.compressor = zstandard.ZstdCompressor(level=1, write_checksum=True)
    packed: bytes = compressor.compress(content)
    return packed


def mark(frame: bytes | memoryview) -> str:
    """The checksum that a whole frame ends with, in hex: tells frames apart, proves nothing."""
    return bytes(frame[-_CHECKSUM:]).hex()


def split(part: bytes | memoryview) -> Iterator[Frame]:
    """The frames of *part*, found by their headers alone. Raises FrameError at the first thing that is not one."""
    view = memoryview(part)
    offset, index = 0, 1
    while offset < len(view):
        size = _size(view[offset:], index=index, offset=offset)
        yield Frame(index, offset, view[offset : offset + size])
        offset += size
        index += 1


def _size(view: memoryview, *, index: int, offset: int) -> int:
    """How long the frame is that *view* begins with (RFC 8878 §3.1.1)."""

    def torn() -> FrameError:
        return FrameError("the data ends within a frame", index=index, offset=offset, torn=True)

    if view[:4] != _MAGIC[: len(view)]:
        raise FrameError("not a zstd frame", index=index, offset=offset)
    if len(view) < 5:
        raise torn()
    descriptor = view[4]
    single = bool(descriptor & 0x20)
    if not descriptor & 0x04 or descriptor & 0x0B:
        raise FrameError("not a frame of ours: no checksum, or a dictionary", index=index, offset=offset)
    at = 5 + (0 if single else 1) + (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    while True:
        if len(view) < at + 3:
            raise torn()
        block = int.from_bytes(view[at : at + 3], "little")
        kind, length = block >> 1 & 3, block >> 3
        if kind == 3:
            raise FrameError("a damaged frame: reserved block type", index=index, offset=offset)
        at += 3 + (1 if kind == 1 else length)  # a run of one byte is stored as that byte
        if block & 1:
            break
    if len(view) < at + _CHECKSUM:
        raise torn()
    return at + _CHECKSUM


def unpack(frame: Frame) -> bytes:
    """The content of *frame*. Its checksum is checked; nothing is unpacked that says to be bigger than MAX_CONTENT."""
    try:
        size = zstandard.get_frame_parameters(frame.data).content_size
        if size == zstandard.CONTENTSIZE_UNKNOWN:
            raise FrameError("not a frame of ours: no content size", index=frame.index, offset=frame.offset)
        if size > MAX_CONTENT:
            raise TooMuch(f"a frame of {size} bytes", index=frame.index, offset=frame.offset)
        content: bytes = zstandard.ZstdDecompressor(max_window_size=MAX_CONTENT).decompress(frame.data)
    except zstandard.ZstdError as error:
        raise FrameError(f"a damaged frame: {error}", index=frame.index, offset=frame.offset) from error
    return content


def contents(part: bytes | memoryview) -> Iterator[bytes]:
    """The content of each frame of *part*, within the limits for a whole part."""
    total = 0
    for frame in split(part):
        content = unpack(frame)
        total += len(content)
        if total > MAX_TOTAL or (total > MAX_SMALL and total > MAX_RATIO * len(part)):
            raise TooMuch("a part that unpacks to more than it may", index=frame.index, offset=frame.offset)
        yield content
