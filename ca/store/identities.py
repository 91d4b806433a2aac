"""Who somebody is at a provider, by issuer and subject, and the person they are here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Row, and_, delete, func, insert, select, update

from ca.store import Db
from ca.tables import IdentityRow, table

identities = table(IdentityRow)


@dataclass(frozen=True, slots=True)
class StoredIdentity:
    """One tie. ``renewal`` is sealed; ``checked`` is when the provider last said yes."""

    issuer: str
    subject: str
    provider: str
    user: str
    renewal: str | None
    created: datetime
    checked: datetime
    unreachable_since: datetime | None = None

    @property
    def about(self) -> str:
        """What the sealed renewal is bound to."""
        return f"renewal:{self.issuer}:{self.subject}"


def find(db: Db, issuer: str, subject: str) -> StoredIdentity | None:
    row = db.one(select(identities).where(identities.c.issuer == issuer, identities.c.subject == subject))
    return None if row is None else _stored(row)


def of_user(db: Db, user: str) -> StoredIdentity | None:
    row = db.one(select(identities).where(identities.c.user == user))
    return None if row is None else _stored(row)


def add(db: Db, identity: StoredIdentity) -> None:
    db.run(
        insert(identities).values(
            issuer=identity.issuer,
            subject=identity.subject,
            provider=identity.provider,
            user=identity.user,
            renewal=identity.renewal,
            created=identity.created,
            checked=identity.checked,
            unreachable_since=None,
        )
    )


def vouched(db: Db, identity: StoredIdentity, *, provider: str, renewal: str | None) -> None:
    """The provider said yes just now. *renewal* is sealed; None: it gave nothing to ask again with."""
    _change(db, identity, provider=provider, renewal=renewal, checked=db.now, unreachable_since=None)


def silent(db: Db, identity: StoredIdentity, *, renewal: str | None) -> None:
    """The provider could not be asked. Since when is kept from the first time on; *renewal* is what to ask with."""
    _change(db, identity, renewal=renewal, unreachable_since=identity.unreachable_since or db.now)


def answered(db: Db, provider: str) -> datetime | None:
    """The provider answers: since when it had not, if it had not. From now on nobody counts as unasked."""
    since = silent_since(db).get(provider)
    if since is not None:
        db.run(update(identities).where(identities.c.provider == provider).values(unreachable_since=None))
    return since


def forget_renewal(db: Db, identity: StoredIdentity) -> None:
    """What the provider was asked again with is worth nothing any more."""
    _change(db, identity, renewal=None, unreachable_since=None)


def remove(db: Db, identity: StoredIdentity) -> None:
    db.run(delete(identities).where(_this(identity)))


def count(db: Db) -> dict[str, int]:
    """How many people each provider vouches for."""
    rows = db.rows(select(identities.c.provider, func.count().label("people")).group_by(identities.c.provider))
    return {row.provider: int(row.people) for row in rows}


def silent_since(db: Db) -> dict[str, datetime]:
    """Providers that could not be asked, and since when."""
    rows = db.rows(
        select(identities.c.provider, func.min(identities.c.unreachable_since).label("since"))
        .where(identities.c.unreachable_since.is_not(None))
        .group_by(identities.c.provider)
    )
    return {row.provider: row.since for row in rows}


def _change(db: Db, identity: StoredIdentity, **values: object) -> None:
    db.run(update(identities).where(_this(identity)).values(**values))


def _this(identity: StoredIdentity) -> ColumnElement[bool]:
    return and_(identities.c.issuer == identity.issuer, identities.c.subject == identity.subject)


def _stored(row: Row[tuple[object, ...]]) -> StoredIdentity:
    return StoredIdentity(
        row.issuer,
        row.subject,
        row.provider,
        row.user,
        row.renewal,
        row.created,
        row.checked,
        row.unreachable_since,
    )
