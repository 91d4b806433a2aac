"""The first bytes of a connection: preamble, PROXY header, SSH, silence; and who is turned away before any of it."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from contextlib import AbstractAsyncContextManager

import pytest

from bastion.listener import listening_socket
from bastion.penalties import STARTUPS
from ca.errors import Unavailable
from recordings.sshwire import string
from tests.bastion.door import BEACON, Rig, opened
from tests.bastion.rawssh import Disconnected, RawSsh, raw_ssh
from tests.sshd import LOGIN

LOOPBACK = (ipaddress.IPv4Network("127.0.0.0/8"),)


async def disconnect(port: int, first: bytes) -> Disconnected:
    """How the worker turns away a connection that begins with *first*."""
    async with raw_ssh(port, first=first) as ssh:
        await ssh.hello()
        assert ssh.server_version.startswith(b"SSH-2.0-Bartizan_")
        return await ssh.disconnected()


def behind_a_balancer(
    post: Rig, networks: tuple[ipaddress.IPv4Network, ...] = LOOPBACK
) -> AbstractAsyncContextManager[int]:
    """A second door of the same worker, for which *networks* are balancers; its port."""
    return opened(post.door, balancers=networks)


async def signed_in(ssh: RawSsh, post: Rig) -> None:
    await ssh.exchange()
    await ssh.sign_in(LOGIN, post.folder)


# --- the preamble --------------------------------------------------------------------------------------------------


async def test_a_preamble_names_the_node_and_the_node_is_shown(post: Rig) -> None:
    async with raw_ssh(post.port, first=b"bartizan/1 web1\n") as ssh:
        await ssh.exchange()
    assert b"\0\0\0\x08" + string(b"web1") in ssh.host_key  # the one principal


async def test_a_preamble_may_come_in_pieces_and_with_a_carriage_return(post: Rig) -> None:
    async with raw_ssh(post.port, first=b"barti") as ssh:
        await asyncio.sleep(0.05)
        ssh.raw(b"zan/1 we")
        await asyncio.sleep(0.05)
        ssh.raw(b"b1\r\n")
        await ssh.exchange()
    assert string(b"web1") in ssh.host_key


@pytest.mark.parametrize(
    "line",
    [
        b"bartizan/1 \n",
        b"bartizan/1 host;x\n",
        b"bartizan/1 169.254.169.254\n",
        b"bartizan/1 a b\n",
        b"bartizan/1 \xff\n",
        b"bartizan/1 $(id)\n",
        b"bartizan/1 " + b"a" * 64 + b"\n",
        b"bartizan/1 " + b"a" * 200,
    ],
)
async def test_a_malformed_preamble_gets_a_disconnect_with_a_sentence(post: Rig, line: bytes) -> None:
    """SSH-09"""
    end = await disconnect(post.port, line)
    assert end.code == 2
    assert "preamble" in end.reason or "unknown target" in end.reason


async def test_whether_a_node_exists_is_not_told_before_sign_in(post: Rig) -> None:
    async with raw_ssh(post.port, first=b"bartizan/1 no-such-node\n") as ssh:
        await ssh.exchange()
    assert string(b"no-such-node") in ssh.host_key


async def test_silence_is_an_ordinary_client_that_waits_for_our_version(post: Rig) -> None:
    """``ssh-keyscan`` and health checks wait for the server to speak first."""
    async with raw_ssh(post.port) as ssh:
        reader = ssh._reader
        async with asyncio.timeout(10):
            line = await reader.readline()
    assert line == f"SSH-2.0-Bartizan_0.1 b={BEACON}\r\n".encode()


async def test_a_client_that_speaks_first_is_answered(post: Rig) -> None:
    async with raw_ssh(post.port) as ssh:
        await signed_in(ssh, post)


async def test_another_network_protocol_is_turned_away(post: Rig) -> None:
    """SSH-26"""
    for words in (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\n" + bytes(200),
        b"SSH-1.5-old\r\n",
        b"\n" * 50,
    ):
        async with raw_ssh(post.port, first=words) as ssh:
            end = await asyncio.wait_for(ssh._reader.read(), 20)
            assert end.count(b"SSH-2.0-Bartizan") <= 1


@pytest.mark.parametrize("version", [b"SSH-2.0-x\x1b[2J", b"SSH-2.0-" + b"x" * 300, b"SSH-2.0-\xff"])
async def test_an_odd_version_line_is_turned_away_or_does_no_harm(post: Rig, version: bytes) -> None:
    """SSH-26"""
    async with raw_ssh(post.port) as ssh:
        ssh.version = version
        try:
            await signed_in(ssh, post)
        except (Disconnected, AssertionError):
            pass
    assert (await post.run("ssh", f"{LOGIN}@web1", "echo ok")).stdout == b"ok\n"


# --- PROXY ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [1, 2, 7])
async def test_a_listed_balancer_says_who_the_client_is(post: Rig, pieces: int) -> None:
    """CV-10: the certificate's source-address is checked against the real address."""
    post.user(critical_options={"source-address": "203.0.113.0/24"})
    header = b"PROXY TCP4 203.0.113.7 127.0.0.1 5000 22\r\nbartizan/1 web1\n"
    step = -(-len(header) // pieces)
    async with behind_a_balancer(post) as port, raw_ssh(port) as ssh:
        for start in range(0, len(header), step):
            ssh.raw(header[start : start + step])
            await asyncio.sleep(0.02)
        await signed_in(ssh, post)
        channel = await ssh.session()
        ssh.ask(channel, b"exec", string(b"echo ok"))
        assert await ssh.output() == (b"ok\n", b"", 0)
    assert post.authority.requests[0].source == "203.0.113.7"


async def test_a_header_from_anybody_else_is_not_believed(post: Rig) -> None:
    """CV-10; FIELD: PROXY header believed from anyone."""
    post.user(critical_options={"source-address": "203.0.113.0/24"})
    header = b"PROXY TCP4 203.0.113.7 127.0.0.1 5000 22\r\n"
    elsewhere = (ipaddress.IPv4Network("192.0.2.0/24"),)
    async with behind_a_balancer(post, elsewhere) as port:
        for door in (post.port, port):
            async with raw_ssh(door, first=header) as ssh:
                with pytest.raises(Disconnected):
                    await signed_in(ssh, post)
    assert post.authority.requests == []


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 300.0.0.1 127.0.0.1 1 2\r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
        b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 x 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 99999 2\r\n",
        b"PROXY TCP4 " + b"1" * 120,
        b"SSH-2.0-x\r\n",
        b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
    ],
)
async def test_a_malformed_header_of_a_balancer_is_refused(post: Rig, header: bytes) -> None:
    async with behind_a_balancer(post) as port:
        end = await disconnect(port, header)
    assert (end.code, end.reason) == (2, "malformed PROXY header")


async def test_a_balancers_health_check_is_nobodys_failed_sign_in(post: Rig) -> None:
    """FIELD: load balancers' health checks counted as failed logins."""
    async with behind_a_balancer(post) as port:
        for _ in range(5):
            async with raw_ssh(port, first=b"PROXY UNKNOWN\r\n") as ssh:
                await asyncio.sleep(0.35)
            async with raw_ssh(port):
                pass
        async with raw_ssh(port, first=b"PROXY UNKNOWN\r\nbartizan/1 web1\n") as ssh:
            await signed_in(ssh, post)
    assert [event for event in post.events() if event.code == "auth.failed"] == []


async def test_a_punished_source_stays_out_behind_a_balancer_too(post: Rig) -> None:
    post.door.penalties.punish("203.0.113.7", 500, post.door.clock())
    async with behind_a_balancer(post) as port:
        async with raw_ssh(port, first=b"PROXY TCP4 203.0.113.7 127.0.0.1 5000 22\r\n") as ssh:
            with pytest.raises(Disconnected):
                await signed_in(ssh, post)
        async with raw_ssh(port, first=b"PROXY TCP4 203.0.113.8 127.0.0.1 5000 22\r\n") as ssh:
            await signed_in(ssh, post)


async def test_an_ipv4_address_in_ipv6_clothes_is_itself(post: Rig) -> None:
    """CV-11"""
    post.user(critical_options={"source-address": "10.0.0.0/8"})
    first = b"PROXY TCP6 ::ffff:10.0.0.5 ::1 5000 22\r\n"
    async with behind_a_balancer(post) as port, raw_ssh(port, first=first) as ssh:
        await signed_in(ssh, post)


# --- who may come --------------------------------------------------------------------------------------------------


async def test_a_punished_source_and_too_many_at_once_are_dropped_without_a_word(
    post: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DOS-10"""
    monkeypatch.setattr(post.door.penalties, "signing_in", STARTUPS)
    async with raw_ssh(post.port) as ssh:
        with pytest.raises((Disconnected, ConnectionError)):
            await ssh.hello()


async def test_those_who_leave_are_no_longer_counted(post: Rig) -> None:
    for first in (b"", b"bartizan/1 web1\n", b"bartizan/1 ;\n"):
        for _ in range(5):
            async with raw_ssh(post.port, first=first) as ssh:
                try:
                    await ssh.hello()
                except (Disconnected, ConnectionError):
                    pass
    async with raw_ssh(post.port) as ssh:
        await signed_in(ssh, post)
    async with asyncio.timeout(10):
        while post.door.penalties.signing_in:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_draining_worker_takes_no_connection(post: Rig) -> None:
    post.door.services.draining = True
    async with raw_ssh(post.port) as ssh:
        with pytest.raises((Disconnected, ConnectionError)):
            await ssh.hello()


def test_two_workers_share_one_port() -> None:
    first = listening_socket("127.0.0.1", 0)
    second = listening_socket("127.0.0.1", first.getsockname()[1])
    try:
        assert first.getsockname() == second.getsockname()
        assert second.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    finally:
        first.close()
        second.close()


async def test_who_waits_for_a_certificate_counts_among_those_who_sign_in(
    post: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DOS-10: while the authority is slow, strangers who name new nodes must not pile up without bound."""
    waiting: list[str] = []
    answers = asyncio.Event()

    async def slow(_shown: object, name: str) -> object:
        waiting.append(name)
        await answers.wait()
        raise Unavailable("the authority is slow")

    monkeypatch.setattr(type(post.door.shown), "fetch", slow)
    crowd = [await asyncio.open_connection("127.0.0.1", post.port) for _ in range(STARTUPS + 20)]
    for number, (_, writer) in enumerate(crowd):
        writer.write(f"bartizan/1 new{number}\n".encode())
    await asyncio.sleep(0.3)
    assert len(waiting) <= STARTUPS
    answers.set()
    for _, writer in crowd:
        writer.close()
    async with asyncio.timeout(5):
        while post.door.penalties.signing_in:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
