"""How sessions end: by themselves, by order, because nothing can be recorded, because nobody answers."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import socket
from datetime import timedelta

import pytest

from bastion.limits import SILENCE
from bastion.session import Session, steady
from ca import wire
from ca.model import LEASE
from recordings.sshwire import string
from tests.bastion.door import Rig
from tests.bastion.rawssh import raw_ssh
from tests.sshd import LOGIN

WEB1 = f"{LOGIN}@web1"
WAYS = {"config": [WEB1], "jump": ["-J", "bartizan", WEB1], "username": [f"{LOGIN}+web1@bartizan"]}
every_way = pytest.mark.parametrize("way", WAYS)
CHATTER = "while :; do echo tick; sleep 0.05; done"


class Running:
    """A command that runs until somebody ends it."""

    def __init__(self, process: asyncio.subprocess.Process, session: Session) -> None:
        self._process, self.session = process, session

    async def end(self) -> tuple[int | None, bytes]:
        """Exit status and standard error."""
        async with asyncio.timeout(25):
            _, err = await self._process.communicate()
        return self._process.returncode, err


async def start(post: Rig, *arguments: str, ready: bytes = b"tick\n") -> Running:
    """Run ssh with *arguments* and wait for its first output."""
    process = await asyncio.create_subprocess_exec(
        "ssh",
        "-F",
        str(post.config),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == ready
    return Running(process, list(post.door.services.sessions.values())[-1])


def manifests(post: Rig) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted(post.recordings.rglob("manifest.json"))]


@every_way
async def test_an_order_ends_the_session_and_says_why(post: Rig, way: str) -> None:
    """CV-16"""
    running = await start(post, *WAYS[way], CHATTER)
    running.session.order(wire.Order(session=running.session.id, code="terminated", reason="ended by an administrator"))
    status, err = await running.end()

    assert status == 255
    assert err.startswith(b"bartizan: ended by an administrator\n")
    await post.settled()
    assert list(post.authority.ended.values()) == ["terminated"]
    assert [manifest["how"] for manifest in manifests(post)] == ["terminated"]
    assert "ended by an administrator" in post.streams().decode()


async def test_an_order_ends_every_channel_and_a_session_without_any(post: Rig) -> None:
    control = ["-oControlMaster=auto", f"-oControlPath={post.folder}/cm", "-oControlPersist=30"]
    await post.run("ssh", *control, WEB1, "true")
    first = await start(post, *control, WEB1, CHATTER)
    second = await start(post, *control, WEB1, CHATTER)
    assert first.session is second.session
    first.session.end("locked", "access is locked")
    for running in (first, second):
        status, err = await running.end()
        assert (status, err) == (255, b"bartizan: access is locked\n")
    await post.settled()

    idle = await start(post, *control, WEB1, "echo tick", ready=b"tick\n")
    await idle.end()
    idle.session.end("locked", "access is locked")
    await post.settled()
    assert list(post.authority.ended.values()) == ["locked", "locked"]


async def test_an_order_ends_a_channel_whose_output_is_over(post: Rig) -> None:
    running = await start(post, WEB1, "echo tick; exec >&- 2>&-; sleep 60")
    await asyncio.sleep(0.2)
    running.session.end("terminated", "over")
    status, err = await running.end()
    assert status == 255
    assert b"Disconnecting" not in err
    await post.settled()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"max_session_seconds": 1}, "max_session", b"reached its longest time (1 s)"),
        ({"on_expiry": "end"}, "certificate_expired", b"your certificate has expired: run bart login"),
    ],
    ids=["longest time", "certificate"],
)
async def test_a_limit_ends_the_session_with_a_line(
    post: Rig, options: dict[str, object], code: str, words: bytes
) -> None:
    """CV-17"""
    post.authority.options |= options
    post.user(life=timedelta(seconds=4) if code == "certificate_expired" else timedelta(hours=1))
    running = await start(post, WEB1, CHATTER)
    status, err = await running.end()
    assert status == 255
    assert words in err
    await post.settled()
    assert list(post.authority.ended.values()) == [code]


async def test_a_certificate_that_expires_meanwhile_ends_nothing_unless_the_grant_says_so(post: Rig) -> None:
    """CV-17"""
    post.user(life=timedelta(seconds=2))
    done = await post.run("ssh", WEB1, "sleep 3; echo still here")
    assert done.stdout == b"still here\n"


async def test_idleness_ends_the_session_with_a_line(post: Rig) -> None:
    post.authority.options["idle_seconds"] = 1
    running = await start(post, WEB1, "echo tick; sleep 60")
    status, err = await running.end()
    assert (status, err) == (255, b"bartizan: nothing happened for 1 s\n")
    await post.settled()


# --- the authority is away ---------------------------------------------------------------------------------------


async def test_after_thirty_seconds_of_silence_no_new_session_starts(post: Rig) -> None:
    post.door.services.contact.at = steady() - SILENCE
    done = await post.run("ssh", WEB1, "id")
    assert (done.returncode, done.stdout) == (255, b"")
    assert b"the authority has not been reached for 30 seconds" in done.stderr
    assert post.authority.requests == []


@every_way
async def test_an_authority_that_is_down_refuses_with_a_sentence(post: Rig, way: str) -> None:
    await post.door.shown.fetch("web1")
    post.authority.down = True
    done = await post.run("ssh", *WAYS[way], "id")
    assert (done.returncode, done.stdout) == (255, b"")
    assert b"the authority cannot be reached" in done.stderr


async def test_a_node_name_that_was_never_shown_needs_the_authority(post: Rig) -> None:
    post.authority.down = True
    done = await post.run("ssh", WEB1, "id")
    assert done.returncode == 255
    assert b"no contact with its authority" in done.stderr
    jumped = await post.run("ssh", *WAYS["jump"], "id")
    assert jumped.returncode == 255
    assert b"authority cannot be reached" in jumped.stderr


async def test_a_session_goes_on_within_its_lease_and_ends_with_it(post: Rig) -> None:
    running = await start(post, WEB1, CHATTER)
    contact = post.door.services.contact
    contact.at = steady() - SILENCE - timedelta(seconds=10)
    await asyncio.sleep(0.7)
    assert post.door.services.sessions
    contact.at = steady() - LEASE
    status, err = await running.end()
    assert status == 255
    assert b"has not been reached for 1 min" in err
    await post.settled()
    assert list(post.authority.ended.values()) == ["lease_over"]


async def test_a_session_that_ends_while_the_authority_is_down_is_sealed_all_the_same(post: Rig) -> None:
    """LOG-04"""
    running = await start(post, WEB1, CHATTER)
    post.authority.down = True
    running.session.end("terminated", "over")
    await running.end()
    await post.settled()
    assert [manifest["how"] for manifest in manifests(post)] == ["terminated"]
    assert list(post.recordings.rglob("manifest.json.sig"))
    assert list(post.recordings.rglob("manifest.json.authority.sig")) == []


async def test_a_worker_about_to_restart_takes_no_new_session(post: Rig) -> None:
    async with raw_ssh(post.port, first=b"bartizan/1 web1\n") as ssh:
        await ssh.exchange()
        post.door.services.draining = True
        await ssh.sign_in(LOGIN, post.folder)
        channel = await ssh.session()
        ssh.ask(channel, b"shell")
        _, err, status = await ssh.output()
    assert status == 255
    assert b"about to restart" in err


async def test_a_full_outbox_starts_no_session(post: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """LOG-04: what cannot be audited does not happen."""
    monkeypatch.setattr("bastion.outbox.FULL", 0)
    done = await post.run("ssh", WEB1, "id")
    assert (done.returncode, done.stdout) == (255, b"")
    assert b"events cannot be handed to the authority" in done.stderr


# --- nothing can be recorded -------------------------------------------------------------------------------------


async def test_without_a_place_to_record_no_session_starts(post: Rig) -> None:
    shutil.rmtree(post.recordings)
    post.recordings.write_text("not a folder")
    done = await post.run("ssh", WEB1, "id")
    assert (done.returncode, done.stdout) == (255, b"")
    assert b"cannot be recorded" in done.stderr


@every_way
async def test_a_recorder_that_fails_ends_the_session(post: Rig, way: str) -> None:
    """DOS-14; FIELD: fail-open."""
    running = await start(post, *WAYS[way], CHATTER)
    (folder,) = (path.parent for path in post.recordings.rglob("live.lock"))
    shutil.rmtree(folder)
    folder.write_text("replaced")
    status, err = await running.end()

    assert status == 255
    assert b"recorded" in err
    async with asyncio.timeout(20):
        while post.door.services.sessions:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert "unrecorded" not in (how for how in post.authority.ended.values())


async def test_a_byte_that_cannot_be_recorded_is_not_shown(post: Rig) -> None:
    """The law itself: the recorder refuses the very message, and the user never sees it."""
    nonce = secrets.token_hex(16).encode()
    running = await start(post, WEB1, f"echo tick; read x; echo {nonce.decode()}")
    tape = running.session._tape
    assert tape is not None
    tape.recording._ended = True
    assert running._process.stdin is not None
    running._process.stdin.write(b"\n")
    await running._process.stdin.drain()
    async with asyncio.timeout(20):
        out, err = await running._process.communicate()
    assert nonce not in out + err
    assert running._process.returncode == 255
    assert b"can no longer be recorded" in err


async def test_what_cannot_be_audited_does_not_happen(post: Rig) -> None:
    """LOG-04: the disk of the outbox is full."""
    outbox = post.door.services.outbox
    good = outbox._file
    with open("/dev/full", "ab", buffering=0) as full:  # noqa: ASYNC230, PTH123
        outbox._file = full
        done = await post.run("ssh", WEB1, f"touch {post.folder}/nonce; echo done")
        await post.settled()
        outbox._file = good

    assert (done.returncode, done.stdout) == (255, b"")
    assert b"can no longer be recorded" in done.stderr
    assert not (post.folder / "nonce").exists()


# --- somebody goes away ------------------------------------------------------------------------------------------


@every_way
async def test_a_user_who_is_gone_leaves_a_sealed_recording_and_nothing_running(post: Rig, way: str) -> None:
    """REC-18 from the other side: the recording does not depend on a clean end."""
    running = await start(post, *WAYS[way], CHATTER)
    running._process.kill()
    await running._process.wait()
    await running.end()
    await post.settled()
    assert list(post.authority.ended.values()) == ["closed"]
    assert '"o","tick\\n"' in post.streams().decode()


async def test_a_user_who_leaves_while_the_node_is_being_entered_harms_nobody_else(post: Rig) -> None:
    """A bug in one session must not end the others of the same worker."""
    other = await start(post, WEB1, CHATTER)

    good = post.authority.nodes["web1"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        post.authority.nodes["web1"] = f"127.0.0.1:{silent.getsockname()[1]}"
        async with raw_ssh(post.port, first=b"bartizan/1 web1\n") as ssh:
            await ssh.exchange()
            await ssh.sign_in(LOGIN, post.folder)
            ssh.open_channel(0)
            async with asyncio.timeout(10):
                while len(post.door.services.sessions) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        async with asyncio.timeout(10):  # the node need not answer for the session to be over
            while len(post.door.services.sessions) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    post.authority.nodes["web1"] = good
    assert (await post.run("ssh", WEB1, "echo fine")).stdout == b"fine\n"
    other.session.end("terminated", "over")
    assert (await other.end())[1] == b"bartizan: over\n"


async def test_the_loss_of_the_node_is_told(post: Rig) -> None:
    running = await start(post, WEB1, CHATTER)
    node = running.session._node
    assert node is not None
    node.abort()
    status, err = await running.end()
    assert status == 255
    assert b"the connection to the node was lost" in err
    await post.settled()
    assert list(post.authority.ended.values()) == ["node_lost"]


async def test_a_session_that_ends_before_the_node_has_opened_a_channel_says_so(post: Rig) -> None:
    running = await start(post, WEB1, CHATTER)
    session = running.session
    node = session._node
    assert node is not None
    node.read(False)  # it will not answer any more
    async with raw_ssh(post.port, first=b"bartizan/1 web1\n") as ssh:
        await ssh.exchange()
        await ssh.sign_in(LOGIN, post.folder)
        async with asyncio.timeout(20):
            while len(post.door.services.sessions) < 2 or post.newest._node is None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        second = post.newest
        assert second._node is not None
        second._node.read(False)
        ssh.open_channel(0)
        async with asyncio.timeout(20):
            while not second._bridges:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        second.end("terminated", "over and out")
        answer = await ssh.receive()
        assert answer[0] == 92
        assert b"over and out" in answer
    session.end("terminated", "over")
    await running.end()
    await post.settled()


async def test_channels_that_wait_when_an_order_comes_are_told(post: Rig) -> None:
    gate = asyncio.Event()
    authorize = post.authority.authorize

    async def slowly(request: wire.SessionRequest) -> wire.SessionAllowed | wire.SessionDenied:
        answer = await authorize(request)
        await gate.wait()
        return answer

    post.authority.authorize = slowly  # type: ignore[method-assign]
    async with raw_ssh(post.port, first=b"bartizan/1 web1\n") as ssh:
        await ssh.exchange()
        await ssh.sign_in(LOGIN, post.folder)
        ssh.open_channel(0)
        async with asyncio.timeout(10):
            while not post.authority.proven:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        gate.set()
        async with asyncio.timeout(10):
            while not post.door.services.sessions:  # noqa: ASYNC110
                await asyncio.sleep(0)
        post.newest.end("locked", "access is locked")
        assert (await ssh.receive())[0] == 91
        ssh.ask(0, b"exec", string(b"id"))
        out, err, status = await ssh.output()
    assert (out, err, status) == (b"", b"bartizan: access is locked\n", 255)
    await post.settled()
