"""Events that wait for the authority survive a crash, in their order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion import outbox as outboxes
from bastion.outbox import Outbox, event_of
from ca import audit


def refused(n: int) -> audit.Event:
    return audit.SessionRefused(session=f"s{n:025d}", channel=None, request="x", reason="no")


def sessions(box: Outbox) -> list[object]:
    return [event.fields["session"] for event in box.first(1000)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "outbox" / "w1.ndjson"


def fill(file: Path, count: int, *, start: int = 0) -> None:
    box = Outbox(file)
    for n in range(start, start + count):
        box.add(refused(n))
    box.close()


def test_events_are_there_again_after_a_crash_in_the_order_they_happened(file: Path) -> None:
    """LOG-04"""
    fill(file, 5)
    box = Outbox(file)

    assert sessions(box) == [f"s{n:025d}" for n in range(5)]
    assert len(box) == 5
    box.close()


def test_an_event_keeps_its_id_so_that_sending_it_twice_is_harmless(file: Path) -> None:
    box = Outbox(file)
    box.add(refused(1))
    again = Outbox(file)

    assert [event.id for event in again.first(9)] == [event.id for event in box.first(9)]
    box.close()
    again.close()


def test_what_was_taken_is_gone_once_the_file_is_empty(file: Path) -> None:
    box = Outbox(file)
    for n in range(3):
        box.add(refused(n))
    box.taken(2)
    assert sessions(box) == [f"s{2:025d}"]
    box.taken(1)
    box.add(refused(7))
    box.close()

    again = Outbox(file)
    assert sessions(again) == [f"s{7:025d}"]
    again.close()


@pytest.mark.parametrize("cut", [1, 2, 20, 60])
def test_a_torn_last_line_costs_only_itself_and_not_what_is_written_next(file: Path, cut: int) -> None:
    """A crash in the middle of a line, a new start, another event, another crash."""
    fill(file, 3)
    file.write_bytes(file.read_bytes()[:-cut])
    whole = 3 if cut == 1 else 2  # the line lacks its end only
    fill(file, 1, start=9)

    box = Outbox(file)
    kept = sessions(box)
    box.close()
    assert kept[:2] == [f"s{n:025d}" for n in range(2)]
    assert kept[-1] == f"s{9:025d}"
    assert len(kept) in (3, whole + 1)
    aside = [json.loads(line) for line in file.with_suffix(".refused").read_text().splitlines()]
    assert [words["why"] for words in aside] == ["damaged"]


def test_a_damaged_line_in_the_middle_does_not_swallow_what_follows(file: Path) -> None:
    fill(file, 3)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b'{"id": "x"}\n' + lines[2])

    box = Outbox(file)
    assert sessions(box) == [f"s{0:025d}", f"s{2:025d}"]
    box.close()


@given(garbage=st.binary(max_size=200))
def test_any_file_can_be_taken_up(tmp_path_factory: pytest.TempPathFactory, garbage: bytes) -> None:
    file = tmp_path_factory.mktemp("outbox") / "w1.ndjson"
    fill(file, 1)
    file.write_bytes(file.read_bytes() + garbage)
    fill(file, 1, start=5)

    box = Outbox(file)
    kept = sessions(box)
    box.close()
    assert kept[0] == f"s{0:025d}"
    assert kept[-1] == f"s{5:025d}"


class ShortDisk:
    """A file on a disk that takes half of what it is given."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        written: int = self._file.write(data[: len(data) // 2])
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_a_disk_that_takes_half_a_line_is_an_error_and_leaves_no_half_line(file: Path) -> None:
    """DOS-14"""
    box = Outbox(file)
    box.add(refused(1))
    whole, box._file = box._file, ShortDisk(box._file)  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space"):
        box.add(refused(2))
    box._file = whole
    box.add(refused(3))
    box.close()

    again = Outbox(file)
    assert sessions(again) == [f"s{1:025d}", f"s{3:025d}"]
    again.close()


def test_an_event_that_the_authority_refuses_is_put_aside_and_not_lost(file: Path) -> None:
    box = Outbox(file)
    box.add(refused(1))
    box.add(refused(2))
    box.put_aside("unknown node")

    assert sessions(box) == [f"s{2:025d}"]
    aside = json.loads(file.with_suffix(".refused").read_text())
    assert (aside["why"], aside["event"]["fields"]["session"]) == ("unknown node", f"s{1:025d}")
    box.close()


def test_a_full_outbox_says_so(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LOG-04: spool full → no new session."""
    monkeypatch.setattr(outboxes, "FULL", 2)
    box = Outbox(file)
    box.add(refused(1))
    assert len(box) == 1
    box.add(refused(2))
    assert box.full
    box.close()


def test_the_file_is_for_its_owner_alone(file: Path) -> None:
    fill(file, 1)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_a_note_becomes_an_event_without_what_the_audit_log_does_not_keep() -> None:
    event = event_of(
        "session.refused", {"session": "s1", "channel": 0, "request": "x", "reason": "no", "action": "exec"}
    )
    assert event == audit.SessionRefused(session="s1", channel=0, request="x", reason="no")


def test_there_is_an_end_to_what_waits(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LOG-04, LOG-05: strangers may fill half of it; what goes beyond its end is not audited, and so ends."""
    monkeypatch.setattr(outboxes, "FULL", 4)
    box = Outbox(file)
    states = []
    for n in range(8):
        box.add(refused(n))
        states.append((box.crowded, box.full))
    assert states == [(False, False), *[(True, False)] * 2, *[(True, True)] * 5]
    with pytest.raises(OSError, match="too many events"):
        box.add(refused(9))
    box.taken(1)
    box.add(refused(9))
    box.close()
