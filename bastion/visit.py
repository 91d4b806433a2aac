"""
One SSH connection from a user until it is somebody's session: who signs in, and which node is meant.

A connection is one of four things. It named a node before SSH began (``config``), it is an inner connection of
``ssh -J`` (``jump``), its user name holds a node (``username``), or it names none and only leads to inner ones.
"""

from __future__ import annotations

import re
from asyncio import AbstractEventLoop, TaskGroup, get_running_loop
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import asyncssh
import structlog

from bastion.bridge import RefusedChannel
from bastion.penalties import FAILED, Penalties
from bastion.session import Services, Session, Way
from bastion.shown import ShownKeys
from bastion.ssh_adapter import PROHIBITED, SHORTAGE, UNKNOWN_TYPE, Opening, Proof, Shown, UserConnection
from bastion.target import Target, TargetError, from_user_name, login_name, node_name
from bastion.tries import Tries, Try
from ca import audit, sshcert, wire
from ca.errors import BartizanError
from ca.sshcert import Certificate, CertificateError, CertKind
from recordings.sshkey import PublicKey

log = structlog.get_logger()

VERSION = "Bartizan_0.1"
MAX_JUMPS = 10


@dataclass(slots=True)
class Door:
    """What every visit of one worker needs."""

    services: Services
    shown: ShownKeys
    options: asyncssh.SSHServerConnectionOptions
    penalties: Penalties
    group: TaskGroup
    beacon: str = ""
    clock: Callable[[], float] = lambda: get_running_loop().time()
    user_ca: tuple[PublicKey, ...] = ()
    tries: Tries = field(default_factory=Tries)

    def trust(self, anchors: wire.TrustAnchors) -> None:
        """Believe *anchors* from now on."""
        self.services.trust = anchors
        self.user_ca = tuple(PublicKey.from_line(line) for line in anchors.user_ca)

    def failed(self, user: str, source: str, reason: str) -> None:
        """Somebody tried to come in and was turned away: told at once, or counted."""
        one = Try(user, source, reason)
        if self.tries.add(one, self.clock()):
            self._tell(one, 1)

    def tell_tries(self, *, early: bool = False) -> None:
        """Tell what was counted, when it is time or, with *early*, in any case."""
        for one, number in self.tries.take(self.clock(), early=early).items():
            self._tell(one, number)

    def _tell(self, one: Try, number: int) -> None:
        """Audit *number* tries alike. Where they would take the room that sessions need, they go on being counted."""
        log.info("sign_in.failed", source=one.source, reason=one.reason, count=number)
        name = self.services.state.name
        event = audit.AuthFailed(bastion=name, user=one.user, source=one.source, reason=one.reason, count=number)
        try:
            if not self.services.outbox.crowded:
                self.services.outbox.add(event)
                return
        except OSError as error:
            log.error("outbox.failed", error=str(error))
        self.tries.count(one, number)

    @property
    def version(self) -> str:
        return f"{VERSION} b={self.beacon}"


class Visit:
    """The visitor of one user connection; see ``ssh_adapter.Visitor``."""

    def __init__(self, door: Door, *, node: str | None, way: Way, outer: Visit | None = None) -> None:
        self._door = door
        self._outer = outer
        self._node = node
        self._way: Way = way
        self._session: Session | None = None
        self._connection: UserConnection | None = None
        self._proof: Proof | None = None
        self._waiting = outer is None  # counted among those that are signing in
        self._told = False
        self._failures = 0
        self._jumped = 0
        if self._waiting:
            door.penalties.signing_in += 1

    def connect(self, loop: AbstractEventLoop, shown: Shown, peer: tuple[str, int] | None = None) -> UserConnection:
        """The SSH connection of this visit, not yet on any transport."""
        door = self._door
        self._connection = UserConnection(
            loop, door.options, visitor=self, shown=shown, version=door.version, peer=peer
        )
        return self._connection

    # --- sign-in -------------------------------------------------------------------------------------------------

    def verify(self, key_blob: bytes, source: str) -> Certificate:
        certificate = sshcert.verify(
            key_blob, trusted=self._door.user_ca, kind=CertKind.USER, now=datetime.now(UTC), source=source
        )
        if len(certificate.principals) != 1:
            raise CertificateError("principal_mismatch", "a person's certificate has one principal, the user name")
        if "force-command" in certificate.critical_options:
            raise CertificateError("option_unknown", "a certificate with a forced command opens nothing here")
        if self._outer is not None and certificate.principals != self._outer.principals:
            raise CertificateError("principal_mismatch", "the inner sign-in must be by the same person as the outer")
        return certificate

    def failed(self, user: str, code: str, message: str) -> str | None:
        self._failures += 1
        self._door.failed(user, self._connection.source if self._connection else "", code)
        if self._told:
            return None
        self._told = True
        return _advice(code, message)

    def signed_in(self, connection: UserConnection, proof: Proof) -> None:
        self._leave_queue()
        self._proof = proof
        cluster = self._door.services.trust.cluster
        try:
            if self._node is not None:
                target: Target | None = Target(self._node, login_name(connection.user_name))
            else:
                target = from_user_name(connection.user_name, cluster=cluster)
        except TargetError as error:
            self._refusal = str(error)
            return
        if target is None:
            return
        self._session = Session(self._door.services, connection, target, self._way, proof)
        self._door.group.create_task(self._session.run())

    _refusal = "no node was named; type: ssh NODE, or: ssh LOGIN+NODE@bartizan"

    # --- afterwards ------------------------------------------------------------------------------------------------

    @property
    def jumps(self) -> bool:
        return self._session is None and self._way != "jump"

    async def jump(self, host: str) -> UserConnection:
        """The inner SSH connection of ``ssh -J bartizan NODE``, ended here."""
        assert self._connection is not None
        assert self._proof is not None
        door = self._door
        try:
            node = node_name(host, cluster=door.services.trust.cluster)
        except TargetError as error:
            raise asyncssh.ChannelOpenError(PROHIBITED, str(error)) from None
        if self._jumped >= MAX_JUMPS:
            raise asyncssh.ChannelOpenError(SHORTAGE, "too many connections through one jump")
        self._jumped += 1  # before anything is awaited: a thousand at once are not ten
        try:
            shown = door.shown.ready(node) or await door.shown.fetch(node)
        except BartizanError as error:
            self._jumped -= 1
            raise asyncssh.ChannelOpenError(SHORTAGE, str(error)) from None
        inner = Visit(door, node=node, way="jump", outer=self)
        return inner.connect(get_running_loop(), shown, (self._connection.source, 0))

    @property
    def principals(self) -> tuple[str, ...]:
        """Of the certificate that signed in here."""
        return () if self._proof is None else self._proof.certificate.principals

    def opening(self, opening: Opening) -> None:
        assert self._connection is not None
        if self._session is not None:
            self._session.opening(opening)
        elif self._connection.open_channels >= 2 * MAX_JUMPS:
            self._connection.refuse(opening, SHORTAGE, "too many channels at once")
        elif opening.kind == b"session":
            RefusedChannel(opening, self._connection, self._refusal)
        else:
            self._connection.refuse(opening, UNKNOWN_TYPE, "unknown channel type")

    def forward_refused(self, request: bytes) -> None:
        if self._session is not None:
            self._session.forward_refused(request)

    def blocked(self, blocked: bool) -> None:
        if self._session is not None:
            self._session.blocked(blocked)

    def lost(self) -> None:
        if self._waiting and self._failures and self._connection is not None:
            self._door.penalties.punish(self._connection.source, FAILED * self._failures, self._door.clock())
        self._leave_queue()
        if self._outer is not None:
            self._outer._jumped -= 1
        if self._session is not None:
            self._session.lost()

    def _leave_queue(self) -> None:
        if self._waiting:
            self._waiting = False
            self._door.penalties.signing_in -= 1


def _advice(code: str, message: str) -> str | None:
    """What to tell somebody whose sign-in failed: what is wrong and the next command."""
    match code:
        case "expired":
            return f"{message}: run bart login"
        case "not_yet_valid":
            return f"{message}; is this computer's clock right?"
        case "ca_untrusted":
            return "this certificate is from another cluster, or its CA was replaced: run bart login"
        case "source_address":
            return message
        case "parse" | "key_type" | "plain_key":
            return "this key has no certificate of ours; if no other follows: run bart login"
        case "hostkey_mismatch" | "principal_mismatch":
            return message
        case _:
            return f"sign-in refused: {re.sub(r'[^ -~]', '?', message)[:200]}"
