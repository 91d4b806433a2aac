"""The roles file, every revision of it."""

from __future__ import annotations

from sqlalchemy import func, insert, select

from ca.store import Db
from ca.tables import RolesFileRow, table

files = table(RolesFileRow)


def current(db: Db) -> tuple[int, str]:
    """The revision in force and its text; (0, "") before the first."""
    row = db.one(select(files.c.revision, files.c.text).order_by(files.c.revision.desc()).limit(1))
    return (0, "") if row is None else (int(row.revision), str(row.text))


def revision(db: Db) -> int:
    row = db.one(select(func.max(files.c.revision)))
    return 0 if row is None or row[0] is None else int(row[0])


def apply(db: Db, text: str, *, by: str) -> int:
    """Put *text* in force."""
    number = revision(db) + 1
    db.run(insert(files).values(revision=number, text=text, applied_by=by, applied=db.now))
    return number
