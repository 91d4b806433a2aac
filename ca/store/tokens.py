"""Opaque tokens, kept by their SHA-256 alone, and nonces that are good once."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, insert, select, update

from ca.store import Db
from ca.tables import NonceRow, TokenRow, table

tokens = table(TokenRow)
nonces = table(NonceRow)

NONCE_LIFE = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Token:
    """What a token stands for."""

    kind: str
    user: str | None
    data: dict[str, object]
    created: datetime
    expires: datetime


def make(
    db: Db, kind: str, *, life: timedelta, user: str | None = None, data: dict[str, object] | None = None
) -> tuple[str, datetime]:
    """A new token's text, which is kept nowhere, and its end."""
    text = f"bz{kind[0]}_{secrets.token_urlsafe(32)}"
    expires = db.now + life
    db.run(
        insert(tokens).values(hash=digest(text), kind=kind, user=user, data=data or {}, created=db.now, expires=expires)
    )
    return text, expires


def find(db: Db, kind: str, text: str) -> Token | None:
    """The token, if it is one of *kind* and not over."""
    row = db.one(select(tokens).where(tokens.c.hash == digest(text), tokens.c.kind == kind))
    if row is None or row.expires <= db.now:
        return None
    return Token(row.kind, row.user, dict(row.data), row.created, row.expires)


def use(db: Db, kind: str, text: str) -> Token | None:
    """The token, which ends with this: of many who try, one gets it."""
    token = find(db, kind, text)
    if token is None or db.run(delete(tokens).where(tokens.c.hash == digest(text))) != 1:
        return None
    return token


def set_data(db: Db, text: str, data: dict[str, object]) -> None:
    """What is kept with the token."""
    db.run(update(tokens).where(tokens.c.hash == digest(text)).values(data=data))


def end(db: Db, text: str) -> None:
    db.run(delete(tokens).where(tokens.c.hash == digest(text)))


def end_all_of(db: Db, user: str, kind: str | None = None) -> int:
    """End all tokens of *user*, or those of one kind."""
    statement = delete(tokens).where(tokens.c.user == user)
    return db.run(statement if kind is None else statement.where(tokens.c.kind == kind))


def all_of(db: Db, user: str, kind: str) -> list[tuple[str, Token]]:
    """The tokens of *kind* that *user* has, each with its id: the digest, which opens nothing."""
    wanted = select(tokens).where(tokens.c.user == user, tokens.c.kind == kind, tokens.c.expires > db.now)
    return [(row.hash, Token(row.kind, row.user, dict(row.data), row.created, row.expires)) for row in db.rows(wanted)]


def end_by_id(db: Db, user: str, kind: str, id: str) -> bool:
    """End one of *user*'s tokens of *kind*, if it is there."""
    return db.run(delete(tokens).where(tokens.c.hash == id, tokens.c.user == user, tokens.c.kind == kind)) == 1


def end_of_certificate(db: Db, user: str, serial: int) -> None:
    """End the sign-in that came with this certificate."""
    for row in db.rows(select(tokens.c.hash, tokens.c.data).where(tokens.c.user == user, tokens.c.kind == "login")):
        if row.data.get("serial") == serial:
            db.run(delete(tokens).where(tokens.c.hash == row.hash))


def challenge(db: Db, purpose: str) -> str:
    """A fresh nonce for *purpose*. Old ones are swept out on the way."""
    text = secrets.token_urlsafe(24)
    db.run(delete(nonces).where(nonces.c.expires <= db.now))
    db.run(insert(nonces).values(hash=digest(text), purpose=purpose, expires=db.now + NONCE_LIFE))
    return text


def answer(db: Db, purpose: str, text: str) -> bool:
    """Use the nonce up. Only the first who asks in time hears True."""
    statement = delete(nonces).where(
        nonces.c.hash == digest(text), nonces.c.purpose == purpose, nonces.c.expires > db.now
    )
    return db.run(statement) == 1


def waits(db: Db, purpose: str, text: str) -> bool:
    """Whether the nonce could still be used up."""
    wanted = (nonces.c.hash == digest(text), nonces.c.purpose == purpose, nonces.c.expires > db.now)
    return db.one(select(nonces.c.hash).where(*wanted)) is not None


def sweep(db: Db) -> None:
    """Forget what is over."""
    db.run(delete(tokens).where(tokens.c.expires <= db.now))
    db.run(delete(nonces).where(nonces.c.expires <= db.now))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
