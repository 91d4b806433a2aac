"""Floods of connections and channels: bounded, forgotten when they are over, and nobody else notices."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest

from recordings.sshwire import string, uint32
from tests.bastion.rawssh import Disconnected, RawSsh, raw_ssh
from tests.journeys import stage
from tests.long.canary import canary
from tests.long.conftest import Post
from tests.sshd import LOGIN

CONNECTIONS = 10_000
AT_ONCE = 500
CHANNELS = 5_000
GROWTH = 24 << 20
"""Bytes by which a worker may grow: what Python keeps of memory that was used once."""


async def opened(ssh: RawSsh, number: int, *, kind: bytes, rest: bytes = b"") -> list[bytes]:
    """Open *number* channels, a hundred at a time; the answers."""
    answers: list[bytes] = []
    for start in range(0, number, 100):
        for each in range(start, start + 100):
            ssh.open_channel(each, kind=kind, rest=rest)
        try:
            answers += [await ssh.receive() for _ in range(100)]
        except (Disconnected, ConnectionError):
            break
    return answers


DIRECT = string(b"127.0.0.1") + uint32(80) + string(b"127.0.0.1") + uint32(1)


@pytest.mark.parametrize(
    ("kind", "rest", "granted"), [(b"session", b"", 10), (b"x11", b"", 0), (b"direct-tcpip", DIRECT, 0)]
)
def test_thousands_of_channels_come_to_nothing(
    post: Post, key_folder: Path, kind: bytes, rest: bytes, granted: int
) -> None:
    """DOS-07: the eleventh is refused for shortage; refusals leave nothing behind, or end the session."""

    async def flood() -> list[bytes]:
        async with raw_ssh(post.port, first=b"bartizan/1 web1\n") as ssh:
            await ssh.exchange()
            await ssh.sign_in(LOGIN, key_folder)
            await ssh.session()
            return await opened(ssh, CHANNELS, kind=kind, rest=rest)

    with canary(post.alice):
        asyncio.run(flood())  # what Python needs once
        before = post.memory
        for _ in range(2):
            answers = asyncio.run(flood())
            opens = [answer for answer in answers if answer[0] == 91]
            codes = {answer[8] for answer in answers if answer[0] == 92}
            assert len(opens) == max(0, granted - 1), "the first one is open already"
            assert codes == {{b"session": 4, b"x11": 3, b"direct-tcpip": 1}[kind]}
            assert len(answers) == CHANNELS or kind == b"direct-tcpip"  # a thousand audited refusals end a session
        assert post.memory - before < GROWTH
    assert post.alice.ssh("web1", "echo well").stdout == b"well\n"


def test_ten_thousand_connections_that_say_nothing(post: Post) -> None:
    """DOS-10: no more than the bound wait, all are dropped in the end, and who comes afterwards comes in."""
    with canary(post.alice):
        before = post.memory
        for _ in range(CONNECTIONS // AT_ONCE):
            crowd = [socket.create_connection(("127.0.0.1", post.port), timeout=10) for _ in range(AT_ONCE)]
            time.sleep(0.05)
            for each in crowd:
                each.close()
        assert post.memory - before < GROWTH
    stage.eventually(lambda: post.alice.ssh("web1", "echo well").stdout == b"well\n", within=60)


def test_who_says_nothing_is_dropped_after_the_time_for_sign_in(post: Post) -> None:
    """DOS-10"""
    with canary(post.alice), socket.create_connection(("127.0.0.1", post.port), timeout=60) as silent:
        began = time.monotonic()
        while silent.recv(4096):
            pass
        assert 25 < time.monotonic() - began < 40
