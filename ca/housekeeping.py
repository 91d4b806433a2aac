"""
What the authority does unasked: deletes recordings that are older than the rule says, watches their disk, and forgets
tokens and ids that are over.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import structlog

from ca import audit
from ca.errors import BartizanError
from ca.metrics import Metrics
from ca.settings import Settings
from ca.store import Db, Store, bastions, sessions, tokens
from ca.store import audit as log
from recordings import reader, retention
from recordings.folder import RecordingError

EVERY = timedelta(minutes=10)
logger = structlog.get_logger()


async def keep(settings: Settings, store: Store, metrics: Metrics, stopping: asyncio.Event) -> None:
    """Once at the start and then every ten minutes, until told to stop."""
    told = False
    while not stopping.is_set():
        try:
            await store.write(_forget)
            await delete_old(settings, store, metrics)
            told = await watch_disk(settings, store, metrics, told=told)
        except (BartizanError, OSError) as error:
            metrics.alarm("housekeeping_failed")
            logger.error("housekeeping failed", error=str(error))
        with suppress(TimeoutError):
            async with asyncio.timeout(EVERY.total_seconds()):
                await stopping.wait()


def _forget(db: Db) -> None:
    tokens.sweep(db)
    bastions.forget_events(db)


async def watch_disk(settings: Settings, store: Store, metrics: Metrics, *, told: bool) -> bool:
    """Measure the disk; say once that it is nearly full, and again after it was not."""
    try:
        room = retention.space(settings.recordings_folder)
    except OSError:
        return told
    low = (room.total - room.free) * 100 >= settings.disk_warning_percent * room.total
    metrics.disk_free.set(room.free)
    metrics.disk_low.set(int(low))
    if low and not told:
        logger.warning(
            "the disk of the recordings is nearly full; sessions end when it is", free=room.free, total=room.total
        )
        event = audit.RecordingSpaceLow(free_bytes=room.free, total_bytes=room.total)
        await store.write(lambda db: log.append(db, event, actor="authority"))
    return low


async def delete_old(settings: Settings, store: Store, metrics: Metrics) -> None:
    """Delete what is older than the rule says. The event is written first: nothing disappears without one.

    Our own clock must agree: a manifest's times are a bastion's, and a recording of a session that is not ours stays.
    """
    if settings.recordings_keep_days is None:
        return
    now = await store.read(lambda db: db.now)
    keep = timedelta(days=settings.recordings_keep_days)
    entries = await asyncio.to_thread(reader.listing, settings.recordings_folder)
    reason = f"older than {settings.recordings_keep_days} days"
    for entry in retention.expired(entries, keep=keep, now=now):
        if not await store.write(lambda db, id=entry.session: _mark_deleted(db, id, keep, reason)):  # type: ignore[misc]
            continue
        try:
            await asyncio.to_thread(retention.delete, entry)
        except RecordingError as error:
            metrics.alarm("retention_failed")
            logger.warning("a recording could not be deleted", session=entry.session, problem=str(error))


def _mark_deleted(db: Db, id: str, keep: timedelta, reason: str) -> bool:
    """Whether the recording may go; from now on it counts as gone."""
    session = sessions.find(db, id)
    if session is None or session.ended is None or session.ended >= db.now - keep:
        return False
    if session.recording_deleted is None:
        sessions.recording_deleted(db, id)
        event = audit.RecordingDeleted(session=id, reason=reason, manifest=session.manifest_sha256)
        log.append(db, event, actor="authority")
    return True
