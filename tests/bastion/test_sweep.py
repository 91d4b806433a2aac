"""Recordings that a crash left open, or that were sealed while the authority was away, are brought to their end."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

from bastion.sweep import sweep
from tests.bastion.door import Rig
from tests.sshd import LOGIN

WEB1 = f"{LOGIN}@web1"


def signed(post: Rig) -> list[Path]:
    return list(post.recordings.rglob("manifest.json.authority.sig"))


async def test_a_recording_sealed_while_the_authority_was_away_is_countersigned_later(post: Rig) -> None:
    """LOG-04"""
    process = await asyncio.create_subprocess_exec(
        "ssh",
        "-F",
        str(post.config),
        WEB1,
        "echo tick; sleep 60",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    post.authority.down = True
    post.newest.end("terminated", "over")
    await process.communicate()
    await post.settled()
    assert signed(post) == []

    await sweep(post.door.services)
    assert signed(post) == []
    post.authority.down = False
    await sweep(post.door.services)
    assert len(signed(post)) == 1
    assert list(post.authority.ended.values()) == ["terminated"]


async def test_a_recording_left_open_by_a_crash_is_sealed_as_such(post: Rig, tmp_path: Path) -> None:
    """REC-18"""
    process = await asyncio.create_subprocess_exec(
        "ssh",
        "-F",
        str(post.config),
        WEB1,
        "echo nonce-before-the-crash; sleep 60",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    async with asyncio.timeout(15):
        while not list(post.recordings.rglob("c0.*.cast.zst")):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    (live,) = (path.parent for path in post.recordings.rglob("live.lock"))
    copy = tmp_path / "copy"
    shutil.copytree(live, copy)  # what a machine that lost its power would have on its disk
    process.kill()
    await process.communicate()
    await post.settled()
    shutil.rmtree(live)
    shutil.move(copy, live)
    post.authority.ended.clear()

    await sweep(post.door.services)
    assert list(post.authority.ended.values()) == ["crash"]
    assert json.loads((live / "manifest.json").read_text())["how"] == "crash"
    assert b"nonce-before-the-crash" in post.streams()
    assert [event.code for event in post.events()].count("session.recovered") == 1


async def test_a_live_recording_is_left_alone_and_a_broken_one_stops_nobody(post: Rig) -> None:
    """FIELD: one corrupt recording breaking the whole list."""
    process = await asyncio.create_subprocess_exec(
        "ssh",
        "-F",
        str(post.config),
        WEB1,
        "echo tick; sleep 60",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    (live,) = (path.parent for path in post.recordings.rglob("live.lock"))
    broken = live.parent / ("s" + "a" * 25)
    broken.mkdir()
    (broken / "live.lock").write_bytes(b"\xff not json")
    await sweep(post.door.services)
    assert not (live / "manifest.json").exists()
    process.kill()
    await process.communicate()
    await post.settled()
    assert (live / "manifest.json.authority.sig").exists()
