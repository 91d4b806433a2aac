"""HTTP for second factors: one's own, before a sign-in that wants one, and an administrator's reset."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from ca import second_factor
from ca.api.callers import Administrator, Anyone, Here, Source
from ca.api.users import find
from ca.errors import AccessDenied, Conflict
from ca.sign_in import with_password
from ca.store.users import Account
from ca.wire import FactorBegun, FactorCode, FactorRequest, FactorView, RecoveryCodes

router = APIRouter(prefix="/v1", tags=["second factor"])


async def _own(authority: Here, caller: Anyone) -> Account:
    """The caller's account, if it is a local one."""
    identity = caller.identity
    if identity is None:
        raise AccessDenied("only a person has a second factor", hint="sign in: bart login")
    account = await authority.store.read(lambda db: find(db, identity.user))
    second_factor.refuse_provided(account)
    return account


Own = Annotated[Account, Depends(_own)]


@router.get("/me/second-factor")
async def show(authority: Here, account: Own) -> FactorView:
    """How it stands with one's own."""
    return await second_factor.view(authority, account)


@router.post("/me/second-factor")
async def begin(authority: Here, account: Own) -> FactorBegun:
    """A secret for an authenticator app. It counts once a code has confirmed it."""
    return await second_factor.begin(authority, account)


@router.post("/me/second-factor/confirmation")
async def confirm(sent: FactorCode, authority: Here, account: Own, source: Source) -> RecoveryCodes:
    """Confirm the secret with a code of the app. Gives the recovery codes, this once."""
    return RecoveryCodes(codes=list(await second_factor.confirm(authority, account, sent.code, source=source)))


@router.post("/me/second-factor/recovery-codes")
async def recovery_codes(sent: FactorCode, authority: Here, account: Own, source: Source) -> RecoveryCodes:
    """New recovery codes, for a code. Earlier ones are worth nothing."""
    made = await second_factor.new_recovery_codes(authority, account, sent.code, source=source)
    return RecoveryCodes(codes=list(made))


@router.delete("/me/second-factor", status_code=204)
async def remove(sent: FactorCode, authority: Here, account: Own, source: Source) -> None:
    """Take one's own away, for a code."""
    await second_factor.remove(authority, account, sent.code, source=source)


@router.post("/login/second-factor")
async def begin_before_sign_in(request: FactorRequest, authority: Here, source: Source) -> FactorBegun:
    """Begin one where a role wants it and there is none yet. Signing in with a code of it confirms it."""
    try:
        with authority.doors.signing_in(source, now=authority.clock()):
            await with_password(authority, request.user, request.password, None, source=source)
    except AccessDenied as refused:
        if refused.code != "second_factor_setup":
            raise
    else:
        raise Conflict("no role of yours wants a second factor", hint="sign in, then: bart second-factor add")
    account = await authority.store.read(lambda db: find(db, request.user))
    return await second_factor.begin(authority, account)


@router.post("/users/{name}/second-factor/reset", status_code=204)
async def reset(name: str, authority: Here, caller: Administrator) -> None:
    """Take somebody's away: the telephone is lost, and the recovery codes too. Ends their sign-ins."""
    account = await authority.store.read(lambda db: find(db, name))
    await second_factor.reset(authority, account, actor=caller.actor)
