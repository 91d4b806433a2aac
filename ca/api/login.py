"""HTTP for signing in and out, and for who one is."""

from __future__ import annotations

from fastapi import APIRouter

from ca import handover
from ca.api.callers import Anyone, Here, Source
from ca.sign_in import PURPOSE, sign_in
from ca.sign_out import sign_out
from ca.store import Db, certificates, device_logins, tokens, users
from ca.wire import (
    Challenge,
    DevicePoll,
    DeviceRequest,
    DeviceStarted,
    DeviceState,
    ExchangeRequest,
    LoginAnswer,
    LoginMethod,
    LoginMethods,
    LoginRequest,
    Me,
    SignOut,
)

router = APIRouter(prefix="/v1", tags=["login"])


@router.get("/login/methods")
async def methods(authority: Here) -> LoginMethods:
    """The ways to sign in here: each identity provider, and a password where somebody has one."""
    found = [
        LoginMethod(kind="provider", name=provider.name, title=provider.title)
        for provider in await authority.providers.all()
    ]
    if not found or await authority.store.read(users.any_local):
        found.append(LoginMethod(kind="password", name="password", title="Password"))
    return LoginMethods(methods=found)


@router.post("/login/challenge")
async def challenge(authority: Here, source: Source) -> Challenge:
    """A nonce to be signed with the key that is to be certified."""
    authority.doors.challenges.use(source, now=authority.clock())
    return Challenge(nonce=await authority.store.write(lambda db: tokens.challenge(db, PURPOSE)))


@router.post("/login")
async def login(request: LoginRequest, authority: Here, source: Source) -> LoginAnswer:
    """Sign in with a password; the answer holds the certificate."""
    with authority.doors.signing_in(source, now=authority.clock()):
        return await sign_in(authority, request, source=source)


@router.post("/login/exchange")
async def exchange(request: ExchangeRequest, authority: Here, source: Source) -> LoginAnswer:
    """Turn a sign-in that was finished in a browser into a certificate."""
    return await handover.exchange(authority, request, source=source)


@router.post("/login/device")
async def device(request: DeviceRequest, authority: Here, source: Source) -> DeviceStarted:
    """Begin to sign in on a machine without a browser (RFC 8628 §3.1)."""
    return await handover.device_ask(authority, request, source=source)


@router.post("/login/device/poll")
async def poll(request: DevicePoll, authority: Here) -> DeviceState:
    """Whether somebody has approved it (RFC 8628 §3.4). Then ``/login/exchange`` gives the certificate."""
    known = await authority.store.read(lambda db: device_logins.by_code(db, request.grant) is not None)
    return await handover.device_poll(authority, request.grant) if known else DeviceState(state="over")


@router.post("/logout", status_code=204)
async def logout(authority: Here, caller: Anyone, how: SignOut | None = None) -> None:
    """End the token; the certificate stays good until its end. Everywhere: every token and certificate ends now."""
    if caller.identity is not None:
        everywhere = how is not None and how.everywhere
        await sign_out(authority, caller.identity.user, token=caller.token, everywhere=everywhere, actor=caller.actor)


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
        account = users.find(db, identity.user)
        return Me(
            user=identity.user,
            roles=sorted(identity.roles),
            administrator=caller.administrator,
            certificate_expires=None if latest is None else latest.valid_before,
            cluster=authority.cluster_info(),
            nodes=authority.rights.reachable(db, identity),
            provider=None if account is None else account.provider,
        )

    return await authority.store.read(work)
