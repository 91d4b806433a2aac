"""The fast way for packets against asyncssh's own: the same packets in, the same packets out, the same counters."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import asyncssh
import pytest
from asyncssh.encryption import get_encryption
from asyncssh.packet import SSHPacket, String, UInt32
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bastion.fast_packets import FastPackets

KEY, IV = bytes(range(32)), bytes(range(100, 112))
ALGORITHM = b"aes256-gcm@openssh.com"


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.sent = b""
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def abort(self) -> None:
        self.aborted = True


class Channel:
    """A relayed channel that keeps what it is given, whichever way it came."""

    def __init__(self, *, fast: bool) -> None:
        self.seen: list[tuple[int, bytes]] = []
        if fast:
            self.take = lambda kind, body: self.seen.append((kind, body))

    def process_packet(self, kind: int, _seq: int, packet: SSHPacket) -> bool:
        self.seen.append((kind, packet.get_remaining_payload()))
        return True

    def log_received_packet(self, *_: object) -> None: ...

    def process_connection_close(self, _: object) -> None: ...


class Peer(FastPackets, asyncssh.SSHServerConnection):
    """One end, signed in, with keys that both ends know."""

    def log_sent_packet(self, *_: object, **__: object) -> None: ...

    def log_received_packet(self, *_: object) -> None: ...


async def peer(options: Any, *, fast: bool) -> tuple[Any, Wire, Channel]:
    connection: Any = Peer(asyncio.get_running_loop(), options)
    connection._fast = fast
    wire, channel = Wire(), Channel(fast=fast)
    connection._transport = wire
    connection._cancel_login_timer()
    connection._auth_complete = connection._kex_complete = True
    connection._send_encryption = get_encryption(ALGORITHM, KEY, IV, b"", b"", True)
    connection._recv_encryption = get_encryption(ALGORITHM, KEY, IV, b"", b"", True)
    connection._send_enchdrlen, connection._send_blocksize = 1, 16
    connection._recv_blocksize, connection._recv_macsize = 16, 16
    connection._recv_handler = connection._recv_pkthdr
    connection._rekey_bytes, connection._rekey_seconds = 1 << 30, 0
    connection._channels[7] = channel
    return connection, wire, channel


packets = st.lists(
    st.one_of(
        st.tuples(st.just(94), st.binary(max_size=3000).map(String)),
        st.tuples(st.just(93), st.integers(0, 2**32 - 1).map(UInt32)),
        st.tuples(st.just(96), st.just(b"")),
        st.tuples(st.just(98), st.binary(max_size=40).map(lambda name: String(name) + b"\0")),
    ),
    max_size=12,
)


@pytest.fixture(scope="module")
def options() -> Any:
    key = asyncssh.generate_private_key("ssh-ed25519")
    return asyncio.run(asyncssh.SSHServerConnectionOptions.construct(None, server_host_keys=[key], config=[]))


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
    max_examples=settings.default.max_examples * 3 // 5,
)
@given(packets, st.booleans(), st.booleans(), st.lists(st.integers(1, 700), max_size=20))
def test_either_way_out_and_either_way_in_give_the_same_packets(
    options: Any, sent: list[tuple[int, bytes]], fast_out: bool, fast_in: bool, cuts: list[int]
) -> None:
    async def story() -> None:
        sender, wire, _ = await peer(options, fast=fast_out)
        receiver, _, channel = await peer(options, fast=fast_in)
        for kind, body in sent:
            sender.send_packet(kind, UInt32(7), body)
        await asyncio.sleep(0)
        data = wire.sent
        for cut in cuts:
            receiver.data_received(data[:cut])
            data = data[cut:]
        receiver.data_received(data)
        assert channel.seen == sent
        ignores = 0 if fast_out else len(sent)  # asyncssh puts an empty message before each packet
        assert sender._send_seq == receiver._recv_seq == len(sent) + ignores
        assert sender._send_encryption._cipher._iv == receiver._recv_encryption._cipher._iv
        assert receiver._inpbuf == b""

    asyncio.run(story())


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "slow"])
async def test_a_changed_byte_ends_the_connection(options: Any, fast: bool) -> None:
    sender, wire, _ = await peer(options, fast=True)
    receiver, received, channel = await peer(options, fast=fast)
    sender.send_packet(94, UInt32(7), String(b"hello"))
    await asyncio.sleep(0)
    receiver.data_received(wire.sent[:-20] + bytes([wire.sent[-20] ^ 1]) + wire.sent[-19:])
    await asyncio.sleep(0.01)
    assert channel.seen == []
    assert received.aborted


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "slow"])
async def test_a_packet_longer_than_any_is_refused_at_its_header(options: Any, fast: bool) -> None:
    """DOS-01: nothing is awaited after a length of four gigabytes."""
    receiver, received, _ = await peer(options, fast=fast)
    receiver.data_received(b"\xff\xff\xff\xff" + os.urandom(60))
    await asyncio.sleep(0.01)
    assert received.aborted


async def test_nothing_is_lost_when_a_connection_is_closed_with_words_unsent(options: Any) -> None:
    sender, wire, _ = await peer(options, fast=True)
    receiver, _, channel = await peer(options, fast=True)
    sender.send_packet(94, UInt32(7), String(b"the last words"))
    sender._force_close(None)
    receiver.data_received(wire.sent)
    assert channel.seen == [(94, String(b"the last words"))]
