"""Certificates by CA and serial, and the counters that serials come from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Row, func, insert, or_, select, update

from ca.errors import Unavailable
from ca.store import Db
from ca.tables import CertificateRow, CounterRow, table

certificates = table(CertificateRow)
counters = table(CounterRow)

BACK_IN_TIME = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Record:
    """One certificate as stored. ``state``: stored (not signed yet), issued, void or revoked."""

    ca: str
    serial: int
    key_id: str
    principals: tuple[str, ...]
    valid_after: datetime
    valid_before: datetime
    state: str
    subject: str
    tbs_sha256: str
    user: str | None = None
    node_id: str | None = None
    session: str | None = None


def next_serials(db: Db, ca: str, count: int = 1) -> range:
    """The next serials of *ca*, counted from 1. A clock that jumped back stops every issue (CA-19)."""
    latest = db.one(select(func.max(counters.c.at)))
    last_issue = None if latest is None else latest[0]
    if last_issue is not None and db.now < last_issue - BACK_IN_TIME:
        raise Unavailable(
            "this machine's clock went back behind the last certificate, so none is issued",
            hint="set the clock right; check ntp",
            code="clock_skew",
        )
    row = db.one(select(counters.c.value).where(counters.c.name == ca))
    last = 0 if row is None else int(row.value)
    if row is None:
        db.run(insert(counters).values(name=ca, value=count, at=db.now))
    else:
        db.run(update(counters).where(counters.c.name == ca).values(value=last + count, at=db.now))
    return range(last + 1, last + count + 1)


def store(db: Db, record: Record) -> None:
    db.run(
        insert(certificates).values(
            ca=record.ca,
            serial=record.serial,
            key_id=record.key_id,
            principals=list(record.principals),
            valid_after=record.valid_after,
            valid_before=record.valid_before,
            state=record.state,
            subject=record.subject,
            tbs_sha256=record.tbs_sha256,
            user=record.user,
            node_id=record.node_id,
            session=record.session,
            created=db.now,
        )
    )


def mark(db: Db, ca: str, serials: list[int], state: str) -> None:
    db.run(update(certificates).where(certificates.c.ca == ca, certificates.c.serial.in_(serials)).values(state=state))


def find(db: Db, ca: str, serial: int) -> Record | None:
    row = db.one(select(certificates).where(certificates.c.ca == ca, certificates.c.serial == serial))
    return None if row is None else _record(row)


def recent(db: Db, limit: int) -> list[Record]:
    rows = db.rows(
        select(certificates).order_by(certificates.c.created.desc(), certificates.c.serial.desc()).limit(limit)
    )
    return [_record(row) for row in rows]


def latest_of(db: Db, user: str) -> Record | None:
    """The person's user certificate that lasts longest."""
    row = db.one(
        select(certificates)
        .where(certificates.c.ca == "user", certificates.c.user == user, certificates.c.state == "issued")
        .order_by(certificates.c.valid_before.desc())
        .limit(1)
    )
    return None if row is None else _record(row)


def issued(db: Db, ca: str, serials: list[int]) -> bool:
    """Mark what was signed as issued. False when one of them was revoked meanwhile: it must not be handed out."""
    waiting = (certificates.c.ca == ca, certificates.c.serial.in_(serials), certificates.c.state == "stored")
    return db.run(update(certificates).where(*waiting).values(state="issued")) == len(serials)


def good_ones_of(db: Db, user: str, carrying: Collection[int] = ()) -> list[Record]:
    """The person's user certificates that are not over, newest first; and those of the serials in *carrying*, over
    or not. One that is about to be signed is among them.
    """
    rows = db.rows(
        select(certificates)
        .where(
            certificates.c.ca == "user",
            certificates.c.user == user,
            certificates.c.state.in_(("stored", "issued")),
            or_(certificates.c.valid_before > db.now, certificates.c.serial.in_(sorted(carrying))),
        )
        .order_by(certificates.c.serial.desc())
    )
    return [_record(row) for row in rows]


def left_over(db: Db) -> list[Record]:
    """Rows that a crash left between storing and signing."""
    return [_record(row) for row in db.rows(select(certificates).where(certificates.c.state == "stored"))]


def revoked_subject(db: Db, fingerprint: str) -> bool:
    """Whether a certificate for this key was ever revoked."""
    wanted = select(certificates.c.serial).where(
        certificates.c.subject == fingerprint, certificates.c.state == "revoked"
    )
    return db.one(wanted.limit(1)) is not None


def _record(row: Row[tuple[object, ...]]) -> Record:
    return Record(
        row.ca,
        row.serial,
        row.key_id,
        tuple(row.principals),
        row.valid_after,
        row.valid_before,
        row.state,
        row.subject,
        row.tbs_sha256,
        row.user,
        row.node_id,
        row.session,
    )
