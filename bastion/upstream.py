"""
The node's side of a session: dial it, check its host key strictly, enter with the certificate for this one session.

Trust on first use does not exist: a node shows a certificate of the host CA for its own ID and a registered key, or,
when an administrator pinned keys, one of these very keys. Nothing is sent to a node that shows anything else.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address

import asyncssh
from asyncssh.public_key import SSHKey

from bastion.ssh_adapter import NodeConnection, client_options, host_key_algorithms
from ca import sshcert, wire
from ca.errors import Unavailable
from ca.model import no_place_for_a_node
from recordings.sshkey import KeyFormatError, PublicKey

CONNECT_SECONDS = 10
SIGN_IN_SECONDS = 15
_TCP_QUICKACK = 12


class HostKeyRefused(Unavailable):
    """The node showed a host key that is not its own."""

    kind = "hostkey_refused"

    def __init__(self, message: str, *, hint: str, shown: str) -> None:
        super().__init__(message, hint=hint)
        self.shown = shown


class _Node(NodeConnection):
    """Acknowledges the node's first packets at once: sshd sets no TCP_NODELAY until a terminal is asked for."""

    _quick = 80

    def data_received(self, data: bytes, datatype: asyncssh.DataType = None) -> None:
        if self._quick:
            self._quick -= 1
            _quick_ack(self.get_extra_info("socket"))
        super().data_received(data, datatype)


def _quick_ack(sock: socket.socket | None) -> None:
    if sock is not None and hasattr(socket, "TCP_QUICKACK"):
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_QUICKACK, 1)


def host_key_check(allowed: wire.SessionAllowed, trust: wire.TrustAnchors) -> Callable[[bytes], bytes]:
    """A judge of the key that the node shows; gives the bare key's blob or raises HostKeyRefused."""
    registered = {key.blob: key for key in map(PublicKey.from_line, allowed.host_keys)}
    expected = ", ".join(sorted(key.fingerprint() for key in registered.values())) or "none"
    host_ca = [PublicKey.from_line(line) for line in trust.host_ca]

    def check(shown: bytes) -> bytes:
        key, certified = _shown_key(shown)
        reason = ""
        try:
            if not allowed.pinned:
                key = sshcert.verify(
                    shown,
                    trusted=host_ca,
                    kind=sshcert.CertKind.HOST,
                    now=datetime.now(UTC),
                    principal=allowed.node_id,
                ).public_key
        except sshcert.CertificateError as error:
            reason = f"{error}; " if certified else "it shows no certificate; "
        known = key is not None and key.blob in registered
        if key is not None and known and not reason:
            return key.blob
        fingerprint = key.fingerprint() if key else _hash(shown)
        raise HostKeyRefused(
            f"host key of {allowed.node} not verified: {reason}its key is {fingerprint}, registered is {expected}",
            hint=_next_step(allowed, known=known),
            shown=fingerprint,
        )

    return check


def _shown_key(shown: bytes) -> tuple[PublicKey | None, bool]:
    """The key in *shown*, None when it cannot be read, and whether there is a certificate round it."""
    try:
        return PublicKey.parse(shown), False
    except KeyFormatError:
        pass
    try:
        return sshcert.parse(shown).public_key, True
    except sshcert.CertificateError:
        return None, True


def _next_step(allowed: wire.SessionAllowed, *, known: bool) -> str:
    """What helps: a *known* key lacks its certificate only; another one must first be vouched for."""
    if known:
        return (
            f"an administrator certifies it anew (bartizan nodes certify {allowed.node} KEY.pub)"
            f" and compares its sshd_config with: bartizan nodes sshd-config {allowed.node}"
        )
    again = f"bartizan nodes certify {allowed.node} KEY.pub"
    return f"if the node was reinstalled, an administrator compares the fingerprint on it and runs: {again}"


def _hash(blob: bytes) -> str:
    return f"SHA256:{base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip('=')}"


async def _addresses(allowed: wire.SessionAllowed, host: str, port: int) -> list[str]:
    """Where the node may be dialled, each address checked after the name was resolved; nobody resolves it again.

    A name is another's word: it may have been turned to this machine, or to where a cloud keeps credentials. Loopback
    is for those who wrote loopback.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    here = host == "localhost" or _is_address(host)
    refused = {each: no_place_for_a_node(ip_address(each), loopback=here) for each in addresses}
    good = [each for each, why in refused.items() if why is None]
    if not good:
        each, why = next(iter(refused.items()), ("nothing", "no address"))
        raise Unavailable(
            f"{allowed.node} is not dialled: {allowed.address} leads to {each} ({why})",
            hint=f"an administrator checks its address: bartizan nodes list; who changed the name {host}?",
        )
    return good


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def _dialled(
    protocol: Callable[[], _Node], addresses: Sequence[str], port: int
) -> tuple[asyncio.Transport, _Node]:
    """A connection to the first of *addresses* that answers. Raises the first one's OSError when none does."""
    failed: OSError | None = None
    for address in addresses:
        try:
            return await asyncio.get_running_loop().create_connection(protocol, address, port)
        except OSError as error:
            failed = failed or error
    assert failed is not None
    raise failed


async def enter(
    allowed: wire.SessionAllowed,
    trust: wire.TrustAnchors,
    key: SSHKey,
    *,
    blocked: Callable[[bool], None],
) -> NodeConnection:
    """An authenticated connection to the node. Raises Unavailable with a sentence for the user."""
    host, _, port = allowed.address.rpartition(":")
    host = host.strip("[]")
    options = await client_options(allowed.node, int(port), allowed.login, key, allowed.target_certificate)
    loop = asyncio.get_running_loop()
    check = host_key_check(allowed, trust)
    registered = {PublicKey.from_line(line).algorithm for line in allowed.host_keys}
    algorithms = host_key_algorithms(registered, pinned=allowed.pinned)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, node = await _dialled(
                lambda: _Node(loop, options, check=check, algorithms=algorithms, blocked=blocked),
                await _addresses(allowed, host, int(port)),
                int(port),
            )
    except TimeoutError:
        raise Unavailable(f"{allowed.node} does not answer at {allowed.address}", hint="is the host up?") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        hint = "is its address right?" if isinstance(error, socket.gaierror) else "is its sshd running?"
        raise Unavailable(f"{allowed.node} cannot be reached at {allowed.address}: {reason}", hint=hint) from None
    try:
        async with asyncio.timeout(SIGN_IN_SECONDS):
            await node.signed_in()
    except HostKeyRefused:
        raise
    except TimeoutError:
        node.abort()
        raise Unavailable(f"{allowed.node} does not finish the SSH handshake") from None
    except asyncio.CancelledError:
        node.abort()
        raise
    except asyncssh.PermissionDenied:
        raise Unavailable(
            f"{allowed.node} does not let login {allowed.login} in with the bastion's certificate",
            hint=f"is there such an account, and does its sshd_config hold: bartizan nodes sshd-config {allowed.node}",
        ) from None
    except (asyncssh.ConnectionLost, OSError):
        raise Unavailable(
            f"what answers for {allowed.node} at {allowed.address} hung up in the SSH handshake", hint="is it its sshd?"
        ) from None
    except asyncssh.Error as error:
        raise Unavailable(f"the SSH handshake with {allowed.node} failed: {error}") from None
    return node
