"""
The pages of signing in: every way that the operator enabled. Each ends in a new web session, never in an old one.

What a person is halfway through lies sealed in the store under a one-use token, and is bound to their browser: the
password that was right until the code has come, the attempt with a provider until they come back from there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Annotated
from urllib.parse import quote

import segno
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
from markupsafe import Markup

from ca import second_factor, sign_in
from ca.api.login import methods
from ca.errors import AccessDenied, BartizanError, NotFound, NotSignedIn, TooMany
from ca.sign_in import SignedIn
from ca.store import Db, tokens, users
from ca.web import pages
from ca.web.pages import PageRoute, local, see_other
from ca.web.visitor import SESSION, Anybody, Somebody, Visitor, forget, keep

HALF = "__Host-bartizan-half"
HALF_LIFE = timedelta(minutes=5)
ATTEMPT_LIFE = timedelta(minutes=10)
PURPOSES = {
    "/sign-in/terminal": "Then the terminal can go on in your name.",
    "/device": "Then the other machine can go on in your name.",
}
LEFT = {
    "here": "You are signed out here. Certificates on your machines stay good until they end.",
    "everywhere": "You are signed out everywhere. Your certificates are revoked, and your sessions have ended.",
}

router = APIRouter(tags=["pages"], route_class=PageRoute)


@router.get("/")
async def start(visitor: Anybody) -> Response:
    return see_other("/you" if visitor.caller else "/sign-in")


@router.get("/sign-in")
async def show(
    visitor: Anybody, next: str = "/", again: str = "", signed_out: Annotated[str, Query(alias="signed-out")] = ""
) -> Response:
    """Every way to sign in; also ``again``, for somebody who is."""
    if visitor.caller is not None and not again:
        return see_other(local(next))
    return await _ways(visitor, local(next), note=LEFT.get(signed_out))


@router.post("/sign-in")
async def with_password(request: Request, visitor: Anybody) -> Response:
    """A name and a password."""
    fields = await visitor.form(request)
    user, password, where = fields.get("user", ""), fields.get("password", ""), local(fields.get("next", ""))
    try:
        if not 0 < len(user) <= 64 or not 0 < len(password) <= 1024:
            raise NotSignedIn("user or password is wrong", code="login_failed")
        signed_in = await _proven(visitor, user, password, None)
    except (AccessDenied, NotSignedIn, TooMany) as error:
        if error.code in ("second_factor_required", "second_factor_setup"):
            return await _half_way(visitor, Half(user, password, where), set_up=error.code == "second_factor_setup")
        return await _ways(visitor, where, user=user, error=error)
    return await arrived(visitor, signed_in, where)


@router.get("/sign-in/code")
async def ask_code(request: Request, visitor: Anybody) -> Response:
    """The password was right; now the code."""
    half = await _half(request, visitor)
    return _code_page(visitor, half)


@router.post("/sign-in/code")
async def with_code(request: Request, visitor: Anybody) -> Response:
    half = await _half(request, visitor)
    try:
        return await _whole(request, visitor, half)
    except (AccessDenied, NotSignedIn, TooMany) as error:
        if error.code == "second_factor_setup":
            return await _half_way(visitor, half, set_up=True)
        return _code_page(visitor, half, error)


@router.get("/sign-in/second-factor")
async def ask_set_up(request: Request, visitor: Anybody) -> Response:
    """The password was right; a role wants a second factor, and there is none yet."""
    half = await _half(request, visitor)
    return _set_up_page(visitor, half) if half.uri else see_other("/sign-in/code")


@router.post("/sign-in/second-factor")
async def with_set_up(request: Request, visitor: Anybody) -> Response:
    half = await _half(request, visitor)
    try:
        return await _whole(request, visitor, half)
    except (AccessDenied, NotSignedIn, TooMany) as error:
        return _set_up_page(visitor, half, error)


@router.post("/sign-in/kept")
async def kept(request: Request, visitor: Somebody) -> Response:
    """The recovery codes are where they will be found."""
    fields = await visitor.form(request)
    return see_other(local(fields.get("next", ""), "/you"))


# --- half way -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Half:
    """Somebody whose password was right."""

    user: str
    password: str
    next: str
    secret: str = ""
    uri: str = ""
    """A second factor that is being set up."""


async def _half_way(visitor: Visitor, half: Half, *, set_up: bool) -> Response:
    """On to the page that asks for a code, or shows what makes codes."""
    authority = visitor.authority
    if set_up:
        account = await authority.store.read(lambda db: users.find(db, half.user))
        if account is None:
            raise NotFound("this account is gone")
        begun = await second_factor.begin(authority, account)
        half = Half(half.user, half.password, half.next, begun.secret, begun.uri)
    sealed = authority.sealer.seal(f"half:{visitor.browser}", json.dumps(asdict(half)))
    text, _ = await authority.store.write(lambda db: tokens.make(db, "half", life=HALF_LIFE, data={"sealed": sealed}))
    answer = see_other("/sign-in/second-factor" if set_up else "/sign-in/code")
    keep(answer, HALF, text, same_site="strict")
    return visitor.remembered(answer)


async def _half(request: Request, visitor: Visitor) -> Half:
    text = request.cookies.get(HALF, "")
    token = await visitor.authority.store.read(lambda db: tokens.find(db, "half", text)) if text else None
    if token is None:
        raise pages.Elsewhere("/sign-in")
    opened = visitor.authority.sealer.open(f"half:{visitor.browser}", str(token.data["sealed"]))
    return Half(**json.loads(opened))


async def _whole(request: Request, visitor: Visitor, half: Half) -> Response:
    """Name, password and code together. Raises what ``sign_in`` raises."""
    code = (await visitor.form(request)).get("code", "").strip()
    if not 0 < len(code) <= 64:
        raise NotSignedIn("the code is wrong", code="second_factor_failed")
    signed_in = await _proven(visitor, half.user, half.password, code)
    await visitor.authority.store.write(lambda db: tokens.end(db, request.cookies[HALF]))
    answer = await arrived(visitor, signed_in, half.next)
    forget(answer, HALF)
    return answer


async def _proven(visitor: Visitor, user: str, password: str, code: str | None) -> SignedIn:
    """Whose password this is, if so many tries from there may still fail."""
    authority, source = visitor.authority, visitor.source
    with authority.doors.signing_in(source, now=authority.clock()):
        return await sign_in.with_password(authority, user, password, code, source=source)


# --- arrived ------------------------------------------------------------------------------------------------------


async def arrived(visitor: Visitor, signed_in: SignedIn, where: str) -> Response:
    """Signed in: a new web session, whatever the browser had before."""
    authority = visitor.authority
    text, _ = await sign_in.web_session(authority, signed_in, source=visitor.source, agent=visitor.agent)

    def end_before(db: Db) -> None:
        if visitor.session:
            tokens.end(db, visitor.session)

    await authority.store.write(end_before)
    if signed_in.recovery_codes:
        new = replace(visitor, session=text)
        answer: Response = recovery_codes(new, signed_in.recovery_codes, "You are signed in", where)
    else:
        answer = visitor.remembered(see_other("/you" if where == "/" else where))
    keep(answer, SESSION, text)
    return answer


def recovery_codes(
    visitor: Visitor, codes: Sequence[str], heading: str, where: str, *, instead: bool = False
) -> HTMLResponse:
    """The codes, this once. *instead*: of others, which work no longer."""
    form = visitor.token("/sign-in/kept")
    return visitor.page("recovery_codes.html", codes=codes, heading=heading, form=form, next=where, instead=instead)


async def _ways(
    visitor: Visitor,
    where: str,
    *,
    user: str = "",
    note: str | None = None,
    error: BartizanError | None = None,
) -> HTMLResponse:
    authority = visitor.authority
    ways = (await methods(authority)).methods
    providers = [{"title": one.title, "href": with_link(one.name, where)} for one in ways if one.kind == "provider"]
    return visitor.page(
        "sign_in.html",
        error=error,
        purpose=PURPOSES.get(where.partition("?")[0], "See your nodes, certificates and sessions."),
        providers=providers,
        passwords=any(one.kind == "password" for one in ways),
        next=where,
        user=user,
        note=note,
        form=visitor.token("/sign-in"),
    )


def _code_page(visitor: Visitor, half: Half, error: BartizanError | None = None) -> HTMLResponse:
    form = visitor.token("/sign-in/code")
    return visitor.page("sign_in_code.html", error=error, user=half.user, form=form)


def _set_up_page(visitor: Visitor, half: Half, error: BartizanError | None = None) -> HTMLResponse:
    return visitor.page(
        "factor_set_up.html",
        error=error,
        user=half.user,
        wanted=True,
        leave="",
        qr=qr(half.uri),
        secret=half.secret,
        action="/sign-in/second-factor",
        form=visitor.token("/sign-in/second-factor"),
        back="/sign-in",
        back_text="Start over, or sign in as somebody else",
    )


def qr(uri: str) -> Markup:
    """*uri* as a picture in the page itself: it is a secret, so no address leads to it."""
    code = segno.make(uri, error="m", micro=False)
    return Markup(code.svg_inline(border=2, omitsize=True, svgclass=None, lineclass=None))  # segno's own words


def with_link(provider: str, where: str) -> str:
    """The way to a provider, and from there to *where*."""
    return f"/sign-in/with/{provider}?next={quote(where, safe='')}"


def back_to(where: str) -> str:
    return f"/sign-in?next={quote(where, safe='')}"
