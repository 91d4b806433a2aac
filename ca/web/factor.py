"""The pages on which a person with a local account sets up a second factor, makes new recovery codes, or removes it."""

from __future__ import annotations

import json

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from ca import second_factor
from ca.errors import AccessDenied, BartizanError, Conflict, NotSignedIn
from ca.store import users
from ca.store.users import Account
from ca.web.pages import PageRoute, see_other
from ca.web.signing_in import qr, recovery_codes
from ca.web.visitor import Somebody, Visitor, forget, keep
from ca.web.you import sure

BEGUN = "__Host-bartizan-factor"

router = APIRouter(prefix="/you/second-factor", tags=["pages"], route_class=PageRoute)


@router.get("")
async def ask(visitor: Somebody) -> Response:
    """A secret of its own for each look at this page; it counts once a code has confirmed it."""
    account = await _account(visitor)
    if (await second_factor.view(visitor.authority, account)).confirmed:
        return see_other("/you")
    begun = await second_factor.begin(visitor.authority, account)
    sealed = visitor.authority.sealer.seal(_about(visitor), json.dumps([begun.secret, begun.uri]))
    answer = _set_up(visitor, begun.secret, begun.uri)
    keep(answer, BEGUN, sealed, same_site="strict")
    return answer


@router.post("")
async def confirm(request: Request, visitor: Somebody) -> Response:
    """The code that the app shows."""
    code = await _code(request, visitor)
    account = await _account(visitor)
    try:
        codes = await second_factor.confirm(visitor.authority, account, code, source=visitor.source)
    except (AccessDenied, NotSignedIn) as error:
        secret, uri = json.loads(visitor.authority.sealer.open(_about(visitor), request.cookies.get(BEGUN, "")))
        return _set_up(visitor, secret, uri, error)
    answer = recovery_codes(visitor, codes, "Your second factor is set up", "/you")
    forget(answer, BEGUN)
    return answer


@router.get("/recovery-codes")
async def ask_recovery_codes(visitor: Somebody) -> Response:
    """New recovery codes?"""
    return _sure_codes(visitor)


@router.post("/recovery-codes")
async def new_recovery_codes(request: Request, visitor: Somebody) -> Response:
    """New ones, for a code."""
    code = await _code(request, visitor)
    try:
        account = await _account(visitor)
        codes = await second_factor.new_recovery_codes(visitor.authority, account, code, source=visitor.source)
    except (AccessDenied, NotSignedIn) as error:
        return _sure_codes(visitor, error)
    return recovery_codes(visitor, codes, "New recovery codes", "/you", instead=True)


@router.get("/remove")
async def ask_remove(visitor: Somebody) -> Response:
    """Remove the second factor?"""
    return _sure_remove(visitor)


@router.post("/remove")
async def remove(request: Request, visitor: Somebody) -> Response:
    """Without it the password alone signs one in; so it takes a code."""
    code = await _code(request, visitor)
    try:
        await second_factor.remove(visitor.authority, await _account(visitor), code, source=visitor.source)
    except (AccessDenied, NotSignedIn) as error:
        return _sure_remove(visitor, error)
    return see_other("/you?done=factor")


async def _account(visitor: Visitor) -> Account:
    """The account, if its second factor is ours to change."""
    user = visitor.who.user
    account = await visitor.authority.store.read(lambda db: users.find(db, user))
    if account is None or account.provider is not None:
        raise Conflict("your identity provider asks for the second factor", hint="set it up there")
    return account


async def _code(request: Request, visitor: Visitor) -> str:
    fields = await visitor.form(request)
    _ = visitor.who
    return fields.get("code", "").strip()[:64] or "-"


def _set_up(visitor: Visitor, secret: str, uri: str, error: BartizanError | None = None) -> HTMLResponse:
    return visitor.page(
        "factor_set_up.html",
        error=error,
        user=visitor.who.user,
        wanted=False,
        leave=visitor.token("/you/sign-out"),
        qr=qr(uri),
        secret=secret,
        action="/you/second-factor",
        form=visitor.token("/you/second-factor"),
        back="/you",
        back_text="Not now",
    )


def _sure_codes(visitor: Visitor, error: BartizanError | None = None) -> HTMLResponse:
    return sure(
        visitor,
        "New recovery codes?",
        ["The ones that you have now stop working."],
        action="/you/second-factor/recovery-codes",
        yes="Make new ones",
        code=True,
        grave=False,
        error=error,
    )


def _sure_remove(visitor: Visitor, error: BartizanError | None = None) -> HTMLResponse:
    return sure(
        visitor,
        "Remove the second factor?",
        [
            "Your password alone will sign you in. Where a role of yours wants a second factor, the next sign-in sets "
            "up a new one."
        ],
        action="/you/second-factor/remove",
        yes="Remove",
        code=True,
        error=error,
    )


def _about(visitor: Visitor) -> str:
    """What the secret is bound to while it waits in the browser to be confirmed."""
    return f"factor-page:{visitor.who.user}:{visitor.browser}"
