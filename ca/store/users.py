"""People with a local account."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Row, insert, select, update

from ca.model import Identity
from ca.store import Db
from ca.tables import UserRow, table

users = table(UserRow)


@dataclass(frozen=True, slots=True)
class Account:
    """One person as stored. The hash is argon2id's own text."""

    name: str
    roles: tuple[str, ...]
    password_hash: str | None
    disabled: bool
    created: datetime

    @property
    def identity(self) -> Identity:
        return Identity(self.name, frozenset(self.roles))


def find(db: Db, name: str) -> Account | None:
    row = db.one(select(users).where(users.c.name == name))
    return None if row is None else _account(row)


def every(db: Db) -> list[Account]:
    return [_account(row) for row in db.rows(select(users).order_by(users.c.name))]


def add(db: Db, account: Account) -> None:
    db.run(
        insert(users).values(
            name=account.name,
            roles=list(account.roles),
            password_hash=account.password_hash,
            disabled=account.disabled,
            created=account.created,
        )
    )


def change(db: Db, name: str, *, roles: tuple[str, ...], disabled: bool) -> None:
    db.run(update(users).where(users.c.name == name).values(roles=list(roles), disabled=disabled))


def set_password(db: Db, name: str, password_hash: str | None) -> None:
    db.run(update(users).where(users.c.name == name).values(password_hash=password_hash))


def _account(row: Row[tuple[object, ...]]) -> Account:
    return Account(row.name, tuple(row.roles), row.password_hash, row.disabled, row.created)
