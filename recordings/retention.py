"""
How long recordings are kept, and what is left of their disk. The rule is pure; two functions touch the disk.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from recordings import folder as disk
from recordings.folder import RecordingError
from recordings.reader import Entry


def expired(entries: Iterable[Entry], *, keep: timedelta, now: datetime) -> list[Entry]:
    """The recordings that ended longer than *keep* ago. Never one that is live, damaged or of unknown age."""
    if keep <= timedelta(0):
        raise ValueError("recordings are kept for some time")
    return [
        e for e in entries if e.problem is None and e.how is not None and e.ended is not None and e.ended < now - keep
    ]


def delete(entry: Entry) -> None:
    """Delete a sealed recording: out of sight at once, then file by file. One that is live is refused."""
    if not disk.is_sealed(entry.folder) or (entry.folder / disk.LOCK).exists():
        raise RecordingError(f"{entry.session} is live or not sealed: it is not deleted")
    doomed = entry.folder.with_name(f".{entry.folder.name}.deleted")
    try:
        entry.folder.rename(doomed)
        shutil.rmtree(doomed)
        for day in list(entry.folder.parents)[:3]:
            day.rmdir()
    except OSError as error:
        if doomed.exists() or entry.folder.exists():
            raise RecordingError(f"cannot delete {entry.folder}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes of the disk that the recordings lie on."""

    free: int
    total: int


def space(root: Path) -> Space:
    """What is left on the disk under *root*, for us and not for root alone."""
    about = os.statvfs(root)
    return Space(free=about.f_bavail * about.f_frsize, total=about.f_blocks * about.f_frsize)
