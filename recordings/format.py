"""
The lines of a recorded channel: asciicast v2, strict both ways. Pure; the page is docs/reference/recording-format.md.

Bytes in, the same bytes out: what is not UTF-8, or holds NUL, travels as base64 under a code that players skip.
"""

from __future__ import annotations

import base64
import codecs
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, assert_never

import orjson

MAX_LINE = 8 << 20
"""No line that we write comes near this; a longer one is refused unread."""

MAX_SIDE = 1000
"""Columns and rows of a terminal: a peer may claim any 32-bit number, and players allocate what they are told."""


class FormatError(ValueError):
    """This is not a line of ours. The message says why, never guesses what was meant."""


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes that the node sent."""

    at: float
    data: bytes
    code: ClassVar[str] = "o"


@dataclass(frozen=True, slots=True)
class Stderr:
    """Bytes that the node sent as extended data."""

    at: float
    data: bytes
    code: ClassVar[str] = "e"


@dataclass(frozen=True, slots=True)
class Input:
    """Bytes that the person, or her program, sent."""

    at: float
    data: bytes
    code: ClassVar[str] = "i"


@dataclass(frozen=True, slots=True)
class Resize:
    """The terminal's new size, held within 1 to 1000 each way."""

    at: float
    columns: int
    rows: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", _side(self.columns))
        object.__setattr__(self, "rows", _side(self.rows))


@dataclass(frozen=True, slots=True)
class Marker:
    """A named moment."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Digest:
    """Bytes that passed beyond ``record_limit``: how many, and their SHA-256. ``kind`` is ``o``, ``e`` or ``i``."""

    at: float
    kind: str
    length: int
    sha256: str


Data = Output | Stderr | Input
Event = Data | Resize | Marker | Digest

_DATA: dict[str, type[Output] | type[Stderr] | type[Input]] = {"o": Output, "e": Stderr, "i": Input}


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a channel. ``timestamp`` is the second in which the *session* began, so all channels agree."""

    width: int = 80
    height: int = 24
    timestamp: int = 0
    title: str | None = None
    command: str | None = None
    term: str | None = None
    pty: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", _side(self.width))
        object.__setattr__(self, "height", _side(self.height))


def _side(cells: int) -> int:
    return min(max(cells, 1), MAX_SIDE)


# --- writing ----------------------------------------------------------------------------------------------------


def encode_header(header: Header) -> bytes:
    """The header's line."""
    line: dict[str, object] = {"version": 2, "width": header.width, "height": header.height}
    line["timestamp"] = header.timestamp
    if header.title is not None:
        line["title"] = clean(header.title)
    if header.command is not None:
        line["command"] = clean(header.command)
    if header.term is not None:
        line["env"] = {"TERM": clean(header.term)}
    line["bartizan"] = {"pty": header.pty}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def encode(event: Event, *, pty: bool = False) -> bytes:
    """The line of *event*, or two on a pty whose output is not text: the bytes, then what a player should show."""
    match event:
        case Output(at, data) | Stderr(at, data) | Input(at, data):
            return encode_data(at, event.code, data, pty=pty)
        case Resize(at, columns, rows):
            return _line(at, "r", f"{columns}x{rows}")
        case Marker(at, label):
            return _line(at, "m", clean(label))
        case Digest(at, kind, length, sha256):
            return _line(at, kind + "d", f"{length} {sha256}")
    assert_never(event)


def encode_data(at: float, code: str, data: bytes, *, pty: bool = False) -> bytes:
    """As :func:`encode`, for bytes that are in hand. The hot path: text costs one scan and one copy."""
    if b"\0" not in data:
        try:
            return orjson.dumps([at, code, data.decode()], option=orjson.OPT_APPEND_NEWLINE)
        except UnicodeDecodeError:
            pass
    exact = b'[%b,"%bb","%b"]\n' % (orjson.dumps(at), code.encode("ascii"), base64.b64encode(data))
    if pty and code == "o":
        return exact + _line(at, "o", data.decode(errors="replace"))
    return exact


def _line(at: float, code: str, text: str) -> bytes:
    return orjson.dumps([at, code, text], option=orjson.OPT_APPEND_NEWLINE)


def clean(text: str) -> str:
    """*text* with what cannot be UTF-8 (lone surrogates of undecodable names) replaced."""
    return text.encode("utf-8", "replace").decode()


def split_character(data: bytes) -> tuple[bytes, bytes]:
    """*data* without, and the up to three bytes of, a character that its last bytes only begin."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data[-4:])
    begun = len(decoder.getstate()[0])
    return (data[:-begun], data[-begun:]) if begun else (data, b"")


# --- reading ----------------------------------------------------------------------------------------------------


def decode_header(line: bytes) -> Header:
    """The header on *line*: asciicast v2 only. Themes and other people's fields are not looked at."""
    match _parse(line):
        case {"version": 2, "width": int() as width, "height": int() as height, **rest}:
            own = rest.get("bartizan")
            env = rest.get("env")
            timestamp = rest.get("timestamp", 0)
            if isinstance(width, bool) or isinstance(height, bool):
                raise FormatError("the header's size is not two numbers")
            if isinstance(timestamp, bool) or not isinstance(timestamp, int | float) or not 0 <= timestamp < 1 << 53:
                raise FormatError("the header's timestamp is not a time")
            return Header(
                width=width,
                height=height,
                timestamp=int(timestamp),
                title=_text(rest.get("title")),
                command=_text(rest.get("command")),
                term=_text(env.get("TERM")) if isinstance(env, dict) else None,
                pty=isinstance(own, dict) and own.get("pty") is True,
            )
    raise FormatError("not an asciicast v2 header")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def decode(line: bytes) -> Event:
    """The event on *line*. Strict: any other shape is a FormatError, never a guess."""
    match _parse(line):
        case [float() | int() as at, str(code), str(text)]:
            if isinstance(at, bool) or not math.isfinite(at) or at < 0:
                raise FormatError("the time is not a number of seconds")
            return _event(float(at), code, text)
    raise FormatError(f"unknown line: {line[:40]!r}")


def _event(at: float, code: str, text: str) -> Event:
    if code in _DATA:
        return _DATA[code](at, text.encode())
    if code == "r":
        return _resize(at, text)
    if code == "m":
        return Marker(at, text)
    kind, form = code[:-1], code[-1:]
    if kind in _DATA and form == "b":
        return _DATA[kind](at, _base64(text))
    if kind in _DATA and form == "d":
        return _digest(at, kind, text)
    raise FormatError(f"unknown event: {code[:8]!r}")


def _base64(text: str) -> bytes:
    """The bytes in *text*. Plain text in base64 is refused: players skip it, so it could hide what happened."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise FormatError(f"not base64: {error}") from error
    if _is_text(data):
        raise FormatError("plain text in base64")
    return data


def _is_text(data: bytes) -> bool:
    if b"\0" in data:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _resize(at: float, text: str) -> Resize:
    columns, _, rows = text.partition("x")
    if not (_digits(columns, 4) and _digits(rows, 4)):
        raise FormatError(f"not a size: {text[:20]!r}")
    return Resize(at, int(columns), int(rows))


def _digest(at: float, kind: str, text: str) -> Digest:
    length, _, sha256 = text.partition(" ")
    if not _digits(length, 18) or not _SHA256.fullmatch(sha256):
        raise FormatError(f"not a length and a SHA-256: {text[:90]!r}")
    return Digest(at, kind, int(length), sha256)


_SHA256 = re.compile(r"[0-9a-f]{64}")


def _digits(text: str, most: int) -> bool:
    return 0 < len(text) <= most and text.isascii() and text.isdigit()


def _parse(line: bytes) -> object:
    if not line.endswith(b"\n"):
        raise FormatError("line has no newline: the recording was cut off here")
    if len(line) > MAX_LINE:
        raise FormatError("line is longer than any of ours")
    try:
        return orjson.loads(line)
    except (ValueError, RecursionError) as error:
        raise FormatError(str(error)) from error


def decode_lines(lines: Iterable[bytes], *, pty: bool) -> Iterator[Event]:
    """
    The events of a channel's *lines* after its header, every byte once.

    On a pty each ``ob`` is followed by an ``o`` of the same time, which shows the same bytes to players: it is
    checked and left out here. A ``ob`` without it, or with another, is a FormatError.
    """
    shown: Output | None = None
    for line in lines:
        event = decode(line)
        if shown is not None:
            if event != Output(shown.at, shown.data.decode(errors="replace").encode()):
                raise FormatError("the text beside bytes that are not text does not show them")
            shown = None
            continue
        yield event
        if pty and isinstance(event, Output) and not _is_text(event.data):
            shown = event
    if shown is not None:
        raise FormatError("the text beside bytes that are not text is missing")
