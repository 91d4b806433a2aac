"""
The page on which a browser that is signed in lets ``bart`` on the same computer in (RFC 8252).

What it hands over is a code, good once and for a minute, that only whoever began can use (``ca/handover.py``). It goes
to a loopback address and nowhere else, whatever the request says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ca import audit, handover, login
from ca.web import pages
from ca.web.pages import PageRoute, Refusal, see_other
from ca.web.signing_in import with_link
from ca.web.visitor import Somebody
from ca.web.vouched import check_code, once_more, to_ask_again, vouching

CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
STATE = re.compile(r"[A-Za-z0-9._~-]{16,128}")
PORT = re.compile(r"[1-9][0-9]{3,4}")
LONGEST_HOST = 255

router = APIRouter(tags=["pages"], route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class Terminal:
    """Who asks: where it listens, and what only it can prove."""

    challenge: str
    port: str
    state: str
    host: str

    @classmethod
    def parse(cls, asked: Mapping[str, str]) -> Terminal:
        """Strict: what is not exactly what ``bart`` sends is refused."""
        challenge, port, state = (asked.get(name, "") for name in ("challenge", "port", "state"))
        host = asked.get("host", "")
        right = (
            CHALLENGE.fullmatch(challenge)
            and PORT.fullmatch(port)
            and 1024 <= int(port) <= 65_535
            and STATE.fullmatch(state)
            and 0 < len(host) <= LONGEST_HOST
        )
        if not right:
            raise Refusal(
                400,
                "This link is not whole",
                "It does not say which terminal asks.",
                hint="Open it as bart login shows it, to the last letter; or begin anew with bart login.",
            )
        return cls(challenge, port, state, audit.visible(host)[:LONGEST_HOST])

    @property
    def fields(self) -> dict[str, str]:
        return {"challenge": self.challenge, "port": self.port, "state": self.state, "host": self.host}

    @property
    def page(self) -> str:
        return f"/sign-in/terminal?{urlencode(self.fields)}"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def told(self, **answer: str) -> str:
        """Where the browser goes with the answer."""
        return f"{self.address}/?{urlencode({**answer, 'state': self.state})}"


@router.get("/sign-in/terminal")
async def ask(request: Request, visitor: Somebody) -> Response:
    """Let a terminal in?"""
    terminal = Terminal.parse(_once_each(request))
    await check_code(visitor)
    again = await to_ask_again(visitor)
    if again is not None:
        return see_other(with_link(again.name, terminal.page))
    return visitor.page(
        "terminal.html",
        form_to=terminal.address,
        user=visitor.who.user,
        provider=await vouching(visitor),
        source=visitor.source,
        host=terminal.host,
        word=login.check_word(terminal.challenge),
        asked=terminal.fields,
        form=visitor.token("/sign-in/terminal"),
        leave=visitor.token("/you/sign-out"),
    )


@router.post("/sign-in/terminal")
async def decide(request: Request, visitor: Somebody) -> Response:
    """Yes or no; the terminal hears it at once."""
    fields = await visitor.form(request)
    terminal = Terminal.parse(fields)
    if fields.get("answer") != "yes":
        return see_other(terminal.told(error="access_denied"))
    user = visitor.who.user
    again = await to_ask_again(visitor)
    if again is not None:
        return once_more(visitor, again, terminal.page)
    code = await handover.grant(
        visitor.authority, user, terminal.challenge, source=visitor.source, with_code=visitor.with_code
    )
    return see_other(terminal.told(code=code))


def _once_each(request: Request) -> dict[str, str]:
    pairs = request.query_params.multi_items()
    asked = dict(pairs)
    if len(asked) != len(pairs):
        raise Refusal(400, pages.TITLES["invalid_input"], "The link says a thing twice.")
    return asked
