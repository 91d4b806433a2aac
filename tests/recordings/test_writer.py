"""Promises of recordings/writer.py: nothing that was accepted is lost, and what fails is said."""

from __future__ import annotations

import hashlib
import itertools
import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recordings import reader, seal
from recordings.format import Digest, Event, Header, Input, Marker, Output, Resize, Stderr
from recordings.writer import Recording, RecordingError, recover
from tests.recordings.making import META, NOW, later, recording, sign

KINDS: dict[str, type[Output] | type[Stderr] | type[Input]] = {"o": Output, "e": Stderr, "i": Input}


def joined(events: list[Event], code: str) -> bytes:
    """The bytes of one kind."""
    return b"".join(e.data for e in events if isinstance(e, Output | Stderr | Input) and e.code == code)


def output(folder: Path, channel: int = 0) -> bytes:
    return joined(list(reader.events(folder, channel)), "o")


def test_a_recording_lies_under_its_day_for_its_owner_alone(tmp_path: Path) -> None:
    made = recording(tmp_path)
    assert made.folder == tmp_path / "2026/03/01/s1"
    made.write(0, Output(0.1, b"x"))
    made.flush(NOW)
    assert {oct(path.stat().st_mode & 0o777) for path in made.folder.iterdir()} == {"0o600"}
    assert {oct(path.stat().st_mode & 0o777) for path in tmp_path.rglob("*") if path.is_dir()} == {"0o700"}


@pytest.mark.parametrize("session", ["", "..", "a/b", "A", ".x", "x\n", "x" * 65])
def test_a_session_id_cannot_lead_elsewhere(tmp_path: Path, session: str) -> None:
    with pytest.raises(ValueError, match="not a session id"):
        recording(tmp_path, session)
    assert not list(tmp_path.iterdir())


def test_a_session_is_recorded_once(tmp_path: Path) -> None:
    recording(tmp_path)
    with pytest.raises(RecordingError):
        recording(tmp_path)
    assert [path.name for path in (tmp_path / "2026/03/01").iterdir()] == ["s1"]


def test_a_root_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """An unmounted disk must end sessions, not fill the disk below it."""
    with pytest.raises(RecordingError, match="cannot begin"):
        recording(tmp_path / "disk")


def test_what_was_flushed_is_read_back_at_once(tmp_path: Path) -> None:
    made = recording(tmp_path)
    made.write(0, Output(0.1, b"one\r\n"))
    assert made.pending > 0
    made.flush(NOW)
    assert made.pending == 0
    assert output(made.folder) == b"one\r\n"
    made.write(0, Output(0.2, b"two\r\n"))
    made.flush(later(1))
    assert output(made.folder) == b"one\r\ntwo\r\n"


pieces = st.lists(
    st.tuples(st.sampled_from("oei"), st.binary(max_size=40) | st.text(max_size=20).map(str.encode), st.booleans()),
    max_size=20,
)


@given(pieces, st.booleans(), st.integers(0, 200))
def test_bytes_come_back_exactly_whatever_they_are_and_however_they_are_cut(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[str, bytes, bool]], pty: bool, limit: int
) -> None:
    """REC-14. Beyond the limit, length and hash come back instead."""
    made = Recording.create(tmp_path_factory.mktemp("r"), "s1", meta=META, now=NOW, sign=sign)
    made.open_channel(0, Header(), limit=limit, pty=pty, record_input=True)
    sent = {"o": b"", "e": b"", "i": b""}
    for index, (code, data, flush) in enumerate(pieces):
        made.write(0, KINDS[code](index / 10, data))
        sent[code] += data
        if flush:
            made.flush(later(index))
    made.close_channel(0)
    made.seal(later(60), "closed")
    events = list(reader.events(made.folder, 0))
    keystrokes = list(reader.events(made.folder, 0, keystrokes=True)) if pty else events
    assert [e.at for e in events] == sorted(e.at for e in events)
    for code in KINDS:
        found = keystrokes if code == "i" else events
        kept = joined(found, code)
        assert sent[code].startswith(kept)
        rest = sent[code][len(kept) :]
        digests = [e for e in found if isinstance(e, Digest) and e.kind == code]
        assert sum(e.length for e in digests) == len(rest)
        for digest in digests:
            piece, rest = rest[: digest.length], rest[digest.length :]
            assert digest.sha256 == hashlib.sha256(piece).hexdigest()
    kept_out = sum(len(e.data) for e in events if isinstance(e, Output | Stderr))
    assert kept_out == min(limit, len(sent["o"]) + len(sent["e"]))


def test_a_character_split_over_two_messages_is_one_character_in_the_recording(tmp_path: Path) -> None:
    made = recording(tmp_path)
    made.write(0, Output(0.1, b"caf\xc3"))
    made.flush(NOW)
    made.write(0, Output(0.2, b"\xa9\n"))
    made.flush(later(1))
    assert list(reader.events(made.folder, 0)) == [Output(0.1, b"caf"), Output(0.2, "é\n".encode())]


def test_half_a_character_is_on_disk_one_flush_later_at_most(tmp_path: Path) -> None:
    made = recording(tmp_path)
    made.write(0, Output(0.1, b"\xe2\x82"))
    made.flush(NOW)
    assert made.pending == 2
    made.flush(later(1))
    assert made.pending == 0
    assert output(made.folder) == b"\xe2\x82"


def test_what_is_typed_on_a_pty_is_kept_only_when_the_grant_says_so(tmp_path: Path) -> None:
    """REC-15: a password typed at a prompt stands in no file by default."""
    made = recording(tmp_path, channel=None)
    made.open_channel(0, Header(), limit=1 << 30, pty=True, record_input=False)
    made.open_channel(1, Header(), limit=1 << 30, pty=True, record_input=True)
    made.open_channel(2, Header(), limit=1 << 30, pty=False, record_input=False)
    for channel in range(3):
        made.write(channel, Input(0.1, b"hunter2"))
        made.write(channel, Output(0.2, b"$ "))
    made.seal(later(5), "closed")
    assert not list(made.folder.glob("c0.in.*"))
    assert list(reader.events(made.folder, 1, keystrokes=True)) == [Input(0.1, b"hunter2")]
    assert [list(reader.events(made.folder, channel)) for channel in range(3)] == [
        [Output(0.2, b"$ ")],
        [Output(0.2, b"$ ")],
        [Input(0.1, b"hunter2"), Output(0.2, b"$ ")],
    ]


def test_all_kinds_of_events_keep_their_order(tmp_path: Path) -> None:
    made = recording(tmp_path)
    written: list[Event] = [
        Output(0.1, b"a"),
        Resize(0.2, 100, 50),
        Stderr(0.3, b"b\xff"),
        Input(0.4, b"c\0"),
        Marker(0.5, "here"),
    ]
    for event in written:
        made.write(0, event)
    made.seal(later(5), "closed")
    assert list(reader.events(made.folder, 0)) == written


def test_what_is_not_a_stream_is_kept_as_data(tmp_path: Path) -> None:
    made = recording(tmp_path)
    fields = {"path": "/tmp/\udcff", "raw": b"\xff\x1b", "text": b"ls", "size": 2**63, "args": ["a", ("b",)]}
    made.event(1.5, "file", fields)
    made.flush(NOW)
    kept = {"path": "/tmp/?", "raw": {"base64": "/xs="}, "text": "ls", "size": 2**63, "args": ["a", ["b"]]}
    assert list(reader.session_events(made.folder)) == [{"at": 1.5, "code": "file", "fields": kept}]


def test_a_part_closes_after_ten_seconds(tmp_path: Path) -> None:
    made = recording(tmp_path)
    made.write(0, Output(0.1, b"one"))
    made.flush(later(0))
    made.flush(later(9.9))
    assert made.head().closed == 0
    made.flush(later(10))
    assert made.head().closed == 1
    made.write(0, Output(11, b"two"))
    made.flush(later(11))
    assert sorted(path.name for path in made.folder.glob("c0*")) == ["c0.000001.cast.zst", "c0.000002.cast.zst"]


def test_a_part_closes_at_one_mebibyte(tmp_path: Path) -> None:
    made = recording(tmp_path)
    for index in range(100):
        made.write(0, Output(index, os.urandom(32768)))
    made.flush(NOW)
    sizes = [path.stat().st_size for path in sorted(made.folder.glob("c0*"))]
    assert len(sizes) > 2
    assert all(1 << 20 <= size < 1.5 * (1 << 20) for size in sizes[:-1])


def test_a_part_of_blanks_stays_small_enough_to_be_read_again(tmp_path: Path) -> None:
    """REC-08 from the other side: what we write is within the limits that we read by."""
    made = recording(tmp_path)
    for _ in range(1200):
        made.write(0, Output(0, bytes(256 << 10)))
        if made.pending > 64 << 20:
            made.flush(NOW)
    made.seal(later(1), "closed")
    assert sum(len(e.data) for e in reader.events(made.folder, 0) if isinstance(e, Output)) == 1200 * (256 << 10)


def test_the_parts_of_a_closed_channel_close_with_the_next_flush(tmp_path: Path) -> None:
    made = recording(tmp_path)
    made.write(0, Output(0.1, b"bye"))
    made.close_channel(0)
    made.flush(later(0.1))
    assert made.head().closed == 1
    with pytest.raises(RecordingError):
        made.write(0, Output(0.2, b"late"))


def test_the_head_says_exactly_what_is_on_disk(tmp_path: Path) -> None:
    made = recording(tmp_path)
    before = made.head()
    made.write(0, Output(0.1, b"x"))
    assert made.head() == before
    for second in range(25):
        made.write(0, Output(second, b"x" * second))
        made.event(second, "tick", {})
        made.flush(later(second))
        head = made.head()
        for name, (size, sha256) in head.open.items():
            data = (made.folder / name).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (size, sha256)
        journal = made.folder / "live.chain"
        parts = [seal.decode_part(line) for line in journal.read_bytes().splitlines()] if journal.exists() else []
        assert (len(parts), seal.chain_of("s1", parts)) == (head.closed, head.chain)
        assert {part.name for part in parts} | set(head.open) == {path.name for path in made.folder.glob("*.zst")}
    assert made.head().closed == 4


def test_sealing_leaves_parts_manifest_and_signature_and_lets_go(tmp_path: Path) -> None:
    made = recording(tmp_path)
    made.write(0, Output(0.1, b"x"))
    data = made.seal(later(3), "closed")
    assert sorted(path.name for path in made.folder.iterdir()) == [
        "c0.000001.cast.zst",
        "manifest.json",
        "manifest.json.sig",
    ]
    assert (made.folder / "manifest.json").read_bytes() == data
    manifest = seal.decode(data)
    assert (manifest.session, manifest.meta, manifest.how, manifest.started) == ("s1", META, "closed", NOW)
    assert manifest.channels == ({"channel": 0, "pty": False, "width": 80, "height": 24, "keystrokes": False},)
    assert (manifest.parts[0].first, manifest.parts[0].last) == (0.1, 0.1)
    with pytest.raises(RecordingError):
        made.write(0, Output(1, b"y"))
    with pytest.raises(RecordingError):
        made.event(1, "x", {})
    with pytest.raises(RecordingError):
        made.flush(NOW)
    with pytest.raises(RecordingError):
        made.seal(NOW, "closed")


def test_a_session_without_a_channel_is_sealed_too(tmp_path: Path) -> None:
    made = recording(tmp_path, channel=None)
    assert seal.decode(made.seal(later(1), "closed")).parts == ()


# --- two threads --------------------------------------------------------------------------------------------------


def test_writing_and_flushing_at_once_loses_and_doubles_nothing(tmp_path: Path) -> None:
    made = Recording.create(tmp_path, "s1", meta=META, now=NOW, sign=sign)
    for channel in range(3):
        made.open_channel(channel, Header(), limit=400_000, pty=channel == 0, record_input=True)
    stop = threading.Event()
    failures: list[RecordingError] = []

    def worker() -> None:
        try:
            for tick in itertools.count():
                made.flush(later(tick / 5))
                if stop.is_set():
                    return
        except RecordingError as error:
            failures.append(error)

    thread = threading.Thread(target=worker)
    thread.start()
    sent: dict[tuple[int, str], bytes] = {}
    for index in range(6000):
        channel, code = index % 3, "oei"[index % 7 % 3]
        data = f"{index} é€ ".encode() * (index % 40)
        cut = index % 5
        for piece in (data[:cut], data[cut:]):
            made.write(channel, KINDS[code](index / 1000, piece))
            sent[channel, code] = sent.get((channel, code), b"") + piece
        made.event(index / 1000, "tick", {"index": index})
    stop.set()
    thread.join()
    assert not failures
    made.seal(later(1e6), "closed")
    assert [event["fields"]["index"] for event in reader.session_events(made.folder)] == list(range(6000))
    for (channel, code), data in sent.items():
        events = list(reader.events(made.folder, channel, keystrokes=code == "i" and channel == 0))
        kept = joined(events, code)
        assert data.startswith(kept)
        rest = data[len(kept) :]
        for digest in (e for e in events if isinstance(e, Digest) and e.kind == code):
            assert hashlib.sha256(rest[: digest.length]).hexdigest() == digest.sha256
            rest = rest[digest.length :]
        assert rest == b""


# --- when the disk will not ---------------------------------------------------------------------------------------


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """The kernel cuts writes at *size*, as it does on a full disk; SIGXFSZ is ignored by Python."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_in_its_middle_is_said_and_undone_and_nothing_is_lost(tmp_path: Path) -> None:
    made = recording(tmp_path)
    made.write(0, Output(0.1, b"kept\n"))
    made.flush(NOW)
    noise = os.urandom(50_000)
    made.write(0, Output(0.2, noise))
    with files_no_longer_than(20_000), pytest.raises(RecordingError, match="cannot write"):
        made.flush(later(1))
    assert made.pending > 50_000
    assert output(made.folder) == b"kept\n"  # whole frames only: zstdcat would not stop with an error
    name, (size, _) = next(iter(made.head().open.items()))
    assert (made.folder / name).stat().st_size == size
    made.write(0, Output(0.3, b"end\n"))
    made.flush(later(2))
    assert output(made.folder) == b"kept\n" + noise + b"end\n"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB; root only, as it is mounted."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(mounted)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount; the test of a write that fails in its middle covers others")
    yield mounted
    subprocess.run(["umount", "--lazy", str(mounted)], check=True)


def test_a_full_disk_is_said_and_what_was_written_can_still_be_sealed(small_disk: Path) -> None:
    made = recording(small_disk)

    def session() -> None:
        for second in range(100):
            made.write(0, Output(second, os.urandom(50_000)))
            made.flush(later(second))

    with pytest.raises(RecordingError, match="No space left"):
        session()
    with pytest.raises(RecordingError):
        made.seal(later(100), "recording failed")
    kept = output(made.folder)
    assert kept
    made.abandon()
    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
    assert recover(made.folder, attested=made.head(), now=later(200), sign=sign)
    assert output(made.folder) == kept


def test_a_seal_that_failed_can_be_tried_again(tmp_path: Path) -> None:
    made = recording(tmp_path)
    made.write(0, Output(0.1, os.urandom(50_000)))
    with files_no_longer_than(20_000), pytest.raises(RecordingError):
        made.seal(later(1), "closed")
    assert not (made.folder / "manifest.json").exists()
    assert seal.decode(made.seal(later(2), "closed")).how == "closed"


def test_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    made = recording(tmp_path)
    made.write(0, Output(0.1, b"x"))
    made.flush(NOW)
    made.folder.rename(tmp_path / "elsewhere")
    made.write(0, Output(0.2, b"y"))
    with pytest.raises(RecordingError, match="No such file"):
        made.flush(later(1))


@pytest.mark.parametrize("act", ["append", "cut", "replace"])
def test_somebody_else_writing_to_a_part_is_noticed(tmp_path: Path, act: str) -> None:
    made = recording(tmp_path)
    made.write(0, Output(0.1, b"x"))
    made.flush(NOW)
    part = made.folder / "c0.000001.cast.zst"
    data = part.read_bytes()
    part.write_bytes({"append": data + b"!", "cut": data[:-1], "replace": b""}[act])
    made.write(0, Output(0.2, b"y"))
    with pytest.raises(RecordingError, match="somebody else"):
        made.flush(later(1))


def test_a_journal_that_somebody_changed_is_not_signed(tmp_path: Path) -> None:
    made = recording(tmp_path)
    made.write(0, Output(0.1, b"x"))
    made.close_channel(0)
    made.flush(NOW)
    journal = made.folder / "live.chain"
    journal.write_bytes(journal.read_bytes().replace(b'"sha256":"', b'"sha256":"0')[:-2] + b"}\n")
    with pytest.raises(RecordingError):
        made.seal(later(1), "closed")


def test_a_link_in_place_of_a_part_is_not_followed(tmp_path: Path) -> None:
    made = recording(tmp_path)
    target = tmp_path / "target"
    target.touch()
    (made.folder / "c0.000001.cast.zst").symlink_to(target)
    made.write(0, Output(0.1, b"x"))
    with pytest.raises(RecordingError):
        made.flush(NOW)
    assert target.read_bytes() == b""


def test_an_idle_recording_costs_one_descriptor_and_little_memory(tmp_path: Path) -> None:
    made = [recording(tmp_path, f"s{index}") for index in range(50)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    for each in made:
        each.write(0, Output(0.1, b"$ "))
        each.flush(datetime.now(UTC))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    for each in made:
        each.abandon()
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 50
