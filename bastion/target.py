"""What the user typed → which node and login. Pure; it never asks whether the node exists."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ca.model import LABEL

PREAMBLE = b"bartizan/1 "
PREAMBLE_LIMIT = 128
_LOGIN = re.compile(r"[A-Za-z0-9_.@][A-Za-z0-9_.@-]{0,63}\Z")
_NAMES = re.compile(r"(?P<login>[A-Za-z0-9_.@-]{1,64})[+%](?P<node>[A-Za-z0-9.-]{1,64})\Z")


class TargetError(ValueError):
    """What was typed names no node; the message is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class Target:
    """A node by name, and the login there."""

    node: str
    login: str


def node_name(typed: str, *, cluster: str) -> str:
    """The node's label in *typed*: ``web1``, ``WEB1`` or ``web1.<cluster>``.

    Raises TargetError for everything else: addresses, ``localhost``, options, shell characters (SSH-09).
    """
    name = typed.lower().removesuffix(f".{cluster}")
    if not LABEL.match(name):
        raise TargetError("unknown target: node names are lower-case letters, digits and '-'")
    return name


def login_name(typed: str) -> str:
    """The login in *typed*; whether there is one of that name on the node is not asked here (SSH-08)."""
    if not _LOGIN.match(typed):
        raise TargetError("unknown login: account names are letters, digits and '_.@-'")
    return typed


def from_user_name(user: str, *, cluster: str) -> Target | None:
    """``root+web1`` or ``root%web1`` → its target; None when *user* names no node."""
    if "+" not in user and "%" not in user:
        return None
    match = _NAMES.match(user)
    if match is None:
        raise TargetError("unknown target: write LOGIN+NODE, for example root+web1")
    return Target(node_name(match["node"], cluster=cluster), login_name(match["login"]))


def from_preamble(line: bytes, *, cluster: str) -> str:
    """The node named by ``bartizan/1 NODE`` (without its newline). Raises TargetError."""
    if not line.startswith(PREAMBLE) or len(line) >= PREAMBLE_LIMIT:
        raise TargetError("malformed preamble: expected 'bartizan/1 NODE'")
    try:
        return node_name(line[len(PREAMBLE) :].decode("ascii"), cluster=cluster)
    except UnicodeDecodeError:
        raise TargetError("malformed preamble: the node's name is not ASCII") from None
