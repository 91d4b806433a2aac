"""
The one address on this machine to which the browser brings the grant (RFC 8252 §7.3). Standard library only.

Listens on 127.0.0.1 alone, takes exactly one good request (``GET /?code=…&state=…``, or ``error=access_denied`` instead
of the code, with our own Host and the state that only the page we opened knows), and answers 400 or 404 to anything
else, which changes nothing. Never sends a byte of what it was sent.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import queue
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import parse_qsl, urlsplit

HOST = "127.0.0.1"
PATIENCE_SECONDS = 5.0
"""For one request to arrive: a local process that says nothing holds up nobody else, and not for long."""
LONGEST_TARGET = 2048
_CODE = re.compile(r"[A-Za-z0-9._~-]{1,256}\Z")

_STYLE = "body{font:16px system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem;color-scheme:light dark}"
_STYLE_HASH = "sha256-" + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1><p>{text}</p></body></html>
"""


class Denied(Exception):
    """The person said no on the page."""


class Loopback:
    """A listener that waits for one grant. Made by ``listening``."""

    def __init__(self, server: ThreadingHTTPServer, waiting: _Waiting) -> None:
        self._waiting = waiting
        self.port: int = server.server_address[1]

    def wait(self, seconds: float) -> str:
        """The grant, as soon as the browser brings it. Raises Denied, or TimeoutError after *seconds*."""
        try:
            grant = self._waiting.grants.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(f"nothing came within {seconds:.0f} s") from None
        if grant is None:
            raise Denied("the sign-in was refused on the page")
        return grant


@contextmanager
def listening(state: str, *, port: int = 0) -> Iterator[Loopback]:
    """Listen on *port*, or on any free one when it is 0 or taken."""
    waiting = _Waiting(state)
    server = _bound(port, waiting)
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield Loopback(server, waiting)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Waiting:
    """What is waited for, and the first that brought it."""

    def __init__(self, state: str) -> None:
        self._state = state
        self._lock = Lock()
        self._over = False
        self.grants: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def take(self, grant: str | None, state: str) -> bool:
        """Whether this is the one good request."""
        if not hmac.compare_digest(state.encode(), self._state.encode()):
            return False
        with self._lock:
            first, self._over = not self._over, True
        if first:
            self.grants.put(grant)
        return first


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    block_on_close = False  # nobody who holds a connection open may hold us up
    allow_reuse_address = False

    def __init__(self, port: int, waiting: _Waiting) -> None:
        self.waiting = waiting
        super().__init__((HOST, port), _Handler)

    def server_bind(self) -> None:
        """Bind, without asking the resolver for our own name as http.server would."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that broke is no news."""


def _bound(port: int, waiting: _Waiting) -> _Server:
    try:
        return _Server(port, waiting)
    except OSError:
        if port == 0:
            raise
        return _Server(0, waiting)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = PATIENCE_SECONDS
    protocol_version = "HTTP/1.1"

    def version_string(self) -> str:
        return "bart"

    def log_message(self, *_: object) -> None:
        """Says nothing: the target holds the grant."""

    def do_GET(self) -> None:
        if self.headers.get_all("Host") != [f"{HOST}:{self.server.server_port}"]:
            self._answer(HTTPStatus.BAD_REQUEST, "Not for this address", "This is not what bart waits for.")
            return
        parts = urlsplit(self.path)
        if parts.path != "/" or not parts.query:
            self._answer(HTTPStatus.NOT_FOUND, "Nothing here", "bart waits for a sign-in; this is not it.")
            return
        found = _grant(parts.query) if len(self.path) <= LONGEST_TARGET else None
        if found is None or not self.server.waiting.take(*found):
            self._answer(HTTPStatus.BAD_REQUEST, "Not this sign-in", "Go back to the terminal and begin again.")
            return
        title = "Signed in" if found[0] else "Not signed in"
        self._answer(HTTPStatus.OK, title, "You may close this window and go back to the terminal.")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Other methods and malformed requests: the same small page, nothing of the request in it."""
        status = HTTPStatus.BAD_REQUEST if code < 500 else HTTPStatus.NOT_FOUND
        self._answer(status, "Not this way", "bart waits for a sign-in; this is not it.")

    def _answer(self, status: HTTPStatus, title: str, text: str) -> None:
        body = _PAGE.format(title=title, text=text, style=_STYLE).encode()
        self.close_connection = True
        self.send_response(status)
        for name, value in {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": f"default-src 'none'; style-src '{_STYLE_HASH}'; frame-ancestors 'none'",
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Connection": "close",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _grant(query: str) -> tuple[str | None, str] | None:
    """Code (None: the person said no) and state of *query*, if it holds exactly these two, once each."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=2)
    except ValueError:
        return None
    found = dict(pairs)
    match sorted(found):
        case ["code", "state"] if len(pairs) == 2 and _CODE.match(found["code"]):
            return found["code"], found["state"]
        case ["error", "state"] if len(pairs) == 2 and found["error"] == "access_denied":
            return None, found["state"]
    return None
