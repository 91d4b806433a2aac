"""A person at a terminal: real ptys, sizes, signals, breaks; keystrokes stay private unless a grant says otherwise."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from recordings.sshwire import string, uint32
from tests.bastion.door import Rig
from tests.bastion.rawssh import raw_ssh
from tests.sshd import LOGIN

WEB1 = f"{LOGIN}@web1"


class Terminal:
    """ssh on a real terminal."""

    def __init__(self, master: int, process: asyncio.subprocess.Process) -> None:
        self._master, self.process, self.seen = master, process, b""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.process.pid, signal.SIGWINCH)

    def type(self, text: bytes) -> None:
        os.write(self._master, text)

    async def until(self, text: bytes, *, within: float = 20) -> None:
        async with asyncio.timeout(within):
            while text not in self.seen:
                self.seen += await asyncio.to_thread(os.read, self._master, 4096)

    async def status(self) -> int:
        async with asyncio.timeout(20):
            return await self.process.wait()


@asynccontextmanager
async def terminal(post: Rig, *arguments: str, columns: int = 100, rows: int = 30) -> AsyncIterator[Terminal]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    try:
        process = await asyncio.create_subprocess_exec(
            "setsid",
            "--ctty",
            "--wait",
            "ssh",
            "-F",
            str(post.config),
            *arguments,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
    finally:
        os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(master)


async def test_a_person_at_a_terminal_sees_it_and_the_recording_too(post: Rig) -> None:
    async with terminal(post, "-tt", WEB1, "stty size; tput cols 2>/dev/null; read x; echo got-$x") as screen:
        await screen.until(b"30 100")
        screen.type(b"hidden-keys\r")
        await screen.until(b"got-hidden-keys")
    await post.settled()
    streams = post.streams().decode()
    assert '"width":100,"height":30' in streams
    assert "30 100" in streams
    assert '"i"' not in streams


async def test_a_command_with_a_terminal_is_recorded_like_any_other(post: Rig) -> None:
    """FIELD: exec with a PTY."""
    async with terminal(post, "-tt", WEB1, "printf nonce-%s 4711; stty -echo; read x; printf '<%s>' $x") as screen:
        await screen.until(b"nonce-4711")
        screen.type(b"again\r")
        await screen.until(b"<again>")
    await post.settled()
    assert "nonce-4711" in post.streams().decode()


async def test_keystrokes_are_kept_where_the_grant_says_so_in_files_of_their_own(post: Rig) -> None:
    """REC-15: whole, echoed or not. A mask for the latter would let `stty -echo` empty the record (decision 0008)."""
    post.authority.options["record_input"] = True
    async with terminal(post, "-tt", WEB1, "echo go; read y; stty -echo; echo ready; read x; echo done") as screen:
        await screen.until(b"go")
        screen.type(b"echoed\r")
        await screen.until(b"ready")
        screen.type(b"s3cret\r")
        await screen.until(b"done")
    await post.settled()
    assert re.findall(r'"i","([^"]*)"', post.streams("c0.in.*").decode()) == ["echoed\\r", "s3cret\\r"]
    assert b"s3cret" not in post.streams("c0.0*")


async def test_what_is_typed_without_an_echo_stands_in_no_file_by_default(post: Rig) -> None:
    """REC-15"""
    async with terminal(post, "-tt", WEB1, "stty -echo; echo ready; read x; echo done") as screen:
        await screen.until(b"ready")
        screen.type(b"s3cret\r")
        await screen.until(b"done")
    await post.settled()
    assert b"done" in post.streams()
    assert b"s3cret" not in post.streams()


async def test_a_resize_reaches_the_node_and_the_recording(post: Rig) -> None:
    command = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done"
    async with terminal(post, "-tt", WEB1, command) as screen:
        await screen.until(b"ready")
        screen.resize(132, 43)
        await screen.until(b"43 132")
    await post.settled()
    assert '"r","132x43"' in post.streams().decode()


async def test_an_interrupt_typed_at_the_terminal_reaches_the_program(post: Rig) -> None:
    async with terminal(
        post, "-tt", WEB1, "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    ) as screen:
        await screen.until(b"ready")
        screen.type(b"\x03")
        await screen.until(b"caught")
        assert await screen.status() == 5
    await post.settled()


async def test_an_absurd_size_is_clamped_in_relay_and_recording(post: Rig) -> None:
    """SSH-21, SSH-12"""
    size = uint32(0) + uint32(4_000_000_000) + uint32(0) + uint32(0)
    async with raw_ssh(post.port, first=b"bartizan/1 web1\n") as ssh:
        await ssh.exchange()
        await ssh.sign_in(LOGIN, post.folder)
        channel = await ssh.session()
        ssh.ask(channel, b"pty-req", string(b"xterm") + size + string(b"\0"))
        assert (await ssh.receive())[0] == 99
        ssh.ask(channel, b"pty-req", string(b"xterm") + size + string(b"\0"))
        assert (await ssh.receive())[0] == 100
        ssh.ask(channel, b"exec", string(b"stty size"), want_reply=False)
        out, _, status = await ssh.output()
    assert (out.strip(), status) == (b"1000 1", 0)
    await post.settled()
    assert '"width":1,"height":1000' in post.streams().decode()


async def test_signals_and_breaks_are_passed_on_and_unknown_signals_dropped(post: Rig) -> None:
    """SSH-23"""
    async with raw_ssh(post.port, first=b"bartizan/1 web1\n") as ssh:
        await ssh.exchange()
        await ssh.sign_in(LOGIN, post.folder)
        channel = await ssh.session()
        ssh.ask(channel, b"exec", string(b"echo ready; cat"), want_reply=False)
        while b"ready" not in await ssh.receive():
            pass
        ssh.ask(channel, b"signal", string(b"KILL; x"), want_reply=False)
        ssh.ask(channel, b"signal", string(b"NOPE"), want_reply=False)
        ssh.ask(channel, b"break", uint32(1), want_reply=False)
        ssh.ask(channel, b"signal", string(b"USR1"), want_reply=False)
        ssh.send(b"\x60" + uint32(channel))
        await ssh.output()  # whether sshd lets a command be signalled is its own affair
    await post.settled()
    codes = [(note["code"], note["fields"].get("signal")) for note in post.notes()]  # type: ignore[attr-defined]
    assert ("channel.signal", "USR1") in codes
    assert ("channel.break", None) in codes
    assert [code for code, _ in codes].count("session.refused") == 2
