"""Files in both directions, by every program: each with its path, size and SHA-256; each direction its own right."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.bastion.door import Rig
from tests.sshd import LOGIN

WEB1 = f"{LOGIN}@web1"
CONTENT = os.urandom(700_001)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A folder that stands for the node's disk, with one file."""
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "down").write_bytes(CONTENT)
    return folder


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "up").write_bytes(CONTENT)
    return folder


def files(post: Rig) -> list[dict[str, Any]]:
    """The audit log's file events."""
    return [event.fields for event in post.events() if event.code == "session.file"]


def transfers(post: Rig) -> list[tuple[object, ...]]:
    found = [file for file in files(post) if file["operation"] in ("read", "write")]
    return [(file["operation"], file["path"], file["size"], file["sha256"], file["outcome"]) for file in found]


async def sftp(post: Rig, *lines: str) -> subprocess.CompletedProcess[bytes]:
    return await post.run("sftp", "-b", "-", WEB1, input="".join(f"{line}\n" for line in lines).encode(), timeout=60)


async def test_sftp_both_ways_leaves_an_event_with_the_hash_of_each_file(post: Rig, here: Path, there: Path) -> None:
    done = await sftp(
        post,
        f"put {here}/up {there}/up",
        f"get {there}/down {here}/down",
        f"rename {there}/up {there}/new",
        f"rm {there}/new",
    )

    assert done.returncode == 0, done.stderr
    assert (here / "down").read_bytes() == CONTENT
    await post.settled()
    assert transfers(post) == [
        ("write", f"{there}/up", len(CONTENT), SHA256, "ok"),
        ("read", f"{there}/down", len(CONTENT), SHA256, "ok"),
    ]
    changed = [(file["operation"], file["path"], file["target"]) for file in files(post)]
    assert ("posix-rename@openssh.com", f"{there}/up", f"{there}/new") in changed
    assert ("remove", f"{there}/new", None) in changed
    assert not (there / "new").exists()


async def test_only_reading_is_granted(post: Rig, here: Path, there: Path) -> None:
    """FIELD: SFTP rights by direction."""
    post.authority.actions = ("sftp.read",)
    done = await sftp(
        post, f"get {there}/down {here}/down", f"-put {here}/up {there}/up", f"-rm {there}/down", f"ls -l {there}"
    )

    assert b"Permission denied" in done.stderr or b"does not grant" in done.stderr
    assert (here / "down").read_bytes() == CONTENT
    assert not (there / "up").exists()
    assert (there / "down").exists()
    await post.settled()
    refused = [event.fields["request"] for event in post.events() if event.code == "session.refused"]
    assert {"sftp open", "sftp remove"} <= set(refused)
    assert [kind for kind, *_ in transfers(post)] == ["read"]


async def test_only_writing_is_granted(post: Rig, here: Path, there: Path) -> None:
    post.authority.actions = ("sftp.write",)
    done = await sftp(post, f"put {here}/up {there}/up", f"-get {there}/down {here}/down", f"-ls {there}")

    assert (there / "up").read_bytes() == CONTENT, done.stderr
    assert not (here / "down").exists() or (here / "down").stat().st_size == 0
    await post.settled()
    assert transfers(post) == [("write", f"{there}/up", len(CONTENT), SHA256, "ok")]


@pytest.mark.parametrize("legacy", [[], ["-O"]], ids=["sftp", "scp"])
async def test_scp_both_ways_leaves_the_same_events(post: Rig, here: Path, there: Path, legacy: list[str]) -> None:
    up = await post.run("scp", *legacy, f"{here}/up", f"{WEB1}:{there}/up", timeout=60)
    down = await post.run("scp", *legacy, f"{WEB1}:{there}/down", f"{here}/down", timeout=60)

    assert (up.returncode, down.returncode) == (0, 0), (up.stderr, down.stderr)
    assert (there / "up").read_bytes() == (here / "down").read_bytes() == CONTENT
    await post.settled()
    assert transfers(post) == [
        ("write", f"{there}/up", len(CONTENT), SHA256, "ok"),
        ("read", f"{there}/down", len(CONTENT), SHA256, "ok"),
    ]


async def test_scp_of_a_folder_names_each_file(post: Rig, here: Path, there: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub" / "a b").write_bytes(b"1")
    done = await post.run("scp", "-O", "-r", f"{here}", f"{WEB1}:{there}/copy", timeout=60)
    assert done.returncode == 0, done.stderr
    await post.settled()
    assert (there / "copy" / "sub" / "a b").read_bytes() == b"1"
    assert {Path(str(path)).name for _, path, *_ in transfers(post)} == {"a b", "up"}


async def test_scp_needs_the_right_of_its_direction(post: Rig, here: Path, there: Path) -> None:
    """FIELD: MFA or policy skipped for scp; here neither direction stands in for the other."""
    post.authority.actions = ("exec", "sftp.read")
    up = await post.run("scp", "-O", f"{here}/up", f"{WEB1}:{there}/up")
    down = await post.run("scp", "-O", f"{WEB1}:{there}/down", f"{here}/down")
    assert up.returncode != 0
    assert b"sftp.write" in up.stderr
    assert down.returncode == 0, down.stderr
    assert not (there / "up").exists()
    await post.settled()


@pytest.mark.parametrize(
    "command",
    ["scp -t {there}/x; touch {there}/owned", "scp -t {there}/x\ntouch {there}/owned", "scp -t $(touch {there}/owned)"],
)
async def test_what_only_begins_like_scp_is_a_command(post: Rig, there: Path, command: str) -> None:
    """FIELD: ``scp -t x; bash`` waved through by a prefix test."""
    post.authority.actions = ("sftp.read", "sftp.write")
    done = await post.run("ssh", WEB1, command.format(there=there))
    assert done.returncode == 255
    assert b"do not allow exec" in done.stderr
    assert not (there / "owned").exists()
    await post.settled()


async def test_rsync_both_ways_and_its_content_stands_in_the_recording(post: Rig, here: Path, there: Path) -> None:
    async def rsync(*paths: str) -> None:
        process = await asyncio.create_subprocess_exec("rsync", "-a", "-W", "-e", f"ssh -F {post.config}", *paths)
        async with asyncio.timeout(60):
            assert await process.wait() == 0

    (here / "up").write_bytes(b"nonce-rsync-in " * 10)
    (there / "down").write_bytes(b"nonce-rsync-out " * 10)
    await rsync(f"{here}/up", f"{WEB1}:{there}/up")
    await rsync(f"{WEB1}:{there}/down", f"{here}/down")
    assert (there / "up").read_bytes() == b"nonce-rsync-in " * 10
    assert (here / "down").read_bytes() == b"nonce-rsync-out " * 10
    await post.settled()
    recorded = post.streams()
    commands = [note["fields"]["command"] for note in post.notes() if note["code"] == "session.channel"]  # type: ignore[index]
    assert all(str(command).startswith("rsync --server") for command in commands)
    assert len(recorded) > 300


async def test_a_transfer_that_breaks_off_is_noted_and_the_recording_sealed(post: Rig, there: Path) -> None:
    """The user pulls the plug in the middle of an upload."""
    process = await asyncio.create_subprocess_exec(
        "sftp",
        "-F",
        str(post.config),
        "-l",
        "4000",
        WEB1,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(f"put /bin/bash {there}/half\n".encode())
    async with asyncio.timeout(20):
        while not ((there / "half").exists() and (there / "half").stat().st_size):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    os.killpg(process.pid, 9)
    await process.wait()
    process.stdin.close()
    await post.settled()
    ((operation, path, size, sha256, outcome),) = transfers(post)
    assert (operation, path, sha256, outcome) == ("write", f"{there}/half", None, "incomplete")
    assert isinstance(size, int)
    assert size >= (there / "half").stat().st_size > 0
