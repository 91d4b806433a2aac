"""
A recording as it travels: the authority's tar stream becomes a folder of plain files, or nothing at all.

Strict: only flat names that a recording has, only regular files, each once. What is no recording is never written.
"""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import httpx

from ca.errors import Conflict, InvalidInput, Unavailable
from cli import output
from cli.client import Authority
from recordings import seal

if TYPE_CHECKING:
    from rich.progress import Progress

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,100}\Z")
FILES = 200_000
Purpose = Literal["export", "play", "verify"]


def is_id(text: str) -> bool:
    """Whether *text* can be a session's id. A folder with such a name is written ``./NAME``."""
    return bool(seal.SESSION.match(text))


def export(authority: Authority, id: str, folder: Path) -> list[Path]:
    """Fetch the recording *id* into *folder*, which must not exist or be empty. Gives the files."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} exists and is not empty", hint="give --output a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as near:
        staged = Path(near) / "recording"
        _fetch(authority, id, staged, purpose="export")
        if folder.exists():
            folder.rmdir()
        staged.rename(folder)
    return sorted(folder.iterdir())


@contextmanager
def fetched(authority: Authority, id: str, *, purpose: Purpose) -> Iterator[Path]:
    """The recording *id* in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bart-") as near:
        folder = Path(near) / id
        _fetch(authority, id, folder, purpose=purpose)
        yield folder


def unpack(stream: IO[bytes], folder: Path) -> None:
    """Write the files of the tar *stream* into the new *folder*. Raises Unavailable when it holds anything else."""
    folder.mkdir(mode=0o700)
    seen: set[str] = set()
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if member.isdir():
                    continue
                name = _checked(member, seen)
                content = archive.extractfile(member)
                assert content is not None  # a regular file has content
                with (folder / name).open("xb") as file:
                    shutil.copyfileobj(content, file)
                (folder / name).chmod(0o600)
    except (tarfile.TarError, EOFError) as error:
        raise Unavailable(f"the recording did not arrive whole: {error}", hint="try again") from None
    if "manifest.json" not in seen and not any(name.startswith("c0.") or name.startswith("events.") for name in seen):
        raise Unavailable("what arrived is no recording")


def _fetch(authority: Authority, id: str, folder: Path, *, purpose: Purpose) -> None:
    if not is_id(id):
        raise InvalidInput(f"{id!r} is not the id of a recording", hint="bart recordings list")
    with authority.archive(id, purpose=purpose) as answer:
        length = answer.headers.get("content-length", "")
        with output.progress(f"fetching {id}", int(length) if length.isdigit() else None) as bar:
            unpack(_Stream(answer, bar), folder)  # type: ignore[arg-type]  # tarfile's stream mode only reads


def _checked(member: tarfile.TarInfo, seen: set[str]) -> str:
    name = member.name.removeprefix("./").rpartition("/")[2] if member.name.count("/") < 3 else ""
    if not member.isreg() or ".." in member.name or member.name.startswith("/") or not NAME.match(name):
        raise Unavailable(f"the archive holds something that is no part of a recording: {member.name[:80]!r}")
    if name in seen or len(seen) >= FILES:
        raise Unavailable(f"the archive holds a file twice, or too many: {name!r}")
    seen.add(name)
    return name


class _Stream:
    """The bytes of an answer, read like a file."""

    def __init__(self, answer: httpx.Response, bar: Progress | None) -> None:
        self._chunks = answer.iter_bytes(1 << 16)
        self._left = b""
        self._bar = bar

    def read(self, size: int) -> bytes:
        while len(self._left) < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._left += chunk
            if self._bar:
                self._bar.advance(self._bar.task_ids[0], len(chunk))
        taken, self._left = self._left[:size], self._left[size:]
        return taken
