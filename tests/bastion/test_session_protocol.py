"""Clients and nodes that do not keep to the protocol: cut off, with the others unharmed (a canary says so)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from bastion.penalties import FAILED, STARTUPS
from recordings.sshwire import boolean, string, uint32
from tests.bastion.conftest import Node
from tests.bastion.door import Rig
from tests.bastion.rawssh import Disconnected, RawSsh, certificate_of, key_of, key_pair, raw_ssh
from tests.sshd import LOGIN

WEB1 = f"{LOGIN}@web1"
PROTOCOL_ERROR, SERVICE, NO_MORE, ILLEGAL_NAME = 2, 7, 14, 15


async def canary(post: Rig) -> None:
    """Others are served as ever."""
    done = await post.run("ssh", WEB1, "echo tweet")
    assert done.stdout == b"tweet\n", done.stderr


@asynccontextmanager
async def before_sign_in(post: Rig) -> AsyncIterator[RawSsh]:
    async with raw_ssh(post.port, first=b"bartizan/1 web1\n") as ssh:
        await ssh.exchange()
        yield ssh


@asynccontextmanager
async def in_session(post: Rig) -> AsyncIterator[RawSsh]:
    async with before_sign_in(post) as ssh:
        await ssh.sign_in(LOGIN, post.folder)
        yield ssh


# --- before sign-in ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        b"\x34",  # SSH-01: USERAUTH_SUCCESS
        b"\x5a" + string(b"session") + uint32(0) + uint32(1000) + uint32(1000),  # SSH-02: CHANNEL_OPEN
        b"\x50" + string(b"tcpip-forward") + boolean(True) + string(b"") + uint32(0),  # SSH-02: GLOBAL_REQUEST
        b"\xfa",  # SSH-02: unknown
        b"\x62" + uint32(0) + string(b"shell") + boolean(True),
        b"\x5e" + uint32(0) + string(b"x"),
        b"\x3d" + uint32(0),
        b"\x5b" + uint32(0) * 4,
        b"\xc0" + string(b"ping"),
    ],
)
async def test_what_is_for_later_is_an_error_before_sign_in(post: Rig, payload: bytes) -> None:
    """SSH-01, SSH-02; CVE-2018-10933, CVE-2025-32433"""
    async with before_sign_in(post) as ssh:
        ssh.send(payload)
        assert (await ssh.disconnected()).code == PROTOCOL_ERROR
    assert post.authority.requests == []


@pytest.mark.parametrize(
    "slipped", [b"\x02" + string(b"x"), b"\x03" + uint32(0), b"\x04" + boolean(False) + string(b"") * 2]
)
async def test_nothing_is_slipped_into_a_strict_key_exchange(post: Rig, slipped: bytes) -> None:
    """SSH-03; CVE-2023-48795"""
    async with raw_ssh(post.port) as ssh:
        with pytest.raises(Disconnected, match="Strict key exchange"):
            await ssh.exchange(strict=True, before_kex=slipped)


async def test_only_authenticated_ciphers_or_strict_exchanges_are_offered(post: Rig) -> None:
    """SSH-04, DOS-06"""
    async with raw_ssh(post.port) as ssh:
        await ssh.exchange(strict=True)
    assert b"kex-strict-s-v00@openssh.com" in ssh.kexinit
    for never in (b"chacha20", b"cbc", b"zlib", b"hmac-sha1", b"umac-64", b"diffie-hellman", b"ssh-rsa,", b"ssh-dss"):
        assert never not in ssh.kexinit


async def test_another_service_is_not_available(post: Rig) -> None:
    """SSH-05"""
    async with before_sign_in(post) as ssh:
        ssh.send(ssh.request(b"root", certificate_of(post.folder), key_of(post.folder), service=b"ssh-userauth"))
        assert (await ssh.disconnected()).code == SERVICE


@pytest.mark.parametrize(
    "user", [b"x" * 1024, b"x" * 5000, b"a\0b", "a\u202eb".encode(), b"\xff\xfe", b"a\nb", b"a\x1b[2J"]
)
async def test_an_illegal_user_name_ends_the_connection(post: Rig, user: bytes) -> None:
    """SSH-06"""
    async with before_sign_in(post) as ssh:
        ssh.send(ssh.request(user, certificate_of(post.folder), key_of(post.folder)))
        assert (await ssh.disconnected()).code == ILLEGAL_NAME
    assert post.authority.requests == []


async def test_a_name_that_changes_when_it_is_normalised_is_refused(post: Rig) -> None:
    """What was signed must be what is decided about."""
    async with before_sign_in(post) as ssh:
        ssh.send(
            ssh.request("\u2168".encode(), certificate_of(post.folder), key_of(post.folder))
        )  # IX, as one character
        end = await ssh.disconnected()
    assert end.code == ILLEGAL_NAME
    assert post.authority.requests == []


async def test_the_user_name_may_not_change(post: Rig) -> None:
    """asyncssh 2.24.0 let a user become another one."""
    async with before_sign_in(post) as ssh:
        ssh.send(ssh.request(b"alice", certificate_of(post.folder), None))
        assert (await ssh.receive())[0] == 60
        ssh.send(ssh.request(b"root", certificate_of(post.folder), key_of(post.folder)))
        assert (await ssh.disconnected()).code == PROTOCOL_ERROR
    assert post.authority.requests == []


async def test_an_offer_of_a_key_is_no_sign_in(post: Rig) -> None:
    """CV-05; CVE-2018-7749; FIELD: a public-key offer taken for a login."""
    async with before_sign_in(post) as ssh:
        ssh.send(ssh.request(b"root", certificate_of(post.folder), None))
        assert (await ssh.receive())[0] == 60
        ssh.open_channel(0)
        assert (await ssh.disconnected()).code == PROTOCOL_ERROR
    assert post.authority.requests == []


def _other(post: Rig) -> Any:
    key_pair(post.folder / "other")
    (post.folder / "elsewhere").mkdir()
    (post.folder / "other").rename(post.folder / "elsewhere" / "id")
    return key_of(post.folder / "elsewhere")


async def refused_once(post: Rig, ssh: RawSsh, request: bytes) -> str:
    ssh.send(request)
    assert (await ssh.receive())[0] == 51
    ssh.open_channel(0)
    assert (await ssh.disconnected()).code == PROTOCOL_ERROR
    assert post.authority.requests == []
    return next(str(event.fields["reason"]) for event in post.events() if event.code == "auth.failed")


async def test_a_signature_by_another_key_is_refused(post: Rig) -> None:
    """CV-03"""
    async with before_sign_in(post) as ssh:
        request = ssh.request(LOGIN.encode(), certificate_of(post.folder), _other(post))
        assert await refused_once(post, ssh, request) == "sig_bad"


async def test_a_signature_of_another_connection_is_refused(post: Rig) -> None:
    async with before_sign_in(post) as first, before_sign_in(post) as second:
        request = first.request(LOGIN.encode(), certificate_of(post.folder), key_of(post.folder))
        assert await refused_once(post, second, request) == "sig_bad"


async def test_a_signature_over_another_host_key_is_refused(post: Rig) -> None:
    """CV-21"""
    async with before_sign_in(post) as ssh, raw_ssh(post.port, first=b"bartizan/1 web2\n") as other:
        await other.exchange()
        request = ssh.request(LOGIN.encode(), certificate_of(post.folder), key_of(post.folder), host_key=other.host_key)
        assert await refused_once(post, ssh, request) == "hostkey_mismatch"


async def test_a_key_that_was_queried_is_not_the_key_that_signs(post: Rig) -> None:
    """FIELD: key queried ≠ key that signed."""
    async with before_sign_in(post) as ssh:
        ssh.send(ssh.request(LOGIN.encode(), certificate_of(post.folder), None))
        assert (await ssh.receive())[0] == 60
        other = _other(post)
        plain = string(b"ssh-ed25519") + string(other.public_key().public_bytes_raw())
        assert await refused_once(post, ssh, ssh.request(LOGIN.encode(), plain, other)) == "parse"


async def test_eight_certificates_are_two_too_many(post: Rig) -> None:
    """CV-27"""
    keys = []
    for n in range(8):
        key_pair(post.folder / f"k{n}")
        keys.append(f"-oIdentityFile={post.folder}/k{n}")
    (post.folder / "id-cert.pub").unlink()
    done = await post.run("ssh", *keys, WEB1, "id")
    assert done.returncode == 255
    assert b"too many failed sign-ins" in done.stderr
    assert told(post) == [1]
    post.door.tell_tries(early=True)
    assert told(post) == [1, 5]


def told(post: Rig) -> list[object]:
    return [event.fields["count"] for event in post.events() if event.code == "auth.failed"]


async def test_a_flood_of_failures_is_two_events_with_the_exact_number(post: Rig) -> None:
    """LOG-05: what is dropped without a word is counted, too."""
    request = b""
    for _ in range(20):
        async with before_sign_in(post) as ssh:
            request = ssh.request(LOGIN.encode(), certificate_of(post.folder), None, host_key=b"another")
            for _ in range(5):
                ssh.send(request)
                assert (await ssh.receive())[0] == 51
    post.door.penalties.signing_in += STARTUPS
    for _ in range(30):
        async with raw_ssh(post.port) as ssh:
            with pytest.raises((Disconnected, ConnectionError)):
                await ssh.hello()
    post.door.penalties.signing_in -= STARTUPS
    assert told(post) == [1, 1]
    post.door.tell_tries(early=True)
    reasons = [event.fields["reason"] for event in post.events() if event.code == "auth.failed"]
    assert list(zip(reasons, told(post), strict=True)) == [
        ("hostkey_mismatch", 1), ("too_many_at_once", 1), ("hostkey_mismatch", 99), ("too_many_at_once", 29)
    ]  # fmt: skip
    await canary(post)


async def test_when_events_pile_up_strangers_go_on_being_counted(post: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """LOG-05"""
    monkeypatch.setattr(type(post.door.services.outbox), "crowded", True)
    for _ in range(10):
        post.door.failed("root", "192.0.2.1", "expired")
    post.door.tell_tries(early=True)
    assert told(post) == []
    monkeypatch.undo()
    post.door.failed("root", "192.0.2.1", "expired")
    post.door.tell_tries(early=True)
    assert told(post) == [1, 10]


async def test_who_failed_is_punished_when_she_leaves(post: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """CV-27: the penalty that makes a source wait."""
    acts: list[tuple[str, float]] = []
    monkeypatch.setattr(
        type(post.door.penalties), "punish", lambda self, source, seconds, now: acts.append((source, seconds))
    )
    async with before_sign_in(post) as ssh:
        for _ in range(2):
            ssh.send(ssh.request(LOGIN.encode(), b"junk", None))
            assert (await ssh.receive())[0] == 51
    async with asyncio.timeout(10):
        while not acts:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert acts == [("127.0.0.1", 2 * FAILED)]


async def test_an_absurd_packet_length_is_refused_at_its_header(post: Rig) -> None:
    """DOS-01"""
    async with raw_ssh(post.port) as ssh:
        await ssh.hello()
        await ssh.receive()
        for byte in b"\xff\xff\xff\xff" + bytes(12):
            ssh.raw(bytes([byte]))
            await asyncio.sleep(0.01)
        assert (await ssh.disconnected()).code in (PROTOCOL_ERROR, 0)
    await canary(post)


async def test_nothing_of_a_failed_sign_in_survives_on_its_connection(post: Rig) -> None:
    """CV-07: a restricted certificate fails, a good one follows: nothing of the first one counts."""
    post.user("alice", critical_options={"force-command": "echo forced", "source-address": "192.0.2.1"}, extensions=[])
    restricted = certificate_of(post.folder)
    post.user("alice")
    async with before_sign_in(post) as ssh:
        ssh.send(ssh.request(LOGIN.encode(), restricted, key_of(post.folder)))
        assert (await ssh.receive())[0] == 51
        await ssh.sign_in(LOGIN, post.folder)
        channel = await ssh.session()
        user = post.newest._user
        assert (user._key_options, user._cert_options) == ({}, None)
        assert user.proof is not None
        assert user.proof.certificate.blob == certificate_of(post.folder)
        ssh.ask(channel, b"pty-req", string(b"xterm") + uint32(80) + uint32(24) + uint32(0) * 2 + string(b""))
        ssh.ask(channel, b"exec", string(b"test -t 0 && echo free"))
        out, _, status = await ssh.output()
    assert (out, status) == (b"free\r\n", 0)
    (proven,) = post.authority.proven
    assert dict(proven.user_certificate.critical_options) == {}
    assert restricted not in post.authority.requests[0].auth_request


# --- in a session ----------------------------------------------------------------------------------------------------


async def test_the_eleventh_channel_is_refused_and_a_closed_one_makes_room(post: Rig) -> None:
    """DOS-07"""
    async with in_session(post) as ssh:
        for number in range(11):
            ssh.open_channel(number)
        answers = [await ssh.receive() for _ in range(11)]
        assert sorted(answer[0] for answer in answers) == [91] * 10 + [92]
        (refused,) = (answer for answer in answers if answer[0] == 92)
        assert refused[5:9] == uint32(4)
        first = next(answer for answer in answers if answer[0] == 91)
        ssh.send(b"\x61" + first[5:9])
        while (await ssh.receive())[0] != 97:
            pass
        ssh.open_channel(99)
        assert (await ssh.receive())[0] == 91
    await canary(post)


async def test_thousands_of_refused_channels_leave_nothing(post: Rig) -> None:
    """DOS-07"""
    async with in_session(post) as ssh:
        await ssh.session()
        (session,) = post.door.services.sessions.values()
        for number in range(3000):
            ssh.open_channel(number, kind=b"x11")
        for _ in range(3000):
            assert (await ssh.receive())[0] == 92
        assert session._user.open_channels == 1
        assert len(session._bridges) == 1
    await canary(post)


async def test_channels_of_a_refused_session_are_bounded_too(post: Rig) -> None:
    """DOS-07"""
    post.authority.actions = ()
    async with raw_ssh(post.port) as ssh:
        await ssh.exchange()
        await ssh.sign_in("nowhere", post.folder)
        for number in range(200):
            ssh.open_channel(number)
        answers = [(await ssh.receive())[0] for _ in range(200)]
    assert answers.count(91) <= 20


async def test_too_many_requests_at_once_end_the_connection(post: Rig) -> None:
    """DOS-08"""
    async with in_session(post) as ssh:
        channel = await ssh.session()
        (session,) = post.door.services.sessions.values()
        assert session._node is not None
        session._node.read(False)
        for _ in range(66):
            ssh.ask(channel, b"env", string(b"LANG") + string(b"C"))
        assert (await ssh.disconnected()).code == PROTOCOL_ERROR
    await canary(post)


@pytest.mark.parametrize(
    "payload",
    [
        b"\x51",  # DOS-09: REQUEST_SUCCESS
        b"\x52",
        b"\x63" + uint32(0),  # CHANNEL_SUCCESS that nobody asked for
        b"\x5b" + uint32(0) * 4,
        b"\x5c" + uint32(0) * 2 + string(b"") * 2,
        b"\x5e" + uint32(0) + string(b"early"),  # data before anything was started
        b"\x5e" + uint32(77) + string(b"x"),
        b"\x5f" + uint32(0) + uint32(1) + string(b"x"),
        b"\x5d" + uint32(0),  # short
        b"\x62" + uint32(0) + string(b"env"),
        b"\x62" + uint32(0) + string(b"exec") + b"\1" + uint32(0xFFFFFFFF),
        b"\x5a" + string(b"session") + uint32(0) + uint32(0) + uint32(0),
        b"\x5e",
        b"\x32",
    ],
)
async def test_nonsense_in_a_session_ends_that_connection_only(post: Rig, payload: bytes) -> None:
    async with in_session(post) as ssh:
        await ssh.session()
        ssh.send(payload)
        assert (await ssh.disconnected()).code in (PROTOCOL_ERROR, 0)
    await canary(post)
    await post.settled()


async def test_random_messages_harm_nobody_else(post: Rig) -> None:
    for _ in range(15):
        async with in_session(post) as ssh:
            await ssh.session()
            for _ in range(20):
                ssh.send(os.urandom(1 + os.urandom(1)[0] // 4))
    await canary(post)
    await post.settled()


async def test_another_sign_in_after_sign_in_changes_nothing(post: Rig) -> None:
    async with in_session(post) as ssh:
        ssh.send(ssh.request(LOGIN.encode(), certificate_of(post.folder), key_of(post.folder)))
        channel = await ssh.session()
        ssh.ask(channel, b"exec", string(b"echo one"))
        try:
            assert (await ssh.output())[0] == b"one\n"
        finally:
            assert len(post.authority.requests) == 1


async def test_no_more_sessions_means_what_it_says(post: Rig) -> None:
    async with in_session(post) as ssh:
        await ssh.session()
        ssh.send(b"\x50" + string(b"no-more-sessions@openssh.com") + boolean(False))
        ssh.open_channel(1)
        answer = await ssh.receive()
    assert answer[0] == 92


async def test_a_ping_is_answered(post: Rig) -> None:
    """What OpenSSH's keystroke timing obfuscation needs."""
    async with in_session(post) as ssh:
        ssh.send(b"\xc0" + string(b"\0nonce"))
        assert await ssh.receive() == b"\xc1" + string(b"\0nonce")


# --- nodes that misbehave --------------------------------------------------------------------------------------------

Behave = Callable[[asyncssh.SSHServerChannel[bytes], asyncssh.SSHServerConnection], Awaitable[None]]


@asynccontextmanager
async def strange_node(post: Rig, node: Node, tmp_path: Path, behave: Behave) -> AsyncIterator[None]:
    """A node that lets everybody in and then does as *behave* says."""
    folder = node.sshd.host_key.parent.parent
    key = asyncssh.read_private_key(node.sshd.host_key)
    certificate = asyncssh.read_certificate(folder / "web1-cert.pub")

    class Server(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            self.connection = conn

        def begin_auth(self, username: str) -> bool:
            return False

        def session_requested(self) -> Any:
            channel = self.connection.create_server_channel(encoding=None)

            class Session(asyncssh.SSHServerSession[bytes]):
                def exec_requested(self, command: str) -> bool:
                    return True

                def session_started(self) -> None:
                    server.connection.create_task(run())

            server = self

            async def run() -> None:
                await behave(channel, server.connection)

            return channel, Session()

    listener = await asyncssh.create_server(
        Server, "127.0.0.1", 0, server_host_keys=[(key, certificate)], encoding=None, gss_host=None, config=[]
    )
    post.authority.nodes["web1"] = f"127.0.0.1:{listener.get_port()}"
    try:
        yield
    finally:
        listener.close()
        await listener.wait_closed()


def packet(channel: asyncssh.SSHServerChannel[bytes], kind: int, *rest: bytes) -> None:
    channel._conn.send_packet(kind, uint32(channel._send_chan or 0), *rest)


async def exits_twice(channel: asyncssh.SSHServerChannel[bytes], conn: asyncssh.SSHServerConnection) -> None:
    for _ in range(2):
        packet(channel, 98, string(b"exit-status"), boolean(False), uint32(0))


async def speaks_after_the_end(channel: asyncssh.SSHServerChannel[bytes], conn: asyncssh.SSHServerConnection) -> None:
    packet(channel, 96)
    packet(channel, 94, string(b"late"))


async def overruns_the_window(channel: asyncssh.SSHServerChannel[bytes], conn: asyncssh.SSHServerConnection) -> None:
    for _ in range(80):
        packet(channel, 94, string(bytes(32_768)))


async def sends_strange_data(channel: asyncssh.SSHServerChannel[bytes], conn: asyncssh.SSHServerConnection) -> None:
    packet(channel, 95, uint32(7), string(b"?"))


@pytest.mark.parametrize("behave", [exits_twice, speaks_after_the_end, overruns_the_window, sends_strange_data])
async def test_a_node_that_breaks_the_protocol_ends_its_session_cleanly(
    post: Rig, node: Node, tmp_path: Path, behave: Behave
) -> None:
    """SSH-19: the user gets a sentence, not a broken connection."""
    async with strange_node(post, node, tmp_path, behave):
        done = await post.run("ssh", WEB1, "x")
        assert done.returncode in (0, 255)
        assert b"Disconnecting" not in done.stderr
        if behave is not speaks_after_the_end:  # nothing may be said to the user then either
            assert b"the node broke the SSH protocol" in done.stderr
        assert b"late" not in done.stdout
        await post.settled()
    assert list(post.authority.ended.values()) == ["node_protocol"]


async def test_a_node_opens_no_channels(post: Rig, node: Node, tmp_path: Path) -> None:
    """SSH-19"""
    refused: list[int] = []

    async def opens(channel: asyncssh.SSHServerChannel[bytes], conn: asyncssh.SSHServerConnection) -> None:
        for _ in range(2):
            try:
                await conn.create_connection(asyncssh.SSHTCPSession, "127.0.0.1", 1)
            except asyncssh.ChannelOpenError as error:
                refused.append(error.code)
        channel.exit(0)

    async with strange_node(post, node, tmp_path, opens):
        done = await post.run("ssh", WEB1, "x")
        await post.settled()
    assert done.returncode == 0
    assert refused == [1, 1]
