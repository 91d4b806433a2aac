"""bart play and bart recordings with recordings made here: hostile archives, damage, escape sequences, keys."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import subprocess
import sys
import tarfile
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ca.errors import BartizanError
from cli import bundle
from cli.bart import bart
from recordings import sshsig
from recordings.folder import countersign
from recordings.format import Header, Output, Stderr
from recordings.sshkey import PublicKey
from recordings.writer import Recording

KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
NAMESPACE = "bartizan-recording"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def sign(message: bytes) -> str:
    return sshsig.sign(KEY, message, namespace=NAMESPACE)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(bart, [str(word) for word in words])


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A sealed shell of three seconds with a title sequence, a question to the terminal and a pause in it."""
    (tmp_path / "recordings").mkdir()
    made = Recording.create(tmp_path / "recordings", "s0example", meta={"user": "alice"}, now=NOW, sign=sign)
    made.open_channel(0, Header(80, 24), limit=1 << 20, pty=True, record_input=False)
    made.write(0, Output(0.0, b"one\r\n"))
    made.write(0, Output(0.1, b"\x1b]0;owned\x07\x1b[6n\x1b[31mtwo\x1b[0m\r\n"))
    made.write(0, Output(3.0, b"three\r\n"))
    made.open_channel(1, Header(), limit=1 << 20, pty=False, record_input=False)
    made.write(1, Stderr(0.2, b"a word of warning\n"))
    manifest = made.seal(NOW, "closed")
    folder = tmp_path / "recordings" / "2026" / "01" / "02" / "s0example"
    countersign(folder, sshsig.sign(OTHER, manifest, namespace=NAMESPACE))
    return folder


@pytest.fixture
def signers(tmp_path: Path) -> Path:
    file = tmp_path / "allowed_signers"
    lines = (("local", KEY), ("authority", OTHER))
    words = (f'{name} namespaces="{NAMESPACE}" {PublicKey.of(key.public_key()).line()}\n' for name, key in lines)
    file.write_text("".join(words))
    return file


def test_a_recording_is_shown_without_what_drives_a_terminal(recording: Path) -> None:
    result = run("play", recording)
    assert result.exit_code == 0, result.output
    assert result.stdout_bytes == b"one\r\n\x1b[31mtwo\x1b[0m\r\nthree\r\n"


def test_another_channel_can_be_chosen(recording: Path) -> None:
    assert run("play", recording, "--channel", "1").stdout == "a word of warning\n"
    missing = run("play", recording, "--channel", "7")
    assert (missing.exit_code, missing.stderr) == (1, "bart: error: there is no channel 7\nhint: --channel 0|1\n")


def test_one_can_begin_later(recording: Path) -> None:
    assert run("play", recording, "--at", "2").stdout_bytes == b"three\r\n"


def test_what_is_neither_folder_nor_id_is_said_so() -> None:
    result = run("play", "../nowhere")
    assert result.exit_code == 1
    assert "is neither a folder here nor the id of a recording" in result.stderr


def on_a_terminal(command: list[str], keys: dict[bytes, bytes], env: dict[str, str]) -> tuple[int, bytes, float]:
    """Run *command* on a terminal; when it shows a key of *keys*, press that. Gives status, all shown, and seconds."""
    began = time.monotonic()
    child, terminal = pty.fork()
    if child == 0:
        os.execve(command[0], command, env)
    shown = b""
    try:
        while select.select([terminal], [], [], 30)[0]:
            shown += os.read(terminal, 4096)
            for sign_, pressed in list(keys.items()):
                if sign_ in shown:
                    del keys[sign_]
                    time.sleep(0.2)
                    os.write(terminal, pressed)
    except OSError:
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown, time.monotonic() - began


def player(recording: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "cli.bart", "play", str(recording), *options]


def environment(tmp_path: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "TERM": "xterm", "HOME": str(tmp_path), "PYTHONPATH": str(Path.cwd())}


def test_q_ends_it_in_the_middle(recording: Path, tmp_path: Path) -> None:
    status, shown, _ = on_a_terminal(player(recording, "--speed", "0.2"), {b"two": b"q"}, environment(tmp_path))
    assert status == 0
    assert b"three" not in shown
    assert b"\x1b]0;" not in shown


@pytest.mark.parametrize(("screen", "back"), [(b"", False), (b"\x1b[?1049h", True)], ids=["main", "editor"])
def test_only_from_an_editors_screen_the_way_leads_back(tmp_path: Path, screen: bytes, back: bool) -> None:
    """To a terminal that shows its main screen, going back there means: move the cursor to where it once was."""
    (tmp_path / "r").mkdir()
    made = Recording.create(tmp_path / "r", "s0other", meta={"user": "alice"}, now=NOW, sign=sign)
    made.open_channel(0, Header(80, 24), limit=1 << 20, pty=True, record_input=False)
    made.write(0, Output(0.0, screen + b"one\r\n"))
    made.write(0, Output(30.0, b"two\r\n"))
    made.seal(NOW, "closed")
    folder = tmp_path / "r" / "2026" / "01" / "02" / "s0other"
    _, shown, _ = on_a_terminal(player(folder), {b"one": b"q"}, environment(tmp_path))
    assert (b"\x1b[?1049l" in shown) is back


def test_an_arrow_seeks_forward_and_a_bracket_back(recording: Path, tmp_path: Path) -> None:
    keys = {b"two": b"\x1b[C"}
    status, shown, _ = on_a_terminal(player(recording, "--speed", "0.2"), keys, environment(tmp_path))
    assert status == 0
    assert b"three" in shown


def test_a_pause_is_a_pause_and_a_step_a_step(recording: Path, tmp_path: Path) -> None:
    keys = {b"two": b" ."}
    status, shown, _ = on_a_terminal(player(recording, "--speed", "0.2"), keys, environment(tmp_path))
    assert status == 0
    assert b"three" in shown


def test_without_a_sign_in_it_says_whose_keys_are_needed(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BART_HOME", str(tmp_path / "nobody"))
    result = run("recordings", "verify", recording)
    assert result.exit_code == 1
    assert "hint: bart login, or --allowed-signers FILE" in result.stderr


def test_what_was_sealed_verifies(recording: Path, signers: Path) -> None:
    result = run("recordings", "verify", recording, "--allowed-signers", signers)
    assert result.exit_code == 0, result.output
    assert "verified, 2 parts, signed by local, countersigned, ended: closed" in result.stdout


def test_one_byte_more_does_not(recording: Path, signers: Path) -> None:
    with (recording / "c0.000001.cast.zst").open("ab") as file:
        file.write(b"x")
    result = run("recordings", "verify", recording, "--allowed-signers", signers, "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert not told["ok"]
    assert [problem["part"] for problem in told["problems"]] == ["c0.000001.cast.zst"]


def test_keys_from_the_folder_itself_are_never_believed(recording: Path, signers: Path) -> None:
    (recording / "allowed_signers").write_text(signers.read_text())
    result = run("recordings", "verify", recording)
    assert result.exit_code == 1
    assert "nobody is signed in here" in result.stderr  # it asks the authority, which we have none of


def test_a_signer_that_is_not_listed_is_named(recording: Path, signers: Path) -> None:
    signers.write_text(signers.read_text().splitlines()[1] + "\n")
    result = run("recordings", "verify", recording, "--allowed-signers", signers)
    assert result.exit_code == 1
    assert "manifest.json.sig: signed by a key that is not in allowed_signers" in result.stdout
    assert result.stdout.endswith("NOT verified\n")


def test_stock_ssh_keygen_says_the_same(recording: Path, signers: Path) -> None:
    command = ["ssh-keygen", "-Y", "verify", "-f", signers, "-I", "local", "-n", NAMESPACE]
    with (recording / "manifest.json").open("rb") as manifest:
        done = subprocess.run(
            [*command, "-s", recording / "manifest.json.sig"], stdin=manifest, capture_output=True, check=False
        )
    assert done.returncode == 0, done.stderr


def archive(*members: tuple[str, bytes, bytes]) -> io.BytesIO:
    """A tar of (name, type, content)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind, content in members:
            about = tarfile.TarInfo(name)
            about.type, about.size, about.mode = kind, len(content), 0o777
            about.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
            tar.addfile(about, io.BytesIO(content))
    stream.seek(0)
    return stream


MANIFEST = ("manifest.json", tarfile.REGTYPE, b"{}")


def test_an_archive_becomes_a_folder_of_plain_files(tmp_path: Path) -> None:
    bundle.unpack(archive(MANIFEST, ("s0/c0.000001.cast.zst", tarfile.REGTYPE, b"x")), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["c0.000001.cast.zst", "manifest.json"]
    assert (tmp_path / "out" / "manifest.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "member",
    [
        ("../evil", tarfile.REGTYPE, b""),
        ("/etc/evil", tarfile.REGTYPE, b""),
        ("a/../../evil", tarfile.REGTYPE, b""),
        (".hidden", tarfile.REGTYPE, b""),
        ("c0.000001.cast.zst", tarfile.SYMTYPE, b""),
        ("c0.000001.cast.zst", tarfile.LNKTYPE, b""),
        ("c0.000001.cast.zst", tarfile.FIFOTYPE, b""),
        ("c0.000001.cast.zst", tarfile.CHRTYPE, b""),
        ("manifest.json", tarfile.REGTYPE, b"again"),
        ("x/manifest.json", tarfile.REGTYPE, b"again"),
        ("name\x1b[2J", tarfile.REGTYPE, b""),
    ],
)
def test_a_hostile_archive_writes_nothing_outside(tmp_path: Path, member: tuple[str, bytes, bytes]) -> None:
    with pytest.raises(BartizanError):
        bundle.unpack(archive(MANIFEST, member), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_archive_that_stops_early_is_noticed(tmp_path: Path) -> None:
    whole = archive(MANIFEST, ("c0.000001.cast.zst", tarfile.REGTYPE, b"x" * 5000)).getvalue()
    with pytest.raises(BartizanError, match="did not arrive whole"):
        bundle.unpack(io.BytesIO(whole[:3000]), tmp_path / "out")


def test_an_archive_of_something_else_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(BartizanError, match="is no recording"):
        bundle.unpack(archive(("readme", tarfile.REGTYPE, b"x")), tmp_path / "out")
