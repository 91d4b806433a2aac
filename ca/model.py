"""
The words: who, what, where, and what was decided. Pure values, no rules beyond their own sanity.

Every value is frozen. A value that exists is valid: ``__post_init__`` refuses the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
"""A node name: one lower-case DNS label (RFC 1123 §2.1)."""

LOGIN = re.compile(r"[a-z_][a-z0-9_.-]{0,31}\Z")
"""An OS account on a node, as ``useradd`` takes it."""

USER = re.compile(r"[a-z_][a-z0-9_.@-]{0,63}\Z")
"""A person's name here; also the only principal of the person's certificate."""

_METADATA = ip_network("fd00:ec2::254/128")
_THIS_NETWORK = ip_network("0.0.0.0/8")

RESERVED_NODE_NAMES = frozenset({"bastion", "bartizan", "localhost", "authority", "broadcasthost"})


LEASE = timedelta(seconds=60)
"""How long a session outlives the last word between its bastion and the authority, unless its grant says longer."""


class Action(StrEnum):
    """What one may do on a node. The known forwards are parsed but refused at the door for now."""

    SHELL = "shell"
    EXEC = "exec"
    SFTP_READ = "sftp.read"
    SFTP_WRITE = "sftp.write"
    FORWARD_LOCAL = "forward.local"
    FORWARD_REMOTE = "forward.remote"
    FORWARD_AGENT = "forward.agent"
    FORWARD_X11 = "forward.x11"


BUILT_ACTIONS = frozenset({Action.SHELL, Action.EXEC, Action.SFTP_READ, Action.SFTP_WRITE})
"""What this version carries out. Everything else that a role grants is refused with its name."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A person who has been proven: name, roles held now, traits from the identity provider."""

    user: str
    roles: frozenset[str]
    traits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not USER.match(self.user):
            raise ValueError(f"not a user name: {self.user!r}")


@dataclass(frozen=True, slots=True)
class Node:
    """A target host. ``id`` never changes; ``name`` is what people type."""

    id: str
    name: str
    labels: Mapping[str, str]

    def __post_init__(self) -> None:
        if not LABEL.match(self.name):
            raise ValueError(f"not a node name: {self.name!r}")


def no_place_for_a_node(address: IPv4Address | IPv6Address, *, loopback: bool) -> str | None:
    """Why no node can be at *address*, None when one can. *loopback*: the operator wrote an address of this machine."""
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_link_local or address in _METADATA:
        return "link-local, where clouds keep their machines' credentials"
    if address.is_multicast:
        return "multicast"
    if address.is_unspecified or address in _THIS_NETWORK:
        return "no address of any host"
    if address.is_loopback and not loopback:
        return "the bastion itself"
    return None


@dataclass(frozen=True, slots=True)
class Options:
    """The conditions of one grant. They bind what that grant allows and nothing else."""

    max_session: timedelta | None = None
    idle: timedelta | None = None
    lease: timedelta = LEASE
    """How long a session goes on while its bastion cannot reach the authority; never less than a minute."""
    on_expiry: str = "keep"
    """``keep`` or ``end``: what a live session does when the user's certificate runs out."""
    record: str = "strict"
    """Only ``strict`` exists: what cannot be recorded ends."""
    record_input: bool = False
    """Keep keystrokes typed on a pty (they may hold passwords)."""
    record_limit: int = 1 << 30
    """Bytes per channel and direction that are kept in full."""
    unsafe_unbound_client: bool = False
    """Admit clients whose signature names no host key (no ``publickey-hostbound-v00@openssh.com``)."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One allow-entry of a role. Empty never means all."""

    nodes: Mapping[str, tuple[str, ...]]
    """Label → globs; every key must match one of its globs. ``name`` is also a label."""
    logins: tuple[str, ...] = ()
    """Templates: ``root``, ``{{user.name}}``, ``{{traits.team}}``."""
    actions: frozenset[str] = frozenset()
    options: Options = Options()


@dataclass(frozen=True, slots=True)
class AuditScope:
    """What an auditor may read: globs over node names for recordings; all events or none."""

    recordings: tuple[str, ...] = ()
    events: bool = False


@dataclass(frozen=True, slots=True)
class Role:
    """A named set of grants. ``certificate_ttl`` bounds the life of the holder's certificate."""

    name: str
    allow: tuple[Grant, ...] = ()
    deny: tuple[Grant, ...] = ()
    audit: AuditScope = AuditScope()
    certificate_ttl: timedelta | None = None
    mfa: bool = False
    """Whoever holds it signs in with a second factor."""


@dataclass(frozen=True, slots=True)
class Lock:
    """An administrator's immediate *no* for a user, a node, a role or a login; at least one is named."""

    id: str
    reason: str
    user: str | None = None
    node: str | None = None
    role: str | None = None
    login: str | None = None
    expires: datetime | None = None

    def __post_init__(self) -> None:
        if not (self.user or self.node or self.role or self.login):
            raise ValueError("a lock names a user, a node, a role or a login")


class DenyCode(StrEnum):
    """Why not. Stable: tests and scripts match on these."""

    LOCKED = "locked"
    DENIED_BY_ROLE = "denied_by_role"
    NO_ROLE_REACHES_NODE = "no_role_reaches_node"
    LOGIN_NOT_GRANTED = "login_not_granted"
    ACTION_NOT_GRANTED = "action_not_granted"
    ACTION_NOT_BUILT = "action_not_built"
    PRIVILEGED_PRINCIPAL = "privileged_principal"
    """A template resolved to a login such as ``root``, which a grant must write out."""
    TEMPLATE_UNRESOLVED = "template_unresolved"
    """The only logins granted there are templates for which the account has no value."""
    UNBOUND_CLIENT = "unbound_client"
    """The client's signature names no host key, and no matching grant says ``unsafe_unbound_client``."""


@dataclass(frozen=True, slots=True)
class Allow:
    """Yes, by this role's grant (counted from 1), under these options."""

    role: str
    grant: int
    options: Options


@dataclass(frozen=True, slots=True)
class Deny:
    """No. ``reason`` is shown to the user and names no other user or node."""

    code: DenyCode
    reason: str
    hint: str | None = None


Decision = Allow | Deny


LOCAL = "local"
"""The operator, who comes through the Unix socket: as actor, and as source."""


def source_key(source: str) -> str:
    """Under what a source is counted: an IPv4 address, or the IPv6 network that one line has, with all its addresses.

    What is no address is counted as it is. Logs and events name the address itself.
    """
    address = _address(source)
    return str(ip_network((address, 64), strict=False)) if isinstance(address, IPv6Address) else str(address or source)


def on_this_machine(source: str) -> bool:
    """Loopback and the Unix socket: whoever comes from there shares the machine, and is never kept waiting."""
    address = _address(source)
    return source == LOCAL or (address is not None and address.is_loopback)


def _address(source: str) -> IPv4Address | IPv6Address | None:
    """An IPv4 address is the same one when it comes through an IPv6 socket (RFC 4291 §2.5.5.2)."""
    try:
        address = ip_address(source.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
