"""Signing in with a browser on another machine (device code, RFC 8628): a code here, a yes there."""

from __future__ import annotations

import time
from datetime import timedelta

from ca import wire
from ca.errors import AccessDenied, Unavailable
from cli import output, qr
from cli.client import Authority
from cli.fresh_key import FreshKey
from cli.grant import exchanged, this_machine
from cli.pkce import Pkce

SLOWER_SECONDS = 5
"""RFC 8628 §3.5: what ``slow_down`` adds, for good."""
SLOWEST_SECONDS = 60


def sign_in(door: Authority, key: FreshKey, *, ttl: timedelta | None) -> wire.LoginAnswer:
    """Show the code, wait for the yes, exchange it."""
    pkce = Pkce()
    started = door.device_login(wire.DeviceRequest(challenge=pkce.challenge, host=this_machine()))
    output.note(f"open this page on any machine (or {started.url}, and type {started.user_code} there):")
    output.address(started.url_with_code)
    qr.show(started.url_with_code)
    output.note(f"approve it there only if the page shows the word {pkce.word}")
    _approved(door, started)
    return exchanged(door, key, started.grant, pkce, ttl=ttl)


def next_interval(interval: int, state: str | None) -> int:
    """How long to wait before the next poll; *state* None: there was no answer. Pure."""
    if state is None:
        return min(interval * 2, SLOWEST_SECONDS)
    return interval + SLOWER_SECONDS if state == "slow_down" else interval


def _approved(door: Authority, started: wire.DeviceStarted) -> None:
    """Return once somebody said yes; raise when they said no, or nobody said anything."""
    interval, silent = max(1, started.interval_seconds), False
    with output.waiting("waiting for the approval") as tick:
        while (left := started.expires - door.now()) > timedelta(0):
            for second in range(min(interval, int(left.total_seconds()) + 1)):
                tick(left - timedelta(seconds=second))
                time.sleep(1)
            state: str | None
            try:
                state = door.device_state(wire.DevicePoll(grant=started.grant)).state
            except Unavailable as error:
                if not silent:
                    output.warning(f"{error}; trying again until the code is over")
                silent, state = True, None
            if state == "approved":
                return
            if state == "denied":
                raise AccessDenied("the sign-in was refused on the page", hint="bart login", code="login_denied")
            if state == "over":
                break
            interval = next_interval(interval, state)
    raise Unavailable("the code is over: nobody approved it in time; nothing was changed", hint="bart login")
