"""Logins that a machine without a browser asked for, by the SHA-256 of its device code."""

from __future__ import annotations

import hashlib

from sqlalchemy import Row, delete, func, insert, select, update

from ca.login import DeviceLogin, State
from ca.store import Db
from ca.tables import DeviceLoginRow, table

logins = table(DeviceLoginRow)


def add(db: Db, login: DeviceLogin, code: str) -> None:
    """Keep it, and sweep out what is over."""
    sweep(db)
    db.run(
        insert(logins).values(
            hash=_digest(code),
            user_code=login.user_code,
            challenge=login.challenge,
            host=login.host,
            source=login.source,
            state=login.state.value,
            with_code=login.with_code,
            created=login.created,
            expires=login.expires,
        )
    )


def by_code(db: Db, code: str) -> DeviceLogin | None:
    row = db.one(select(logins).where(logins.c.hash == _digest(code)))
    return None if row is None else _login(row)


def by_user_code(db: Db, user_code: str) -> DeviceLogin | None:
    row = db.one(select(logins).where(logins.c.user_code == user_code))
    return None if row is None else _login(row)


def save(db: Db, login: DeviceLogin) -> None:
    """What was decided, or that it was asked after."""
    values = {
        "state": login.state.value,
        "user": login.user,
        "polled": login.polled,
        "with_code": login.with_code,
    }
    db.run(update(logins).where(logins.c.user_code == login.user_code).values(**values))


def use(db: Db, code: str) -> bool:
    """Use an approved one up: of many who try, one gets it."""
    statement = update(logins).where(logins.c.hash == _digest(code), logins.c.state == State.APPROVED.value)
    return db.run(statement.values(state=State.USED.value)) == 1


def pending(db: Db) -> int:
    row = db.one(select(func.count()).select_from(logins).where(logins.c.expires > db.now))
    return 0 if row is None else int(row[0])


def end_all_of(db: Db, user: str) -> None:
    """What *user* approved and nobody has used yet is worth nothing any more."""
    db.run(delete(logins).where(logins.c.user == user))


def sweep(db: Db) -> None:
    db.run(delete(logins).where(logins.c.expires <= db.now))


def _login(row: Row[tuple[object, ...]]) -> DeviceLogin:
    return DeviceLogin(
        row.user_code,
        row.challenge,
        row.host,
        row.source,
        created=row.created,
        expires=row.expires,
        state=State(row.state),
        user=row.user,
        polled=row.polled,
        with_code=row.with_code,
    )


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()
