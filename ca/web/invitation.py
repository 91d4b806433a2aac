"""
The invitation page: by a one-time link, a person sets a password.

Looking at the link does not use it up (mail scanners look). The form carries a token bound to a cookie of this
browser; the link is used up in the transaction that sets the password.
"""

from __future__ import annotations

import secrets

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from ca import audit
from ca.api.callers import Here
from ca.app import Authority
from ca.errors import InvalidInput
from ca.identity.local import SHORTEST
from ca.store import Db, device_logins, logins, tokens, users
from ca.store import audit as log
from ca.web import pages

COOKIE = "__Secure-bartizan-form"

router = APIRouter(tags=["pages"], route_class=pages.PageRoute)


@router.get("/invitation/{link}")
async def show(link: str, request: Request, authority: Here) -> HTMLResponse:
    """The form. The link stays good."""
    token = await authority.store.read(lambda db: tokens.find(db, "invitation", link))
    if token is None or token.user is None:
        return pages.page(authority, "over.html", 404)
    browser = request.cookies.get(COOKIE) or secrets.token_urlsafe(18)
    return _form(authority, link, token.user, browser)


@router.post("/invitation/{link}")
async def accept(link: str, request: Request, authority: Here) -> HTMLResponse:
    """Set the password, and use the link up."""
    browser = request.cookies.get(COOKIE) or secrets.token_urlsafe(18)
    fields = await pages.read_form(request, _form_token(authority, link, browser))
    token = await authority.store.read(lambda db: tokens.find(db, "invitation", link))
    if token is None or token.user is None:
        return pages.page(authority, "over.html", 404)
    password = fields.get("password", "")
    if password != fields.get("again", ""):
        return _form(authority, link, token.user, browser, "The two passwords are not the same.")
    try:
        password_hash = await authority.passwords.hashed(password)
    except InvalidInput:
        return _form(authority, link, token.user, browser, f"Use at least {SHORTEST} characters.")
    user = await authority.store.write(lambda db: _set(db, link, password_hash))
    if user is None:
        return pages.page(authority, "over.html", 404)
    return pages.page(authority, "done.html", user=user, authority=authority.settings.web_url, pin=authority.root.pin)


def _set(db: Db, link: str, password_hash: str) -> str | None:
    token = tokens.use(db, "invitation", link)
    account = None if token is None or token.user is None else users.find(db, token.user)
    if account is None or account.disabled:
        return None
    users.set_password(db, account.name, password_hash)
    tokens.end_all_of(db, account.name)
    device_logins.end_all_of(db, account.name)
    logins.forget(db, account.name)
    log.append(db, audit.UserPasswordSet(user=account.name, reset=False), actor=f"user:{account.name}")
    return account.name


def _form(authority: Authority, link: str, user: str, browser: str, problem: str | None = None) -> HTMLResponse:
    token = _form_token(authority, link, browser)
    status = 400 if problem else 200
    page = pages.page(authority, "invitation.html", status, user=user, form=token, problem=problem, shortest=SHORTEST)
    page.set_cookie(COOKIE, browser, max_age=3600, path="/invitation", secure=True, httponly=True, samesite="strict")
    return page


def _form_token(authority: Authority, link: str, browser: str) -> str:
    return authority.issuer.form_token(f"invitation\0{link}\0{browser}")
