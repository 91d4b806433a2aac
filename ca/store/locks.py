"""Locks: an administrator's immediate no."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, insert, or_, select

from ca.model import Lock
from ca.store import Db
from ca.tables import LockRow, table

locks = table(LockRow)


@dataclass(frozen=True, slots=True)
class StoredLock:
    """A lock and when it was laid."""

    lock: Lock
    created: datetime


def add(db: Db, lock: Lock) -> None:
    db.run(
        insert(locks).values(
            id=lock.id,
            reason=lock.reason,
            user=lock.user,
            node=lock.node,
            role=lock.role,
            login=lock.login,
            created=db.now,
            expires=lock.expires,
        )
    )


def remove(db: Db, id: str) -> bool:
    return db.run(delete(locks).where(locks.c.id == id)) == 1


def every(db: Db) -> list[StoredLock]:
    """All that are not over, oldest first."""
    rows = db.rows(
        select(locks).where(or_(locks.c.expires.is_(None), locks.c.expires > db.now)).order_by(locks.c.created)
    )
    return [
        StoredLock(Lock(row.id, row.reason, row.user, row.node, row.role, row.login, row.expires), row.created)
        for row in rows
    ]
