"""
What a sealed recording says of itself: parts, the hash chain over them, the manifest, and who may sign it. Pure.

The chain and every hash can be computed with ``sha256sum`` alone (docs/reference/recording-format.md says how).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from recordings.format import Header, clean
from recordings.sshkey import KeyFormatError, PublicKey

NAMESPACE = "bartizan-recording"
"""The purpose that recording keys and the authority sign manifests for (``ssh-keygen -Y … -n``)."""

AUTHORITY = "authority"
"""The principal of the authority's key in allowed_signers; every other principal is a bastion."""

MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
COUNTERSIGNATURE = "manifest.json.authority.sig"

MAX_MANIFEST = 64 << 20
MOST_COMMAND = 500
"""Characters of a command that the manifest repeats; the whole of it stands in the channel's header."""
VERSION = 1

SESSION = re.compile(r"[a-z0-9][a-z0-9-]{0,63}\Z")
PART = re.compile(
    r"(?P<stream>c(?P<channel>\d{1,9})(?P<input>\.in)?|events)\.(?P<number>\d{6,9})\.(cast|ndjson)\.zst\Z"
)
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class SealError(ValueError):
    """This is not a manifest of ours."""


@dataclass(frozen=True, slots=True)
class Part:
    """A closed part. ``first`` and ``last`` are the times of its events, in seconds since the session began."""

    name: str
    bytes: int
    sha256: str
    closed: datetime
    first: float | None = None
    last: float | None = None
    frames: tuple[tuple[int, str], ...] = ()
    """Size and zstd checksum of each frame: enough to point at the one that was damaged; the proof is ``sha256``."""
    unattested: int = 0
    """So many bytes at its end lie beyond the last hash that the authority had heard before a crash."""
    cut: int = 0
    """So many bytes of a torn frame were cut off its end after a crash."""

    def __post_init__(self) -> None:
        if not PART.match(self.name):
            raise SealError(f"not the name of a part: {self.name[:80]!r}")
        if not _SHA256.match(self.sha256) or self.bytes < 0 or self.unattested < 0 or self.cut < 0:
            raise SealError(f"{self.name}: a size or hash that cannot be")

    @property
    def stream(self) -> str:
        """``c0``, ``c0.in`` or ``events``."""
        return PART.match(self.name)["stream"]  # type: ignore[index]  # checked when it was made

    @property
    def number(self) -> int:
        """Its number within its stream, from 1."""
        return int(PART.match(self.name)["number"])  # type: ignore[index]  # checked when it was made


@dataclass(frozen=True, slots=True)
class Head:
    """How far a live recording is on disk: closed parts and their chain; size and SHA-256 so far of the open ones."""

    closed: int
    chain: str
    open: Mapping[str, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Attestation:
    """After a crash: what the authority had heard, and whether the disk agrees with it. Empty ``problems``: it does."""

    closed: int
    chain: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """A sealed recording. ``how`` is why it ended; ``crash`` when its end was found out afterwards."""

    session: str
    meta: Mapping[str, Any]
    started: datetime
    ended: datetime
    sealed: datetime
    how: str
    channels: tuple[Mapping[str, Any], ...]
    parts: tuple[Part, ...]
    chain: str
    attestation: Attestation | None = None
    notes: tuple[str, ...] = ()

    @property
    def unattested(self) -> int:
        """Bytes that lie beyond what the authority had heard of before a crash."""
        return sum(part.unattested for part in self.parts)


# --- the chain --------------------------------------------------------------------------------------------------


def genesis(session: str) -> str:
    """The chain before the first part: it belongs to one session."""
    return hashlib.sha256(f"bartizan-recording {VERSION} {session}\n".encode("ascii")).hexdigest()


def link(chain: str, part: Part) -> str:
    """The chain after *part*: the hash of the chain so far and of the line that ``sha256sum`` prints for the part."""
    return hashlib.sha256(f"{chain}\n{part.sha256}  {part.name}\n".encode("ascii")).hexdigest()


def chain_of(session: str, parts: Iterable[Part]) -> str:
    """The chain over *parts*, in the order in which they closed."""
    chain = genesis(session)
    for part in parts:
        chain = link(chain, part)
    return chain


# --- the manifest -----------------------------------------------------------------------------------------------


def encode_part(part: Part) -> bytes:
    """One line: the same in the manifest as in the journal of a live recording. ``name`` and ``sha256`` come first."""
    line: dict[str, object] = {"name": part.name, "sha256": part.sha256, "bytes": part.bytes}
    line |= {"first": part.first, "last": part.last, "closed": stamp(part.closed), "frames": part.frames}
    if part.unattested:
        line["unattested"] = part.unattested
    if part.cut:
        line["cut"] = part.cut
    return orjson.dumps(line)


def decode_part(line: bytes) -> Part:
    """The part on *line*, or a SealError."""
    return _part(_parse(line))


def encode(manifest: Manifest) -> bytes:
    """The bytes of manifest.json: JSON with one part a line, so that ``sed`` can take it apart."""
    top: dict[str, object] = {
        "format": NAMESPACE,
        "version": VERSION,
        "session": manifest.session,
        "meta": manifest.meta,
        "started": stamp(manifest.started),
        "ended": stamp(manifest.ended),
        "sealed": stamp(manifest.sealed),
        "how": manifest.how,
        "channels": manifest.channels,
        "chain": manifest.chain,
    }
    if manifest.attestation is not None:
        heard = manifest.attestation
        top["attestation"] = {"closed": heard.closed, "chain": heard.chain, "problems": heard.problems}
    if manifest.notes:
        top["notes"] = manifest.notes
    lines = [orjson.dumps(name) + b": " + orjson.dumps(value) for name, value in top.items()]
    parts = b",\n".join(encode_part(part) for part in manifest.parts)
    return b"{\n" + b",\n".join(lines) + b',\n"parts": [' + (b"\n" + parts + b"\n" if parts else b"") + b"]\n}\n"


def decode(data: bytes) -> Manifest:
    """The manifest in *data*. Strict in shape; :func:`disorder` says whether it fits together."""
    if len(data) > MAX_MANIFEST:
        raise SealError("the manifest is longer than any of ours")
    value = _parse(data)
    if value.get("format") != NAMESPACE or value.get("version") != VERSION:
        raise SealError("not a manifest of this format and version")
    return _manifest(value)


def _manifest(value: dict[str, Any]) -> Manifest:
    try:
        heard = value.get("attestation")
        manifest = Manifest(
            session=_string(value["session"]),
            meta=_mapping(value["meta"]),
            started=time(value["started"]),
            ended=time(value["ended"]),
            sealed=time(value["sealed"]),
            how=_string(value["how"]),
            channels=tuple(_mapping(channel) for channel in _list(value["channels"])),
            parts=tuple(_part(_mapping(part)) for part in _list(value["parts"])),
            chain=_string(value["chain"]),
            attestation=None if heard is None else _attestation(_mapping(heard)),
            notes=tuple(_string(note) for note in _list(value.get("notes", []))),
        )
    except KeyError as error:
        raise SealError(f"the manifest has no {error}") from error
    if not SESSION.match(manifest.session):
        raise SealError(f"not a session id: {manifest.session[:80]!r}")
    return manifest


def _attestation(value: Mapping[str, Any]) -> Attestation:
    problems = tuple(_string(problem) for problem in _list(value["problems"]))
    return Attestation(_count(value["closed"]), _string(value["chain"]), problems)


def disorder(manifest: Manifest) -> Iterator[tuple[str | None, str]]:
    """What is wrong with the manifest in itself: (part, what). Each stream is numbered from 1 as its parts closed."""
    last: dict[str, int] = {}
    for part in manifest.parts:
        expected = last.get(part.stream, 0) + 1
        if part.number != expected:
            yield part.name, f"expected number {expected:06} of {part.stream} here: a part is missing or out of order"
        last[part.stream] = part.number
    if manifest.chain != chain_of(manifest.session, manifest.parts):
        yield None, "the hash chain does not fit the parts: one is missing, changed or out of order"


def _part(value: Mapping[str, Any]) -> Part:
    try:
        return Part(
            name=_string(value["name"]),
            sha256=_string(value["sha256"]),
            bytes=_count(value["bytes"]),
            first=_seconds(value["first"]),
            last=_seconds(value["last"]),
            closed=time(value["closed"]),
            frames=tuple(_frame(frame) for frame in _list(value["frames"])),
            unattested=_count(value.get("unattested", 0)),
            cut=_count(value.get("cut", 0)),
        )
    except KeyError as error:
        raise SealError(f"a part has no {error}") from error


def _frame(value: object) -> tuple[int, str]:
    match value:
        case [int() as size, str(digest)]:
            return size, digest
    raise SealError("a frame is a size and a checksum")


def _parse(data: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except ValueError as error:
        raise SealError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise SealError("not a JSON object")
    return value


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise SealError(f"expected text, found {type(value).__name__}")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise SealError(f"expected a list, found {type(value).__name__}")
    return value


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SealError(f"expected an object, found {type(value).__name__}")
    return value


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SealError(f"expected a number from 0, found {value!r:.40}")
    return value


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SealError(f"expected seconds, found {value!r:.40}")
    return float(value)


def time(value: object) -> datetime:
    """The time that :func:`stamp` wrote, or a SealError."""
    try:
        at = datetime.fromisoformat(_string(value))
    except ValueError as error:
        raise SealError(f"not a time: {value!r:.40}") from error
    if at.tzinfo is None:
        raise SealError(f"a time without its zone: {value!r:.40}")
    return at


def stamp(at: datetime) -> str:
    """RFC 3339, UTC, to the microsecond."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def about_channel(channel: int, header: Header, *, keystrokes: bool) -> dict[str, object]:
    """What the manifest says of a channel."""
    about: dict[str, object] = {"channel": channel, "pty": header.pty, "width": header.width, "height": header.height}
    if header.command is not None:
        about["command"] = clean(header.command)[:MOST_COMMAND]
    about["keystrokes"] = keystrokes
    return about


# --- who may sign -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Signer:
    """One line of allowed_signers: a key, whose it is, and when it was in use."""

    principal: str
    key: PublicKey
    valid_after: datetime | None = None
    valid_before: datetime | None = None

    def was_valid(self, at: datetime) -> bool:
        return (self.valid_after is None or self.valid_after <= at) and (
            self.valid_before is None or at < self.valid_before
        )


def signers(allowed: str) -> tuple[tuple[Signer, ...], tuple[Signer, ...]]:
    """The recorders and the authorities in the text of an allowed_signers file; other namespaces are left out."""
    found = [_signer(line) for line in allowed.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    mine = [signer for signer in found if signer is not None]
    recorders = tuple(signer for signer in mine if signer.principal != AUTHORITY)
    return recorders, tuple(signer for signer in mine if signer.principal == AUTHORITY)


_OPTION = re.compile(r'([a-z-]+)(?:="([^"]*)")?(?:,|$)')


def _signer(line: str) -> Signer | None:
    """ssh-keygen(1), ALLOWED SIGNERS: ``principal [options] type key [comment]``. An unknown option is an error."""
    principal, _, rest = line.strip().partition(" ")
    signer = Signer(principal, _key(rest) or _key(rest.partition(" ")[2]) or _no_key(line))
    if _key(rest) is not None:
        raise SealError(f"{principal}: a key without namespaces would be good for everything")
    namespaces: list[str] = []
    for name, value in _OPTION.findall(rest.partition(" ")[0]):
        match name:
            case "namespaces":
                namespaces = value.split(",")
            case "valid-after":
                signer = replace(signer, valid_after=_signer_time(value))
            case "valid-before":
                signer = replace(signer, valid_before=_signer_time(value))
            case _:
                raise SealError(f"{principal}: option {name!r} is not known here")
    return signer if NAMESPACE in namespaces else None


def _key(text: str) -> PublicKey | None:
    try:
        return PublicKey.from_line(text.strip())
    except KeyFormatError:
        return None


def _no_key(line: str) -> PublicKey:
    raise SealError(f"no key on this line of allowed_signers: {line[:80]!r}")


def _signer_time(value: str) -> datetime:
    """``YYYYMMDD[HHMM[SS]][Z]``. Without Z ssh-keygen reads local time; here it is UTC, as we always write Z."""
    text = value.removesuffix("Z")
    form = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}.get(len(text))
    if form is None:
        raise SealError(f"not a time: {value[:20]!r}")
    try:
        return datetime.strptime(text, form).replace(tzinfo=UTC)
    except ValueError as error:
        raise SealError(f"not a time: {value[:20]!r}") from error
