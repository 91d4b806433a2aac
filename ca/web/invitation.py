"""
The invitation page: by a one-time link, a person sets a password.

Looking at the link does not use it up (mail scanners look). The form carries a token bound to a cookie of this
browser; the link is used up in the transaction that sets the password.
"""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from ca import audit
from ca.api.callers import Here
from ca.app import Authority
from ca.errors import InvalidInput
from ca.identity.local import SHORTEST
from ca.store import Db, logins, tokens, users
from ca.store import audit as log

ROOM = Path(__file__).parent
COOKIE = "__Secure-bartizan-form"
FORM = "application/x-www-form-urlencoded"
POLICY = (
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; img-src 'self'"
)
MOST_FIELDS = 8

router = APIRouter(tags=["pages"])
_pages = Environment(
    loader=FileSystemLoader(ROOM / "templates"), autoescape=select_autoescape(default=True), undefined=StrictUndefined
)
_style = (ROOM / "static" / "bartizan.css").read_text(encoding="utf-8")
_mark = (ROOM / "static" / "bartizan.svg").read_text(encoding="utf-8")
KEPT = {"Cache-Control": "max-age=3600"}


@router.get("/static/bartizan.css")
async def style() -> Response:
    return Response(_style, media_type="text/css", headers=KEPT)


@router.get("/static/bartizan.svg")
async def mark() -> Response:
    return Response(_mark, media_type="image/svg+xml", headers=KEPT)


@router.get("/invitation/{link}")
async def show(link: str, request: Request, authority: Here) -> HTMLResponse:
    """The form. The link stays good."""
    token = await authority.store.read(lambda db: tokens.find(db, "invitation", link))
    if token is None or token.user is None:
        return _page("over.html", 404)
    browser = request.cookies.get(COOKIE) or secrets.token_urlsafe(18)
    return _form(authority, link, token.user, browser)


@router.post("/invitation/{link}")
async def accept(link: str, request: Request, authority: Here) -> HTMLResponse:
    """Set the password, and use the link up."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != FORM:
        return _page("over.html", 415)
    fields = _fields(await request.body())
    browser = request.cookies.get(COOKIE, "")
    expected = _form_token(authority, link, browser)
    if not browser or not hmac.compare_digest(fields.get("form", "").encode(), expected.encode()):
        return _page("over.html", 403)
    token = await authority.store.read(lambda db: tokens.find(db, "invitation", link))
    if token is None or token.user is None:
        return _page("over.html", 404)
    password = fields.get("password", "")
    if password != fields.get("again", ""):
        return _form(authority, link, token.user, browser, "The two passwords are not the same.")
    try:
        password_hash = await authority.passwords.hashed(password)
    except InvalidInput:
        return _form(authority, link, token.user, browser, f"Use at least {SHORTEST} characters.")
    user = await authority.store.write(lambda db: _set(db, link, password_hash))
    if user is None:
        return _page("over.html", 404)
    return _page("done.html", 200, user=user, authority=authority.settings.web_url, pin=authority.root.pin)


def _set(db: Db, link: str, password_hash: str) -> str | None:
    token = tokens.use(db, "invitation", link)
    account = None if token is None or token.user is None else users.find(db, token.user)
    if account is None or account.disabled:
        return None
    users.set_password(db, account.name, password_hash)
    tokens.end_all_of(db, account.name)
    logins.forget(db, account.name)
    log.append(db, audit.UserPasswordSet(user=account.name, reset=False), actor=f"user:{account.name}")
    return account.name


def _form(authority: Authority, link: str, user: str, browser: str, problem: str | None = None) -> HTMLResponse:
    token = _form_token(authority, link, browser)
    page = _page("invitation.html", 400 if problem else 200, user=user, form=token, problem=problem, shortest=SHORTEST)
    page.set_cookie(COOKIE, browser, max_age=3600, path="/invitation", secure=True, httponly=True, samesite="strict")
    return page


def _form_token(authority: Authority, link: str, browser: str) -> str:
    return authority.issuer.form_token(f"invitation\0{link}\0{browser}")


def _fields(body: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError:
        return {}


def _page(name: str, status: int, **values: object) -> HTMLResponse:
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(_pages.get_template(name).render(**values), status, headers)
