"""
How every page is made and every form is read: templates, headers, form tokens, limits. No page does this on its own.

A page runs no script, loads nothing from elsewhere and is kept by no cache. A form is taken only from the page that
carried it: its token is bound to where it goes, to a cookie of this browser and to the sign-in it was made under.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.exceptions import HTTPException
from starlette.types import Scope

from ca import wire
from ca.api import render
from ca.app import Authority
from ca.errors import BartizanError, TooMany

FORM = "application/x-www-form-urlencoded"
LONGEST_FORM = 16_384
MOST_FIELDS = 16

Link = tuple[str, str]
"""What a button says, and where it leads."""

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
    trim_blocks=True,
)

TITLES = {
    "access_denied": "You may not do this",
    "conflict": "Too late for that",
    "grant_invalid": "That code is over",
    "invalid_input": "We do not understand this",
    "locked": "Your access is locked",
    "locked_out": "Too many wrong tries",
    "bug": "Something went wrong here",
    "method_not_allowed": "This page does not take that",
    "no_code": "No machine shows this code",
    "not_found": "There is no such page",
    "provider_unreachable": "The provider does not answer",
    "too_large": "That is too much",
    "too_many": "Please slow down",
    "too_slow": "That took too long",
    "user_disabled": "This account is closed",
    "wrong_host": "This is another place than you asked for",
}
"""How a page is headed, by the code of the error; the sentence below comes with the error."""


class Refusal(Exception):
    """A request that gets a page of its own instead of the one it asked for."""

    def __init__(
        self, status: int, heading: str, message: str, *, hint: str | None = None, links: Sequence[Link] = ()
    ) -> None:
        super().__init__(message)
        self.status, self.heading, self.message, self.hint, self.links = status, heading, message, hint, links


class Elsewhere(Exception):
    """The visitor has to go to another page first."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where


class PageRoute(APIRoute):
    """Answers errors as pages: people read these, not programs."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            authority: Authority = request.app.state.authority
            try:
                return await handle(request)
            except Elsewhere as other:
                return see_other(other.where)
            except Refusal as refusal:
                return refused(authority, refusal)
            except BartizanError as error:
                return problem(authority, error)
            except RequestValidationError:
                return refused(
                    authority, Refusal(400, TITLES["invalid_input"], "The address of this page is not right.")
                )

        return answered


def policy(*, form_to: str = "") -> str:
    """What a page may load and where its forms may lead: here, and *form_to*."""
    return (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
        f"form-action 'self'{' ' if form_to else ''}{form_to}"
    )


def page(
    here: Authority,
    name: str,
    status: int | None = None,
    *,
    error: BartizanError | None = None,
    form_to: str = "",
    **values: object,
) -> HTMLResponse:
    """One page, for one person, now. *error*: what went wrong with the form on it, and stands above it."""
    headers = {"Content-Security-Policy": policy(form_to=form_to), "Cache-Control": "no-store"}
    words = {"cluster": here.settings.cluster, "problem": None, "hint": None}
    if error is not None:
        words |= {"problem": sentence(str(error)), "hint": error.hint and sentence(error.hint)}
    text = _templates.get_template(name).render(words | values)
    status = status or (200 if error is None else render.status(error))
    if status == render.STATUS[TooMany]:
        headers["Retry-After"] = str(TooMany.wait_seconds)
    return HTMLResponse(text, status, headers)


def message(
    authority: Authority,
    heading: str,
    text: str,
    *,
    status: int = 200,
    kind: str = "good",
    hint: str | None = None,
    links: Sequence[Link] = (),
    incident: str | None = None,
) -> HTMLResponse:
    """A page that says one thing. *kind*: good, bad or ask."""
    return page(
        authority,
        "message.html",
        status,
        heading=heading,
        message=text,
        kind=kind,
        hint=hint,
        links=links,
        incident=incident,
    )


def refused(authority: Authority, refusal: Refusal) -> HTMLResponse:
    links = refusal.links or [("Back to the start", "/")]
    return message(
        authority,
        refusal.heading,
        refusal.message,
        status=refusal.status,
        kind="bad",
        hint=refusal.hint,
        links=links,
    )


def problem(authority: Authority, error: BartizanError, *, links: Sequence[Link] = ()) -> HTMLResponse:
    """An expected error as a page, in the words that it brings."""
    heading = TITLES.get(error.code, "That did not work")
    hint = None if error.hint is None else sentence(error.hint)
    refusal = Refusal(render.status(error), heading, sentence(str(error)), hint=hint, links=links)
    return refused(authority, refusal)


def sentence(text: str) -> str:
    """The words of an error, which are written for a terminal, as they stand on a page."""
    text = text.replace("`", "")
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!", "…")) else ".")


def wanted(scope: Scope) -> bool:
    """Whether a person looks at the answer, not a program."""
    accepted: bytes = dict(scope["headers"]).get(b"accept", b"")
    return b"text/html" in accepted and not scope["path"].startswith("/v1/")


def of_problem(authority: Authority, problem: JSONResponse) -> HTMLResponse:
    """The page that says what *problem* says to a program."""
    told = wire.Problem.model_validate_json(bytes(problem.body))
    if problem.status_code == 404:
        told = told.model_copy(update={"message": "its address may be mistyped, or what was here is gone"})
    heading = TITLES.get(told.error, "That did not work")
    hint = None if told.hint is None else sentence(told.hint)
    return refused(authority, Refusal(problem.status_code, heading, sentence(told.message), hint=hint))


def install(app: FastAPI) -> None:
    """Let *app* show people a page where a program would get a ``Problem``: no such path, no such method."""

    @app.exception_handler(HTTPException)
    async def _plain(request: Request, error: HTTPException) -> Response:
        problem = render.plain(error)
        return of_problem(request.app.state.authority, problem) if wanted(request.scope) else problem


def see_other(where: str) -> Response:
    """Go on with GET there. Nothing of it is kept."""
    return Response(status_code=303, headers={"Location": where, "Cache-Control": "no-store"})


async def read_form(request: Request, expected: str) -> dict[str, str]:
    """The fields of a form that came from its own page, whose token is *expected*. Anything else is a Refusal."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != FORM:
        raise Refusal(415, "This is not a form of ours", "Only forms of our own pages are taken here.")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise _foreign()
    body = await request.body()
    if len(body) > LONGEST_FORM:
        raise Refusal(413, TITLES["too_large"], "No form of ours is that long.")
    try:
        pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError as error:
        raise Refusal(400, TITLES["invalid_input"], "The form came in a shape that no page of ours sends.") from error
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Refusal(400, TITLES["invalid_input"], "A field came twice.")
    if not hmac.compare_digest(fields.get("form", "").encode(), expected.encode()):
        raise _foreign()
    return fields


def _foreign() -> Refusal:
    return Refusal(
        403,
        "This page was too old",
        "The form was sent from another page than its own, you signed in or out since it was opened, "
        "or this browser keeps no cookies.",
        hint="Nothing was changed. Open the page again, and send it from there.",
    )


def local(where: str, otherwise: str = "/") -> str:
    """*where*, if it is a path on this site and nothing else; *otherwise* if not (OIDC-20)."""
    plain = all("!" <= one <= "~" and one != "\\" for one in where)
    return where if plain and where.startswith("/") and where[1:2] != "/" and len(where) <= 2_000 else otherwise
