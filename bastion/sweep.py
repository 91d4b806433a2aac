"""Recordings that were left open by a crash, or that the authority has not countersigned yet: brought to their end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

import structlog

from bastion.session import Services
from ca import audit, wire
from ca.errors import BartizanError, Unavailable
from recordings import folder as disk
from recordings import seal
from recordings.folder import RecordingError
from recordings.recovery import recover
from recordings.seal import Head, SealError

log = structlog.get_logger()

P = ParamSpec("P")
T = TypeVar("T")


async def sweep(services: Services, *, since: date | None = None) -> None:
    """One round over all recordings, or those begun since a day.

    A recording that cannot be mended is named in the log and left as it is; the others go on.
    """
    for folder in await _in_pool(services, _open, services.recordings, since):
        try:
            await _mend(services, folder)
        except Unavailable:
            return  # nothing can be finished without the authority; the next round tries again
        except (RecordingError, SealError, BartizanError, OSError) as error:
            log.error("recording.not_mended", session=folder.name, error=str(error))


def _open(root: Path, since: date | None) -> list[Path]:
    """Those that are not sealed, or not countersigned. Folders come newest day first."""
    waiting = []
    for folder in disk.folders(root):
        if since is not None and folder.parts[-4:-1] < tuple(since.isoformat().split("-")):
            break
        if not disk.is_sealed(folder) or not (folder / seal.COUNTERSIGNATURE).exists():
            waiting.append(folder)
    return waiting


async def _mend(services: Services, folder: Path) -> None:
    session = folder.name
    if session in services.sessions:
        return
    if not disk.is_sealed(folder):
        heard = await services.authority.head(session)
        attested = Head(heard.closed, heard.chain, heard.open) if heard is not None else None
        sealed = await _in_pool(services, _recover, folder, attested, services)
        if sealed is None:
            return  # another worker is still writing it
        found = seal.decode(sealed)
        cut = sum(part.cut for part in found.parts)
        services.outbox.add(audit.SessionRecovered(session=session, unattested=found.unattested, cut=cut))
        log.warning("recording.recovered", session=session, unattested=found.unattested)
    manifest = (folder / seal.MANIFEST).read_bytes()
    how = seal.decode(manifest).how
    answer = await services.authority.end(session, wire.SessionEnd(manifest=manifest, how=how))
    disk.countersign(folder, answer.signature)


def _recover(folder: Path, attested: Head | None, services: Services) -> bytes | None:
    return recover(folder, attested=attested, now=datetime.now(UTC), sign=services.state.sign)


async def _in_pool(services: Services, function: Callable[P, T], *arguments: P.args, **_none: P.kwargs) -> T:
    return await asyncio.get_running_loop().run_in_executor(services.pool, lambda: function(*arguments, **_none))
