"""
A faster way through asyncssh for packets under AES-GCM: the same packets in, the same packets out, fewer copies.

Once a connection is signed in and no key exchange runs, channel data and window messages take this way: one AEAD object
per key instead of one per packet, no empty SSH_MSG_IGNORE before each packet (a measure for CBC modes), writes gathered
into one system call, the input buffer cut once per read. Every other packet is handed to asyncssh's own code, already
decrypted. Sequence numbers, invocation counters and re-keying are kept exactly as asyncssh keeps them;
tests/bastion/test_fast_packets.py holds both ways against each other. ``BARTIZAN_SLOW_PACKETS=1`` switches it off.
"""

from __future__ import annotations

import os
import time
from typing import Any, cast

import asyncssh
from asyncssh.encryption import GCMEncryption
from asyncssh.misc import MACError, ProtocolError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

GATHER = 128 << 10
"""Bytes written at once at the latest; less goes out at the end of the loop's turn."""

_TAG = 16
_FIRST_CHANNEL_TYPE = 80
_DATA, _WINDOW = 94, 93
_PADDING_POOL = 8192


class _Opened:
    """Stands in for the cipher while asyncssh reads a packet that is decrypted already."""

    def __init__(self, plain: bytes) -> None:
        self._plain = plain

    def decrypt_header(self, _seq: int, first: bytes, header: int) -> tuple[bytes, bytes]:
        return first, first[:header]

    def decrypt_packet(self, _seq: int, _first: bytes, _rest: bytes, _header: int, _mac: bytes) -> bytes:
        return self._plain


class _Gcm:
    """One direction's key: the AEAD object, and asyncssh's own cipher that keeps the invocation counter."""

    __slots__ = ("aead", "cipher", "encryption")

    def __init__(self, encryption: GCMEncryption) -> None:
        self.encryption = encryption
        self.cipher: Any = encryption._cipher
        self.aead = AESGCM(self.cipher._key)

    def step(self) -> bytes:
        """The nonce for this packet; the counter moves on (RFC 5647 §7.1)."""
        nonce: bytes = self.cipher._iv
        count = (int.from_bytes(nonce[4:], "big") + 1) & 0xFFFF_FFFF_FFFF_FFFF
        self.cipher._iv = nonce[:4] + count.to_bytes(8, "big")
        return nonce


class FastPackets(asyncssh.connection.SSHConnection):
    """Mixed into both kinds of connection, before asyncssh's own classes."""

    _fast = os.environ.get("BARTIZAN_SLOW_PACKETS") != "1"
    _peer_changing = False
    """The peer has sent SSH_MSG_KEXINIT and not yet SSH_MSG_NEWKEYS."""
    _sending: _Gcm | None = None
    _receiving: _Gcm | None = None
    _padding = b""

    def _send(self, data: bytes) -> None:
        """Gather; ``_flush`` writes."""
        gathered: list[bytes] = self.__dict__.setdefault("_gathered", [])
        if not gathered:
            self._loop.call_soon(self._flush)
        gathered.append(data)
        size = self.__dict__.get("_gathered_size", 0) + len(data)
        self.__dict__["_gathered_size"] = size
        if size >= GATHER:
            self._flush()

    def _flush(self) -> None:
        gathered: list[bytes] = self.__dict__.get("_gathered", [])
        if gathered:
            data = b"".join(gathered)
            gathered.clear()
            self.__dict__["_gathered_size"] = 0
            super()._send(data)

    def _force_close(self, exc: Exception | None) -> None:
        self._flush()
        super()._force_close(exc)

    # --- out ---------------------------------------------------------------------------------------------------------

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        encryption = self._send_encryption
        if (
            not self._fast
            or pkttype < _FIRST_CHANNEL_TYPE
            or not (self._auth_complete and self._kex_complete)
            or type(encryption) is not GCMEncryption
            or self._compressor
            or self._rekey_bytes_sent >= self._rekey_bytes
            or (self._rekey_seconds and time.monotonic() >= self._rekey_time)
        ):
            super().send_packet(pkttype, *args, handler=handler)
            return
        gcm = self._sending
        if gcm is None or gcm.encryption is not encryption:
            gcm = self._sending = _Gcm(encryption)
        payload = b"".join((bytes((pkttype,)), *args))
        padding = -(1 + len(payload)) % 16
        if padding < 4:
            padding += 16
        if len(self._padding) < padding:
            self._padding = os.urandom(_PADDING_POOL)
        filler, self._padding = self._padding[:padding], self._padding[padding:]
        packet = b"".join((bytes((padding,)), payload, filler))
        header = len(packet).to_bytes(4, "big")
        self._send(header + gcm.aead.encrypt(gcm.step(), packet, header))
        self._send_seq = (self._send_seq + 1) & 0xFFFF_FFFF
        self._rekey_bytes_sent += len(packet)

    # --- in ----------------------------------------------------------------------------------------------------------

    def _recv_data(self) -> None:
        if not (self._fast and self._auth_complete):
            super()._recv_data()
            return
        self._reset_keepalive_timer()
        try:
            while self._inpbuf and self._take_all():
                pass
        except asyncssh.DisconnectError as exc:
            self._send_disconnect(exc.code, exc.reason, exc.lang)
            self._force_close(exc)
        except Exception:  # noqa: BLE001  # as asyncssh does: the connection ends, the process goes on
            self.internal_error()

    def _take_all(self) -> bool:
        """Take packets off the input; False when more bytes, or the end of a slow packet, must be awaited."""
        encryption = self._recv_encryption
        waiting = cast(Any, self._recv_handler)
        if type(encryption) is not GCMEncryption or self._decompressor or waiting != self._recv_pkthdr:
            return bool(waiting())
        gcm = self._receiving
        if gcm is None or gcm.encryption is not encryption:
            gcm = self._receiving = _Gcm(encryption)
        buffer, at, size = self._inpbuf, 0, len(self._inpbuf)
        channels = cast(dict[int, Any], self._channels)
        while size - at >= 4:
            header = buffer[at : at + 4]
            length = int.from_bytes(header, "big")
            if length > self._max_recv_pktlen:
                raise ProtocolError("Max packet size exceeded")
            end = at + 4 + length + _TAG
            if end > size:
                break
            try:
                plain = gcm.aead.decrypt(gcm.step(), buffer[at + 4 : end], header)
            except InvalidTag:
                raise MACError("MAC verification failed") from None
            kind = plain[1] if length > 9 else 0
            channel = channels.get(int.from_bytes(plain[2:6], "big")) if kind in (_DATA, _WINDOW) else None
            take = getattr(channel, "take", None)
            if take is None or not self._kex_complete or self._peer_changing:
                return self._take_slowly(buffer[at:], plain, encryption)
            self._recv_seq = (self._recv_seq + 1) & 0xFFFF_FFFF
            self._auth_final = True
            at = end
            take(kind, plain[6 : len(plain) - plain[0]])
            if self._transport is None:
                self._inpbuf = b""
                return False
        self._inpbuf = buffer[at:]
        return False

    def _take_slowly(self, rest: bytes, plain: bytes, encryption: Any) -> bool:
        """Let asyncssh read one packet that is decrypted already. *rest* begins with it."""
        self._inpbuf = rest
        opened = _Opened(plain)
        self._recv_encryption = cast(Any, opened)
        try:
            return bool(self._recv_pkthdr() and self._recv_packet())
        finally:
            if cast(Any, self._recv_encryption) is opened:  # SSH_MSG_NEWKEYS brings a new one
                self._recv_encryption = encryption
