"""
Who is asking: a person with a token, an administrator, the operator on the Unix socket, or a bastion with a client
certificate. Routes take these as parameters; a route that takes none is open to strangers.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request

from ca import policy
from ca.api.door import PEER, UNIX
from ca.app import Authority
from ca.errors import AccessDenied, NotSignedIn
from ca.model import LOCAL, Identity
from ca.recheck import Outcome
from ca.store import Db, bastions, tokens, users
from ca.store.bastions import Bastion


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who is signed in."""

    actor: str
    """As the audit log names them."""
    administrator: bool
    identity: Identity | None = None
    """None for the operator, who is nobody's account."""
    token: str | None = None
    expires: datetime | None = None

    def may_audit(self, authority: Authority, db: Db, node: str) -> bool:
        """Whether they may read recordings of sessions on *node*. The operator holds the folder anyway."""
        if self.identity is None:
            return True
        view = authority.rights.view(db)
        return policy.may_audit(self.identity, view.roles, node, locks=view.locks, now=db.now)

    def may_read_events(self, authority: Authority, db: Db) -> bool:
        if self.identity is None:
            return True
        view = authority.rights.view(db)
        return policy.may_read_events(self.identity, view.roles, locks=view.locks, now=db.now)


def authority_of(request: Request) -> Authority:
    authority: Authority = request.app.state.authority
    return authority


Here = Annotated[Authority, Depends(authority_of)]


def source_of(request: Request) -> str:
    """The address that a request came from; the socket is ``local``."""
    if request.scope.get(UNIX) or request.client is None:
        return LOCAL
    return request.client.host[:64]


Source = Annotated[str, Depends(source_of)]


async def _caller(request: Request, authority: Here) -> Caller:
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    text = text.strip()
    if kind.lower() != "bearer" or not text:
        raise NotSignedIn("this needs a sign-in", hint="bart login")
    if request.scope.get(UNIX) and hmac.compare_digest(text.encode(), authority.admin_token.encode()):
        return Caller(actor=LOCAL, administrator=True)
    return await vouched_for(authority, lambda db: person(authority, db, text))


async def vouched_for(authority: Authority, look: Callable[[Db], Caller]) -> Caller:
    """Whom *look* finds. When their identity provider's last word is old, it is asked, and they are looked at again."""
    caller = await authority.store.read(look)
    if caller.identity is None:
        return caller
    outcome = await authority.recheck.fresh(caller.identity.user)
    if outcome is Outcome.REFUSED:
        raise await authority.recheck.refusal(caller.identity.user)
    return caller if outcome is None else await authority.store.read(look)


def person(authority: Authority, db: Db, text: str, *, kind: str = "login") -> Caller:
    """The person behind a token of *kind*, with the roles of now. A lock or a closed account ends it at once."""
    token = tokens.find(db, kind, text)
    account = None if token is None or token.user is None else users.find(db, token.user)
    if token is None or account is None or account.shut:
        raise NotSignedIn("your sign-in is over", hint="bart login")
    view = authority.rights.view(db)
    lock = policy.barred(account.identity, locks=view.locks, now=db.now)
    if lock is not None:
        raise AccessDenied(f"access is locked by an administrator: {lock.reason}", code="locked")
    return Caller(
        actor=f"user:{account.name}",
        administrator=policy.may_administer(account.identity, locks=view.locks, now=db.now),
        identity=account.identity,
        token=text,
        expires=token.expires,
    )


Anyone = Annotated[Caller, Depends(_caller)]
"""Whoever is signed in."""


async def _administrator(caller: Anyone) -> Caller:
    if not caller.administrator:
        raise AccessDenied(
            "only an administrator may do this", hint="on the authority's own machine: bartizan --data FOLDER …"
        )
    return caller


Administrator = Annotated[Caller, Depends(_administrator)]


async def _bastion(request: Request, authority: Here) -> Bastion:
    key = request.scope.get(PEER)
    if key is None:
        raise NotSignedIn("this needs the client certificate of an enrolled bastion")
    found = await authority.store.read(lambda db: bastions.by_tls_key(db, key))
    if found is None:
        raise AccessDenied("this bastion is not enrolled (any more)", code="bastion_unknown")
    return found


EnrolledBastion = Annotated[Bastion, Depends(_bastion)]
