"""Recordings that were left open by a crash, or that the authority has not countersigned yet: brought to their end."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import structlog

from bastion.session import Services
from ca import audit, wire
from ca.errors import BartizanError, Unavailable
from recordings.writer import Head, RecordingError, countersign, recover, unsealed

log = structlog.get_logger()


async def sweep(services: Services) -> None:
    """One round. A recording that cannot be mended is named in the log and left as it is; the others go on."""
    for folder in await _in_pool(services, _open_folders, services.recordings):
        try:
            await _mend(services, folder)
        except Unavailable:
            return  # nothing can be finished without the authority; the next round tries again
        except (RecordingError, BartizanError, OSError, ValueError) as error:
            log.error("recording.not_mended", session=folder.name, error=str(error))


def _open_folders(root: Path) -> list[Path]:
    waiting = [path.parent for path in root.glob("*/*/*/*/manifest.json.sig") if not _countersigned(path.parent)]
    return [*unsealed(root), *waiting]


def _countersigned(folder: Path) -> bool:
    return (folder / "manifest.json.authority.sig").exists()


async def _mend(services: Services, folder: Path) -> None:
    session = folder.name
    if session in services.sessions or _countersigned(folder):
        return
    manifest_file = folder / "manifest.json"
    if not (folder / "manifest.json.sig").exists():
        heard = await services.authority.head(session)
        attested = Head(heard.closed, heard.chain, heard.open) if heard is not None else None
        sealed = await _in_pool(services, _recover, folder, attested, services)
        if sealed is None:
            return  # another worker is still writing it
        beyond = json.loads(sealed).get("unattested")
        services.outbox.add(audit.SessionRecovered(session=session, unattested=_bytes(beyond)))
        log.warning("recording.recovered", session=session)
    manifest = manifest_file.read_bytes()
    how = str(json.loads(manifest)["how"])
    answer = await services.authority.end(session, wire.SessionEnd(manifest=manifest, how=how))
    countersign(folder, answer.signature)


def _recover(folder: Path, attested: Head | None, services: Services) -> bytes | None:
    return recover(folder, attested=attested, now=datetime.now(UTC), sign=services.state.sign)


def _bytes(beyond: object) -> int:
    return int(beyond.get("bytes", 0)) if isinstance(beyond, dict) else 0


async def _in_pool(services: Services, function, *arguments):  # type: ignore[no-untyped-def]
    return await asyncio.get_running_loop().run_in_executor(services.pool, function, *arguments)
