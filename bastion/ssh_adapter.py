"""
The only file that touches asyncssh's internals. asyncssh does the transport (RFC 4253) and drives sign-in (RFC 4252);
it never judges a certificate and never sees a relayed channel: both are ours.

Every private name used here and in fast_packets.py is listed in ``PRIVATE_NAMES`` and held by
tests/bastion/test_ssh_adapter.py, which fails when an upgrade moves one.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import asyncssh
from asyncssh import auth as asyncssh_auth
from asyncssh.misc import ProtocolError
from asyncssh.packet import Boolean, PacketDecodeError, SSHPacket, String, UInt32
from asyncssh.public_key import SSHKey, SSHKeyPair, decode_ssh_public_key, load_keypairs

from bastion import relay
from bastion.fast_packets import FastPackets
from ca import sshcert, wire
from ca.sshcert import Certificate, CertificateError
from recordings.sshwire import string

PRIVATE_NAMES = frozenset(
    {
        "_all_server_host_keys",
        "_auth_complete",
        "_auth_final",
        "_cert_options",
        "_channels",
        "_cipher",
        "_cleanup",
        "_client_kexinit",
        "_client_version",
        "_compressor",
        "_conn",
        "_connection_made",
        "_decompressor",
        "_extensions_to_send",
        "_force_close",
        "_format_client_key",
        "_format_server_key",
        "_inpbuf",
        "_iv",
        "_kex",
        "_kex_complete",
        "_key",
        "_key_options",
        "_loop",
        "_max_recv_pktlen",
        "_owner",
        "_packet_handlers",
        "_peer_addr",
        "_peer_port",
        "_process_channel_open",
        "_process_global_request",
        "_process_userauth_request",
        "_process_userauth_success",
        "_recv_data",
        "_recv_encryption",
        "_recv_handler",
        "_recv_packet",
        "_recv_pkthdr",
        "_recv_seq",
        "_rekey_bytes",
        "_rekey_bytes_sent",
        "_rekey_seconds",
        "_rekey_time",
        "_reset_keepalive_timer",
        "_send",
        "_send_disconnect",
        "_send_encryption",
        "_send_kexinit",
        "_send_seq",
        "_server_host_key",
        "_server_host_key_algs",
        "_server_host_keys",
        "_server_kexinit",
        "_server_version",
        "_session_id",
        "_start",
        "_transport",
        "_username",
        "_version",
    }
)

KEX = ("mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256")
CIPHERS = ("aes256-gcm@openssh.com", "aes128-gcm@openssh.com", "aes256-ctr", "aes128-ctr")
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")
SIGNATURES = (
    "ssh-ed25519", "sk-ssh-ed25519@openssh.com", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com", "rsa-sha2-512", "rsa-sha2-256",
)  # fmt: skip
HOST_KEYS = (
    b"ssh-ed25519",
    b"ecdsa-sha2-nistp256",
    b"ecdsa-sha2-nistp384",
    b"ecdsa-sha2-nistp521",
    b"rsa-sha2-512",
    b"rsa-sha2-256",
)
"""Names of signature algorithms; the last two are both for keys of type ssh-rsa (RFC 8332)."""
CERTIFIED = b"-cert-v01@openssh.com"
HOSTBOUND = b"publickey-hostbound-v00@openssh.com"
MAX_TRIES = 6
LOGIN_GRACE_SECONDS = 30
REKEY_GRACE_SECONDS = 30
MOST_UNSENT = 16 << 20
"""Bytes that may wait for a peer who does not read. What is relayed stops long before; our own answers do not."""

_KEXINIT, _NEWKEYS, _LAST_OF_EXCHANGE, _SERVICE = 20, 21, 49, (5, 6)  # RFC 4253 §12
_OPEN_CONFIRMATION, _OPEN_FAILURE, _WINDOW, _DATA, _EXTENDED, _EOF, _CLOSE, _REQUEST, _SUCCESS, _FAILURE = range(
    91, 101
)
PROHIBITED, CONNECT_FAILED, UNKNOWN_TYPE, SHORTAGE = 1, 2, 3, 4  # RFC 4254 §5.1


@dataclass(frozen=True, slots=True)
class Proof:
    """What a user proved: the exchange, the signed request, and the certificate that we checked."""

    certificate: Certificate
    transcript: wire.Transcript
    auth_request: bytes
    signature: bytes
    session_id: bytes


@dataclass(frozen=True, slots=True)
class Opening:
    """A channel that the user wants (RFC 4254 §5.1). ``rest`` is what follows the four common fields."""

    kind: bytes
    number: int
    window: int
    packet_size: int
    rest: bytes


@dataclass(frozen=True, slots=True)
class Shown:
    """The host keys that a connection shows: key pairs, the certificate first."""

    pairs: Sequence[SSHKeyPair]


def shown_certificate(key: SSHKey, line: str, *, plain_too: bool) -> Shown:
    """*key* with the host certificate *line*; the bare key too where a client may know it by itself."""
    pairs = load_keypairs([(key, asyncssh.import_certificate(line))])
    return Shown([pair for pair in pairs if plain_too or pair.algorithm.endswith(b"-cert-v01@openssh.com")])


class Visitor(Protocol):
    """Who is told what happens on one user connection. Nothing here may raise."""

    def verify(self, key_blob: bytes, source: str) -> Certificate:
        """The user certificate in *key_blob*, checked strictly. Raises CertificateError."""

    def failed(self, user: str, code: str, message: str) -> str | None:
        """A sign-in try failed; a sentence to show the user, if any."""

    def signed_in(self, connection: UserConnection, proof: Proof) -> None: ...

    def opening(self, opening: Opening) -> None: ...

    @property
    def jumps(self) -> bool:
        """Whether this connection only leads to inner ones (``ssh -J bartizan``)."""

    def jump(self, host: str) -> Coroutine[Any, Any, UserConnection]:
        """The inner connection for ``direct-tcpip`` to *host*. Raises asyncssh.ChannelOpenError."""

    def forward_refused(self, request: bytes) -> None: ...

    def blocked(self, blocked: bool) -> None:
        """The user's transport takes no more for now, or takes again."""

    def lost(self) -> None: ...


# --- channels, raw -----------------------------------------------------------------------------------------------


class ChannelEnd:
    """One leg of a relayed channel: messages in by ``deliver``, out by ``send``; in asyncssh's channel table."""

    def __init__(self, connection: _Relayed, deliver: Callable[[relay.Message], None]) -> None:
        self._connection: _Relayed | None = connection
        self._deliver = deliver
        self.number = connection.add_channel(cast(Any, self))
        self.peer = -1
        self.packet_size = 32_768
        self.lost: Callable[[], None] = lambda: None

    def send(self, message: relay.Message) -> None:
        """Send *message*; what is longer than the peer takes at once goes in pieces."""
        connection = self._connection
        if connection is None:
            return
        peer = UInt32(self.peer)
        match message:
            case relay.Data(data):
                for start in range(0, len(data), self.packet_size):
                    connection.send_packet(_DATA, peer, String(data[start : start + self.packet_size]))
            case relay.Extended(code, data):
                connection.send_packet(_EXTENDED, peer, UInt32(code), String(data))
            case relay.Window(more):
                connection.send_packet(_WINDOW, peer, UInt32(more))
            case relay.Eof():
                connection.send_packet(_EOF, peer)
            case relay.Close():
                connection.send_packet(_CLOSE, peer)
            case relay.Request(name, want_reply, body):
                connection.send_packet(_REQUEST, peer, String(name), Boolean(want_reply), body)
            case relay.Reply(ok):
                connection.send_packet(_SUCCESS if ok else _FAILURE, peer)

    def release(self) -> None:
        """Both sides have closed: the number is free again (RFC 4254 §5.3)."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.remove_channel(self.number)

    # What asyncssh calls on the objects in its channel table:

    def process_packet(self, pkttype: int, _seq: int, packet: SSHPacket) -> bool:
        try:
            message = _read(pkttype, packet)
        except PacketDecodeError as error:
            raise ProtocolError(str(error)) from None
        if message is None:
            return False
        self._deliver(message)
        return True

    def take(self, pkttype: int, body: bytes) -> None:
        """SSH_MSG_CHANNEL_DATA or WINDOW_ADJUST, its fields behind the channel number (the fast way in)."""
        length = int.from_bytes(body[:4], "big")
        if pkttype == 93:
            if len(body) != 4:
                raise ProtocolError("a window adjustment of another length than four bytes")
            self._deliver(relay.Window(length))
        elif length != len(body) - 4:
            raise ProtocolError("channel data of another length than it says")
        else:
            self._deliver(relay.Data(body[4:]))

    def log_received_packet(self, *_args: object) -> None:
        """Packets are not logged: they hold what people type."""

    def process_connection_close(self, _error: Exception | None) -> None:
        self._connection = None
        self.lost()

    def close(self) -> None:
        """asyncssh closes all channels when it disconnects; ours are closed by the relay."""


def _read(pkttype: int, packet: SSHPacket) -> relay.Message | None:
    """The message in *packet*, behind its channel number."""
    message: relay.Message
    match pkttype:
        case 94:
            message = relay.Data(packet.get_string())
        case 95:
            message = relay.Extended(packet.get_uint32(), packet.get_string())
        case 93:
            message = relay.Window(packet.get_uint32())
        case 96:
            message = relay.Eof()
        case 97:
            message = relay.Close()
        case 98:
            message = relay.Request(packet.get_string(), packet.get_boolean(), packet.get_remaining_payload())
            return message
        case 99 | 100:
            message = relay.Reply(pkttype == 99)
        case _:
            return None
    packet.check_end()
    return message


class _Channels(dict[int, Any]):
    """asyncssh's channel table, closed while the peer changes keys: no message may come for a channel then."""

    def __init__(self, connection: _Relayed) -> None:
        super().__init__()
        self._check = connection.check_quiet

    def __getitem__(self, number: int) -> Any:
        self._check()
        return super().__getitem__(number)


class _Relayed(FastPackets):
    """What both kinds of connection share: a gate on reading, no logging of packets, a watchdog on re-keying.

    While keys are exchanged nothing can be sent: the other side waits, and this one is read whoever waits for it.
    """

    _blocked: Callable[[bool], None]
    _full = False
    _may_read = True
    _deferred_size = 0
    _given_up = False

    def log_received_packet(self, *_args: object) -> None:
        """Packets are not logged: they hold what people type."""

    def log_sent_packet(self, *_args: object, **_more: object) -> None:
        """Packets are not logged: they hold what people type."""

    def process_packet(self, pkttype: int, seq: int, packet: SSHPacket) -> Any:
        """Any packet but those of channels, sign-in and the key exchange itself."""
        if pkttype == _KEXINIT:
            self._peer_changing = True
        elif pkttype == _NEWKEYS:
            self._peer_changing = False
        elif pkttype in _SERVICE or pkttype > _LAST_OF_EXCHANGE:
            self.check_quiet()
        return super().process_packet(pkttype, seq, packet)

    def check_quiet(self) -> None:
        """
        Raise ProtocolError if the peer is changing keys, and so may say nothing else (RFC 4253 §7.1).

        What it said before it had seen our own SSH_MSG_KEXINIT is fine: only its own one binds it.
        """
        if self._peer_changing:
            raise ProtocolError("a message that is not of the key exchange, in the middle of it")

    def pause_writing(self) -> None:
        self._full = True
        self._tell()

    def resume_writing(self) -> None:
        self._full = False
        self._tell()

    def read(self, on: bool) -> None:
        """Read from the peer, or leave it waiting (back-pressure)."""
        self._may_read = on
        self._tell()

    def _tell(self) -> None:
        """Put in force what was said by ``read``, by the transport, and by the key exchange."""
        changing = self._auth_complete and not self._kex_complete
        transport = self._transport
        if transport is not None:
            if self._may_read or changing:
                transport.resume_reading()
            else:
                transport.pause_reading()
        self._blocked(self._full or changing)

    def _send_kexinit(self) -> None:
        super()._send_kexinit()
        if self._auth_complete:
            self._loop.call_later(REKEY_GRACE_SECONDS, self._rekey_overdue, self._rekey_time)
            self._tell()

    def send_newkeys(self, k: bytes, h: bytes) -> None:
        super().send_newkeys(k, h)
        self._deferred_size = 0
        if self._auth_complete:
            self._tell()

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        if self._auth_complete and not self._kex_complete:
            self._deferred_size += 64 + sum(map(len, args))
            if self._deferred_size > MOST_UNSENT // 2:
                self._force_close(ProtocolError("too much waits for a key exchange"))
                return
        super().send_packet(pkttype, *args, handler=handler)

    def _flush(self) -> None:
        super()._flush()
        transport = self._transport
        if transport is not None and not self._given_up and transport.get_write_buffer_size() > MOST_UNSENT:
            self._given_up = True
            self._force_close(ProtocolError("too much waits for a peer that does not read"))

    def _rekey_overdue(self, since: float) -> None:
        if self._transport is not None and not self._kex_complete and self._rekey_time == since:
            self._force_close(ProtocolError("re-keying took too long"))

    @property
    def alive(self) -> bool:
        return self._transport is not None

    def fatal(self, reason: str) -> None:
        """Disconnect with SSH_DISCONNECT_PROTOCOL_ERROR."""
        if self._transport is not None:
            self.disconnect(asyncssh.DISC_PROTOCOL_ERROR, reason)


# --- the user's side -----------------------------------------------------------------------------------------------


class _HostboundAuth(asyncssh_auth.ServerAuth):
    """``publickey-hostbound-v00@openssh.com`` (OpenSSH PROTOCOL §3.1): the server's host key is signed, too."""

    @classmethod
    def supported(cls, conn: Any) -> bool:
        return bool(conn.public_key_auth_supported())

    async def _start(self, packet: SSHPacket) -> None:
        signed = packet.get_boolean()
        algorithm, key_data, host_key = packet.get_string(), packet.get_string(), packet.get_string()
        message = packet.get_consumed_payload() if signed else b""
        signature = packet.get_string() if signed else b""
        packet.check_end()
        connection = cast(UserConnection, self._conn)
        if host_key != connection.shown_host_key:
            connection.sign_in_failed("hostkey_mismatch", "the signature was made for another server")
            self.send_failure()
        elif not await connection.validate_public_key(self._username, key_data, message, signature):
            self.send_failure()
        elif signed:
            await self.send_success()
        else:
            self.send_packet(asyncssh_auth.MSG_USERAUTH_PK_OK, String(algorithm), String(key_data))


asyncssh_auth._server_auth_handlers[HOSTBOUND] = _HostboundAuth


class _Owner(asyncssh.SSHServer):
    """asyncssh asks this object; all it may do is sign in by key, and open the inner connections of ``ssh -J``."""

    def __init__(self) -> None:
        self.connection: UserConnection | None = None

    def begin_auth(self, username: str) -> bool:
        return True  # False would mean that no sign-in is needed

    def public_key_auth_supported(self) -> bool:
        return True

    def connection_requested(self, dest_host: str, _port: int, _orig_host: str, _orig_port: int) -> Any:
        assert self.connection is not None
        return self.connection.visitor.jump(dest_host)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.connection is not None:
            self.connection.visitor.lost()


class UserConnection(_Relayed, asyncssh.SSHServerConnection):
    """A user's SSH connection: strict sign-in that leaves a proof, and channels handed out raw."""

    _packet_handlers = dict(asyncssh.SSHServerConnection._packet_handlers)  # noqa: RUF012  # as asyncssh has it

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: asyncssh.SSHServerConnectionOptions,
        *,
        visitor: Visitor,
        shown: Shown,
        version: str,
        peer: tuple[str, int] | None = None,
    ) -> None:
        super().__init__(loop, options)
        self._channels = _Channels(self)
        self.visitor = visitor
        self._blocked = visitor.blocked
        self._version = version.encode("ascii")
        self._server_host_keys = OrderedDict()
        for pair in shown.pairs:
            for algorithm in pair.host_key_algorithms:
                self._server_host_keys[algorithm] = pair
        self._all_server_host_keys = OrderedDict()
        self._server_host_key_algs = list(self._server_host_keys)
        self._extensions_to_send[b"publickey-hostbound@openssh.com"] = b"0"
        self._extensions_to_send[b"ping@openssh.com"] = b"0"
        self._given_peer = peer
        self._tries = 0
        self._method = b""
        self._first_user: bytes | None = None
        self._transcript: wire.Transcript | None = None
        self.proof: Proof | None = None
        self.no_more_sessions = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._given_peer is not None:
            self._peer_addr, self._peer_port = self._given_peer
        if isinstance(self._owner, _Owner):
            self._owner.connection = self

    async def reload_config(self) -> None:
        """There are no ``Match`` blocks: options never change by user."""

    @property
    def source(self) -> str:
        """The user's address; IPv4 in its own notation."""
        return self._peer_addr.removeprefix("::ffff:") if "." in self._peer_addr else self._peer_addr

    @property
    def user_name(self) -> str:
        return self._username

    @property
    def open_channels(self) -> int:
        return len(self._channels)

    @property
    def shown_host_key(self) -> bytes:
        pair = self._server_host_key
        return b"" if pair is None else bytes(pair.public_data)

    @property
    def client_version(self) -> str:
        return self._client_version.decode("ascii", "replace")

    # Key exchange: keep what H was made of.

    def send_newkeys(self, k: bytes, h: bytes) -> None:
        if not self._session_id:
            kex = cast(Any, self._kex)
            self._transcript = wire.Transcript(
                kex=kex.algorithm.decode("ascii"),
                v_c=self._client_version,
                v_s=self._server_version,
                i_c=self._client_kexinit,
                i_s=self._server_kexinit,
                k_s=self.shown_host_key,
                q_c=kex._format_client_key()[4:],
                q_s=kex._format_server_key()[4:],
                k=k,
            )
        super().send_newkeys(k, h)

    def send_server_host_keys(self) -> None:
        """Users learn no host keys from us: the bastion CA is all they trust."""

    # Sign-in.

    def _process_userauth_request(self, pkttype: int, pktid: int, packet: SSHPacket) -> Any:
        peek = SSHPacket(packet.get_full_payload())
        peek.get_byte()
        user, _service, self._method = peek.get_string(), peek.get_string(), peek.get_string()
        if self._first_user is None:
            self._first_user = user
        elif user != self._first_user:
            raise ProtocolError("the user name may not change during sign-in")
        result = super()._process_userauth_request(pkttype, pktid, packet)
        if self._username.encode("utf-8") != user:
            if inspect.iscoroutine(result):
                result.close()  # the sign-in that asyncssh has prepared
            raise asyncssh.IllegalUserName("the user name changes when it is normalised")
        return result

    _packet_handlers[50] = _process_userauth_request

    def send_userauth_failure(self, partial_success: bool) -> None:
        if self._method != b"none":
            self._tries += 1
        if self._tries > MAX_TRIES - 1:
            self.disconnect(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "too many failed sign-ins")
        else:
            super().send_userauth_failure(partial_success)

    def sign_in_failed(self, code: str, message: str) -> None:
        """Tell the visitor, and the user where it helps."""
        words = self.visitor.failed(self._username, code, message)
        if words:
            self.send_auth_banner(f"bartizan: {words}\r\n")

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        # 1. The certificate itself: strict codec, our CA, in date, for this address. 2. A query ends here: an offer is
        # no sign-in. 3. The signed request names this very key and no other method. 4. The signature, over H and the
        # request. 5. The proof is kept for the authority, which checks all of it again.
        try:
            certificate = self.visitor.verify(key_data, self.source)  # 1
            if not msg:
                return True  # 2
            request = SSHPacket(msg)
            request.get_byte()
            request.get_string(), request.get_string(), request.get_string()
            signed, algorithm = request.get_boolean(), request.get_string().decode("ascii", "replace")
            if not signed or request.get_string() != key_data:  # 3
                raise CertificateError("sig_bad", "the signed request names another key")
            sshcert.verify_signature(certificate, algorithm, string(self._session_id) + msg, signature)  # 4
        except CertificateError as error:
            self.sign_in_failed(error.code, str(error))
            return False
        except PacketDecodeError:
            self.sign_in_failed("sig_bad", "the signature does not verify")
            return False
        assert self._transcript is not None
        self.proof = Proof(certificate, self._transcript, msg, signature, self._session_id)  # 5
        self._key_options, self._cert_options = {}, None
        return True

    async def send_userauth_success(self) -> None:
        if self.proof is None:
            raise ProtocolError("no sign-in without a proof")
        await super().send_userauth_success()
        self.visitor.signed_in(self, self.proof)

    # Channels and global requests.

    def _process_channel_open(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        kind, number, window, size = packet.get_string(), packet.get_uint32(), packet.get_uint32(), packet.get_uint32()
        if size == 0:
            raise ProtocolError("invalid maximum packet size")
        if kind == b"direct-tcpip" and self.visitor.jumps:
            again = SSHPacket(packet.get_full_payload())
            again.get_byte()
            super()._process_channel_open(pkttype, pktid, again)
            return
        self.visitor.opening(Opening(kind, number, window, size, packet.get_remaining_payload()))

    _packet_handlers[90] = _process_channel_open

    def _process_open_answer(self, _pkttype: int, _pktid: int, _packet: SSHPacket) -> None:
        raise ProtocolError("an answer to a channel nobody opened")

    _packet_handlers[91] = _process_open_answer
    _packet_handlers[92] = _process_open_answer

    def _process_global_request(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        name, want_reply = packet.get_string(), packet.get_boolean()
        if name == b"keepalive@openssh.com":
            if want_reply:
                self.send_packet(81)
            return
        if name == b"no-more-sessions@openssh.com":
            self.no_more_sessions = True
        else:
            self.visitor.forward_refused(name)
        if want_reply:
            self.send_packet(82)

    _packet_handlers[80] = _process_global_request

    def _process_ping(self, _pkttype: int, _pktid: int, packet: SSHPacket) -> None:
        """``ping@openssh.com`` (OpenSSH PROTOCOL §1.9): what keystroke timing obfuscation needs."""
        data = packet.get_string()
        packet.check_end()
        self.send_packet(193, String(data))

    _packet_handlers[192] = _process_ping

    def confirm(self, opening: Opening, end: ChannelEnd, *, window: int, packet_size: int) -> None:
        """The channel is open (SSH_MSG_CHANNEL_OPEN_CONFIRMATION)."""
        end.peer, end.packet_size = opening.number, opening.packet_size
        self.send_packet(91, UInt32(opening.number), UInt32(end.number), UInt32(window), UInt32(packet_size))

    def refuse(self, opening: Opening, code: int, reason: str) -> None:
        """The channel is not opened (SSH_MSG_CHANNEL_OPEN_FAILURE)."""
        self.send_packet(92, UInt32(opening.number), UInt32(code), String(reason), String(""))


# --- the node's side -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What the node said to a channel open: its number, window and packet size, or why not."""

    number: int = -1
    window: int = 0
    packet_size: int = 0
    code: int = 0
    reason: str = ""

    @property
    def ok(self) -> bool:
        return self.number >= 0


def host_key_algorithms(registered: Collection[str], *, pinned: bool) -> list[bytes]:
    """What to ask a node's sshd for, the first that it has counts: certificates of the *registered* key types, or such
    keys themselves where they are pinned. What may never be believed comes last, so that it is shown and can be named.
    """
    ours = [name for name in HOST_KEYS if ("ssh-rsa" if name.startswith(b"rsa-") else name.decode()) in registered]
    keys = ours + [name for name in HOST_KEYS if name not in ours]
    if pinned:
        return keys
    return [name + CERTIFIED for name in keys] + keys


class NodeConnection(_Relayed, asyncssh.SSHClientConnection):
    """Our SSH connection into a node. The host key is judged by *check*, never by asyncssh."""

    _packet_handlers = dict(asyncssh.SSHClientConnection._packet_handlers)  # noqa: RUF012  # as asyncssh has it

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: asyncssh.SSHClientConnectionOptions,
        *,
        check: Callable[[bytes], bytes],
        algorithms: Sequence[bytes],
        blocked: Callable[[bool], None],
    ) -> None:
        self._signed_in: asyncio.Future[None] = loop.create_future()
        super().__init__(loop, options)
        self._channels = _Channels(self)
        self._check = check
        self._algorithms = algorithms
        self._blocked = blocked
        self._answers: dict[int, Callable[[Answer], None]] = {}
        self.on_lost: Callable[[], None] = lambda: None
        self.refusal: Exception | None = None

    def _connection_made(self) -> None:
        self._server_host_key_algs = list(self._algorithms)

    def validate_server_host_key(self, key_data: bytes) -> SSHKey:
        try:
            return decode_ssh_public_key(self._check(key_data))
        except Exception as error:  # noqa: BLE001  # whatever it is, the host key is not verified
            self.refusal = error
            raise asyncssh.HostKeyNotVerifiable("the node's host key is not verified") from None

    def _cleanup(self, exc: Exception | None) -> None:
        super()._cleanup(exc)
        if not self._signed_in.done():
            self._signed_in.set_exception(self.refusal or exc or asyncssh.ConnectionLost("connection lost"))
            self._signed_in.exception()  # taken note of, should nobody wait
        self.on_lost()

    def _process_userauth_success(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        super()._process_userauth_success(pkttype, pktid, packet)
        if not self._signed_in.done():
            self._signed_in.set_result(None)

    _packet_handlers[52] = _process_userauth_success

    async def signed_in(self) -> None:
        """Wait until the node let us in. Raises what asyncssh, the socket or *check* raised."""
        await asyncio.shield(self._signed_in)

    def open(self, end: ChannelEnd, *, window: int, packet_size: int, answer: Callable[[Answer], None]) -> None:
        """Open a session channel for *end*; *answer* is called once."""
        self._answers[end.number] = answer
        self.send_packet(90, String("session"), UInt32(end.number), UInt32(window), UInt32(packet_size))

    def _process_confirmation(self, _pkttype: int, _pktid: int, packet: SSHPacket) -> None:
        ours, number, window, size = (packet.get_uint32() for _ in range(4))
        waiting = self._answers.pop(ours, None)
        if waiting is None or size == 0:
            raise ProtocolError("an answer to a channel nobody opened")
        waiting(Answer(number, window, size))

    _packet_handlers[91] = _process_confirmation

    def _process_open_failure(self, _pkttype: int, _pktid: int, packet: SSHPacket) -> None:
        ours, code, reason = packet.get_uint32(), packet.get_uint32(), packet.get_string()
        waiting = self._answers.pop(ours, None)
        if waiting is None:
            raise ProtocolError("an answer to a channel nobody opened")
        waiting(Answer(code=code, reason=reason.decode("utf-8", "replace")))

    _packet_handlers[92] = _process_open_failure

    def _process_channel_open(self, _pkttype: int, _pktid: int, packet: SSHPacket) -> None:
        packet.get_string()
        number = packet.get_uint32()
        self.send_packet(92, UInt32(number), UInt32(PROHIBITED), String("a node opens no channels"), String(""))

    _packet_handlers[90] = _process_channel_open

    def _process_global_request(self, _pkttype: int, _pktid: int, packet: SSHPacket) -> None:
        name, want_reply = packet.get_string(), packet.get_boolean()
        if want_reply:
            self.send_packet(81 if name == b"keepalive@openssh.com" else 82)

    _packet_handlers[80] = _process_global_request


async def server_options(host_key: SSHKey) -> asyncssh.SSHServerConnectionOptions:
    """What every user connection has in common: key sign-in only, no forwards, pinned algorithms.

    *host_key* is what asyncssh wants to see; each connection shows what its visitor chose.
    """
    options: asyncssh.SSHServerConnectionOptions = await asyncssh.SSHServerConnectionOptions.construct(
        None,
        server_factory=_Owner,
        config=[],
        password_auth=False,
        kbdint_auth=False,
        host_based_auth=False,
        gss_host=None,
        agent_forwarding=False,
        x11_forwarding=False,
        allow_pty=False,
        line_editor=False,
        encoding=None,
        kex_algs=KEX,
        encryption_algs=CIPHERS,
        mac_algs=MACS,
        compression_algs=["none"],
        signature_algs=SIGNATURES,
        login_timeout=LOGIN_GRACE_SECONDS,
        keepalive_interval=30,
        keepalive_count_max=4,
        server_host_keys=[host_key],
    )
    return options


async def client_options(
    host: str, port: int, login: str, key: SSHKey, certificate: str
) -> asyncssh.SSHClientConnectionOptions:
    """Options for one entry into a node: one key with its certificate, nothing from files or agents."""
    pairs = [pair for pair in load_keypairs([(key, asyncssh.import_certificate(certificate))]) if pair.has_cert]
    options: asyncssh.SSHClientConnectionOptions = await asyncssh.SSHClientConnectionOptions.construct(
        None,
        host=host,
        port=port,
        username=login,
        client_keys=pairs,
        config=[],
        agent_path=None,
        known_hosts=None,
        gss_host=None,
        preferred_auth=["publickey"],
        password_auth=False,
        kbdint_auth=False,
        host_based_auth=False,
        kex_algs=KEX,
        encryption_algs=CIPHERS,
        mac_algs=MACS,
        compression_algs=["none"],
        signature_algs=SIGNATURES,
        login_timeout=15,
        keepalive_interval=30,
        keepalive_count_max=4,
    )
    return options
