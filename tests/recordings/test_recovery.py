"""Promises of recordings/recovery.py: a writer that died leaves a recording that is whole up to its last second."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from recordings import frames, reader, seal
from recordings.format import Output
from recordings.recovery import recover
from recordings.seal import Head, Manifest
from recordings.writer import RecordingError, countersign, uncountersigned, unsealed
from tests.recordings.making import AUTHORITIES, AUTHORITY, META, RECORDERS, later, recording, sign, signed_by

WRITER = """
import sys, time, os
from datetime import UTC, datetime
from pathlib import Path
from recordings.format import Output
from tests.recordings.making import recording
made = recording(Path(sys.argv[1]))
for index in range(10**9):
    made.write(0, Output(index / 1000, b"line %d " % index + os.urandom(3000) + b"\\n"))
    made.event(index / 1000, "tick", {"index": index})
    if index % 7 == 0:
        made.flush(datetime.now(UTC))
"""


def sealed(data: bytes | None) -> Manifest:
    assert data is not None
    return seal.decode(data)


def abandoned(root: Path) -> tuple[Path, Head]:
    """Two closed parts, one open one; a head of the second flush of the open one; then the writer is gone."""
    made = recording(root)
    for second in range(0, 33, 3):
        made.write(0, Output(second, b"second %d\n" % second))
        made.flush(later(second))
    head = made.head()
    made.write(0, Output(33, b"the last words\n"))
    made.flush(later(33))
    made.abandon()
    return made.folder, head


@pytest.mark.parametrize("delay", [0.3, 0.45, 0.6])
def test_kill_9_in_the_middle_of_writing(tmp_path: Path, delay: float) -> None:
    """REC-18: what was flushed is there, verifies, and says how it ended."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], env=environment)
    try:
        until = time.monotonic() + 30
        while not list(tmp_path.rglob("c0.000002*")):
            assert child.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(delay)
        (folder,) = unsealed(tmp_path)
        assert recover(folder, attested=None, now=later(0), sign=sign) is None  # its writer lives
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    before = [event for event in reader.events(folder, 0) if isinstance(event, Output)]
    manifest = sealed(recover(folder, attested=None, now=later(0), sign=sign))
    assert (manifest.how, manifest.meta, manifest.session) == ("crash", META, "s1")
    assert manifest.unattested == sum(part.bytes for part in manifest.parts)
    verdict = reader.verify(folder, recorder_keys=RECORDERS, authority_keys=())
    assert verdict.problems == ()
    after = list(reader.events(folder, 0))
    assert after == before
    assert [int(event.data.split()[1]) for event in before] == list(range(len(before)))
    ticks = [event["fields"]["index"] for event in reader.session_events(folder)]
    assert ticks == list(range(len(ticks)))
    assert 0 <= len(ticks) - len(before) <= 7  # one flush writes one stream after the other
    assert list(unsealed(tmp_path)) == []


def test_what_the_authority_had_not_heard_of_is_marked(tmp_path: Path) -> None:
    folder, head = abandoned(tmp_path)
    manifest = sealed(recover(folder, attested=head, now=later(100), sign=sign))
    assert manifest.attestation == seal.Attestation(head.closed, head.chain, ())
    ((name, (size, _)),) = head.open.items()
    assert [(part.name, part.unattested) for part in manifest.parts if part.unattested] == [
        (name, (folder / name).stat().st_size - size)
    ]
    assert reader.verify(folder, recorder_keys=RECORDERS, authority_keys=()).ok


def test_a_torn_frame_is_cut_back_and_counted(tmp_path: Path) -> None:
    folder, head = abandoned(tmp_path)
    whole = list(reader.events(folder, 0))
    torn = folder / next(iter(head.open))
    data = torn.read_bytes()
    torn.write_bytes(data[:-3])
    assert list(reader.events(folder, 0)) == whole[:-1]
    manifest = sealed(recover(folder, attested=head, now=later(100), sign=sign))
    part = manifest.parts[-1]
    assert part.bytes == torn.stat().st_size == head.open[torn.name][0]
    assert part.cut == len(data) - 3 - part.bytes
    assert part.unattested == 0
    assert list(reader.events(folder, 0)) == whole[:-1]
    assert reader.verify(folder, recorder_keys=RECORDERS, authority_keys=()).ok


@pytest.mark.parametrize("length", range(0, 120, 7))
def test_a_stream_that_ends_anywhere_is_sealed(tmp_path: Path, length: int) -> None:
    folder, head = abandoned(tmp_path)
    torn = folder / next(iter(head.open))
    torn.write_bytes(torn.read_bytes()[:length])
    recover(folder, attested=None, now=later(100), sign=sign)
    assert reader.verify(folder, recorder_keys=RECORDERS, authority_keys=()).ok
    assert list(reader.events(folder, 0))


def test_a_frame_that_ends_in_mid_line_is_cut_off_too(tmp_path: Path) -> None:
    folder, head = abandoned(tmp_path)
    part = folder / next(iter(head.open))
    size = part.stat().st_size
    with part.open("ab") as file:
        file.write(frames.pack(b'[30,"o","no end'))
    recover(folder, attested=None, now=later(100), sign=sign)
    assert part.stat().st_size == size


def test_recovering_twice_does_nothing_more(tmp_path: Path) -> None:
    folder, head = abandoned(tmp_path)
    assert recover(folder, attested=head, now=later(100), sign=sign)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert recover(folder, attested=head, now=later(200), sign=sign) is None
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("left", ["manifest", "signature", "both, with the lock"])
def test_a_seal_that_died_on_the_way_is_brought_to_its_end(tmp_path: Path, left: str) -> None:
    made = recording(tmp_path)
    made.write(0, Output(0.1, b"x"))
    made.flush(later(1))
    lock = (made.folder / "live.lock").read_bytes()
    data = made.seal(later(2), "closed")
    (made.folder / "live.lock").write_bytes(lock)
    if left == "manifest":
        (made.folder / "manifest.json.sig").unlink()
    if left == "signature":
        (made.folder / "manifest.json").unlink()
    assert list(unsealed(tmp_path)) == [made.folder]
    given = recover(made.folder, attested=None, now=later(3), sign=sign)
    if left == "manifest":
        assert given == data  # what was decided then is what is signed now
    assert reader.verify(made.folder, recorder_keys=RECORDERS, authority_keys=()).ok
    assert list(unsealed(tmp_path)) == []
    assert not list(made.folder.glob("live.*"))


def test_an_unsigned_manifest_that_does_not_fit_is_not_signed(tmp_path: Path) -> None:
    made = recording(tmp_path)
    made.write(0, Output(0.1, b"x"))
    data = made.seal(later(2), "closed")
    (made.folder / "manifest.json.sig").unlink()
    (made.folder / "manifest.json").write_bytes(data.replace(b'"alice"', b'"mallo"'))
    part = made.folder / "c0.000001.cast.zst"
    part.write_bytes(part.read_bytes() * 2)
    manifest = sealed(recover(made.folder, attested=None, now=later(3), sign=sign))
    assert manifest.how == "crash"
    assert manifest.meta == {}
    assert "lost" in manifest.notes[0]


def test_a_disk_that_disagrees_with_the_authority_is_named(tmp_path: Path) -> None:
    folder, head = abandoned(tmp_path)
    name, (size, _) = next(iter(head.open.items()))
    wrong = replace(head, open={name: (size, "0" * 64)})
    manifest = sealed(recover(folder, attested=wrong, now=later(100), sign=sign))
    assert manifest.attestation is not None
    assert name in manifest.attestation.problems[0]
    assert manifest.parts[-1].unattested == manifest.parts[-1].bytes
    (problem,) = reader.verify(folder, recorder_keys=RECORDERS, authority_keys=()).problems
    assert problem.code == "attestation"


def test_a_closed_part_that_was_changed_before_recovery_is_named(tmp_path: Path) -> None:
    folder, head = abandoned(tmp_path)
    part = folder / "c0.000001.cast.zst"
    part.write_bytes(part.read_bytes()[:-1] + b"!")
    recover(folder, attested=head, now=later(100), sign=sign)
    problems = reader.verify(folder, recorder_keys=RECORDERS, authority_keys=()).problems
    assert {(problem.code, problem.part) for problem in problems} >= {("frame_changed", part.name)}


def test_a_part_that_the_authority_had_heard_of_and_is_gone_is_named(tmp_path: Path) -> None:
    folder, head = abandoned(tmp_path)
    name = next(iter(head.open))
    (folder / name).unlink()
    manifest = sealed(recover(folder, attested=head, now=later(100), sign=sign))
    assert manifest.attestation is not None
    assert manifest.attestation.problems == (f"{name}: the authority had heard of it, and it is not there",)


def test_closed_parts_whose_journal_was_lost_still_fit_the_chain_that_was_heard(tmp_path: Path) -> None:
    """A power cut may take the end of the journal; with one stream the order is still known."""
    folder, head = abandoned(tmp_path)
    journal = folder / "live.chain"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + lines[1][:20])
    manifest = sealed(recover(folder, attested=head, now=later(100), sign=sign))
    assert manifest.attestation == seal.Attestation(head.closed, head.chain, ())
    assert manifest.notes
    assert reader.verify(folder, recorder_keys=RECORDERS, authority_keys=()).ok


def test_a_recording_that_had_just_begun_is_sealed_empty(tmp_path: Path) -> None:
    made = recording(tmp_path)
    made.abandon()
    manifest = sealed(recover(made.folder, attested=None, now=later(1), sign=sign))
    assert (manifest.parts, manifest.meta) == ((), META)
    assert reader.verify(made.folder, recorder_keys=RECORDERS, authority_keys=()).ok


def test_a_folder_that_is_gone_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(RecordingError):
        recover(tmp_path / "nothing", attested=None, now=later(1), sign=sign)


def test_what_waits_for_the_authority_is_found(tmp_path: Path) -> None:
    folder, _ = abandoned(tmp_path)
    assert list(uncountersigned(tmp_path)) == []
    data = recover(folder, attested=None, now=later(1), sign=sign)
    assert data is not None
    assert list(uncountersigned(tmp_path)) == [folder]
    countersign(folder, signed_by(AUTHORITY)(data))
    assert list(uncountersigned(tmp_path)) == []
    assert reader.verify(folder, recorder_keys=RECORDERS, authority_keys=AUTHORITIES).ok


def test_the_chain_after_recovery_is_the_chain_of_what_is_there(tmp_path: Path) -> None:
    folder, _ = abandoned(tmp_path)
    manifest = sealed(recover(folder, attested=None, now=later(1), sign=sign))
    for part in manifest.parts:
        assert hashlib.sha256((folder / part.name).read_bytes()).hexdigest() == part.sha256
    assert manifest.chain == seal.chain_of("s1", manifest.parts)
