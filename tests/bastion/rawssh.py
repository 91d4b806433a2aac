"""
A small SSH client without manners: it sends whatever a test wants, whenever the test wants it.

curve25519-sha256 and aes128-gcm only (RFC 4253, RFC 8731, RFC 5647). It trusts any server: what it tests is the server.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from recordings.sshkey import sign_ed25519
from recordings.sshwire import Reader, boolean, mpint, string, uint32

HOST_KEYS = b"ssh-ed25519-cert-v01@openssh.com,ssh-ed25519"
CERTIFICATE = b"ssh-ed25519-cert-v01@openssh.com"
SECONDS = 20


class Disconnected(Exception):
    """SSH_MSG_DISCONNECT arrived; code 0 when the server only closed the socket."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class _Gcm:
    """One direction of aes128-gcm@openssh.com."""

    def __init__(self, key: bytes, nonce: bytes) -> None:
        self._aead, self._fixed, self._count = AESGCM(key), nonce[:4], int.from_bytes(nonce[4:], "big")

    def nonce(self) -> bytes:
        nonce = self._fixed + self._count.to_bytes(8, "big")
        self._count = (self._count + 1) % (1 << 64)
        return nonce

    def seal(self, packet: bytes) -> bytes:
        return packet[:4] + self._aead.encrypt(self.nonce(), packet[4:], packet[:4])

    def open(self, length: bytes, rest: bytes) -> bytes:
        return self._aead.decrypt(self.nonce(), rest, length)


class RawSsh:
    """A connection; ``exchange`` and ``sign_in`` bring it as far as a test needs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._out: _Gcm | None = None
        self._in: _Gcm | None = None
        self.version = b"SSH-2.0-raw_1"
        self.server_version = b""
        self.session_id = b""
        self.host_key = b""
        self.kexinit = b""
        self.banners: list[str] = []
        self.skipped: list[bytes] = []

    # --- packets -------------------------------------------------------------------------------------------------

    def raw(self, data: bytes) -> None:
        self._writer.write(data)

    def send(self, payload: bytes) -> None:
        block = 16
        padding = block - ((1 if self._out else 5) + len(payload)) % block
        padding += block if padding < 4 else 0
        packet = uint32(1 + len(payload) + padding) + bytes([padding]) + payload + os.urandom(padding)
        self._writer.write(self._out.seal(packet) if self._out else packet)

    async def receive(self) -> bytes:
        """The next payload but for pings of no interest. Raises Disconnected."""
        while True:
            payload = await self._receive()
            match payload[0]:
                case 1:
                    reader = Reader(payload[1:])
                    raise Disconnected(reader.uint32(), reader.string().decode())
                case 53:
                    self.banners.append(Reader(payload[1:]).string().decode())
                case 2 | 4 | 7:
                    self.skipped.append(payload)
                case _:
                    return payload

    async def _receive(self) -> bytes:
        try:
            async with asyncio.timeout(SECONDS):
                length = await self._reader.readexactly(4)
                rest = await self._reader.readexactly(int.from_bytes(length, "big") + (16 if self._in else 0))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Disconnected(0, "closed") from None
        packet = self._in.open(length, rest) if self._in else rest
        return packet[1 : len(packet) - packet[0]]

    async def disconnected(self) -> Disconnected:
        """Read on until the server ends the connection; how it did."""
        try:
            while True:
                await self.receive()
        except Disconnected as end:
            return end

    # --- the exchange --------------------------------------------------------------------------------------------

    async def hello(self) -> None:
        self._writer.write(self.version + b"\r\n")
        async with asyncio.timeout(SECONDS):
            line = await self._reader.readline()
        if not line:
            raise Disconnected(0, "closed")
        self.server_version = line.rstrip(b"\r\n")

    async def exchange(self, *, strict: bool = False, before_kex: bytes = b"") -> None:
        """Version lines, key exchange, service ``ssh-userauth``. *before_kex*: a payload to slip in."""
        await self.hello()
        ours = self.offer(strict=strict)
        theirs = self.kexinit = await self.receive()
        if before_kex:
            self.send(before_kex)
        await self.change_keys(ours, theirs)
        self.send(b"\x05" + string(b"ssh-userauth"))
        assert (await self.receive())[0] == 6

    def offer(self, *, strict: bool = False) -> bytes:
        """Send SSH_MSG_KEXINIT: its payload. From here on an honest client says nothing else until it has new keys."""
        names = [b"curve25519-sha256" + (b",kex-strict-c-v00@openssh.com" if strict else b""), HOST_KEYS]
        names += [b"aes128-gcm@openssh.com"] * 2 + [b"hmac-sha2-256"] * 2 + [b"none"] * 2 + [b"", b""]
        ours = b"\x14" + os.urandom(16) + b"".join(map(string, names)) + b"\0" + uint32(0)
        self.send(ours)
        return ours

    async def change_keys(self, ours: bytes, theirs: bytes, *, before_newkeys: bytes = b"") -> None:
        """The exchange itself, after both have offered. *before_newkeys*: a payload to slip in."""
        key = X25519PrivateKey.generate()
        share = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.send(b"\x1e" + string(share))
        answer = Reader((await self.receive())[1:])
        self.host_key, their_share = answer.string(), answer.string()
        secret = mpint(int.from_bytes(key.exchange(X25519PublicKey.from_public_bytes(their_share)), "big"))
        parts = (self.version, self.server_version, ours, theirs, self.host_key, share, their_share)
        h = hashlib.sha256(b"".join(map(string, parts)) + secret).digest()
        self.session_id = self.session_id or h
        if before_newkeys:
            self.send(before_newkeys)
        self.send(b"\x15")
        keys = {
            letter: hashlib.sha256(secret + h + letter + self.session_id).digest()
            for letter in (b"A", b"B", b"C", b"D")
        }
        assert (await self.receive()) == b"\x15"
        self._out, self._in = _Gcm(keys[b"C"][:16], keys[b"A"][:12]), _Gcm(keys[b"D"][:16], keys[b"B"][:12])

    # --- sign-in -------------------------------------------------------------------------------------------------

    def request(
        self,
        user: bytes,
        certificate: bytes,
        key: Ed25519PrivateKey | None,
        *,
        service: bytes = b"ssh-connection",
        host_key: bytes | None = None,
        bound: bool = True,
    ) -> bytes:
        """A sign-in request by public key; without *key* it only asks whether the certificate would do."""
        method = b"publickey-hostbound-v00@openssh.com" if bound else b"publickey"
        body = b"\x32" + string(user) + string(service) + string(method) + boolean(key is not None)
        body += string(CERTIFICATE) + string(certificate)
        if bound:
            body += string(self.host_key if host_key is None else host_key)
        if key is None:
            return body
        return body + string(sign_ed25519(key, string(self.session_id) + body))

    async def sign_in(self, user: str, folder: Path) -> None:
        """Sign in with the key and certificate in *folder*."""
        self.send(self.request(user.encode(), certificate_of(folder), key_of(folder)))
        answer = await self.receive()
        assert answer[0] == 52, (answer, self.banners)

    # --- channels ------------------------------------------------------------------------------------------------

    def open_channel(self, number: int, *, kind: bytes = b"session", window: int = 1 << 20, rest: bytes = b"") -> None:
        self.send(b"\x5a" + string(kind) + uint32(number) + uint32(window) + uint32(32_768) + rest)

    async def session(self, *, window: int = 1 << 20) -> int:
        """An open session channel; the server's number of it."""
        self.open_channel(0, window=window)
        answer = await self.receive()
        assert answer[0] == 91, answer
        reader = Reader(answer[1:])
        reader.uint32()
        return reader.uint32()

    def ask(self, channel: int, name: bytes, body: bytes = b"", *, want_reply: bool = True) -> None:
        self.send(b"\x62" + uint32(channel) + string(name) + boolean(want_reply) + body)

    def data(self, channel: int, data: bytes) -> None:
        self.send(b"\x5e" + uint32(channel) + string(data))

    async def output(self) -> tuple[bytes, bytes, int | None]:
        """Everything until the channel closes: standard output, standard error, exit status."""
        out, err, status = bytearray(), b"", None
        while True:
            payload = await self.receive()
            reader = Reader(payload[5:])
            match payload[0]:
                case 94:
                    out += reader.string()
                case 95:
                    reader.uint32()
                    err += reader.string()
                case 98 if reader.string() == b"exit-status":
                    reader.boolean()
                    status = reader.uint32()
                case 97:
                    return bytes(out), err, status
                case _:
                    pass


def certificate_of(folder: Path) -> bytes:
    return base64.b64decode((folder / "id-cert.pub").read_text().split()[1])


def key_of(folder: Path) -> Ed25519PrivateKey:
    key = load_ssh_private_key((folder / "id").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    return key


def key_pair(path: Path, *kind: str) -> None:
    """A key pair of ssh-keygen: ed25519, or of *kind* (``rsa -b 3072``)."""
    subprocess.run(["ssh-keygen", "-qt", *(kind or ("ed25519",)), "-N", "", "-f", path], check=True, timeout=30)


@asynccontextmanager
async def raw_ssh(port: int, *, first: bytes = b"") -> AsyncIterator[RawSsh]:
    """A fresh connection, after it has sent *first*; nothing of SSH has happened yet."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    if first:
        writer.write(first)
    try:
        yield RawSsh(reader, writer)
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass
