"""People: with a local account, or vouched for by an identity provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    provider: str | None = None
    """Who vouches for them; None: a local account."""
    traits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refused: str | None = None
    """Why the provider no longer vouches for them; nothing is open to them until it does again."""

    @property
    def identity(self) -> Identity:
        return Identity(self.name, frozenset(self.roles), dict(self.traits))

    @property
    def shut(self) -> bool:
        """Whether nothing is open to them, whatever roles they hold."""
        return self.disabled or self.refused is not None


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
            provider=account.provider,
            traits=_lists(account.traits),
            refused=account.refused,
        )
    )


def change(db: Db, name: str, *, roles: tuple[str, ...], disabled: bool) -> None:
    db.run(update(users).where(users.c.name == name).values(roles=list(roles), disabled=disabled))


def vouch(db: Db, name: str, *, provider: str, roles: tuple[str, ...], traits: Mapping[str, tuple[str, ...]]) -> None:
    """What the provider says of them now. It vouches for them again if it did not."""
    values = {"provider": provider, "roles": list(roles), "traits": _lists(traits), "refused": None}
    db.run(update(users).where(users.c.name == name).values(**values))


def refuse(db: Db, name: str, reason: str) -> None:
    """The provider vouches for them no longer. What they held stays written, and opens nothing."""
    db.run(update(users).where(users.c.name == name).values(refused=reason[:500]))


def any_local(db: Db) -> bool:
    """Whether somebody signs in with a password, or was invited to."""
    return db.one(select(users.c.name).where(users.c.provider.is_(None)).limit(1)) is not None


def of_provider(db: Db, provider: str) -> list[Account]:
    return [_account(row) for row in db.rows(select(users).where(users.c.provider == provider).order_by(users.c.name))]


def set_password(db: Db, name: str, password_hash: str | None) -> None:
    db.run(update(users).where(users.c.name == name).values(password_hash=password_hash))


def _account(row: Row[tuple[object, ...]]) -> Account:
    return Account(
        row.name,
        tuple(row.roles),
        row.password_hash,
        row.disabled,
        row.created,
        row.provider,
        {name: tuple(values) for name, values in row.traits.items()},
        row.refused,
    )


def _lists(traits: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    return {name: list(values) for name, values in traits.items()}
