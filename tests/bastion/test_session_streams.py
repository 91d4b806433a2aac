"""Every byte arrives, in both directions and all three ways, and stands in the recording."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from pathlib import Path

import pytest

from recordings.format import Input, Output, decode_lines
from tests.bastion.door import Rig
from tests.bastion.rawssh import raw_ssh
from tests.sshd import LOGIN

WEB1 = f"{LOGIN}@web1"
WAYS = {"config": [WEB1], "jump": ["-J", "bartizan", WEB1], "username": [f"{LOGIN}+web1@bartizan"]}
BULK = 20 << 20
every_way = pytest.mark.parametrize("way", WAYS)


@every_way
async def test_twenty_megabytes_come_back_byte_by_byte(post: Rig, way: str) -> None:
    sent = os.urandom(BULK)
    done = await post.run("ssh", *WAYS[way], "cat", input=sent, timeout=120)

    assert (done.returncode, done.stderr) == (0, b"")
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(sent).digest()
    await post.settled()
    assert [proven.user for proven in post.authority.proven] == ["alice"]
    assert post.authority.requests[0].way == way


async def test_the_recording_holds_every_byte_of_both_directions(post: Rig) -> None:
    sent = os.urandom(2 << 20)
    await post.run("ssh", WEB1, "cat", input=sent, timeout=60)
    await post.settled()
    lines = post.streams().splitlines(keepends=True)[1:]
    events = list(decode_lines(lines, pty=False))

    assert b"".join(event.data for event in events if isinstance(event, Input)) == sent
    assert b"".join(event.data for event in events if isinstance(event, Output)) == sent


@every_way
async def test_what_passes_either_way_stands_in_the_recording(post: Rig, way: str) -> None:
    """FIELD: records neither exec output nor input of non-interactive commands."""
    inside, outside, aside = (secrets.token_hex(16) for _ in range(3))
    script = f"read line; echo {outside}; echo {aside} >&2; exit 7".encode()
    done = await post.run("ssh", *WAYS[way], script.decode(), input=f"{inside}\n".encode())

    assert (done.returncode, done.stdout, done.stderr) == (7, f"{outside}\n".encode(), f"{aside}\n".encode())
    await post.settled()
    recorded = post.streams().decode()
    assert f'"i","{inside}\\n"' in recorded
    assert f'"o","{outside}\\n"' in recorded
    assert f'"e","{aside}\\n"' in recorded
    notes = post.notes()
    assert {"status": 7, "channel": 0} in [note["fields"] for note in notes if note["code"] == "channel.exit"]
    assert post.authority.ended == {f"s{1:025d}": "closed"}


async def test_end_of_file_reaches_the_node(post: Rig) -> None:
    done = await post.run("ssh", WEB1, "wc -c", input=b"abc")
    assert done.stdout.strip() == b"3"
    await post.settled()
    assert any(note["code"] == "channel.eof" for note in post.notes())


async def test_a_half_closed_channel_goes_on_the_other_way(post: Rig) -> None:
    """Output long after stdin has ended, and input after stdout was closed."""
    done = await post.run("ssh", WEB1, "cat >/dev/null; echo late; exec >&-; sleep 0.1; exit 4", input=b"x" * 100_000)
    assert (done.returncode, done.stdout) == (4, b"late\n")


async def test_the_last_output_comes_before_the_exit_status(post: Rig) -> None:
    """FIELD: exit status before the last output, stderr not drained."""
    done = await post.run("ssh", WEB1, "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 9", timeout=60)
    assert (done.returncode, len(done.stdout), len(done.stderr)) == (9, 3_000_000, 3_000_000)


async def test_the_end_by_a_signal_is_told(post: Rig) -> None:
    done = await post.run("ssh", WEB1, "kill -TERM $$")
    assert done.returncode == 255
    await post.settled()
    assert "TERM" in [note["fields"].get("signal") for note in post.notes() if note["code"] == "channel.exit"]  # type: ignore[attr-defined]


async def test_a_command_that_is_no_text_arrives_as_it_is(post: Rig) -> None:
    """SSH-14"""
    async with raw_ssh(post.port, first=b"bartizan/1 web1\n") as ssh:
        await ssh.exchange()
        await ssh.sign_in(LOGIN, post.folder)
        channel = await ssh.session()
        command = b"printf '\xff\xfe%s' \xe9\xff | od -An -tx1"
        ssh.ask(channel, b"exec", len(command).to_bytes(4, "big") + command)
        out, _, status = await ssh.output()
    assert (out.split(), status) == ([b"ff", b"fe", b"e9", b"ff"], 0)
    await post.settled()
    assert [note["fields"]["command"] for note in post.notes() if note["code"] == "session.channel"] == [  # type: ignore[index]
        "printf '\\xff\\xfe%s' \\xe9\\xff | od -An -tx1"
    ]


async def test_output_that_is_no_text_is_recorded_byte_by_byte(post: Rig) -> None:
    """REC-14"""
    done = await post.run("ssh", WEB1, "printf 'a\\377\\000b\\303'; sleep 0.2; printf '\\251'")
    assert done.stdout == b"a\xff\x00b\xc3\xa9"
    await post.settled()
    assert '"ob","Yf8AYg' in post.streams().decode()


async def test_what_is_sent_with_the_request_is_not_lost(post: Rig) -> None:
    """FIELD: early channel data lost, so rsync, scp and Ansible hang."""
    async with raw_ssh(post.port, first=b"bartizan/1 web1\n") as ssh:
        await ssh.exchange()
        await ssh.sign_in(LOGIN, post.folder)
        channel = await ssh.session()
        ssh.ask(channel, b"exec", b"\0\0\0\x03cat", want_reply=False)
        ssh.data(channel, b"early")
        ssh.send(b"\x60" + channel.to_bytes(4, "big"))
        assert await ssh.output() == (b"early", b"", 0)


async def test_rekeying_in_the_middle_of_a_transfer_loses_nothing(post: Rig) -> None:
    """SSH-25: both directions at once, one recording."""
    sent = os.urandom(16 << 20)
    done = await post.run("ssh", "-oRekeyLimit=1M", WEB1, "cat", input=sent, timeout=120)

    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(sent).digest()
    await post.settled()
    assert len(post.authority.ended) == 1


@pytest.mark.long
async def test_sixty_four_megabytes_survive_rekeying(post: Rig) -> None:
    """SSH-25"""
    sent = os.urandom(64 << 20)
    done = await post.run("ssh", "-oRekeyLimit=1M", WEB1, "cat", input=sent, timeout=600)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(sent).digest()


async def test_a_user_who_stops_reading_stops_the_node_and_fills_no_memory(post: Rig) -> None:
    """DOS-13: the node is held up by its window; the session lives and goes on."""
    async with raw_ssh(post.port, first=b"bartizan/1 web1\n") as ssh:
        await ssh.exchange()
        await ssh.sign_in(LOGIN, post.folder)
        channel = await ssh.session(window=100_000)
        command = b"head -c 5000000 /dev/zero"
        ssh.ask(channel, b"exec", len(command).to_bytes(4, "big") + command)
        got = 0
        while got < 100_000 - 8192 - 4096:
            payload = await ssh.receive()
            got += len(payload) - 9 if payload[0] == 94 else 0
        before = _resident()
        await asyncio.sleep(1.0)
        assert _resident() - before < 8 << 20
        assert post.door.services.sessions
        ssh.send(b"\x5d" + channel.to_bytes(4, "big") + (6_000_000).to_bytes(4, "big"))
        out, _, status = await ssh.output()
    assert (got + len(out), status) == (5_000_000, 0)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_each_channel_of_a_shared_connection_has_its_own_stream(post: Rig) -> None:
    """FIELD: session ids tied to the connection, so that ControlMaster mixes recordings."""
    control = ["-oControlMaster=auto", f"-oControlPath={post.folder}/cm", "-oControlPersist=20"]
    nonces = [secrets.token_hex(8) for _ in range(4)]
    first = await post.run("ssh", *control, WEB1, f"echo {nonces[0]}")
    assert first.stdout == f"{nonces[0]}\n".encode(), first.stderr
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(post.run("ssh", *control, WEB1, f"sleep 0.2; echo {nonce}")) for nonce in nonces[1:]]
    assert [run.result().stdout for run in runs] == [f"{nonce}\n".encode() for nonce in nonces[1:]]
    await post.run("ssh", *control, "-O", "exit", WEB1)
    await post.settled()

    assert len(post.authority.ended) == 1
    channels = sorted(path.name for path in post.recordings.rglob("c*.cast.zst"))
    assert channels == [f"c{n}.000001.cast.zst" for n in range(4)]
    numbers = {note["fields"]["channel"] for note in post.notes() if note["code"] == "session.channel"}  # type: ignore[index]
    assert numbers == {0, 1, 2, 3}


async def test_allowed_variables_reach_the_node_and_others_do_not(post: Rig) -> None:
    done = await post.run(
        "ssh", "-oSetEnv=LC_NONCE=bartizan LD_PRELOAD=x", WEB1, "echo $LC_NONCE:$LD_PRELOAD"
    )  # fmt: skip
    assert done.stdout == b"bartizan:\n"
    await post.settled()
    variables = [note["fields"]["name"] for note in post.notes() if note["code"] == "channel.env"]  # type: ignore[index]
    assert variables == ["LC_NONCE"]


async def test_a_script_on_standard_input_is_recorded_although_a_terminal_was_asked_for_in_vain(post: Rig) -> None:
    """No byte without a record: without the right to a shell the node grants no terminal, yet runs the command."""
    post.authority.actions = ("exec",)
    nonce = secrets.token_hex(16)
    done = await post.run("ssh", "-tt", WEB1, "sh", input=f"echo {nonce} | md5sum\nexit\n".encode())

    assert hashlib.md5(f"{nonce}\n".encode(), usedforsecurity=False).hexdigest().encode() in done.stdout
    await post.settled()
    assert nonce in post.streams().decode()
