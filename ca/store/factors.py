"""Second factors, their secrets sealed, and recovery codes, kept by their SHA-256 alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, insert, select, update

from ca.identity.totp import normalised
from ca.store import Db
from ca.tables import FactorRow, RecoveryCodeRow, table

factors = table(FactorRow)
recovery_codes = table(RecoveryCodeRow)


@dataclass(frozen=True, slots=True)
class Factor:
    """One person's. ``secret`` is sealed; ``last_step`` is that of the last code that was taken."""

    user: str
    secret: str
    confirmed: bool
    last_step: int
    created: datetime


def about(user: str) -> str:
    """What the sealed secret of *user* is bound to."""
    return f"factor:{user}"


def find(db: Db, user: str) -> Factor | None:
    row = db.one(select(factors).where(factors.c.user == user))
    return None if row is None else Factor(row.user, row.secret, row.confirmed, row.last_step, row.created)


def confirmed(db: Db, user: str) -> Factor | None:
    """The factor of *user*, if it counts."""
    found = find(db, user)
    return found if found is not None and found.confirmed else None


def holders(db: Db) -> frozenset[str]:
    """Everybody whose factor counts."""
    return frozenset(row.user for row in db.rows(select(factors.c.user).where(factors.c.confirmed)))


def begin(db: Db, user: str, sealed: str) -> None:
    """Keep a secret that no code has confirmed yet, instead of one that came before."""
    remove(db, user)
    db.run(insert(factors).values(user=user, secret=sealed, confirmed=False, last_step=0, created=db.now))


def confirm(db: Db, user: str) -> None:
    """From now on the factor counts."""
    db.run(update(factors).where(factors.c.user == user).values(confirmed=True, created=db.now))


def take(db: Db, user: str, step: int) -> None:
    """The code of *step* was used: neither it nor an earlier one is good any more."""
    db.run(update(factors).where(factors.c.user == user).values(last_step=step))


def remove(db: Db, user: str) -> bool:
    """Forget the factor and its recovery codes. Whether there was one."""
    db.run(delete(recovery_codes).where(recovery_codes.c.user == user))
    return db.run(delete(factors).where(factors.c.user == user)) == 1


def set_recovery_codes(db: Db, user: str, codes: Iterable[str]) -> None:
    """Keep *codes*; earlier ones are worth nothing."""
    db.run(delete(recovery_codes).where(recovery_codes.c.user == user))
    for code in codes:
        db.run(insert(recovery_codes).values(hash=_digest(code), user=user, created=db.now))


def use_recovery_code(db: Db, user: str, code: str) -> bool:
    """Use *code* up. Only the first who comes with it hears True."""
    mine = (recovery_codes.c.hash == _digest(code), recovery_codes.c.user == user)
    return db.run(delete(recovery_codes).where(*mine)) == 1


def recovery_codes_left(db: Db, user: str) -> int:
    row = db.one(select(func.count()).select_from(recovery_codes).where(recovery_codes.c.user == user))
    return 0 if row is None else int(row[0])


def _digest(code: str) -> str:
    return hashlib.sha256(normalised(code).encode("utf-8", "surrogatepass")).hexdigest()
