"""Ten minutes of a user who has pressed Ctrl-S, and of one who types ten thousand keys a second, side by side."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from recordings.sshwire import string, uint32
from tests.bastion.rawssh import RawSsh, raw_ssh
from tests.journeys import stage
from tests.long.canary import cpu_seconds
from tests.long.conftest import Post
from tests.sshd import LOGIN

MINUTES = float(os.environ.get("LONG_MINUTES", "10"))
WANTED = 100 << 20
A_SECOND = 10_000
BURST = 100
SETTLING_SECONDS = 15
GROWTH = 48 << 20


@dataclass(slots=True)
class Typist:
    """Types single bytes without a rest, each in a packet of its own, and reads what is echoed."""

    port: int
    folder: Path
    until: float
    typed: int = 0
    window: int = 0
    echoed: bytearray = field(default_factory=bytearray)
    error: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self.work())
        except BaseException as error:  # noqa: BLE001  # told by the test
            self.error = error

    async def work(self) -> None:
        async with raw_ssh(self.port, first=b"bartizan/1 web1\n") as ssh:
            await ssh.exchange()
            await ssh.sign_in(LOGIN, self.folder)
            channel = await ssh.session()
            ssh.ask(channel, b"pty-req", string(b"xterm") + uint32(80) + uint32(24) + uint32(0) * 2 + string(b""))
            ssh.ask(channel, b"exec", string(b"stty raw -echo; echo go; exec cat"))
            while b"go\n" not in self.echoed:
                await self.listen(ssh, channel)
            self.echoed.clear()
            async with asyncio.TaskGroup() as group:
                group.create_task(self.type(ssh, channel))
                while time.monotonic() < self.until or len(self.echoed) < self.typed:
                    await self.listen(ssh, channel)

    async def type(self, ssh: RawSsh, channel: int) -> None:
        due = time.monotonic()
        while time.monotonic() < self.until:
            number = min(BURST, self.window)
            for _ in range(number):
                ssh.data(channel, b"%c" % (97 + self.typed % 26))
                self.typed += 1
            self.window -= number
            due = max(due + BURST / A_SECOND, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def listen(self, ssh: RawSsh, channel: int) -> None:
        payload = await ssh.receive()
        if payload[0] == 94:
            self.echoed += payload[9:]
            ssh.send(b"\x5d" + uint32(channel) + uint32(len(payload) - 9))
        elif payload[0] == 93:
            self.window += int.from_bytes(payload[5:9], "big")


def test_a_user_who_stops_reading_and_one_who_never_stops_typing(post: Post, key_folder: Path) -> None:
    """DOS-13, DOS-15: memory stays flat, both sessions live, no byte is lost, less than one core is used."""
    end = time.monotonic() + 60 * MINUTES
    paused = subprocess.Popen(
        post.alice.ssh_command("web1", f"head -c {WANTED} /dev/zero"),
        env=post.alice.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    typist = Typist(post.port, key_folder, end)
    typing = threading.Thread(target=typist.run, daemon=True)
    typing.start()
    try:
        time.sleep(SETTLING_SECONDS)
        assert typist.error is None, repr(typist.error)
        worker = post.worker
        memory, used, began = [post.memory], cpu_seconds(worker), time.monotonic()
        while time.monotonic() < end - 5:
            time.sleep(min(5, max(0.1, end - 5 - time.monotonic())))
            memory.append(post.memory)
            assert typing.is_alive(), repr(typist.error)
            assert paused.poll() is None
        cores = (cpu_seconds(worker) - used) / (time.monotonic() - began)
        assert paused.stdout is not None
        size = sum(map(len, iter(lambda: paused.stdout.read1(1 << 20), b"")))  # type: ignore[union-attr]
        assert (size, paused.wait(timeout=60)) == (WANTED, 0)
        typing.join(timeout=120)
    finally:
        paused.kill()
        paused.wait(timeout=10)
        assert paused.stdout is not None
        paused.stdout.close()
    rate = typist.typed / (60 * MINUTES)
    print(f"\n{rate:.0f} keys/s, {cores:.2f} cores, {memory[0] >> 20} MiB, grew by {max(memory) - memory[0] >> 10} KiB")
    assert typist.error is None, repr(typist.error)
    assert bytes(typist.echoed) == bytes(97 + number % 26 for number in range(typist.typed))
    assert rate > 1_000
    assert cores < 1
    assert max(memory) - memory[0] < GROWTH
    stage.eventually(lambda: all(one["ended"] for one in stage.sessions(post.product, user="alice")), within=60)
