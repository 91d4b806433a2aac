"""The audit log: appended to in the transaction of the change it tells of, never altered."""

from __future__ import annotations

import json

from sqlalchemy import Row, insert, select

from ca import audit
from ca.store import Db
from ca.tables import AuditRow, table

log = table(AuditRow)

PIECE = 5_000


def append(db: Db, event: audit.Event, *, actor: str) -> None:
    """Write *event*, chained to the one before."""
    last = db.one(select(log).order_by(log.c.seq.desc()).limit(1))
    entry = audit.append(None if last is None else _entry(last), event, at=db.now, actor=actor)
    db.run(
        insert(log).values(
            seq=entry.seq,
            at=entry.at,
            code=entry.code,
            actor=entry.actor,
            fields=audit.canonical(entry.fields),
            prev=entry.prev,
            hash=entry.hash,
        )
    )


def records(db: Db, *, after: int, limit: int) -> list[audit.Entry]:
    """Records with a sequence number above *after*, in order."""
    return [_entry(row) for row in db.rows(select(log).where(log.c.seq > after).order_by(log.c.seq).limit(limit))]


def verify(db: Db) -> tuple[int, audit.Broken | None]:
    """How many records there are, and where the chain breaks first."""
    seen, prev = 0, audit.GENESIS
    while True:
        rows = db.rows(select(log).where(log.c.seq > seen).order_by(log.c.seq).limit(PIECE))
        if not rows:
            return seen, None
        try:
            piece = [_entry(row) for row in rows]
        except ValueError:
            return seen, _unreadable(rows, seen, prev)
        broken = audit.verify_chain(piece, first=seen + 1, prev=prev)
        if broken is not None:
            return seen, broken
        seen, prev = piece[-1].seq, piece[-1].hash


def _unreadable(rows: list[Row[tuple[object, ...]]], seen: int, prev: str) -> audit.Broken:
    """The first bad record among *rows*, one of which is not even JSON."""
    for row in rows:
        try:
            entry = _entry(row)
        except ValueError:
            return audit.Broken(row.seq, "its fields are not JSON")
        broken = audit.verify_chain([entry], first=seen + 1, prev=prev)
        if broken is not None:
            return broken
        seen, prev = entry.seq, entry.hash
    raise AssertionError("every record could be read")


def _entry(row: Row[tuple[object, ...]]) -> audit.Entry:
    fields = json.loads(row.fields)
    if audit.canonical(fields) != row.fields:
        raise ValueError("not the text that was hashed")
    return audit.Entry(row.seq, row.at, row.code, row.actor, fields, row.prev, row.hash)
