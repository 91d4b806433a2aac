"""
The page on which somebody who is signed in lets another machine in, by the code that it shows (RFC 8628).

Whoever is talked into typing a stranger's code lets the stranger in. So the page shows who asks, from where and since
when, says so in plain words, and No comes first.
"""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from ca import handover, login
from ca.errors import BartizanError, Conflict, NotFound
from ca.login import DeviceLogin
from ca.web import pages
from ca.web.pages import PageRoute, see_other
from ca.web.visitor import Somebody, Visitor
from ca.web.vouched import check_code, once_more, to_ask_again, vouching

router = APIRouter(tags=["pages"], route_class=PageRoute)


@router.get("/device")
async def ask(visitor: Somebody, code: str = "") -> Response:
    """A field for the code; or, with a code, who asks."""
    await check_code(visitor)
    if not code:
        return _enter(visitor)
    again = await to_ask_again(visitor)
    if again is not None:
        return once_more(visitor, again, visitor.here)
    try:
        found = await handover.device_find(visitor.authority, code[:64], source=visitor.source)
    except NotFound as error:
        return _enter(visitor, code=code[:16], error=error)
    return visitor.page(
        "device_ask.html",
        user=visitor.who.user,
        provider=await vouching(visitor),
        host=found.host,
        source=found.source,
        created=found.created,
        now=visitor.authority.clock(),
        code=found.user_code,
        word=login.check_word(found.challenge),
        form=visitor.token("/device"),
        leave=visitor.token("/you/sign-out"),
    )


@router.post("/device")
async def decide(request: Request, visitor: Somebody) -> Response:
    """A code was typed; or it is yes or no."""
    fields = await visitor.form(request)
    code, step = fields.get("code", "")[:64], fields.get("step", "")
    if step not in ("approve", "deny"):
        return see_other(f"/device?code={quote(code, safe='')}" if code.strip() else "/device")
    user = visitor.who.user
    again = await to_ask_again(visitor) if step == "approve" else None
    if again is not None:
        return once_more(visitor, again, f"/device?code={quote(code, safe='')}")
    try:
        decided = await handover.device_decide(
            visitor.authority,
            code,
            user=user,
            approve=step == "approve",
            source=visitor.source,
            with_code=visitor.with_code,
        )
    except (Conflict, NotFound) as error:
        return _enter(visitor, error=error)
    return _done(visitor, decided, approved=step == "approve")


def _enter(visitor: Visitor, *, code: str = "", error: BartizanError | None = None) -> HTMLResponse:
    return visitor.page(
        "device.html",
        error=error,
        user=visitor.who.user,
        code=code,
        form=visitor.token("/device"),
        leave=visitor.token("/you/sign-out"),
    )


def _done(visitor: Visitor, decided: DeviceLogin, *, approved: bool) -> HTMLResponse:
    links = [("To your page", "/you")]
    if not approved:
        return pages.message(
            visitor.authority,
            "It stays out",
            f"{decided.host} has been told so, and got nothing.",
            hint="You did not ask for this? Tell your administrator: somebody tried to get in as you.",
            links=links,
        )
    return pages.message(
        visitor.authority,
        "It is let in",
        f"{decided.host} goes on by itself in a few seconds, as {visitor.who.user}.",
        hint="You can close this page.",
        links=links,
    )
