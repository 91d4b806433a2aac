"""Promises of recordings/retention.py: what is old goes, what is live or unknown stays, a full disk is announced."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from recordings import reader, retention
from recordings.writer import RecordingError
from tests.recordings.making import later, recording, sealed_and_countersigned

DAY = timedelta(days=1)


def test_what_ended_long_ago_goes_and_everything_else_stays(tmp_path: Path) -> None:
    old = sealed_and_countersigned(recording(tmp_path, "old"), after=60)
    sealed_and_countersigned(recording(tmp_path, "young"), after=86_400)
    live = recording(tmp_path, "live")
    broken = sealed_and_countersigned(recording(tmp_path, "broken"))
    (broken / "manifest.json").write_bytes(b"?")
    doomed = retention.expired(reader.listing(tmp_path), keep=DAY, now=later(86_400 + 61))
    assert [entry.session for entry in doomed] == ["old"]
    for entry in doomed:
        retention.delete(entry)
    assert not old.exists()
    assert sorted(entry.session for entry in reader.listing(tmp_path)) == ["broken", "live", "young"]
    assert not list(tmp_path.rglob(".*"))
    live.abandon()


def test_a_live_recording_is_never_deleted(tmp_path: Path) -> None:
    recording(tmp_path, "live")
    (entry,) = reader.listing(tmp_path)
    with pytest.raises(RecordingError, match="live"):
        retention.delete(entry)
    assert entry.folder.exists()


def test_empty_days_go_with_their_last_recording(tmp_path: Path) -> None:
    sealed_and_countersigned(recording(tmp_path))
    (entry,) = reader.listing(tmp_path)
    retention.delete(entry)
    assert list(tmp_path.iterdir()) == []


def test_keeping_for_no_time_is_refused() -> None:
    with pytest.raises(ValueError):
        retention.expired([], keep=timedelta(0), now=later(0))


def test_the_space_that_is_left_is_that_of_the_disk_below_the_folder(tmp_path: Path) -> None:
    left = retention.space(tmp_path)
    assert 0 < left.free <= left.total
