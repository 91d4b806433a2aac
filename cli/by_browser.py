"""
Signing in with the browser of this machine (RFC 8252): we open a page, and the browser brings a grant to our loopback.

The page is opened by a process of its own without a terminal, so that nothing a browser prints gets among our words.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from datetime import timedelta
from urllib.parse import urlencode

from ca import wire
from ca.errors import AccessDenied, Unavailable
from cli import loopback, output
from cli.client import Authority
from cli.fresh_key import FreshKey
from cli.grant import exchanged, this_machine
from cli.pkce import Pkce

PATIENCE = timedelta(minutes=5)


def sign_in(door: Authority, key: FreshKey, *, ttl: timedelta | None, opens: bool, port: int) -> wire.LoginAnswer:
    """Print the page's address (and open it), wait for the grant, exchange it."""
    pkce, state = Pkce(), secrets.token_urlsafe(32)
    with loopback.listening(state, port=port) as here:
        if port not in (0, here.port):
            output.note(f"port {port} is taken; listening on {here.port} instead")
        url = page(door.place, pkce, port=here.port, state=state)
        output.note(f"sign in on this page; go on there only if it shows the word {pkce.word}:")
        output.address(url)
        if opens:
            _opened(url)
        grant = _awaited(here)
    return exchanged(door, key, grant, pkce, ttl=ttl)


def page(authority: str, pkce: Pkce, *, port: int, state: str) -> str:
    """The page on which a signed-in person lets this terminal in."""
    about = {"challenge": pkce.challenge, "port": str(port), "state": state, "host": this_machine()}
    return f"{authority}/sign-in/terminal?{urlencode(about)}"


def _opened(url: str) -> None:
    subprocess.Popen(
        [sys.executable, "-I", "-m", "webbrowser", url],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _awaited(here: loopback.Loopback) -> str:
    end = time.monotonic() + PATIENCE.total_seconds()
    with output.waiting("waiting for the browser") as tick:
        while (left := end - time.monotonic()) > 0:
            tick(timedelta(seconds=left))
            try:
                return here.wait(min(1.0, left))
            except TimeoutError:
                continue
            except loopback.Denied as said_no:
                raise AccessDenied(str(said_no), hint="bart login", code="login_denied") from None
    raise Unavailable(
        f"nobody signed in within {output.span(PATIENCE)}; nothing was changed",
        hint="bart login again, or with a browser elsewhere: bart login --no-browser",
    )
