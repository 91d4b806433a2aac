"""HTTP for signing in and out, and for who one is."""

from __future__ import annotations

from fastapi import APIRouter

from ca import audit
from ca.api.callers import Anyone, Here, Source
from ca.sign_in import PURPOSE, sign_in
from ca.store import Db, certificates, tokens
from ca.store import audit as log
from ca.wire import Challenge, LoginAnswer, LoginRequest, Me

router = APIRouter(prefix="/v1", tags=["login"])


@router.post("/login/challenge")
async def challenge(authority: Here) -> Challenge:
    """A nonce to be signed with the key that is to be certified."""
    return Challenge(nonce=await authority.store.write(lambda db: tokens.challenge(db, PURPOSE)))


@router.post("/login")
async def login(request: LoginRequest, authority: Here, source: Source) -> LoginAnswer:
    """Sign in with a password; the answer holds the certificate."""
    return await sign_in(authority, request, source=source)


@router.post("/logout", status_code=204)
async def logout(authority: Here, caller: Anyone) -> None:
    """End the token. The certificate stays good until its end, or until an administrator revokes it."""

    def work(db: Db) -> None:
        if caller.token is not None and caller.identity is not None:
            tokens.end(db, caller.token)
            log.append(db, audit.LoginEnded(user=caller.identity.user), actor=caller.actor)

    await authority.store.write(work)


@router.get("/me")
async def me(authority: Here, caller: Anyone) -> Me:
    """Who is asking, and what is open to them."""
    identity = caller.identity
    if identity is None:
        return Me(
            user=caller.actor,
            roles=[],
            administrator=True,
            certificate_expires=None,
            cluster=authority.cluster_info(),
            nodes=[],
        )

    def work(db: Db) -> Me:
        latest = certificates.latest_of(db, identity.user)
        return Me(
            user=identity.user,
            roles=sorted(identity.roles),
            administrator=caller.administrator,
            certificate_expires=None if latest is None else latest.valid_before,
            cluster=authority.cluster_info(),
            nodes=authority.rights.reachable(db, identity),
        )

    return await authority.store.read(work)
