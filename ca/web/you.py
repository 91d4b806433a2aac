"""The page of a person: who one is, what is open to one, what one has been given, and how all of it is ended."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from ca import audit, second_factor
from ca.certificate import CA
from ca.errors import BartizanError, NotFound
from ca.sign_out import sign_out
from ca.store import Db, certificates, sessions, tokens, users
from ca.store import audit as log
from ca.store.certificates import Record
from ca.web.pages import PageRoute, see_other
from ca.web.visitor import SESSION, Somebody, Visitor, forget
from ca.web.vouched import vouching

MOST_NODES = 50
MOST_SESSIONS = 12
NOTES = {
    "browser": "That browser is signed out.",
    "certificate": "The certificate is revoked. Sessions that began with it have ended.",
    "factor": "The second factor is removed. Your password alone signs you in now.",
}

router = APIRouter(tags=["pages"], route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class Browser:
    """A web session, as a person recognises it."""

    id: str
    agent: str
    source: str
    created: datetime
    here: bool


@router.get("/you")
async def show(visitor: Somebody, done: str = "") -> HTMLResponse:
    """Who one is, and what is open to one."""
    authority, who = visitor.authority, visitor.who

    def work(db: Db) -> dict[str, Any]:
        account, mine = users.find(db, who.user), tokens.find(db, "web", visitor.session)
        nodes = authority.rights.reachable(db, who)
        return {
            "account": account,
            "created": db.now if mine is None else mine.created,
            "expires": db.now if mine is None else mine.expires,
            "browsers": _browsers(db, visitor),
            "nodes": nodes[:MOST_NODES],
            "more_nodes": max(0, len(nodes) - MOST_NODES),
            "certificates": certificates.good_ones_of(db, who.user),
            "sessions": sessions.listing(db, user=who.user, limit=MOST_SESSIONS),
        }

    found = await authority.store.read(work)
    account: users.Account = found.pop("account")
    now = authority.clock()
    return visitor.page(
        "you.html",
        user=who.user,
        provider=await vouching(visitor),
        provider_account=account.provider is not None,
        factor=None if account.provider else await _factor(visitor, account),
        roles=sorted(who.roles),
        traits=sorted(who.traits.items()),
        note=NOTES.get(done),
        url=authority.settings.web_url,
        pin=authority.root.pin,
        ago=partial(ago, now=now),
        ahead=partial(ahead, now=now),
        clock=partial(clock, now=now),
        day=day,
        lasted=lasted,
        leave=visitor.token("/you/sign-out"),
        end_browser=visitor.token("/you/browsers/end"),
        **found,
    )


async def _factor(visitor: Visitor, account: users.Account) -> Mapping[str, object] | None:
    found = await second_factor.view(visitor.authority, account)
    return {"created": found.created, "left": found.recovery_codes_left} if found.confirmed else None


def _browsers(db: Db, visitor: Visitor) -> list[Browser]:
    here = tokens.digest(visitor.session)
    found = [
        Browser(
            id, named(str(token.data.get("agent", ""))), str(token.data.get("source", "")), token.created, id == here
        )
        for id, token in tokens.all_of(db, visitor.who.user, "web")
    ]
    return sorted(found, key=lambda one: (one.here, one.created), reverse=True)


# --- ends -------------------------------------------------------------------------------------------------------------


@router.get("/you/sign-out")
async def ask_everywhere(visitor: Somebody) -> HTMLResponse:
    """Everywhere? Says what that ends."""
    user = visitor.who.user

    def work(db: Db) -> tuple[int, int, int]:
        live = len(sessions.listing(db, live=True, user=user))
        return live, len(certificates.good_ones_of(db, user)), len(tokens.all_of(db, user, "web"))

    live, good, browsers = await visitor.authority.store.read(work)
    return sure(
        visitor,
        "Sign out everywhere?",
        [
            f"This ends at once: {counted(browsers, 'browser sign-in')}, {counted(good, 'certificate')} and "
            f"{counted(live, 'live ssh session')}.",
            "Nobody who got hold of one of them can use it any longer. You sign in again here, and with bart login on "
            "each machine.",
        ],
        action="/you/sign-out",
        yes="Sign out everywhere",
        extra={"where": "everywhere"},
    )


@router.post("/you/sign-out")
async def leave(request: Request, visitor: Somebody) -> Response:
    """Here or everywhere."""
    fields = await visitor.form(request)
    everywhere = fields.get("where") == "everywhere"
    user = visitor.who.user
    await sign_out(visitor.authority, user, token=visitor.session, everywhere=everywhere, actor=f"user:{user}")
    answer = see_other(f"/sign-in?signed-out={'everywhere' if everywhere else 'here'}")
    forget(answer, SESSION)
    return answer


@router.post("/you/browsers/end")
async def end_browser(request: Request, visitor: Somebody) -> Response:
    """Sign another browser out."""
    fields = await visitor.form(request)
    user = visitor.who.user

    def work(db: Db) -> None:
        if tokens.end_by_id(db, user, "web", fields.get("id", "")):
            log.append(db, audit.LoginEnded(user=user), actor=f"user:{user}")

    await visitor.authority.store.write(work)
    return see_other("/you?done=browser")


@router.get("/you/certificates/{serial}")
async def ask_revoke(serial: int, visitor: Somebody) -> HTMLResponse:
    """Revoke this certificate?"""
    record = await visitor.authority.store.read(lambda db: _own(db, visitor, serial))
    until = clock(record.valid_before, now=visitor.authority.clock())
    return sure(
        visitor,
        f"Revoke certificate {record.serial}?",
        [
            f"It is for the key {record.subject}, and good until {until}.",
            "Sessions that began with it end at once, and it opens none from then on. The machine that has it signs in "
            "again with bart login.",
        ],
        action=f"/you/certificates/{record.serial}",
        yes="Revoke",
    )


@router.post("/you/certificates/{serial}")
async def revoke(serial: int, request: Request, visitor: Somebody) -> Response:
    """Take one of one's own certificates back."""
    await visitor.form(request)

    def work(db: Db) -> None:
        record = _own(db, visitor, serial)
        revoke_for(db, record, reason="revoked by its owner", actor=f"user:{visitor.who.user}")

    await visitor.authority.change(work)
    return see_other("/you?done=certificate")


def _own(db: Db, visitor: Visitor, serial: int) -> Record:
    user = visitor.who.user
    found = next((one for one in certificates.good_ones_of(db, user) if one.serial == serial), None)
    if found is None:
        raise NotFound("you have no certificate of this number that is still good")
    return found


def revoke_for(db: Db, record: Record, *, reason: str, actor: str) -> None:
    certificates.mark(db, CA.USER, [record.serial], "revoked")
    if record.user is not None:
        tokens.end_of_certificate(db, record.user, record.serial)
    log.append(db, audit.CertificateRevoked(ca=CA.USER, serial=record.serial, reason=reason), actor=actor)


def sure(
    visitor: Visitor,
    heading: str,
    lines: list[str],
    *,
    action: str,
    yes: str,
    extra: Mapping[str, str] | None = None,
    code: bool = False,
    grave: bool = True,
    error: BartizanError | None = None,
) -> HTMLResponse:
    """A page that asks before something is done that cannot be undone. *code*: and for a code."""
    return visitor.page(
        "sure.html",
        user=visitor.who.user,
        heading=heading,
        lines=lines,
        action=action,
        yes=yes,
        extra=extra or {},
        code=code,
        grave=grave,
        error=error,
        form=visitor.token(action),
        leave=visitor.token("/you/sign-out"),
    )


# --- in words ---------------------------------------------------------------------------------------------------------


def counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def span(length: timedelta) -> str:
    """``3 h``: the largest unit that says enough."""
    seconds = int(length.total_seconds())
    for unit, size in (("day", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            number = seconds // size
            return counted(number, unit) if unit == "day" else f"{number} {unit}"
    return f"{max(seconds, 0)} s"


def ago(at: datetime, *, now: datetime) -> str:
    return "just now" if now - at < timedelta(minutes=1) else f"{span(now - at)} ago"


def ahead(at: datetime, *, now: datetime) -> str:
    return f"in {span(at - now)}"


def lasted(began: datetime, ended: datetime) -> str:
    return f"ended after {span(ended - began)}"


def day(at: datetime) -> str:
    return f"{at:%-d %b %Y}"


def clock(at: datetime, *, now: datetime) -> str:
    """The time of day; with the day, unless it is today."""
    return f"{at:%H:%M} UTC" if at.date() == now.date() else f"{at:%-d %b, %H:%M} UTC"


_BROWSERS = (("Edg", "Edge"), ("OPR", "Opera"), ("Firefox", "Firefox"), ("Chrom", "Chrome"), ("Safari", "Safari"))
_SYSTEMS = (
    (r"iPhone|iPad", "iOS"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Mac OS|Macintosh", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux|X11", "Linux"),
)


def named(agent: str) -> str:
    """``Firefox on Linux``: what a browser calls itself, as its owner would."""
    browser = next((name for word, name in _BROWSERS if word in agent), "A browser")
    system = next((name for word, name in _SYSTEMS if re.search(word, agent)), None)
    return browser if system is None else f"{browser} on {system}"
