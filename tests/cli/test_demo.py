"""The demo is the first thing a newcomer sees: it works, says what it does, and leaves nothing."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.product import BIN, environment
from tests.sshd import LOGIN


def ours(folder: Path) -> list[str]:
    """Command lines of processes that have to do with *folder*."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            line = (place / "cmdline").read_text() if place.name.isdigit() else ""
        except OSError:
            continue
        if str(folder) in line:
            found.append(line.replace("\0", " "))
    return found


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for temporary files with a short name: a socket lies in it, whose path may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="bz", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def env(tmp_path: Path, place: Path) -> dict[str, str]:
    return environment(tmp_path, TMPDIR=str(place))


def test_without_a_terminal_it_plays_to_the_end_and_leaves_nothing(place: Path, env: dict[str, str]) -> None:
    done = subprocess.run(
        [BIN / "bartizan", "demo"],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for shown in (
        f"hello from {os.uname().nodename} as {LOGIN}",
        "through a jump",
        "every byte of this is recorded",
        'Good "bartizan-recording" signature',
        "verified, ",
        "the chain holds",
    ):
        assert shown in done.stdout, shown
    assert "none of your roles reaches db1" in done.stderr
    assert list(place.iterdir()) == []
    assert ours(place) == []


def test_on_a_terminal_it_stays_until_ctrl_c(place: Path, env: dict[str, str]) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.execve(BIN / "bartizan", ["bartizan", "demo"], env)
    shown, end = b"", time.monotonic() + 120
    while b"audit tail -f" not in shown and time.monotonic() < end:
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 65_536)
    assert f"{BIN}/bart play".encode() in shown  # nobody has put the programs on the path yet
    assert ours(place)
    os.kill(child, signal.SIGINT)
    while time.monotonic() < end:
        try:
            if select.select([terminal], [], [], 1)[0] and not os.read(terminal, 65_536):
                break
        except OSError:
            break
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(terminal)
    assert ours(place) == []
