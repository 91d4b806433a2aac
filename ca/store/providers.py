"""Identity providers: each one's file as it was written, and its client secret, sealed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Row, delete, insert, select, update

from ca.store import Db, bastions
from ca.tables import IdentityRow, ProviderRow, table

providers = table(ProviderRow)
REVISION = "provider_revision"
"""The mark that holds the last revision."""
identities = table(IdentityRow)


@dataclass(frozen=True, slots=True)
class StoredProvider:
    """One provider's row. ``secret`` is sealed."""

    name: str
    revision: int
    text: str
    secret: str | None
    applied_by: str
    applied: datetime


def find(db: Db, name: str) -> StoredProvider | None:
    row = db.one(select(providers).where(providers.c.name == name))
    return None if row is None else _stored(row)


def every(db: Db) -> list[StoredProvider]:
    return [_stored(row) for row in db.rows(select(providers).order_by(providers.c.name))]


def revisions(db: Db) -> dict[str, int]:
    """Which providers there are, and which revision of each: cheap, for those who keep them parsed."""
    return {row.name: int(row.revision) for row in db.rows(select(providers.c.name, providers.c.revision))}


def apply(db: Db, name: str, text: str, *, secret: str | None, by: str) -> StoredProvider:
    """Put *text* in force. *secret* None keeps the one that is there.

    Revisions are counted over all providers, and go on over a removal: whoever keeps something by name and revision
    never takes a provider that came later for one that is gone.
    """
    before = find(db, name)
    revision = 1 + int(bastions.mark(db, REVISION) or 0)
    bastions.set_mark(db, REVISION, str(revision))
    made = StoredProvider(name, revision, text, secret or (before.secret if before else None), by, db.now)
    values = {
        "revision": made.revision,
        "text": made.text,
        "secret": made.secret,
        "applied_by": made.applied_by,
        "applied": made.applied,
    }
    if before is None:
        db.run(insert(providers).values(name=name, **values))
    else:
        db.run(update(providers).where(providers.c.name == name).values(**values))
    return made


def remove(db: Db, name: str) -> bool:
    return db.run(delete(providers).where(providers.c.name == name)) == 1


def issuer_of_people(db: Db, name: str) -> str | None:
    """The issuer under which people of this provider are known. None: there are none."""
    row = db.one(select(identities.c.issuer).where(identities.c.provider == name).limit(1))
    return None if row is None else str(row.issuer)


def forget_renewals(db: Db, name: str) -> int:
    """What the provider was asked again with was given to another client. How many people cannot be asked about now."""
    here = (identities.c.provider == name, identities.c.renewal.is_not(None))
    return db.run(update(identities).where(*here).values(renewal=None, unreachable_since=None))


def _stored(row: Row[tuple[object, ...]]) -> StoredProvider:
    return StoredProvider(row.name, int(row.revision), row.text, row.secret, row.applied_by, row.applied)
