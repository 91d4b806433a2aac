"""
A recording's folder on disk: its files' names, and how they are written so that they are whole or not there.

    ROOT/YYYY/MM/DD/SESSION/
        c0.000001.cast.zst …  events.000001.ndjson.zst …     the parts
        live.lock  live.chain                                while it is live, or after a crash
        manifest.json  manifest.json.sig                     once it is sealed
        manifest.json.authority.sig                          once the authority has countersigned
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from recordings import seal

LOCK = "live.lock"
"""Holds what the recording is of, and a lock that dies with its writer. Its presence says: not sealed."""

JOURNAL = "live.chain"
"""One line for each closed part, in order. Becomes the manifest's parts."""


class RecordingError(Exception):
    """The recording cannot be kept: the disk is full, the folder is gone, or somebody else has written to it."""


def append(path: Path, data: bytes, *, size: int) -> None:
    """
    Append *data* to the file at *path*, which has *size* bytes; at 0 it is made. All of it, or nothing.

    The file is opened anew each time: an idle session then holds one descriptor, and a folder that is gone, or a file
    that somebody else has written to, is noticed at once.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open(path, flags if size else flags | os.O_CREAT, 0o600)
    try:
        if os.fstat(file).st_size != size:
            raise RecordingError(f"somebody else has written to {path}")
        try:
            write_all(file, data)
        except OSError:
            os.ftruncate(file, size)
            raise
    finally:
        os.close(file)


def publish(folder: Path, manifest: bytes, signature: str) -> None:
    """Make *folder* a sealed recording. The signature comes last: where it is, the manifest is too."""
    replace_file(folder / seal.MANIFEST, manifest)
    replace_file(folder / seal.SIGNATURE, signature.encode("ascii"))
    tidy(folder)


def tidy(folder: Path) -> None:
    """Take away what only a live recording has; the lock last, as it says that there is something to do."""
    (folder / JOURNAL).unlink(missing_ok=True)
    (folder / LOCK).unlink(missing_ok=True)


def countersign(folder: Path, signature: str) -> None:
    """Put the authority's signature over manifest.json beside it."""
    try:
        replace_file(folder / seal.COUNTERSIGNATURE, signature.encode("ascii"))
    except OSError as error:
        raise RecordingError(f"cannot countersign {folder}: {error.strerror}") from error


def replace_file(path: Path, data: bytes) -> None:
    """Write *path* so that it is there whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        write_all(file, data)
    finally:
        os.close(file)
    new.replace(path)


def write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def make_folders(root: Path, day: Path) -> None:
    """Make *day* and what lies between, for the owner alone. *root* itself is not made: a missing disk must not be."""
    for folder in (*reversed(day.relative_to(root).parents[:-1]), day.relative_to(root)):
        (root / folder).mkdir(mode=0o700, exist_ok=True)


# --- finding and reading ----------------------------------------------------------------------------------------

MAX_PART = 64 << 20
"""A part closes when it has come to 1 MiB; a file this long is not one."""


def folders(root: Path) -> Iterator[Path]:
    """Every recording under *root*, newest day first, whatever state it is in. Links are not followed."""
    for year in _inside(root, re.compile(r"\d{4}\Z")):
        for month in _inside(year, re.compile(r"\d{2}\Z")):
            for day in _inside(month, re.compile(r"\d{2}\Z")):
                yield from _inside(day, seal.SESSION)


def _inside(folder: Path, names: re.Pattern[str]) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            found = [entry.name for entry in entries if names.match(entry.name) and entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return [folder / name for name in sorted(found, reverse=True)]


def is_sealed(folder: Path) -> bool:
    """Whether *folder* says of itself that it is sealed. Whether that is true, ``reader.verify`` knows."""
    return (folder / seal.MANIFEST).exists() and (folder / seal.SIGNATURE).exists()


def unsealed(root: Path) -> Iterator[Path]:
    """The recordings that are live, or were when their writer died."""
    return (folder for folder in folders(root) if not is_sealed(folder) or (folder / LOCK).exists())


def uncountersigned(root: Path) -> Iterator[Path]:
    """The sealed recordings that the authority has not countersigned, so far as this disk knows."""
    return (f for f in folders(root) if is_sealed(f) and not (f / seal.COUNTERSIGNATURE).exists())


def parts(folder: Path) -> list[str]:
    """The names of the parts in *folder*, by stream and number. Anything that is not a plain file is left out."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            match = seal.PART.match(entry.name)
            if match and entry.is_file(follow_symlinks=False):
                channel = int(match["channel"]) if match["channel"] else -1
                found.append((channel, match["stream"], int(match["number"]), entry.name))
    return [name for _, _, _, name in sorted(found)]


def read(path: Path, *, limit: int = MAX_PART) -> bytes:
    """The bytes of a plain file of at most *limit*. A link, a pipe or something longer is an OSError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(file, "rb") as opened:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(0, "not a plain file", str(path))
        if about.st_size > limit:
            raise OSError(0, f"longer than {limit} bytes", str(path))
        return opened.read(limit)
