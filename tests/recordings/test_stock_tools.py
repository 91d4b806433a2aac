"""Evidence outlives us: what sha256sum, ssh-keygen, zstdcat and asciinema alone make of a recording."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recordings.format import Header, Input, Marker, Output, Resize, Stderr
from recordings.writer import Recording
from tests.recordings.making import META, NOW, allowed_signers, later, recording, run, sealed_and_countersigned, sign

ASCIINEMA = Path(sys.executable).with_name("asciinema")
SHA256SUM = r"""sed -n 's/^{"name":"\([^"]*\)","sha256":"\([0-9a-f]*\)".*/\2  \1/p' manifest.json | sha256sum -c"""
CHAIN = r"""
session=$(sed -n 's/^"session": "\([a-z0-9-]*\)",$/\1/p' manifest.json)
h=$(printf 'bartizan-recording 1 %s\n' "$session" | sha256sum | cut -c1-64)
sed -n 's/^{"name":"\([^"]*\)","sha256":"\([0-9a-f]*\)".*/\2  \1/p' manifest.json | {
  while IFS= read -r line; do h=$(printf '%s\n%s\n' "$h" "$line" | sha256sum | cut -c1-64); done
  echo "$h"; }
"""


def asciinema(folder: Path, verb: str) -> bytes:
    command = f"zstdcat c0.0*.cast.zst | {ASCIINEMA} {verb} -"
    return run("sh", "-c", command, cwd=folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sealed pty session with everything a player must show or skip, in several parts."""
    made = Recording.create(tmp_path, "s1", meta=META, now=NOW, sign=sign)
    header = Header(width=100, height=30, timestamp=int(NOW.timestamp()), command="ls <b>", term="xterm-256color")
    made.open_channel(0, header, limit=100, pty=True, record_input=True)
    made.write(0, Output(0.1, "caf\u00e9 \u2028 \u20ac\r\n".encode()))
    made.write(0, Input(0.2, b"typed secret"))
    made.write(0, Resize(0.2, 0, 99_999))
    made.flush(NOW)
    made.write(0, Stderr(0.3, b"to stderr\n"))
    made.write(0, Output(0.3, b"bad \xff\0 byte\r\n"))
    made.write(0, Marker(0.3, "here"))
    made.flush(later(11))
    made.write(0, Output(0.4, b"\xe2\x82"))
    made.write(0, Output(0.4, b"\xac split\r\n"))
    made.write(0, Output(0.4, b"x" * 200))
    made.event(0.5, "exit", {"status": 0})
    return sealed_and_countersigned(made)


def test_asciinema_plays_it(folder: Path) -> None:
    """The replaced text is shown for what is not text; codes of our own are skipped."""
    shown = asciinema(folder, "play")
    assert shown.decode() == "café \u2028 €\r\nbad \ufffd\0 byte\r\n€ split\r\n" + "x" * 51


def test_asciinema_cat_gives_the_same(folder: Path) -> None:
    assert asciinema(folder, "cat") == asciinema(folder, "play")


def test_asciinema_plays_it_on_a_real_terminal(folder: Path) -> None:
    """With a tty it reads keys, raw mode and all; the stream comes from the pipe."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execv("/bin/sh", ["sh", "-c", f"zstdcat c0.0*.cast.zst | {ASCIINEMA} play --speed 10 -"])
    shown, until = b"", time.monotonic() + 30
    while time.monotonic() < until:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                data = os.read(terminal, 65536)
            except OSError:
                break
            if not data:
                break
            shown += data
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert status == 0
    assert "€ split".encode() in shown


def test_keystrokes_are_not_in_what_is_played(folder: Path) -> None:
    assert b"typed secret" not in asciinema(folder, "play")
    assert b"typed secret" not in run("sh", "-c", "zstdcat c0.0*.cast.zst", cwd=folder)
    assert b"typed secret" in run("sh", "-c", "zstdcat c0.in.0*.cast.zst", cwd=folder)


def test_a_live_recording_plays_up_to_its_last_flush(tmp_path: Path) -> None:
    made = recording(tmp_path)
    made.write(0, Output(0.1, b"one\n"))
    made.flush(NOW)
    made.write(0, Output(0.2, b"two\n"))
    made.flush(later(1))
    assert asciinema(made.folder, "play") == b"one\ntwo\n"


def test_sha256sum_checks_every_part(folder: Path) -> None:
    assert run("sh", "-c", SHA256SUM, cwd=folder).decode().splitlines() == [
        f"{path.name}: OK" for path in sorted(folder.glob("*.zst"), key=lambda path: _place(folder, path))
    ]


def _place(folder: Path, path: Path) -> int:
    return [part["name"] for part in json.loads((folder / "manifest.json").read_bytes())["parts"]].index(path.name)


def test_sha256sum_finds_the_part_that_was_changed(folder: Path) -> None:
    part = folder / "c0.000001.cast.zst"
    part.write_bytes(part.read_bytes()[:-1] + b"!")
    done = subprocess.run(["sh", "-c", SHA256SUM], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"{part.name}: FAILED" in done.stdout


def test_the_chain_can_be_computed_with_sha256sum(folder: Path) -> None:
    assert (
        run("sh", "-c", CHAIN, cwd=folder).decode().strip()
        == json.loads((folder / "manifest.json").read_bytes())["chain"]
    )


@pytest.mark.parametrize(
    ("name", "who"), [("manifest.json.sig", "bastion-1"), ("manifest.json.authority.sig", "authority")]
)
def test_ssh_keygen_verifies_both_signatures(folder: Path, name: str, who: str) -> None:
    (folder / "allowed_signers").write_text(allowed_signers())
    signed = (folder / "manifest.json").read_bytes()
    verify = ("ssh-keygen", "-Y", "verify", "-f", "allowed_signers", "-I", who, "-n", "bartizan-recording", "-s", name)
    assert b"Good" in run(*verify, cwd=folder, stdin=signed)
    found = run("ssh-keygen", "-Y", "find-principals", "-f", "allowed_signers", "-s", name, cwd=folder)
    assert found.decode().strip() == who
    with pytest.raises(AssertionError):
        run(*verify, cwd=folder, stdin=signed.replace(b"alice", b"carol"))


def test_everything_json_of_ours_is_json_to_others(folder: Path) -> None:
    for stream in ("c0.0", "c0.in.0", "events.0"):
        text = run("sh", "-c", f"zstdcat {stream}*", cwd=folder)
        for line in text.decode().split("\n")[:-1]:
            json.loads(line)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for part in manifest["parts"]:
        assert hashlib.sha256((folder / part["name"]).read_bytes()).hexdigest() == part["sha256"]


def test_the_commands_on_the_reference_page_are_these() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/recording-format.md").read_text()
    for command in (SHA256SUM, CHAIN):
        for line in command.strip().splitlines():
            assert line.strip() in page
    assert re.search(r"zstdcat c0\.0\*\.cast\.zst \| asciinema play -", page)
