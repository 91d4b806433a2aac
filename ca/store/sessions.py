"""Sessions, live and past, and the session identifiers that were already used."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Row, delete, insert, select, update

from ca.store import Db
from ca.tables import ProofRow, SessionRow, table

sessions = table(SessionRow)
proofs = table(ProofRow)

PROOF_MEMORY = timedelta(hours=1)
"""Longer than any beacon is accepted, so that forgetting opens nothing."""


@dataclass(frozen=True, slots=True)
class Session:
    """One session as stored. ``how`` says how it ended; None while it lives."""

    id: str
    user: str
    node_id: str
    node: str
    login: str
    way: str
    source: str
    bastion_id: str
    worker: str
    h: bytes
    user_serial: int
    target_serial: int
    certificate_expires: datetime
    bound: bool
    actions: tuple[dict[str, object], ...]
    started: datetime
    ended: datetime | None = None
    how: str | None = None
    head: dict[str, object] | None = None
    manifest_sha256: str | None = None
    authority_signature: str | None = None
    recording_deleted: datetime | None = None


def use_proof(db: Db, h: bytes) -> bool:
    """Use the session identifier up. Only the first who brings it hears True."""
    db.run(delete(proofs).where(proofs.c.at < db.now - PROOF_MEMORY))
    if db.one(select(proofs.c.at).where(proofs.c.h == h)) is not None:
        return False
    db.run(insert(proofs).values(h=h, at=db.now))
    return True


def add(db: Db, session: Session) -> None:
    values = {name: getattr(session, name) for name in session.__slots__}
    db.run(insert(sessions).values(**values | {"actions": list(session.actions)}))


def find(db: Db, id: str) -> Session | None:
    row = db.one(select(sessions).where(sessions.c.id == id))
    return None if row is None else _session(row)


def live(db: Db) -> list[Session]:
    return [_session(row) for row in db.rows(select(sessions).where(sessions.c.ended.is_(None)))]


def listing(
    db: Db, *, live: bool | None = None, user: str | None = None, node: str | None = None, limit: int = 10_000
) -> list[Session]:
    """Newest first."""
    wanted = select(sessions).order_by(sessions.c.started.desc(), sessions.c.id.desc()).limit(limit)
    if live is not None:
        wanted = wanted.where(sessions.c.ended.is_(None) if live else sessions.c.ended.is_not(None))
    if user is not None:
        wanted = wanted.where(sessions.c.user == user)
    if node is not None:
        wanted = wanted.where(sessions.c.node == node)
    return [_session(row) for row in db.rows(wanted)]


def set_head(db: Db, id: str, head: dict[str, object]) -> None:
    db.run(update(sessions).where(sessions.c.id == id).values(head=head))


def end(db: Db, id: str, how: str) -> bool:
    """End it, if it is live."""
    return (
        db.run(update(sessions).where(sessions.c.id == id, sessions.c.ended.is_(None)).values(ended=db.now, how=how))
        == 1
    )


def mark_broken(db: Db, id: str) -> None:
    """Its recording is not the one that was reported while it was live."""
    db.run(update(sessions).where(sessions.c.id == id).values(how="broken"))


def seal(db: Db, id: str, *, how: str, manifest_sha256: str, signature: str) -> None:
    """The sealed manifest came: it says how the session ended."""
    db.run(
        update(sessions)
        .where(sessions.c.id == id)
        .values(how=how, manifest_sha256=manifest_sha256, authority_signature=signature)
    )


def recording_deleted(db: Db, id: str) -> None:
    db.run(update(sessions).where(sessions.c.id == id).values(recording_deleted=db.now))


def owned(db: Db, bastion_id: str, ids: Collection[str]) -> set[str]:
    """Those of *ids* that are sessions of this bastion."""
    if not ids:
        return set()
    wanted = select(sessions.c.id).where(sessions.c.bastion_id == bastion_id, sessions.c.id.in_(sorted(ids)))
    return {row.id for row in db.rows(wanted)}


def _session(row: Row[tuple[object, ...]]) -> Session:
    values = {name: getattr(row, name) for name in Session.__slots__}
    return Session(**values | {"actions": tuple(row.actions)})
