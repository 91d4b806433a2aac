"""
How a secret gets in: typed unseen, one line on standard input, a file or an open descriptor; never an argument or the
environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ca.errors import InvalidInput
from cli import output

LIMIT = 1024
CLIENT_LIMIT = 4096
TOKEN_LIMIT = 65_536


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


def client_secret(*, file: Path | None, descriptor: int | None, from_stdin: bool) -> str | None:
    """A client's secret at an identity provider, from the one place that was named; None when none was."""
    if (file is not None) + (descriptor is not None) + from_stdin > 1:
        raise click.UsageError("--secret-file, --secret-fd and --secret-stdin exclude each other")
    if file is not None:
        if file.stat().st_mode & 0o077 and file.is_file():
            output.warning(f"others can read {file}: chmod 600 {output.word(file)}")
        found = file.read_text(encoding="utf-8", errors="replace")
    elif descriptor is not None:
        found = _from_descriptor(descriptor)
    elif from_stdin:
        found = sys.stdin.readline(CLIENT_LIMIT + 2)
    else:
        return None
    text = found.rstrip("\r\n")
    if not text or len(text) > CLIENT_LIMIT or not text.isascii() or not text.isprintable():
        raise InvalidInput(f"a client secret is one line of 1 to {CLIENT_LIMIT} printable ASCII characters")
    return text


def token() -> str:
    """A token that somebody pasted: all of standard input, however the terminal broke it into lines."""
    text = "".join(sys.stdin.read(2 * TOKEN_LIMIT).split())
    if not text or len(text) > TOKEN_LIMIT:
        raise InvalidInput(f"a token has between 1 and {TOKEN_LIMIT} characters")
    return text


def _from_descriptor(descriptor: int) -> str:
    try:
        with os.fdopen(descriptor, encoding="utf-8", errors="replace") as stream:
            return stream.readline(CLIENT_LIMIT + 2)
    except OSError:
        raise InvalidInput(f"there is no open file descriptor {descriptor} to read from") from None
