"""
No byte without a record: whatever passes is found again, with stock tools, also when something broke on the way.

A nonce goes through; the recording must hold it. What cannot be recorded does not happen.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import json
import os
import pty
import re
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import httpx
import pytest

from tests.journeys import stage
from tests.journeys.stage import live_session, newest, sealed_tape, tape
from tests.product import ROLES, Person, Product, Way, running_product, start_product
from tests.sshd import LOGIN, running_sshd, stop

BIN = Path(sys.executable).parent
ASCIINEMA = BIN / "asciinema"
FRAMES = 5.0
"""Seconds within which a live recording must show what passed. The promise is one."""


def nonce() -> bytes:
    return b"nonce-" + secrets.token_hex(12).encode()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- what passes is kept --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["config", "jump", "username"])
def test_what_a_command_prints_reads_and_complains_is_kept(alice: Person, product: Product, way: Way) -> None:
    """exec and its stdin, all three ways: output, input and stderr each under its own code."""
    out, err, typed = nonce(), nonce(), nonce()
    script = f"echo {out.decode()}; echo {err.decode()} >&2; cat >/dev/null; exit 7"
    done = alice.ssh("web1", script, way=way, stdin=typed)
    assert (done.returncode, done.stdout, done.stderr) == (7, out + b"\n", err + b"\n")

    kept = sealed_tape(product, newest(alice))
    header, *lines = [json.loads(line) for line in kept.stream("c0").splitlines()]
    assert (header["version"], header["width"], header["height"]) == (2, 80, 24)
    assert out.decode() in header["command"]
    said = {code: "".join(text for _, kind, text in lines if kind == code) for code in "oei"}
    assert said == {"o": f"{out.decode()}\n", "e": f"{err.decode()}\n", "i": typed.decode()}
    assert kept.noted("channel.exit")[0]["fields"]["status"] == 7


def test_a_program_with_a_terminal_is_kept_as_it_looked(alice: Person, product: Product) -> None:
    """exec with a pty, which peers forgot."""
    word = nonce()
    done = alice.ssh("web1", f"tput cols; printf '\\033[1m{word.decode()}\\033[0m\\n'", options=["-tt"])
    assert word in done.stdout
    kept = sealed_tape(product, newest(alice))
    assert word in kept.stream()
    assert json.loads(kept.stream().splitlines()[0])["env"]["TERM"] == "xterm-256color"


def test_a_shell_on_a_real_terminal_is_kept_without_what_was_typed_unseen(
    alice: Person, carol: Person, product: Product
) -> None:
    """REC-15: keystrokes are not kept unless a role says so; what the terminal does not echo is nowhere."""
    word, secret = nonce(), nonce()
    with terminal(alice.ssh_command("web1", options=["-e", "none"]), alice.environment) as typing:
        typing.say(b"PS1='ready> '\n")
        typing.wait(b"ready> ")
        typing.say(f"printf '%s-%s\\n' {word[:9].decode()} {word[9:].decode()}\n".encode())
        typing.wait(word[:9] + b"-" + word[9:])
        typing.say(b"stty -echo; printf 'pass%s: ' word; read x; stty echo; echo got ${#x}\n")
        typing.wait(b"password: ")
        typing.say(secret + b"\n")
        typing.wait(f"got {len(secret)}".encode())
        typing.resize(101, 43)
        typing.say(b"stty size\n")
        typing.wait(b"43 101")
        typing.say(b"exit 3\n")
        assert typing.ends() == 3

    kept = sealed_tape(product, newest(alice))
    assert word[:9] + b"-" + word[9:] in kept.stream()
    assert re.findall(rb'"r", ?"(\d+x\d+)"\]', kept.stream())[-1] == b"101x43"
    assert secret not in kept.text()
    assert not list(kept.folder.glob("c0.in.*"))
    played = carol.bart("play", kept.folder.name).stdout
    assert f"got {len(secret)}" in played


def test_bytes_that_are_no_text_come_back_as_they_were(alice: Person, carol: Person, product: Product) -> None:
    """REC-14: not UTF-8, NUL, and a character split over two messages."""
    blob = bytes(range(256)) * 4 + "é".encode()[:1]
    script = "head -c 1025; sleep 0.4; head -c 1; echo end"
    done = alice.ssh("web1", script, stdin=blob + "é".encode()[1:])
    assert done.stdout == blob + "é".encode()[1:] + b"end\n"
    kept = sealed_tape(product, newest(alice))
    assert rebuilt(kept.stream(), "o") == done.stdout
    assert rebuilt(kept.stream(), "i") == blob + "é".encode()[1:]


def rebuilt(stream: bytes, code: str) -> bytes:
    """The bytes of one direction, as docs/reference/recording-format.md says."""
    found = b""
    for at, kind, text in map(json.loads, stream.splitlines()[1:]):
        assert at >= 0
        if kind == code:
            found += text.encode()
        elif kind == f"{code}b":
            found += base64.b64decode(text)
    return found


@pytest.mark.parametrize("protocol", [["-O"], ["-s"]], ids=["scp", "sftp"])
def test_a_copied_file_stands_there_with_path_size_and_hash(
    alice: Person, product: Product, tmp_path: Path, protocol: list[str]
) -> None:
    """``scp`` in both protocols, up and down."""
    content = nonce() * 5000
    (tmp_path / "up").write_bytes(content)
    there = tmp_path / ("there" if protocol == ["-O"] else "there file")
    up = alice.stock("scp", "-q", *protocol, tmp_path / "up", f"{LOGIN}@web1:{there}")
    assert (up.returncode, there.read_bytes()) == (0, content), up.stderr
    sent = sealed_tape(product, newest(alice))
    down = alice.stock("scp", "-q", *protocol, f"{LOGIN}@web1:{there}", tmp_path / "back")
    assert (down.returncode, (tmp_path / "back").read_bytes()) == (0, content), down.stderr
    fetched = sealed_tape(product, newest(alice))
    assert sent.folder != fetched.folder

    for kept, operation in ((sent, "write"), (fetched, "read")):
        found = [note["fields"] for note in kept.noted("session.file") if note["fields"]["operation"] == operation]
        assert [(one["size"], one["sha256"]) for one in found] == [(len(content), digest(content))]
        assert there.name in found[0]["path"]
        told = {"session": kept.folder.name, "operation": operation, "sha256": digest(content)}
        stage.eventually(lambda told=told: stage.events(product, "session.file", **told))  # type: ignore[misc]
        if protocol == ["-O"]:  # the bytes themselves are in the stream
            assert content[:30] in kept.stream()


def test_what_sftp_does_is_listed_operation_by_operation(alice: Person, product: Product, tmp_path: Path) -> None:
    content = nonce() * 300
    (tmp_path / "a").write_bytes(content)
    batch = tmp_path / "batch"
    there = tmp_path / "there"
    there.mkdir()
    batch.write_text(f"cd {there}\nput {tmp_path}/a b\nrename b c\nmkdir d\nget c {tmp_path}/back\nrm c\n")
    done = alice.stock("sftp", "-q", "-b", batch, f"{LOGIN}@web1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").read_bytes() == content
    kept = sealed_tape(product, newest(alice))
    files = [note["fields"] for note in kept.noted("session.file")]
    by_operation = {one["operation"].partition("@")[0]: one for one in files}
    assert {"write", "posix-rename", "mkdir", "read", "remove"} <= set(by_operation), by_operation
    for operation in ("write", "read"):
        one = by_operation[operation]
        assert (one["size"], one["sha256"]) == (len(content), digest(content))
    assert by_operation["posix-rename"]["target"].endswith("/c")


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed here")
def test_what_rsync_carries_is_in_the_stream(alice: Person, product: Product, tmp_path: Path) -> None:
    word = nonce()
    (tmp_path / "up").write_bytes(word)
    shell = " ".join(alice.ssh_command("web1")[:-1])
    done = subprocess.run(
        ["rsync", "-e", shell, tmp_path / "up", f"{LOGIN}@web1:{tmp_path}/there"],
        env=alice.environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, (tmp_path / "there").read_bytes()) == (0, word), done.stderr
    kept = sealed_tape(product, newest(alice))
    assert word in rebuilt(kept.stream(), "i")
    assert "rsync --server" in json.loads(kept.stream().splitlines()[0])["command"]


def test_one_connection_is_one_session_however_many_channels(alice: Person, product: Product, tmp_path: Path) -> None:
    """``ControlMaster``: a recording per session, a stream per channel, in the order they were opened."""
    first, second = nonce(), nonce()
    socket = tmp_path / "s"
    with live_session(alice, f"echo in; echo {first.decode()}; exec cat", options=["-M", "-S", str(socket)]) as live:
        done = alice.ssh("web1", "echo", second.decode(), options=["-S", str(socket)])
        assert done.stdout == second + b"\n"
        assert newest(alice) == live.id
        live.process.stdin.close()  # type: ignore[union-attr]
        assert live.ends() == 0
    kept = sealed_tape(product, live.id)
    assert first in kept.stream("c0")
    assert second in kept.stream("c1")
    assert second not in kept.stream("c0")
    assert [channel["channel"] for channel in kept.manifest["channels"]] == [0, 1]


# --- stock tools ----------------------------------------------------------------------------------------------------


def test_stock_tools_check_every_byte_and_find_one_that_changed(
    alice: Person, carol: Person, product: Product, tmp_path: Path
) -> None:
    """REC-13. sha256sum, ssh-keygen, zstdcat and asciinema, with keys that did not come with the bundle."""
    word = nonce()
    alice.ssh("web1", f"echo {word.decode()}; sleep 1.2; echo more")
    session = sealed_tape(product, newest(alice)).folder.name
    evidence = tmp_path / "evidence"
    carol.bart("recordings", "export", session, "--output", evidence)
    signers = product.bartizan("ca", "export", "recorders").stdout
    for principal in ("local", "authority"):
        verdict = stage.stock_verdict(evidence, signers, principal)
        assert verdict.returncode == 0, verdict.stderr
        assert b'Good "bartizan-recording" signature' in verdict.stdout
    manifest = json.loads((evidence / "manifest.json").read_bytes())
    sums = "".join(f"{part['sha256']}  {part['name']}\n" for part in manifest["parts"])
    checked = subprocess.run(["sha256sum", "-c", "--quiet"], input=sums.encode(), cwd=evidence, check=False)
    assert checked.returncode == 0
    assert {part["name"] for part in manifest["parts"]} == {path.name for path in evidence.glob("*.zst")}

    (tmp_path / "c0.cast").write_bytes(stage.zstdcat(*sorted(evidence.glob("c0.0*.cast.zst"))))
    with terminal([str(ASCIINEMA), "play", "-i", "0.1", str(tmp_path / "c0.cast")], alice.environment) as playing:
        playing.wait(word)
        playing.wait(b"more")
        assert playing.ends() == 0

    part = max(evidence.glob("c0.0*.cast.zst"))
    spoilt = bytearray(part.read_bytes())
    spoilt[len(spoilt) // 2] ^= 1
    part.write_bytes(spoilt)
    checked = subprocess.run(
        ["sha256sum", "-c", "--quiet"], input=sums.encode(), cwd=evidence, check=False, capture_output=True
    )
    assert checked.returncode == 1
    ours = carol.bart("recordings", "verify", evidence, check=False)
    assert ours.returncode == 1
    assert part.name in ours.stdout
    assert "NOT verified" in ours.stdout
    spoilt[len(spoilt) // 2] ^= 1
    part.write_bytes(spoilt)
    assert carol.bart("recordings", "verify", evidence).returncode == 0
    part.rename(tmp_path / part.name)
    gone = carol.bart("recordings", "verify", evidence, check=False)
    assert (gone.returncode, part.name in gone.stdout) == (1, True)
    (evidence / "manifest.json").write_bytes((evidence / "manifest.json").read_bytes().replace(b"alice", b"carol"))
    assert stage.stock_verdict(evidence, signers).returncode != 0


def test_a_player_is_told_nothing_that_it_would_obey(alice: Person, carol: Person, product: Product) -> None:
    """REC-01, REC-03, REC-04, REC-05: clipboard, titles, reports and markup are data, in every tool of ours."""
    evil = r"\033]52;c;ZXZpbA==\007\033]0;<script>t</script>\007\033[21t\033[c\005\033P$qm\033\\<img onerror=x>"
    alice.ssh("web1", f"printf '{evil} shown\\n'; : '\033[2Jtitle'", options=["-tt"])
    session = sealed_tape(product, newest(alice)).folder.name
    played = carol.bart("play", session).stdout
    assert "<img onerror=x> shown" in played
    for harm in ("\033]52", "\033]0", "\033[21t", "\033[c", "\005", "\033P"):
        assert harm not in played
    header = json.loads(tape(product, session).stream().splitlines()[0])
    assert not {"title", "theme"} & header.keys()


@pytest.mark.parametrize("what", ["the list", "the recording", "one that is not there"])
def test_recordings_are_for_those_who_may_read_them(
    alice: Person, carol: Person, product: Product, root: Person, what: str
) -> None:
    """REC-10, REC-16: 401 without a sign-in, 403 as who was recorded or an administrator; unknown ids look alike."""
    alice.ssh("web1", "true")
    session = newest(alice)
    path = {"the list": "", "the recording": f"/{session}/archive"}.get(what, f"/{session[:-1]}0/archive")
    with https(carol) as http:
        assert http.get(f"/v1/recordings{path}").status_code == (403 if what == "one that is not there" else 200)
        several = http.get("/v1/recordings", headers={"Range": "bytes=" + ",".join(["0-"] * 1000)})
        assert several.status_code == 200  # REC-16: there are no ranges here
        assert http.get("/v1/recordings", headers={"Authorization": ""}).status_code == 401
    for person in (alice, root):
        with https(person) as http:
            answer = http.get(f"/v1/recordings{path}")
        if what == "the list":
            assert (answer.status_code, answer.json()) == (200, [])
        else:
            assert answer.status_code == 403
            assert answer.json()["message"] == "you may not read this recording, or there is none"
    if what == "the recording":
        assert stage.events(product, "recording.denied", session=session, by="user:alice")
        assert stage.events(product, "recording.exported", session=session, by="user:carol")


@contextmanager
def https(person: Person) -> Iterator[httpx.Client]:
    """The API with the person's sign-in."""
    context = ssl.create_default_context(cafile=str(person.home / "root.pem"))
    headers = {"Authorization": f"Bearer {(person.home / 'token').read_text().strip()}"}
    with httpx.Client(base_url=f"https://{person.product.web}", verify=context, headers=headers, timeout=30) as http:
        yield http


# --- while it is live -----------------------------------------------------------------------------------------------


def test_a_live_recording_can_be_read_up_to_the_last_second(alice: Person, carol: Person, product: Product) -> None:
    """Each flush is a whole zstd frame: stock ``zstdcat`` never stumbles, whenever it looks."""
    with live_session(alice) as live:
        kept = tape(product, live.id)
        for word in (nonce(), nonce(), nonce()):
            sent = time.monotonic()
            live.send(word + b"\n")
            stage.eventually(lambda word=word: word in kept.stream(), within=FRAMES, what="the word in the recording")  # type: ignore[misc]
            print(f"\nin the recording after {time.monotonic() - sent:.2f} s")
        assert not kept.sealed
        seen = live.output.splitlines()[-1].decode()
        assert seen in carol.bart("play", live.id).stdout
    assert sealed_tape(product, live.id).manifest["how"] == "closed"


# --- what breaks ----------------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_leaves_a_recording_that_verifies(
    alice: Person, carol: Person, product: Product
) -> None:
    """REC-18: all up to one second before is there, and it says how it ended. Its successor seals it by itself."""
    word = nonce()
    with live_session(alice) as live:
        kept = tape(product, live.id)
        live.send(word + b"\n")
        stage.eventually(lambda: word in kept.stream(), within=FRAMES)
        heard = Path(f"/proc/{worker_of(product, live.id)}")
        stage.killed(int(heard.name))
        assert live.ends() == 255
    assert sealed_tape(product, live.id).manifest["how"] == "crash"
    assert word in kept.stream()
    checked = carol.bart("recordings", "verify", live.id)
    assert "ended: crash" in checked.stdout
    listed = next(one for one in carol.recordings() if one["id"] == live.id)
    assert listed["how"] == "crash"
    signers = product.bartizan("ca", "export", "recorders").stdout
    assert stage.stock_verdict(kept.folder, signers).returncode == 0
    stage.eventually(lambda: len(stage.children(product, "bastion.serve")) == 2)
    stage.eventually(lambda: alice.ssh("web1", "true").returncode == 0)


def worker_of(product: Product, session: str) -> int:
    """The process that holds the lock of this recording."""
    lock = tape(product, session).folder / "live.lock"
    inode = lock.stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1] == "FLOCK" and words[5].endswith(f":{inode}"):
            return int(words[4])
    raise AssertionError(f"nobody holds {lock}")


def test_a_recording_whose_folder_is_gone_ends_its_session(alice: Person, product: Product) -> None:
    """``record: strict``: what cannot be kept is not passed on, and the person is told."""
    with live_session(alice) as live:
        folder = tape(product, live.id).folder
        folder.rename(folder.with_name("away"))
        live.send(b"unrecorded\n")
        assert live.ends() == 255
        assert "bartizan: the session can no longer be recorded; tell the operator" in live.said
        assert str(product.data) not in live.said
        folder.with_name("away").rename(folder)
    stage.eventually(lambda: stage.events(product, "session.unrecorded", session=live.id))
    assert next(one for one in stage.sessions(product) if one["id"] == live.id)["how"] == "recording_failed"


def test_no_session_starts_that_cannot_be_recorded(alice: Person, product: Product, tmp_path: Path) -> None:
    root, marker = product.data / "recordings", tmp_path / "was-here"
    root.rename(root.with_name("recordings.away"))
    try:
        for in_its_place in (False, True):  # the disk is not mounted; something else lies where it was
            if in_its_place:
                root.touch()
            refused = alice.ssh("web1", f"touch {marker}")
            assert refused.returncode == 255
            assert refused.stderr == b"bartizan: the session cannot be recorded; tell the operator of the bastion\n"
            assert not marker.exists()
    finally:
        root.unlink(missing_ok=True)
        root.with_name("recordings.away").rename(root)
    assert alice.ssh("web1", "true").returncode == 0
    stage.eventually(
        lambda: [one["how"] for one in stage.sessions(product, user="alice")[1:3]] == ["recording_failed"] * 2
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", disk], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("file systems may not be mounted here, so no disk can be filled")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_ends_sessions_and_starts_none(tmp_path: Path, small_disk: Path) -> None:
    """DOS-14, for roles that say strict, as all do by default. What was kept before stays good."""
    recordings = small_disk / "recordings"
    with (
        running_product(tmp_path / "own", "--workers", "1", "--recordings", str(recordings)) as product,
        running_sshd(tmp_path / "own" / "nodes" / "web1") as web1,
    ):
        product.apply_roles(ROLES)
        product.trust("web1", web1, env="dev")
        alice = stage.guest(product, "alice", "developer")
        word, marker = nonce(), tmp_path / "was-here"
        with live_session(alice) as live:
            kept = stage.Tape(next(recordings.glob(f"*/*/*/{live.id}")))
            live.send(word + b"\n")
            stage.eventually(lambda: word in kept.stream())
            fill(small_disk / "filler")
            ended = time.monotonic()
            live.send(secrets.token_bytes(100_000))
            assert live.ends() == 255
            print(f"\nended after {time.monotonic() - ended:.2f} s")
            assert "the session can no longer be recorded" in live.said
        refused = alice.ssh("web1", f"touch {marker}")
        assert refused.returncode == 255
        assert b"recorded" in refused.stderr
        assert not marker.exists()
        (small_disk / "filler").unlink()
        assert alice.ssh("web1", "echo", "again").stdout == b"again\n"
        stage.eventually(lambda: kept.sealed, within=60, what="the sweep seals what the full disk left")
        assert word in kept.stream()
        signers = product.bartizan("ca", "export", "recorders").stdout
        shutil.copytree(kept.folder, tmp_path / "evidence")
        assert stage.stock_verdict(tmp_path / "evidence", signers).returncode == 0


def fill(path: Path) -> None:
    """Take all that is free."""
    with path.open("wb", buffering=0) as file:
        for piece in (1 << 16, 1 << 12, 1):
            while takes(file, bytes(piece)):
                pass


def takes(file: FileIO, piece: bytes) -> bool:
    try:
        return file.write(piece) == len(piece)
    except OSError as error:
        return error.errno != errno.ENOSPC


def test_after_a_power_cut_the_next_start_repairs(tmp_path: Path) -> None:
    """Every own process is killed at once; the next start seals what was live, and all that was known is known."""
    folder, word = tmp_path / "own", nonce()
    folder.mkdir()
    product = start_product(folder, "--workers", "1")
    with running_sshd(folder / "nodes" / "web1") as web1:
        try:
            product.apply_roles(ROLES)
            product.trust("web1", web1, env="dev")
            alice, carol = stage.guest(product, "alice", "developer"), stage.guest(product, "carol", "auditor")
            with live_session(alice) as live:
                kept = tape(product, live.id)
                live.send(word + b"\n")
                stage.eventually(lambda: word in kept.stream(), within=FRAMES)
                own = [product.process.pid, *stage.children(product, "")]
                assert len(own) == 3
                stage.killed(*own)
                product.process.wait(timeout=10)
                assert live.ends() == 255
            assert not kept.sealed
            again = start_product(folder, "--workers", "1", web=product.web, ssh=product.ssh)
            product.process = again.process
            assert sealed_tape(product, live.id).manifest["how"] == "crash"
            assert word in kept.stream()
            assert "ended: crash" in carol.bart("recordings", "verify", live.id).stdout
            assert "recording.recovered" in product.log
            assert alice.ssh("web1", "echo", "again").stdout == b"again\n"
            assert "the chain holds" in product.bartizan("audit", "verify").stdout
            assert stage.sessions(product, live="true") == []
        finally:
            stop(product.process, within=30)


# --- a terminal of a person -----------------------------------------------------------------------------------------


class Terminal:
    """A program on a terminal, and somebody who types and reads."""

    def __init__(self, process: subprocess.Popen[bytes], side: int) -> None:
        self._process = process
        self._side = side
        self._seen = b""

    def say(self, text: bytes) -> None:
        os.write(self._side, text)

    def wait(self, text: bytes, *, within: float = 30) -> bytes:
        """Until *text* has appeared. What came before it is given, and past."""
        end = time.monotonic() + within
        while text not in self._seen:
            assert time.monotonic() < end, f"{text!r} is not in {self._seen!r}"
            if not self._read():
                time.sleep(0.02)
        before, _, self._seen = self._seen.partition(text)
        return before

    def resize(self, columns: int, rows: int) -> None:
        termios.tcsetwinsize(self._side, (rows, columns))
        self._process.send_signal(signal.SIGWINCH)

    def ends(self, *, within: float = 30) -> int:
        end = time.monotonic() + within
        while self._process.poll() is None and time.monotonic() < end:
            self._read()
            time.sleep(0.02)
        return self._process.wait(timeout=1)

    def _read(self) -> bool:
        try:
            new = os.read(self._side, 65_536)
        except OSError:  # nothing yet, or the other side is closed
            return False
        self._seen += new
        return bool(new)


@contextmanager
def terminal(argv: list[str], env: dict[str, str]) -> Iterator[Terminal]:
    """Run *argv* on a terminal of its own."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    take: Callable[[], object] = lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # noqa: E731
    process = subprocess.Popen(
        argv, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=take
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait(timeout=10)
        os.close(ours)
