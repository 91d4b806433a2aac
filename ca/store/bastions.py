"""Enrolled bastions, the keys that sign manifests, and the ids of events already taken in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Row, delete, insert, select, update

from ca.store import Db
from ca.tables import BastionEventRow, BastionRow, MarkRow, RecorderKeyRow, table

bastions = table(BastionRow)
recorders = table(RecorderKeyRow)
events = table(BastionEventRow)
marks = table(MarkRow)

EVENT_MEMORY = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Bastion:
    """One bastion. ``tls_key`` is the SHA-256 of the public key that its client certificate holds."""

    id: str
    name: str
    host_key: str
    recording_key: str
    tls_key: str
    egress: tuple[str, ...]
    created: datetime


@dataclass(frozen=True, slots=True)
class RecorderKey:
    """A key that signs manifests, with the time it is good for."""

    fingerprint: str
    name: str
    line: str
    valid_after: datetime
    valid_before: datetime | None = None


def by_tls_key(db: Db, tls_key: str) -> Bastion | None:
    return _bastion(db.one(select(bastions).where(bastions.c.tls_key == tls_key)))


def by_name(db: Db, name: str) -> Bastion | None:
    return _bastion(db.one(select(bastions).where(bastions.c.name == name)))


def enrol(db: Db, bastion: Bastion) -> None:
    """Enrol *bastion*. Its earlier keys, if it had any, are no more."""
    db.run(delete(bastions).where(bastions.c.id == bastion.id))
    db.run(
        insert(bastions).values(
            id=bastion.id,
            name=bastion.name,
            host_key=bastion.host_key,
            recording_key=bastion.recording_key,
            tls_key=bastion.tls_key,
            egress=list(bastion.egress),
            created=bastion.created,
        )
    )


def rekey(db: Db, id: str, tls_key: str) -> None:
    db.run(update(bastions).where(bastions.c.id == id).values(tls_key=tls_key))


def add_recorder(db: Db, key: RecorderKey) -> None:
    """List *key*, once; an earlier key of the same name ends now."""
    if db.one(select(recorders.c.name).where(recorders.c.fingerprint == key.fingerprint)) is not None:
        return
    db.run(
        update(recorders)
        .where(recorders.c.name == key.name, recorders.c.valid_before.is_(None))
        .values(valid_before=db.now)
    )
    db.run(
        insert(recorders).values(
            fingerprint=key.fingerprint,
            name=key.name,
            line=key.line,
            valid_after=key.valid_after,
            valid_before=key.valid_before,
        )
    )


def recorder_keys(db: Db) -> list[RecorderKey]:
    rows = db.rows(select(recorders).order_by(recorders.c.valid_after, recorders.c.name))
    return [RecorderKey(row.fingerprint, row.name, row.line, row.valid_after, row.valid_before) for row in rows]


def unseen(db: Db, bastion_id: str, ids: list[str]) -> set[str]:
    """Those of *ids* that this bastion has not sent before; they count as sent from now on."""
    rows = db.rows(select(events.c.id).where(events.c.bastion_id == bastion_id, events.c.id.in_(ids)))
    fresh = set(ids) - {row.id for row in rows}
    for id in sorted(fresh):
        db.run(insert(events).values(bastion_id=bastion_id, id=id, at=db.now))
    return fresh


def forget_events(db: Db) -> None:
    db.run(delete(events).where(events.c.at < db.now - EVENT_MEMORY))


def mark(db: Db, name: str) -> str | None:
    row = db.one(select(marks.c.value).where(marks.c.name == name))
    return None if row is None else str(row.value)


def set_mark(db: Db, name: str, value: str) -> None:
    if db.run(update(marks).where(marks.c.name == name).values(value=value)) == 0:
        db.run(insert(marks).values(name=name, value=value))


def _bastion(row: Row[tuple[object, ...]] | None) -> Bastion | None:
    if row is None:
        return None
    return Bastion(row.id, row.name, row.host_key, row.recording_key, row.tls_key, tuple(row.egress), row.created)
