"""
What a certificate will say, decided before any key is touched. Pure: values in, a ``CertPlan`` out.

One planner for each of the four CAs, and one set of limits for each. A plan that exists keeps the limits, so a
key that signs nothing but plans cannot sign more than they allow.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from ca import sshcert
from ca.errors import AccessDenied, InvalidInput
from ca.model import LABEL, LOGIN, USER, Action, Identity, Role
from ca.sshcert import CertKind
from recordings.sshkey import KeyFormatError, PublicKey


class CA(StrEnum):
    """Who signs whom. Each has a key of its own."""

    USER = "user"
    """People; good at the bastion alone."""
    TARGET = "target"
    """A bastion's entry into one node, for one session."""
    HOST = "host"
    """Nodes; only bastions trust it."""
    BASTION = "bastion"
    """Bastions; it stands in people's known_hosts."""


BACKDATED = timedelta(seconds=60)
"""How far ``valid_after`` lies before now, for clocks that are behind ours."""

DEFAULT_USER_LIFE = timedelta(hours=12)
MIN_USER_LIFE = timedelta(minutes=5)
TARGET_LIFE = timedelta(seconds=60)
HOST_LIFE = timedelta(days=30)
BASTION_LIFE = timedelta(hours=1)

MAX_SOURCE_ADDRESSES = 64
ROOT_LIKE = frozenset({"root", "toor"})
"""Names that no claim and no account of ours may give a person."""

NODE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}\Z")
SESSION_ID = re.compile(r"[a-z0-9]{1,64}\Z")
HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.:-]{0,253}[a-z0-9])?\Z")
"""What a host may be called in a certificate: DNS name or address in lower case; never a pattern."""

_TARGET_PRINCIPAL = re.compile(r"[a-z_][a-z0-9_.-]{0,31}@[a-z0-9][a-z0-9-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one CA may sign at the most."""

    kind: CertKind
    principal: re.Pattern[str]
    principals: int
    life: timedelta
    extensions: frozenset[str]
    options: frozenset[str]


LIMITS: Mapping[CA, Limits] = MappingProxyType(
    {
        CA.USER: Limits(
            CertKind.USER, USER, 1, timedelta(hours=24), frozenset({"permit-pty"}), frozenset({"source-address"})
        ),
        CA.TARGET: Limits(
            CertKind.USER, _TARGET_PRINCIPAL, 1, TARGET_LIFE, frozenset({"permit-pty"}), frozenset({"source-address"})
        ),
        CA.HOST: Limits(CertKind.HOST, HOST_NAME, 2, timedelta(days=365), frozenset(), frozenset()),
        CA.BASTION: Limits(CertKind.HOST, HOST_NAME, 16, BASTION_LIFE, frozenset(), frozenset()),
    }
)


@dataclass(frozen=True, slots=True)
class CertPlan:
    """A certificate that has been decided, but not yet stored or signed. It cannot exist outside its CA's limits."""

    ca: CA
    public_key: PublicKey
    serial: int
    key_id: str
    principals: tuple[str, ...]
    valid_after: datetime
    valid_before: datetime
    critical_options: Mapping[str, str] = field(default_factory=dict)
    extensions: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        limits = LIMITS[self.ca]
        if not 1 <= self.serial < 2**64:
            raise ValueError("serial numbers count from 1")
        if not sshcert.KEY_ID.match(self.key_id):
            raise ValueError("a key id is printable ASCII")
        # To some servers (asyncssh among them) a user certificate without principals is good for every account.
        if not self.principals:
            raise ValueError("a certificate without principals would open every account")
        if len(self.principals) > limits.principals or len(set(self.principals)) != len(self.principals):
            raise ValueError(f"a certificate of the {self.ca} CA names at most {limits.principals}, each once")
        if not all(limits.principal.match(name) for name in self.principals):
            raise ValueError(f"not a name that the {self.ca} CA certifies")
        if any(time.utcoffset() is None or time.microsecond for time in (self.valid_after, self.valid_before)):
            raise ValueError("times are whole seconds with a zone")
        if not timedelta() < self.valid_before - self.valid_after <= limits.life + BACKDATED:
            raise ValueError(f"a certificate of the {self.ca} CA lives for at most {limits.life}")
        if not self.extensions <= limits.extensions or not set(self.critical_options) <= limits.options:
            raise ValueError(f"an option that the {self.ca} CA does not give")
        if "source-address" in self.critical_options:
            sshcert.source_networks(self.critical_options["source-address"])

    @property
    def kind(self) -> CertKind:
        return LIMITS[self.ca].kind

    def to_be_signed(self, ca_key: PublicKey, *, nonce: bytes) -> bytes:
        """The bytes for the CA to sign: what the plan says, nothing added, nothing left out."""
        if ca_key.blob == self.public_key.blob:
            raise ValueError("a CA does not certify itself")
        return sshcert.encode(
            kind=self.kind,
            public_key=self.public_key,
            serial=self.serial,
            key_id=self.key_id,
            principals=self.principals,
            valid_after=int(self.valid_after.timestamp()),
            valid_before=int(self.valid_before.timestamp()),
            critical_options=self.critical_options,
            extensions=self.extensions,
            ca_key=ca_key,
            nonce=nonce,
        )


def user_plan(
    identity: Identity,
    roles: Iterable[Role],
    *,
    serial: int,
    public_key: PublicKey,
    ttl: timedelta | None,
    now: datetime,
    forbidden: Collection[PublicKey] = (),
) -> CertPlan:
    """The certificate of a person: their own name, ``permit-pty``, for *ttl* (None: 12 h or what their roles leave).

    A *ttl* that is asked for is given or refused, never cut. *forbidden* keys (CAs, hosts, revoked) are not certified.

    The plan:
    1. The person holds a role that exists.
    2. The name is not one that means root on every node.
    3. The key is not forbidden.
    4. The life is within what the CA and each held role allow.
    """
    # 1.
    held = [role for role in roles if role.name in identity.roles]
    if not held:
        raise AccessDenied("you hold no role", code="no_role", hint="ask an administrator for a role")
    # 2.
    if identity.user in ROOT_LIKE:
        raise AccessDenied(f"nobody is certified as {identity.user}", code="privileged_principal")
    # 3.
    if any(key.blob == public_key.blob for key in forbidden):
        raise AccessDenied("this key cannot be certified for a person", code="key_forbidden")
    # 4.
    life = _user_life(ttl, held)
    begin = _second(now)
    return CertPlan(
        ca=CA.USER,
        public_key=public_key,
        serial=serial,
        key_id=f"v1;u={identity.user};n={serial}",
        principals=(identity.user,),
        valid_after=begin - BACKDATED,
        valid_before=begin + life,
        extensions=frozenset({"permit-pty"}),
    )


def _user_life(ttl: timedelta | None, held: Iterable[Role]) -> timedelta:
    bounds = [role.certificate_ttl for role in held if role.certificate_ttl is not None]
    longest = min([LIMITS[CA.USER].life, *bounds])
    if ttl is None:
        return min(DEFAULT_USER_LIFE, longest)
    if ttl > longest:
        raise InvalidInput(f"ttl: at most {_hours(longest)} for you", code="ttl_too_long")
    if ttl < MIN_USER_LIFE or ttl.microseconds:
        raise InvalidInput("ttl: expected whole seconds, at least five minutes", code="ttl_invalid")
    return ttl


def host_plan(
    name: str, node_id: str, *, serial: int, public_key: PublicKey, now: datetime, ttl: timedelta = HOST_LIFE
) -> CertPlan:
    """The certificate of a node, for its name and its id: 30 days for one that renews, up to 365 by hand."""
    if not LABEL.match(name) or not NODE_ID.match(node_id):
        raise InvalidInput("node: expected a lower-case DNS label", code="principal_invalid")
    begin = _second(now)
    return CertPlan(
        ca=CA.HOST,
        public_key=public_key,
        serial=serial,
        key_id=f"v1;h={name};i={node_id};n={serial}",
        principals=(name, node_id) if name != node_id else (name,),
        valid_after=begin - BACKDATED,
        valid_before=begin + _bounded(ttl, LIMITS[CA.HOST].life),
    )


def target_plan(
    login: str,
    node_id: str,
    *,
    user: str,
    session: str,
    serial: int,
    public_key: PublicKey,
    actions: Collection[str],
    source_addresses: Iterable[str],
    now: datetime,
) -> CertPlan:
    """A bastion's entry into one node as one login, for one minute. The node's log names person and recording."""
    if not LOGIN.match(login) or not NODE_ID.match(node_id):
        raise InvalidInput("login: expected the name of an account", code="principal_invalid")
    if not USER.match(user) or not SESSION_ID.match(session):
        raise ValueError("a target certificate names a person and a session")
    if not actions:
        raise ValueError("nothing is permitted, so nothing is certified")
    listed = [source_address(text) for text in source_addresses]
    if len(listed) > MAX_SOURCE_ADDRESSES:
        raise InvalidInput(f"source address: at most {MAX_SOURCE_ADDRESSES}", code="source_address_invalid")
    addresses = ",".join(listed)
    begin = _second(now)
    return CertPlan(
        ca=CA.TARGET,
        public_key=public_key,
        serial=serial,
        key_id=f"u={user};s={session}",
        principals=(f"{login}@{node_id}",),
        valid_after=begin - BACKDATED,
        valid_before=begin + TARGET_LIFE,
        critical_options={"source-address": addresses} if addresses else {},
        extensions=frozenset({"permit-pty"}) if {Action.SHELL, Action.EXEC} & set(actions) else frozenset(),
    )


def bastion_plan(
    names: Iterable[str],
    *,
    bastion: str,
    serial: int,
    public_key: PublicKey,
    now: datetime,
    ttl: timedelta = BASTION_LIFE,
) -> CertPlan:
    """A host certificate that the bastion called *bastion* shows for *names*: its own, or one node's."""
    principals = tuple(names)
    if not principals:
        raise InvalidInput("names: expected at least one", code="principals_empty")
    if not all(HOST_NAME.match(name) for name in (bastion, *principals)):
        raise InvalidInput("names: expected DNS names in lower case", code="principal_invalid")
    begin = _second(now)
    return CertPlan(
        ca=CA.BASTION,
        public_key=public_key,
        serial=serial,
        key_id=f"v1;b={bastion};n={serial}",
        principals=principals,
        valid_after=begin - BACKDATED,
        valid_before=begin + _bounded(ttl, LIMITS[CA.BASTION].life),
    )


def subject_key(line: str) -> PublicKey:
    """The key that somebody wants certified, from one line of a ``.pub`` file."""
    try:
        return PublicKey.from_line(line)
    except KeyFormatError as error:
        raise InvalidInput(f"public key: {error}", code=error.code) from error


def source_address(text: str) -> str:
    """One address or network in the form that goes into a certificate. Everywhere and several are refused."""
    try:
        (network,) = sshcert.source_networks(text)
    except ValueError as error:
        raise InvalidInput(
            f"source address: {text[:64]!a} is not an address or network", code="source_address_invalid"
        ) from error
    if network.prefixlen == 0:
        raise InvalidInput("source address: a network of all addresses binds nothing", code="source_address_invalid")
    return str(network)


def _second(now: datetime) -> datetime:
    if now.utcoffset() is None:
        raise ValueError("a time without a zone is no time")
    return now.astimezone(UTC).replace(microsecond=0)


def _bounded(ttl: timedelta, longest: timedelta) -> timedelta:
    if ttl > longest:
        raise InvalidInput(f"ttl: at most {_hours(longest)}", code="ttl_too_long")
    if ttl < timedelta(minutes=1) or ttl.microseconds:
        raise InvalidInput("ttl: expected whole seconds, at least a minute", code="ttl_invalid")
    return ttl


def _hours(span: timedelta) -> str:
    minutes = int(span.total_seconds()) // 60
    return f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes} minutes"
