"""``bart second-factor``: an authenticator app beside the password, and codes for the day it is lost."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import click

from ca import wire
from ca.errors import InvalidInput, NotSignedIn
from cli import output, qr
from cli.client import signed_in
from cli.profile import home

T = TypeVar("T")

LIMIT = 64
TRIES = 3
FAILED = "second_factor_failed"
CODE_STDIN = click.option("--code-stdin", is_flag=True, help="Read the code from standard input.")


@click.group("second-factor")
def second_factor() -> None:
    """Set up an authenticator app as your second factor, or take it away."""


@second_factor.command()
@click.option("--no-qr", is_flag=True, help="Draw no QR code; the key can be typed into the app.")
@CODE_STDIN
def add(no_qr: bool, code_stdin: bool) -> None:
    """Set one up. Prints the recovery codes, once."""
    with signed_in(home()) as authority:
        show_begun(authority.begin_factor(), picture=not no_qr)
        made = with_code("code that the app shows", authority.confirm_factor, from_stdin=code_stdin)
    output.note("from now on sign-in asks for a code")
    show_recovery_codes(made.codes)


@second_factor.command()
@CODE_STDIN
def remove(code_stdin: bool) -> None:
    """Take yours away. Where a role wants one, the next sign-in sets up another."""
    with signed_in(home()) as authority:
        with_code("code, or a recovery code", authority.remove_factor, from_stdin=code_stdin)
    output.note("the second factor is removed: take it out of the app as well")


@second_factor.command("recovery-codes")
@CODE_STDIN
def recovery_codes(code_stdin: bool) -> None:
    """Make new recovery codes and print them, once. Earlier ones are worth nothing then."""
    with signed_in(home()) as authority:
        made = with_code("code, or a recovery code", authority.new_recovery_codes, from_stdin=code_stdin)
    show_recovery_codes(made.codes)


@second_factor.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(as_json: bool) -> None:
    """Say whether you have one, and how many recovery codes are left."""
    with signed_in(home()) as authority:
        found = authority.factor()
    if as_json:
        output.as_json(found)
        return
    output.fields(
        {
            "second factor": "authenticator app" if found.confirmed else "none",
            "since": found.created,
            "recovery codes left": found.recovery_codes_left,
        }
    )
    if found.confirmed and found.recovery_codes_left <= 2:
        output.hint("bart second-factor recovery-codes")


def show_begun(begun: wire.FactorBegun, *, picture: bool = True) -> None:
    """The new secret, for a camera and for typing."""
    if picture and qr.show(begun.uri):
        output.note("scan this with an authenticator app, or type the key into it")
    else:
        output.note("type this key into an authenticator app (time-based, 6 digits, 30 seconds)")
    output.note(f"key: {' '.join(begun.secret[at : at + 4] for at in range(0, len(begun.secret), 4))}")


def show_recovery_codes(codes: Sequence[str]) -> None:
    """The codes are data: somebody may want to pipe them into a password manager."""
    output.note("recovery codes, each good once when the app is out of reach; they are not shown again:")
    output.block("\n".join(codes))


def with_code(prompt: str, use: Callable[[wire.FactorCode], T], *, from_stdin: bool = False) -> T:
    """What *use* gives for a code. On a terminal a wrong one may be typed again."""
    left = 1 if from_stdin else TRIES
    while True:
        left -= 1
        try:
            return use(wire.FactorCode(code=ask_code(prompt, from_stdin=from_stdin)))
        except NotSignedIn as refused:
            if refused.code != FAILED or left == 0:
                raise
            output.error(refused)


def ask_code(prompt: str, *, from_stdin: bool = False) -> str:
    """A code, typed in plain sight: it is worth nothing in a minute."""
    if from_stdin:
        text = sys.stdin.readline(LIMIT + 2).strip()
    elif sys.stdin.isatty():
        text = str(click.prompt(prompt, err=True)).strip()
    else:
        raise InvalidInput("there is no terminal to type a code on", hint="use --code-stdin")
    if not text or len(text) > LIMIT:
        raise InvalidInput(f"a code has between 1 and {LIMIT} characters")
    return text
