"""Somebody with a good certificate who wants more: to go on after the end, to pass unrecorded, to fill our memory."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from bastion import session as sessions
from bastion import ssh_adapter
from bastion.tape import RecordingError
from recordings.sshwire import boolean, string, uint32
from tests.bastion.door import Rig
from tests.bastion.rawssh import Disconnected, RawSsh, raw_ssh
from tests.sshd import LOGIN


@asynccontextmanager
async def inside(post: Rig) -> AsyncIterator[RawSsh]:
    """Signed in, on the way to web1."""
    async with raw_ssh(post.port, first=b"bartizan/1 web1\n") as ssh:
        await ssh.exchange()
        await ssh.sign_in(LOGIN, post.folder)
        yield ssh


async def began(post: Rig, ssh: RawSsh) -> sessions.Session:
    """The session, once it relays."""
    channel = await ssh.session()
    ssh.send(b"\x61" + uint32(channel))
    while (await ssh.receive())[0] != 97:
        pass
    return post.newest


async def granted(ssh: RawSsh) -> None:
    """Wait until the last request was granted; windows may open meanwhile."""
    while (answer := await ssh.receive())[0] != 99:
        assert answer[0] == 93, answer


# --- the end is the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("disk", ["well", "full"])
async def test_nothing_starts_once_the_end_was_ordered(post: Rig, tmp_path: Path, disk: str) -> None:
    """CV-16, DOS-14: in the moment in which the user reads why, a new channel would still have been relayed."""
    proof = tmp_path / "ran"
    async with inside(post) as ssh:
        session = await began(post, ssh)
        if disk == "full":
            session.failed(RecordingError("no space left on device"))
        else:
            session.end("locked", "access is locked")
        channel = await ssh.session()
        ssh.ask(channel, b"exec", string(f"touch {proof}".encode()))
        _, err, status = await ssh.output()
    assert (status, proof.exists()) == (255, False)
    assert err.startswith(b"bartizan: ")
    await post.settled()


async def test_what_is_open_stops_at_the_order_and_not_when_the_disk_has_time(
    post: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DOS-14: a flush that hangs must not keep a locked session alive."""
    proof = tmp_path / "ran"
    async with inside(post) as ssh:
        channel = await ssh.session()
        ssh.ask(channel, b"shell")
        await granted(ssh)
        session = post.newest
        hanging = asyncio.Event()
        monkeypatch.setattr(session._tape, "flush", hanging.wait)
        await asyncio.sleep(0.7)
        session.end("locked", "access is locked")
        ssh.data(channel, f"touch {proof}\n".encode())
        _, err, status = await ssh.output()
        assert (status, err) == (255, b"bartizan: access is locked\n")
        await asyncio.sleep(0.3)
        hanging.set()
    assert not proof.exists()
    await post.settled()


async def test_a_disk_that_does_not_answer_ends_the_session(post: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """DOS-14"""
    monkeypatch.setattr("bastion.tape.FLUSH_SECONDS", 0.2)
    async with inside(post) as ssh:
        channel = await ssh.session()
        ssh.ask(channel, b"shell")
        await granted(ssh)
        tape = post.newest._tape
        assert tape is not None
        answers = threading.Event()
        monkeypatch.setattr(tape.recording, "flush", lambda now: answers.wait(20))
        try:
            _, err, status = await ssh.output()
        finally:
            answers.set()
        assert (status, b"no longer be recorded" in err or b"cannot be recorded" in err) == (255, True), err


async def test_a_grant_whose_time_is_over_starts_nothing(post: Rig, tmp_path: Path) -> None:
    """CV-17: limits bind from the first use on, so the first use must look at them."""
    post.authority.options |= {"max_session_seconds": 1}
    proof = tmp_path / "ran"
    async with inside(post) as ssh:
        await began(post, ssh)
        await asyncio.sleep(1.2)
        channel = await ssh.session()
        ssh.ask(channel, b"exec", string(f"touch {proof}".encode()))
        _, err, status = await ssh.output()
    assert (status, proof.exists()) == (255, False)
    assert b"longest time" in err
    await post.settled()


# --- memory ---------------------------------------------------------------------------------------------------


async def test_a_stalled_key_exchange_holds_the_node_back(post: Rig) -> None:
    """DOS-05: what the node sends meanwhile would all be kept here, as much as the client's window allows."""
    async with inside(post) as ssh:
        channel = await ssh.session(window=0xFFFF_FFFF)
        ssh.ask(channel, b"exec", string(b"cat /dev/zero"))
        await granted(ssh)
        session = post.newest
        ssh.send(ssh.kexinit)
        await asyncio.sleep(1)
        waiting = sum(len(b"".join(words)) for _, words in session._user._deferred_packets)
        assert waiting < 8 << 20
        session.end("test_over", "over")


NOT_NOW = {
    "data": b"\x5e" + uint32(0) + string(b"x"),
    "window": b"\x5d" + uint32(0) + uint32(1),
    "request": b"\x62" + uint32(0) + string(b"env") + boolean(True) + string(b"LANG") + string(b"C"),
    "channel": b"\x5a" + string(b"session") + uint32(7) + uint32(1000) + uint32(1000),
    "global request": b"\x50" + string(b"keepalive@openssh.com") + boolean(True),
    "ping": b"\xc0" + string(b"ping"),
    "service": b"\x05" + string(b"ssh-userauth"),
    "unknown": b"\xfa",
}


@pytest.mark.parametrize("when", ["after its offer", "before its new keys"])
@pytest.mark.parametrize("message", NOT_NOW)
async def test_who_changes_keys_says_nothing_else(post: Rig, message: str, when: str) -> None:
    """DOS-05: RFC 4253 §7.1; answers would all wait here for the new keys."""
    async with inside(post) as ssh:
        channel = await ssh.session()
        ssh.ask(channel, b"exec", string(b"cat"))
        await granted(ssh)
        ours = ssh.offer()
        if when == "before its new keys":
            while (theirs := await ssh.receive())[0] != 20:
                pass
            await ssh.change_keys(ours, theirs, before_newkeys=NOT_NOW[message])
        else:
            ssh.send(b"\x02" + string(b"SSH_MSG_IGNORE is allowed"))
            ssh.send(NOT_NOW[message])
        end = await ssh.disconnected()
        assert (end.code, "key exchange" in end.reason) == (2, True), end


async def test_what_was_on_its_way_when_we_began_to_change_keys_is_taken(post: Rig) -> None:
    """DOS-05: a client that has not seen our offer yet breaks no rule, and loses nothing."""
    async with inside(post) as ssh:
        channel = await ssh.session()
        ssh.ask(channel, b"exec", string(b"cat"))
        await granted(ssh)
        user = post.newest._user
        user._rekey_bytes = user._rekey_bytes_sent
        sent = [f"{number} ".encode() for number in range(100)]
        got = b""
        for piece in sent:
            ssh.data(channel, piece)
        while (theirs := await ssh.receive())[0] != 20:
            got += theirs[9:] if theirs[0] == 94 else b""
        user._rekey_bytes = 1 << 30
        for piece in sent:  # we have not answered, so to the other side we have not seen it
            ssh.data(channel, piece)
        await ssh.change_keys(ssh.offer(), theirs)
        ssh.send(b"\x60" + uint32(channel))
        out, _, status = await ssh.output()
        assert (got + out, status) == (b"".join(sent) * 2, 0)


@pytest.mark.parametrize("flood", ["pings", "refused requests", "global requests", "refused channels"])
async def test_answers_that_nobody_reads_end_the_connection(
    post: Rig, flood: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DOS-07, DOS-08, DOS-13"""
    monkeypatch.setattr(ssh_adapter, "MOST_UNSENT", 1 << 18)
    async with inside(post) as ssh:
        channel = await ssh.session()
        session = post.newest
        user = session._user
        for end in (user._transport, ssh._writer):
            assert end is not None
            for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, buffer, 8192)
        payload = {
            "pings": b"\xc0" + string(b"x" * 30_000),
            "refused requests": b"\x62" + uint32(channel) + string(b"window-change") + boolean(True) + bytes(16),
            "global requests": b"\x50" + string(b"x@y") + boolean(True),
            "refused channels": b"\x5a" + string(b"x@y") + uint32(9) + uint32(1) + uint32(1),
        }[flood]
        most = 0
        async with asyncio.timeout(30):
            try:
                while user.alive:
                    for _ in range(200):
                        ssh.send(payload)
                    await ssh._writer.drain()
                    most = max(most, user._transport.get_write_buffer_size() if user._transport else 0)
            except ConnectionError:
                pass
        assert most < 4 << 20
    await post.settled()


async def test_a_flood_of_notes_waits_for_the_disk_too(post: Rig) -> None:
    """DOS-14: what is noted takes memory like what is recorded."""
    async with inside(post) as ssh:
        await ssh.session()
        tape = post.newest._tape
        assert tape is not None
        while not tape.full:
            tape.note("channel.env", {"name": "LC_X", "value": "x" * 4096})
        assert tape.wanted.is_set()


# --- the record, and those who read it ------------------------------------------------------------------------


async def test_a_session_has_an_end_to_its_channels(post: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each leaves parts and a line in the manifest; one that is too long for the authority would never be signed."""
    monkeypatch.setattr(sessions, "CHANNELS_IN_ALL", 5)
    async with inside(post) as ssh:
        for _ in range(5):
            await began(post, ssh)
        ssh.open_channel(7)
        assert (await ssh.receive())[0] == 92
    await post.settled()


async def test_a_recording_that_has_become_too_long_to_be_signed_ends(
    post: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with inside(post) as ssh:
        channel = await ssh.session()
        ssh.ask(channel, b"shell")
        await granted(ssh)
        monkeypatch.setattr("recordings.writer.LONGEST_MANIFEST", 10)
        _, err, status = await ssh.output()
    assert status == 255
    assert b"connect again" in err
    await post.settled()
    assert list(post.authority.ended.values()) == ["recording_full"]


async def test_a_flood_of_refusals_ends_the_session(post: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """LOG-05: each is an event in the log of all; a thousand are enough to see what somebody is about."""
    monkeypatch.setattr(sessions, "MOST_REFUSALS", 20)
    async with inside(post) as ssh:
        await began(post, ssh)
        for _ in range(200):
            ssh.send(b"\x50" + string(b"tcpip-forward") + boolean(False) + string(b"") + uint32(80))
        assert isinstance(await ssh.disconnected(), Disconnected)
    await post.settled()
    assert len([event for event in post.events() if event.code == "session.refused"]) == 20
    assert list(post.authority.ended.values()) == ["too_many_refusals"]


async def test_a_jump_waits_for_few_at_a_time(post: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """DOS-07: a thousand connections through one jump, while the authority takes its time."""
    asked: list[str] = []
    fetch = type(post.door.shown).fetch

    async def slow(_shown: object, name: str) -> object:
        asked.append(name)
        await asyncio.sleep(0.5)
        return await fetch(post.door.shown, name)

    async with raw_ssh(post.port) as ssh:
        await ssh.exchange()
        await ssh.sign_in("jump", post.folder)
        monkeypatch.setattr(type(post.door.shown), "fetch", slow)
        for number in range(100):
            rest = string(f"host{number}".encode()) + uint32(22) + string(b"127.0.0.1") + uint32(1)
            ssh.open_channel(number, kind=b"direct-tcpip", rest=rest)
        answers = [(await ssh.receive())[0] for _ in range(90)]
        assert set(answers) == {92}
        assert len(asked) == 10


def test_the_time_that_a_recorder_may_take_is_shorter_than_the_lease() -> None:
    from bastion.tape import FLUSH_SECONDS
    from ca.model import LEASE

    assert timedelta(seconds=FLUSH_SECONDS) < LEASE
