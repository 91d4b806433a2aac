"""
Sockets and the first bytes on them: the preamble of the written config, a PROXY header from a listed balancer, or SSH.

The listener looks at the first bytes for at most 0.3 s. ``bartizan/1 NODE`` names the node, anything else or silence is
an ordinary SSH client. Then the connection is handed to SSH, with whatever it has said so far.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import cast

import structlog

from bastion.penalties import ABANDONED
from bastion.target import PREAMBLE, PREAMBLE_LIMIT, TargetError, from_preamble
from bastion.visit import VERSION, Door, Visit
from ca.errors import BartizanError

log = structlog.get_logger()

PEEK_SECONDS = 0.3
GOODBYE_SECONDS = 2.0
_PROXY = b"PROXY "
_PROXY_LIMIT = 108


class FirstBytes(asyncio.Protocol):
    """Holds a fresh connection until it is clear what it is."""

    def __init__(
        self, door: Door, *, balancers: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    ) -> None:
        self._door = door
        self._balancers = balancers
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._seen = b""
        self._source = ("", 0)
        self._proxied = False
        self._decided = False
        self._deaf = False
        self._counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are of no common class
        peer = transport.get_extra_info("peername") or ("", 0)
        self._source = (peer[0].removeprefix("::ffff:"), peer[1])
        self._proxied = not self._from_balancer()
        if self._door.services.draining:
            self._drop()
            return
        if self._turned_away():
            return
        self._door.penalties.signing_in += 1  # from the first moment on: waiting for a certificate counts, too
        self._counted = True
        self._timer = asyncio.get_running_loop().call_later(PEEK_SECONDS, self._decide, None)

    def _turned_away(self) -> bool:
        """Whether the source may not come now; it is then counted, and dropped without a word."""
        why = self._door.penalties.refuses(self._source[0], self._door.clock())
        if why is None:
            return False
        self._door.failed("", self._source[0], why)
        self._drop()
        return True

    def _drop(self) -> None:
        self._decided = True
        if self._transport is not None:
            self._transport.abort()

    def _from_balancer(self) -> bool:
        if not self._balancers:
            return False
        address = ipaddress.ip_address(self._source[0])
        return any(address.version == network.version and address in network for network in self._balancers)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._seen += data
        if self._decided:
            return
        if not self._proxied:
            self._proxy_header()
        elif PREAMBLE.startswith(self._seen[: len(PREAMBLE)]):
            line, newline, rest = self._seen.partition(b"\n")
            if newline:
                self._seen = rest
                self._named(line)
            elif len(self._seen) >= PREAMBLE_LIMIT:
                self._goodbye("malformed preamble: too long")
        else:
            self._decide(None)

    def _proxy_header(self) -> None:
        """``PROXY TCP4 SOURCE DEST SPORT DPORT`` (haproxy proxy-protocol.txt §2.1), from listed balancers only."""
        line, newline, rest = self._seen.partition(b"\r\n")
        if not newline and len(self._seen) < _PROXY_LIMIT and _PROXY.startswith(self._seen[: len(_PROXY)]):
            return
        words = line.split(b" ")
        try:
            if not newline or words[0] != b"PROXY":
                raise ValueError
            if words[1:2] != [b"UNKNOWN"]:  # so a balancer marks its own health checks
                self._source = _proxied_source(words)
        except ValueError:
            self._goodbye("malformed PROXY header")
            return
        if self._turned_away():
            return
        self._proxied, self._seen = True, rest
        if rest:
            self.data_received(b"")

    def _named(self, line: bytes) -> None:
        try:
            self._decide(from_preamble(line.removesuffix(b"\r"), cluster=self._door.services.trust.cluster))
        except TargetError as error:
            self._goodbye(str(error))

    def _decide(self, node: str | None) -> None:
        """It is clear what this is: hand it to SSH once the host certificate is here."""
        if self._decided or self._transport is None:
            return
        self._decided = True
        if self._timer is not None:
            self._timer.cancel()
        shown = self._door.shown.ready(node or "")
        if shown is not None:
            self._hand_over(node)
        else:
            self._transport.pause_reading()
            self._door.group.create_task(self._fetch(node))

    async def _fetch(self, node: str | None) -> None:
        try:
            await self._door.shown.fetch(node or "")
        except BartizanError as error:
            log.warning("shown.unavailable", node=node, error=str(error))
            self._goodbye("the bastion has no contact with its authority: try again in a minute")
            return
        if self._transport is not None and not self._transport.is_closing():
            self._hand_over(node)
            if self._transport is not None:
                self._transport.resume_reading()

    def _hand_over(self, node: str | None) -> None:
        transport = self._transport
        shown = self._door.shown.ready(node or "")
        if transport is None or shown is None:
            return
        self._count_no_more()
        visit = Visit(self._door, node=node, way="config" if node else "username")
        connection = visit.connect(asyncio.get_running_loop(), shown, self._source)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if self._seen:
            connection.data_received(self._seen)

    def _goodbye(self, reason: str) -> None:
        """An SSH disconnect with a sentence, before any key exchange (RFC 4253 §11.1)."""
        if self._timer is not None:
            self._timer.cancel()
        self._decided = True
        if self._transport is not None:
            # Closing at once, with bytes of the client unread, would reset the connection and lose the sentence.
            self._deaf = True
            self._transport.write(_disconnect(reason))
            self._transport.write_eof()
            self._transport.resume_reading()
            self._timer = asyncio.get_running_loop().call_later(GOODBYE_SECONDS, self._drop)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._seen and not self._decided:
            self._door.penalties.punish(self._source[0], ABANDONED, self._door.clock())
        self._count_no_more()
        self._transport = None

    def _count_no_more(self) -> None:
        """Gone, or counted by the visit from here on."""
        if self._counted:
            self._counted = False
            self._door.penalties.signing_in -= 1


def _proxied_source(words: list[bytes]) -> tuple[str, int]:
    """Address and port of the client that a balancer speaks for."""
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise ValueError
    address = ipaddress.ip_address(words[2].decode("ascii"))
    if address.version != (4 if words[1] == b"TCP4" else 6) or not words[4].isdigit() or int(words[4]) > 65_535:
        raise ValueError
    return str(getattr(address, "ipv4_mapped", None) or address), int(words[4])


def _disconnect(reason: str) -> bytes:
    text = reason.encode()
    payload = b"\x01" + (2).to_bytes(4, "big") + len(text).to_bytes(4, "big") + text + bytes(4)
    padding = 8 - (5 + len(payload)) % 8
    padding += 8 if padding < 4 else 0
    packet = (len(payload) + padding + 1).to_bytes(4, "big") + bytes([padding]) + payload + bytes(padding)
    return f"SSH-2.0-{VERSION}\r\n".encode() + packet


def listening_socket(host: str, port: int) -> socket.socket:
    """A listening TCP socket that other workers may share (SO_REUSEPORT)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((host, port))
    sock.setblocking(False)
    return sock
