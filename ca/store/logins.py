"""
Failed sign-ins, counted per person and source, so that nobody can lock others out. An IPv6 line is one source, with all
its addresses; the audit log names the address itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, insert, select, update

from ca import audit
from ca.model import source_key
from ca.store import Db
from ca.store import audit as log
from ca.tables import LoginFailureRow, table

failures = table(LoginFailureRow)

ALLOWED = 5
WINDOW = timedelta(minutes=30)
LOCKED_FOR = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Failures:
    """How it stands between one person and one source."""

    count: int
    total: int
    locked_until: datetime | None


def locked_until(db: Db, user: str, source: str) -> datetime | None:
    """The end of the lock between *user* and *source*, if there is one."""
    row = db.one(select(failures.c.locked_until).where(*_between(user, source)))
    if row is None or row.locked_until is None or row.locked_until <= db.now:
        return None
    return row.locked_until  # type: ignore[no-any-return]


def failed(db: Db, user: str, source: str, *, allowed: int = ALLOWED) -> Failures:
    """Count one failure. The fifth (or what is *allowed*) within half an hour locks the two for half an hour."""
    db.run(delete(failures).where(failures.c.last < db.now - WINDOW - LOCKED_FOR))
    here = _between(user, source)
    row = db.one(select(failures).where(*here))
    if row is None:
        db.run(
            insert(failures).values(user=user, source=source_key(source), count=1, total=1, first=db.now, last=db.now)
        )
        return Failures(1, 1, None)
    over = row.first <= db.now - WINDOW or (row.locked_until is not None and row.locked_until <= db.now)
    count = 1 if over else int(row._mapping["count"]) + 1
    until = db.now + LOCKED_FOR if count >= allowed else None
    db.run(
        update(failures)
        .where(*here)
        .values(
            count=count,
            total=row.total + 1,
            first=db.now if over else row.first,
            last=db.now,
            locked_until=until,
        )
    )
    return Failures(count, row.total + 1, until)


def note_failure(db: Db, user: str, source: str, reason: str) -> None:
    """Count one failure, and write into the audit log that it was one, and when it closes the door."""
    found = failed(db, user, source)
    log.append(db, audit.LoginFailed(user=user, source=source, reason=reason), actor="stranger")
    if found.locked_until is not None:
        until = audit.moment(found.locked_until)
        log.append(db, audit.LoginLockedOut(user=user, source=source, until=until), actor="authority")


def succeeded(db: Db, user: str, source: str) -> None:
    db.run(delete(failures).where(*_between(user, source)))


def forget(db: Db, user: str) -> None:
    """An administrator's reset opens the door from everywhere."""
    db.run(delete(failures).where(failures.c.user == user))


def _between(user: str, source: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """The row of *user* and *source*."""
    return failures.c.user == user, failures.c.source == source_key(source)
