"""
Signing in with a password, and with a one-time code where the person has a second factor or a role wants one.

A factor can be set up on the way, on a terminal. Secrets are typed or come on standard input, never as arguments.
"""

from __future__ import annotations

import sys
from datetime import timedelta

from ca import wire
from ca.errors import AccessDenied, InvalidInput
from cli import output, second_factor, secret
from cli.client import Authority
from cli.fresh_key import FreshKey


def sign_in(door: Authority, key: FreshKey, *, user: str, from_stdin: bool, ttl: timedelta | None) -> wire.LoginAnswer:
    """Ask for the password, and for a code if the authority wants one."""
    password = secret.password(f"password of {user}", from_stdin=from_stdin)
    try:
        return _asked(door, key, user, password, None, ttl)
    except AccessDenied as refused:
        if refused.code == "second_factor_setup" and sys.stdin.isatty() and not from_stdin:
            output.note(output.lowered(str(refused)))
            second_factor.show_begun(door.begin_factor_before_login(wire.FactorRequest(user=user, password=password)))
        elif refused.code != "second_factor_required":
            raise
    try:
        return second_factor.with_code(
            f"code of {user}",
            lambda code: _asked(door, key, user, password, code.code, ttl),
            from_stdin=from_stdin,
        )
    except InvalidInput as missing:
        if not from_stdin:
            raise
        raise InvalidInput(
            f"a one-time code is needed as well: {missing}", hint="write it as the second line of standard input"
        ) from None


def _asked(
    door: Authority, key: FreshKey, user: str, password: str, code: str | None, ttl: timedelta | None
) -> wire.LoginAnswer:
    nonce = door.login_challenge().nonce
    return door.login(
        wire.LoginRequest(
            user=user,
            password=password,
            public_key=key.line,
            nonce=nonce,
            possession=key.possession(nonce),
            ttl_seconds=None if ttl is None else int(ttl.total_seconds()),
            code=code,
        )
    )
