"""A grant from a browser, turned into a certificate: the last step of both ways that have one."""

from __future__ import annotations

import socket
from datetime import timedelta

from ca import wire
from cli.client import Authority
from cli.fresh_key import FreshKey
from cli.pkce import Pkce

LONGEST_HOST = 255


def exchanged(door: Authority, key: FreshKey, grant: str, pkce: Pkce, *, ttl: timedelta | None) -> wire.LoginAnswer:
    """Show the verifier and the key, and get the certificate. Works once for each grant."""
    nonce = door.login_challenge().nonce
    return door.exchange(
        wire.ExchangeRequest(
            grant=grant,
            verifier=pkce.verifier,
            public_key=key.line,
            nonce=nonce,
            possession=key.possession(nonce),
            ttl_seconds=None if ttl is None else int(ttl.total_seconds()),
        )
    )


def this_machine() -> str:
    """What this machine calls itself, for the page on which somebody approves."""
    return socket.gethostname()[:LONGEST_HOST] or "unknown"
