"""
Who looks at a page: a browser, and the person who is signed in with it, looked up anew at every request.

The web session is a token of its own kind: it opens no route of the API, and no token of the API is ever taken from a
cookie. Cookies are ``__Host-``: only this host sets them, only over TLS, and no script reads them.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, Response

from ca.api.callers import Caller, Here, Source, person, vouched_for
from ca.app import Authority
from ca.errors import AccessDenied, BartizanError, NotSignedIn
from ca.model import Identity
from ca.store import Db, tokens
from ca.web import pages

SESSION = "__Host-bartizan"
BROWSER = "__Host-bartizan-browser"

R = TypeVar("R", bound=Response)


@dataclass(frozen=True, slots=True)
class Visitor:
    """A browser that asks for a page. ``caller`` None: nobody is signed in with it."""

    authority: Authority
    browser: str
    """A random word of this browser, which ties forms and sign-ins on their way to it."""
    known: bool
    """Whether the browser brought that word, or has still to be told."""
    session: str
    source: str
    agent: str
    here: str
    """The page that it asks for, with its query."""
    caller: Caller | None = None
    method: str = ""
    """How they signed in, as the audit log names it."""
    locked: AccessDenied | None = None
    """Why the person who is signed in may not do anything now."""

    @property
    def who(self) -> Identity:
        """The person. A stranger signs in first, and then comes back here."""
        if self.locked is not None:
            raise self.locked
        if self.caller is None or self.caller.identity is None:
            raise pages.Elsewhere(f"/sign-in?next={quote(self.here, safe='')}")
        return self.caller.identity

    @property
    def with_code(self) -> bool:
        """Whether this sign-in showed a second factor of ours."""
        return self.method == "password+code"

    def token(self, goes_to: str) -> str:
        """What a form that goes to this path carries."""
        return self.authority.issuer.form_token(f"page\0{goes_to}\0{self.browser}\0{self.session}")

    async def form(self, request: Request) -> dict[str, str]:
        """The fields that were sent here, from a form of ours."""
        return await pages.read_form(request, self.token(request.scope["path"]))

    def page(self, name: str, *, error: BartizanError | None = None, form_to: str = "", **values: Any) -> HTMLResponse:
        """A page for this browser; with *error*, the page on which it can be mended."""
        return self.remembered(pages.page(self.authority, name, error=error, form_to=form_to, **values))

    def remembered(self, answer: R) -> R:
        """*answer*, with which the browser is told its word if it brought none."""
        if not self.known:
            keep(answer, BROWSER, self.browser)
        return answer


def keep(answer: Response, name: str, text: str, *, same_site: Literal["lax", "strict"] = "lax") -> None:
    """Let the browser keep *text* until it is closed."""
    answer.set_cookie(name, text, path="/", secure=True, httponly=True, samesite=same_site)


def forget(answer: Response, name: str) -> None:
    answer.delete_cookie(name, path="/", secure=True, httponly=True, samesite="lax")


async def _visitor(request: Request, authority: Here, source: Source) -> Visitor:
    browser = request.cookies.get(BROWSER, "")
    session = request.cookies.get(SESSION, "")
    caller, method, locked = None, "", None
    if session:
        try:
            caller = await vouched_for(authority, lambda db: person(authority, db, session, kind="web"))
            method = await authority.store.read(lambda db: _method(db, session))
        except NotSignedIn:
            pass  # over: a stranger
        except AccessDenied as error:
            locked = error
    query = request.scope["query_string"].decode("latin-1")
    return Visitor(
        authority=authority,
        browser=browser or secrets.token_urlsafe(18),
        known=bool(browser),
        session=session,
        source=source,
        agent=request.headers.get("user-agent", "")[:256],
        here=request.scope["path"] + (f"?{query}" if query else ""),
        caller=caller,
        method=method,
        locked=locked,
    )


def _method(db: Db, session: str) -> str:
    token = tokens.find(db, "web", session)
    return "" if token is None else str(token.data.get("method", ""))


Anybody = Annotated[Visitor, Depends(_visitor)]


async def _somebody(visitor: Anybody, request: Request) -> Visitor:
    if request.method == "GET":
        _ = visitor.who
    elif visitor.caller is None and visitor.locked is None:
        raise pages.Elsewhere("/sign-in")
    return visitor


Somebody = Annotated[Visitor, Depends(_somebody)]
"""A visitor who is signed in; a stranger is sent to the sign-in page first."""
