"""
What every request passes before a route sees it: host, size, depth and kind of the body. Plain ASGI around the app.

It also answers for whatever escapes the app, and adds the headers that every answer has.
"""

from __future__ import annotations

import asyncio
import re
import time
from ipaddress import ip_address
from urllib.parse import parse_qsl

from fastapi.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ca.api import render
from ca.app import Authority
from ca.errors import BartizanError, InvalidInput, TooLarge
from ca.web import pages

BODY_LIMIT = 1 << 20
BASTION_BODY_LIMIT = 24 << 20
"""Manifests and heads of thousands of sessions; only for callers with a client certificate."""
BODY_SECONDS = 30.0
DEPTH_LIMIT = 32
UNIX = "bartizan.unix"
PEER = "bartizan.peer"
"""Scope keys that ``ca/serve.py`` sets: the Unix socket; the client certificate's key digest."""

HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"strict-transport-security", b"max-age=31536000"),
]
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{\]}]', re.DOTALL)


class Door:
    """Checks what can be checked before routing, and answers for whatever escapes."""

    def __init__(self, app: ASGIApp, authority: Authority) -> None:
        self._app = app
        self._authority = authority

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status, finished = 0, False

        async def answer(message: Message) -> None:
            nonlocal status, finished
            finished = message["type"] == "http.response.body" and not message.get("more_body")
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
            await send(message)

        try:
            body = await self._checked(scope, receive)
            await self._app(scope, _replay(body, receive), answer)
        except _Refused as refused:
            await self._shown(scope, refused.answer)(scope, receive, answer)
        except BartizanError as error:
            await self._shown(scope, render.expected(error))(scope, receive, answer)
        except Exception as error:  # the edge of HTTP: a bug gets an incident id
            if not status:
                bug = render.unexpected(error, method=scope["method"], path=scope["path"])
                await self._shown(scope, bug)(scope, receive, answer)
            elif not finished:
                raise  # half an answer is out: the server cuts the connection
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "other")
            self._authority.metrics.request(scope["method"], path, status, time.perf_counter() - began)

    def _shown(self, scope: Scope, problem: JSONResponse) -> Response:
        """*problem*; as a page to people who look at pages."""
        return pages.of_problem(self._authority, problem) if pages.wanted(scope) else problem

    async def _checked(self, scope: Scope, receive: Receive) -> bytes:
        headers = dict(scope["headers"])
        if not scope.get(UNIX):
            self._check_host(headers.get(b"host", b"").decode("latin-1"))
        for name, _ in parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True):
            if name.lower() in ("token", "access_token", "password"):
                raise InvalidInput("a secret does not belong in a URL", code="secret_in_url")
        limit = BASTION_BODY_LIMIT if scope.get(PEER) else BODY_LIMIT
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _read(headers.get(b"content-length", b""), receive, limit)
        except TimeoutError as error:
            raise _Refused(408, "too_slow", f"the body did not come within {BODY_SECONDS:.0f} s") from error
        if body and scope["path"].startswith("/v1/"):
            kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
            if kind != b"application/json":
                raise _Refused(415, "media_type", "the body must be application/json")
            _check_depth(body)
        return body

    def _check_host(self, host: str) -> None:
        """A name must be one of ours; a bare address is fine: turning names around (DNS rebinding) needs a name."""
        name = host.rsplit(":", 1)[0] if re.fullmatch(r".*:[0-9]+", host) else host
        name = name.strip("[]").lower()
        if name in self._authority.settings.web_names:
            return
        try:
            ip_address(name)
        except ValueError as error:
            hint = "if it is, set --public-web to that name"
            raise _Refused(421, "wrong_host", "this is not the host that you asked for", hint) from error


class _Refused(Exception):
    """Refused before routing, with a status of its own."""

    def __init__(self, status: int, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.answer = render.problem(status, code, message, hint)


async def _read(length: bytes, receive: Receive, limit: int) -> bytes:
    """The whole body, or TooLarge before more than *limit* is kept."""
    if length and (not length.isdigit() or int(length) > limit):
        raise TooLarge(f"the body is larger than {limit} bytes")
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise TooLarge(f"the body is larger than {limit} bytes")
        if not message.get("more_body"):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the body once, then waits for the caller to leave."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _check_depth(body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") <= DEPTH_LIMIT:
        return
    depth = 0
    for token in _TOKENS.finditer(body):
        first = token[0]
        if first in (b"[", b"{"):
            depth += 1
            if depth > DEPTH_LIMIT:
                raise InvalidInput("the body is nested too deeply", code="too_deep")
        elif first in (b"]", b"}"):
            depth -= 1
