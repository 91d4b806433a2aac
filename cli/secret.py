"""How a password gets in: typed unseen, or one line on standard input; never an argument or the environment."""

from __future__ import annotations

import sys

import click

from ca.errors import InvalidInput

LIMIT = 1024


def password(prompt: str, *, from_stdin: bool, again: bool = False) -> str:
    """The password. With *again* it is typed twice."""
    if from_stdin:
        text = sys.stdin.readline(LIMIT + 2).rstrip("\r\n")
    elif sys.stdin.isatty():
        text = str(click.prompt(prompt, hide_input=True, confirmation_prompt=again, err=True))
    else:
        raise InvalidInput("there is no terminal to type a password on", hint="use --password-stdin")
    if not text or len(text) > LIMIT:
        raise InvalidInput(f"a password has between 1 and {LIMIT} characters")
    return text
