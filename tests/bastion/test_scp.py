"""scp's own protocol, read by a bystander: each file with its path, size and SHA-256; not a byte changed."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.relay import Note
from bastion.scp import LINE_LIMIT, ScpInspector


def upload(command: bytes, stream: bytes, *, pieces: int = 1) -> list[dict[str, Any]]:
    inspector = ScpInspector(command, sending=True)
    size = max(1, -(-len(stream) // pieces))
    notes: list[Note] = []
    for start in range(0, len(stream), size):
        passed = inspector.from_client(stream[start : start + size])
        assert passed.onward == stream[start : start + size]
        assert not passed.answers
        notes += passed.notes
    return [dict(note.fields) for note in [*notes, *inspector.closed()] if note.code == "session.file"]


def sent(name: bytes, content: bytes) -> bytes:
    return b"C0644 %d %s\n" % (len(content), name) + content + b"\0"


def hashed(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@given(st.binary(max_size=300), st.integers(1, 40))
def test_a_file_is_noted_with_its_hash_however_the_stream_is_cut(content: bytes, pieces: int) -> None:
    assert upload(b"scp -t /tmp/f", sent(b"f", content), pieces=pieces) == [
        {"operation": "write", "path": "/tmp/f", "size": len(content), "sha256": hashed(content), "outcome": "ok"}
    ]


def test_a_download_is_read_from_what_the_node_sends() -> None:
    inspector = ScpInspector(b"scp -f /tmp/f", sending=False)
    assert not inspector.from_client(b"\0").notes
    data, notes = inspector.from_node(sent(b"f", b"abc"))

    assert data == sent(b"f", b"abc")
    assert [(note.fields["operation"], note.fields["sha256"]) for note in notes] == [("read", hashed(b"abc"))]


def test_folders_times_and_several_files_give_whole_paths() -> None:
    stream = (
        b"T1 0 1 0\n"
        + b"D0755 0 sub\n"
        + sent(b"a", b"1")
        + b"D0755 0 deep\n"
        + sent(b"b", b"2")
        + b"E\n"
        + b"E\n"
        + sent(b"c", b"")
    )
    assert [file["path"] for file in upload(b"scp -r -p -t /tmp/to", stream)] == [
        "/tmp/to/sub/a",
        "/tmp/to/sub/deep/b",
        "/tmp/to/c",
    ]


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (b"scp -t /tmp/x", "/tmp/x"),
        (b"scp -d -t /tmp/x", "/tmp/x/f"),
        (b"scp -t /tmp/x/", "/tmp/x/f"),
        (b"scp -t .", "./f"),
    ],
)
def test_the_target_is_a_file_or_a_folder(command: bytes, path: str) -> None:
    assert [file["path"] for file in upload(command, sent(b"f", b"x"))] == [path]


def test_a_transfer_that_breaks_off_is_noted_as_incomplete() -> None:
    assert upload(b"scp -t f", b"C0644 10 f\nabc") == [
        {"operation": "write", "path": "f", "size": 3, "sha256": None, "outcome": "incomplete"}
    ]


def test_a_stream_that_cannot_be_followed_is_said_to_be_so_once() -> None:
    inspector = ScpInspector(b"scp -t f", sending=True)
    passed = [inspector.from_client(b"x" * LINE_LIMIT) for _ in range(5)]
    assert [note.code for each in passed for note in each.notes] == ["channel.unread"]


def test_nothing_of_ours_stands_in_the_nodes_answers() -> None:
    assert ScpInspector(b"scp -t f", sending=True).whole


@given(st.lists(st.binary(max_size=60), max_size=6), st.booleans())
def test_any_bytes_pass_unchanged(pieces: list[bytes], sending: bool) -> None:
    inspector = ScpInspector(b"scp -t f" if sending else b"scp -f f", sending=sending)
    for piece in pieces:
        assert inspector.from_client(piece).onward == piece
        assert inspector.from_node(piece)[0] == piece
    inspector.closed()


# --- somebody who wants a file to pass unnoticed -----------------------------------------------------------------


def codes(notes: list[Note]) -> list[object]:
    return [(note.code, note.fields.get("path"), note.fields.get("outcome")) for note in notes]


def test_a_size_with_many_zeros_is_a_size_like_any() -> None:
    assert upload(b"scp -t /tmp/", b"C0644 " + b"0" * 40 + b"3 f\nabc\0") == [
        {"operation": "write", "path": "/tmp/f", "size": 3, "sha256": hashed(b"abc"), "outcome": "ok"}
    ]


def test_after_a_refused_file_the_next_one_is_not_taken_for_its_content() -> None:
    """A first file of a terabyte that the receiver refuses would swallow all that follow."""
    upload = ScpInspector(b"scp -t /tmp/", sending=True)
    notes = list(upload.from_client(b"C0644 1000000000000 big\n").notes)
    notes += upload.from_node(b"\0\1scp: big: Permission denied\n")[1]
    notes += upload.from_client(sent(b"secret", b"abc")).notes
    assert codes(notes) == [("session.file", "/tmp/big", "incomplete"), ("session.file", "/tmp/secret", "ok")]

    download = ScpInspector(b"scp -r -f /tmp", sending=False)
    notes = list(download.from_node(b"C0644 1000000000000 big\n")[1])
    notes += download.from_client(b"\1no\n").notes
    notes += download.from_node(sent(b"secret", b"abc"))[1]
    assert codes(notes) == [("session.file", "/tmp/big", "incomplete"), ("session.file", "/tmp/secret", "ok")]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_refusal_at_another_time_says_that_the_stream_cannot_be_followed(when: str) -> None:
    inspector = ScpInspector(b"scp -r -f /tmp", sending=False)
    notes = list(inspector.from_client(b"\0\1x\n").notes) if when == "before" else []
    notes += inspector.from_node(b"C0644 1000000000000 big\nC0644 3 secret\n")[1]
    notes += inspector.from_client(b"\1").notes
    notes += inspector.from_client(b"x\n\0").notes
    assert [note.code for note in notes].count("channel.unread") == 1


def test_a_line_that_means_nothing_to_us_is_not_passed_over() -> None:
    inspector = ScpInspector(b"scp -t /tmp/", sending=True)
    assert codes(list(inspector.from_client(b"C644 3 f\nabc\0").notes)) == [("channel.unread", None, None)]
