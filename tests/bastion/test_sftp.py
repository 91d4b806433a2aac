"""SFTP as a gate and a bystander: what passes, what is answered here, what is noted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bastion import sftp
from bastion.relay import Note, Passed
from bastion.sftp import SftpInspector
from recordings.sshwire import WireError, string, uint32, uint64

INIT, OPEN, CLOSE, READ, WRITE, STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED = (
    1,
    3,
    4,
    5,
    6,
    101,
    102,
    103,
    104,
    105,
    200,
)
R, W, APPEND, CREATE, TRUNCATE = 1, 2, 4, 8, 16
PERMISSION_DENIED, FAILURE, EOF = 3, 4, 1


def packet(kind: int, body: bytes = b"") -> bytes:
    return string(bytes([kind]) + body)


def hello(version: int = 3) -> bytes:
    return packet(INIT, uint32(version))


def opened(number: int, path: bytes, flags: int) -> bytes:
    return packet(OPEN, uint32(number) + string(path) + uint32(flags) + uint32(0))


def closed(number: int, handle: bytes) -> bytes:
    return packet(CLOSE, uint32(number) + string(handle))


def read(number: int, handle: bytes, offset: int, length: int = 32_768) -> bytes:
    return packet(READ, uint32(number) + string(handle) + uint64(offset) + uint32(length))


def write(number: int, handle: bytes, offset: int, data: bytes) -> bytes:
    return packet(WRITE, uint32(number) + string(handle) + uint64(offset) + string(data))


def extended(number: int, name: bytes, *fields: bytes) -> bytes:
    return packet(EXTENDED, uint32(number) + string(name) + b"".join(fields))


def status(number: int, code: int = 0) -> bytes:
    return packet(STATUS, uint32(number) + uint32(code) + string(b"") + string(b""))


def handle(number: int, name: bytes) -> bytes:
    return packet(HANDLE, uint32(number) + string(name))


def data(number: int, content: bytes) -> bytes:
    return packet(DATA, uint32(number) + string(content))


def begun(*, reads: bool = True, writes: bool = True) -> SftpInspector:
    gate = SftpInspector(read=reads, write=writes)
    gate.from_client(hello())
    gate.from_node(packet(2, uint32(3)))
    return gate


def with_file(flags: int, *, path: bytes = b"/f", **rights: bool) -> SftpInspector:
    gate = begun(**rights)
    gate.from_client(opened(1, path, flags))
    gate.from_node(handle(1, b"h"))
    return gate


def files(notes: Sequence[Note]) -> list[dict[str, Any]]:
    return [dict(note.fields) for note in notes if note.code == "session.file"]


def hashed(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def refusal(answers: Sequence[bytes]) -> tuple[int, int]:
    """Request number and code of the one answer of ours."""
    (answer,) = answers
    assert answer[4] == STATUS
    return int.from_bytes(answer[5:9], "big"), int.from_bytes(answer[9:13], "big")


# --- the gate --------------------------------------------------------------------------------------------------

WRITING = [
    opened(7, b"/x", W),
    opened(7, b"/x", R | W),
    opened(7, b"/x", R | CREATE),
    opened(7, b"/x", R | TRUNCATE),
    opened(7, b"/x", APPEND),
    write(7, b"h", 0, b"x"),
    packet(9, uint32(7) + string(b"/x") + uint32(0)),
    packet(10, uint32(7) + string(b"h") + uint32(0)),
    packet(13, uint32(7) + string(b"/x")),
    packet(14, uint32(7) + string(b"/x") + uint32(0)),
    packet(15, uint32(7) + string(b"/x")),
    packet(18, uint32(7) + string(b"/x") + string(b"/y")),
    packet(20, uint32(7) + string(b"/x") + string(b"/y")),
    extended(7, b"posix-rename@openssh.com", string(b"/x"), string(b"/y")),
    extended(7, b"hardlink@openssh.com", string(b"/x"), string(b"/y")),
    extended(7, b"fsync@openssh.com", string(b"h")),
    extended(7, b"lsetstat@openssh.com", string(b"/x"), uint32(0)),
    extended(7, b"copy-data", string(b"h"), uint64(0), uint64(0), string(b"h"), uint64(0)),
    extended(7, b"new@example", b"anything"),
    packet(99, uint32(7) + b"anything"),
]
READING = [
    opened(7, b"/x", R),
    opened(7, b"/x", 0),
    opened(7, b"/x", R | W),
    read(7, b"h", 0),
    packet(11, uint32(7) + string(b"/x")),
    packet(12, uint32(7) + string(b"h")),
    packet(19, uint32(7) + string(b"/x")),
    extended(7, b"copy-data", string(b"h"), uint64(0), uint64(0), string(b"h"), uint64(0)),
    extended(7, b"new@example", b"anything"),
    packet(99, uint32(7) + b"anything"),
]
NEUTRAL = [
    packet(17, uint32(7) + string(b"/x")),
    packet(7, uint32(7) + string(b"/x")),
    packet(8, uint32(7) + string(b"h")),
    packet(16, uint32(7) + string(b".")),
    closed(7, b"h"),
    extended(7, b"limits@openssh.com"),
    extended(7, b"statvfs@openssh.com", string(b"/")),
    extended(7, b"users-groups-by-id@openssh.com", string(b""), string(b"")),
]


@pytest.mark.parametrize("request_", WRITING)
def test_who_may_only_read_changes_nothing(request_: bytes) -> None:
    passed = begun(writes=False).from_client(request_)

    assert passed.onward == b""
    assert refusal(passed.answers) == (7, PERMISSION_DENIED)
    assert passed.dropped == len(request_)
    assert [note.code for note in passed.notes] == ["session.refused"]
    assert passed.notes[0].fields["action"] == "sftp.write"


@pytest.mark.parametrize("request_", READING)
def test_who_may_only_write_reads_nothing(request_: bytes) -> None:
    passed = begun(reads=False).from_client(request_)

    assert passed.onward == b""
    assert refusal(passed.answers) == (7, PERMISSION_DENIED)
    assert passed.notes[0].fields["action"] == "sftp.read"


@pytest.mark.parametrize("request_", NEUTRAL)
@pytest.mark.parametrize("rights", [{"reads": False}, {"writes": False}])
def test_looking_where_one_is_needs_either_right(request_: bytes, rights: dict[str, bool]) -> None:
    passed = begun(**rights).from_client(request_)
    assert passed.onward == request_
    assert not passed.answers


def test_each_right_lets_its_own_half_pass() -> None:
    for request in (opened(7, b"/x", R), packet(11, uint32(7) + string(b"/x"))):
        assert begun(writes=False).from_client(request).onward == request
    for request in (opened(7, b"/x", W | CREATE | TRUNCATE), packet(13, uint32(7) + string(b"/x"))):
        assert begun(reads=False).from_client(request).onward == request


def test_a_refusal_stands_between_requests_that_pass() -> None:
    first, refused, last = (
        packet(17, uint32(1) + string(b"/")),
        packet(13, uint32(2) + string(b"/x")),
        opened(3, b"/x", R),
    )
    passed = begun(writes=False).from_client(first + refused + last)

    assert passed.onward == first + last
    assert refusal(passed.answers) == (2, PERMISSION_DENIED)


def test_a_request_passes_only_as_a_whole() -> None:
    """Bytes of a request that may yet be refused must not lie at the node."""
    gate, request = begun(), opened(1, b"/some/path", R)
    for byte in request[:-1]:
        assert gate.from_client(bytes([byte])).onward == b""
    assert gate.from_client(request[-1:]).onward == request


def test_version_three_is_what_there_is() -> None:
    assert SftpInspector(read=True, write=True).from_client(hello(6)).onward == hello(3)
    assert SftpInspector(read=True, write=True).from_client(hello(2)).onward == hello(2)


def test_a_session_begins_with_its_beginning_and_only_once() -> None:
    with pytest.raises(WireError, match="INIT"):
        SftpInspector(read=True, write=True).from_client(opened(1, b"/x", R))
    with pytest.raises(WireError, match="once"):
        begun().from_client(hello(6))


def test_a_node_that_speaks_another_version_is_refused() -> None:
    gate = SftpInspector(read=True, write=True)
    gate.from_client(hello())
    with pytest.raises(WireError, match="version"):
        gate.from_node(packet(2, uint32(6)))


@pytest.mark.parametrize("length", [0, (256 << 10) + 1025, 0xFFFFFFFF])
def test_a_packet_of_absurd_length_is_an_error_before_it_is_kept(length: int) -> None:
    """DOS-12"""
    with pytest.raises(WireError, match="SFTP packet"):
        begun().from_client(uint32(length))
    if length != (256 << 10) + 1025:
        with pytest.raises(WireError, match="SFTP packet"):
            begun().from_node(uint32(length))


def test_open_files_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sftp, "HANDLE_LIMIT", 3)
    gate = begun()
    for n in range(3):
        gate.from_client(opened(n, b"/x", R))
    with pytest.raises(WireError, match="too many SFTP files"):
        gate.from_client(opened(3, b"/x", R))


def test_unanswered_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sftp, "REQUEST_LIMIT", 3)
    gate = begun()
    for n in range(3):
        gate.from_client(packet(17, uint32(n) + string(b"/")))
    with pytest.raises(WireError, match="too many SFTP requests"):
        gate.from_client(packet(17, uint32(3) + string(b"/")))


def test_two_requests_of_one_number_are_refused() -> None:
    """Else the bytes of a secret file could be taken for those of another."""
    gate = begun()
    gate.from_client(packet(17, uint32(5) + string(b"/")))
    with pytest.raises(WireError, match="used again"):
        gate.from_client(read(5, b"h", 0))


def test_an_answer_to_nothing_is_the_nodes_fault() -> None:
    with pytest.raises(WireError, match="nobody made"):
        begun().from_node(data(9, b"x"))


# --- handles ---------------------------------------------------------------------------------------------------


def test_a_guessed_handle_is_answered_with_failure_and_never_reaches_the_node() -> None:
    """FS-08; a write sent with the open, before its answer, would be missing from the file's hash."""
    gate = begun()
    gate.from_client(opened(1, b"/f", W | CREATE))
    passed = gate.from_client(write(2, b"\0\0\0\0", 0, b"secret"))

    assert passed.onward == b""
    assert refusal(passed.answers) == (2, FAILURE)


def test_a_handle_is_of_no_use_after_it_was_closed() -> None:
    """FS-08"""
    gate = with_file(R | W)
    gate.from_client(closed(2, b"h"))
    for request in (read(3, b"h", 0), write(4, b"h", 0, b"x")):
        passed = gate.from_client(request)
        assert passed.onward == b""
        assert refusal(passed.answers)[1] == FAILURE


# --- what is noted ---------------------------------------------------------------------------------------------


def test_a_file_that_was_read_is_noted_with_its_hash_when_it_is_closed() -> None:
    gate = with_file(R)
    gate.from_client(read(2, b"h", 0) + read(3, b"h", 3))
    gate.from_node(data(3, b"def"))  # answers may come in any order
    gate.from_node(data(2, b"abc"))
    gate.from_client(read(4, b"h", 6) + closed(5, b"h"))
    _, notes = gate.from_node(status(4, EOF) + status(5))

    assert files(notes) == [
        {"operation": "read", "path": "/f", "size": 6, "sha256": hashed(b"abcdef"), "outcome": "ok"}
    ]


def test_a_file_that_was_written_out_of_order_is_noted_with_its_hash() -> None:
    gate = with_file(W | CREATE)
    gate.from_client(write(2, b"h", 3, b"def") + write(3, b"h", 0, b"abc") + closed(4, b"h"))
    _, notes = gate.from_node(status(3) + status(2) + status(4))

    assert files(notes) == [
        {"operation": "write", "path": "/f", "size": 6, "sha256": hashed(b"abcdef"), "outcome": "ok"}
    ]


def test_an_empty_upload_is_a_write_and_an_empty_download_a_read() -> None:
    for flags, operation in ((W | CREATE, "write"), (R, "read")):
        gate = with_file(flags)
        gate.from_client(closed(2, b"h"))
        _, notes = gate.from_node(status(2))
        assert files(notes) == [
            {"operation": operation, "path": "/f", "size": 0, "sha256": hashed(b""), "outcome": "ok"}
        ]


def test_a_file_that_was_read_and_written_is_noted_twice() -> None:
    gate = with_file(R | W)
    gate.from_client(read(2, b"h", 0) + write(3, b"h", 0, b"new") + closed(4, b"h"))
    _, notes = gate.from_node(data(2, b"old") + status(3) + status(4))
    assert [(note["operation"], note["sha256"]) for note in files(notes)] == [
        ("write", hashed(b"new")),
        ("read", hashed(b"old")),
    ]


def test_a_write_that_failed_leaves_no_hash() -> None:
    gate = with_file(W)
    gate.from_client(write(2, b"h", 0, b"abc") + closed(3, b"h"))
    _, notes = gate.from_node(status(2, FAILURE) + status(3))
    assert [(note["outcome"], note["sha256"]) for note in files(notes)] == [("failed", None)]


def test_a_sparse_write_is_noted_with_its_exact_size() -> None:
    """FS-09"""
    gate = with_file(W)
    last = sftp.LAST_OFFSET - 1
    gate.from_client(write(2, b"h", last, b"x") + closed(3, b"h"))
    _, notes = gate.from_node(status(2) + status(3))
    assert [(note["size"], note["sha256"]) for note in files(notes)] == [(sftp.LAST_OFFSET, None)]


@pytest.mark.parametrize("offset", [(1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_an_offset_beyond_any_file_breaks_the_connection(offset: int) -> None:
    """FS-09"""
    for request in (write(2, b"h", offset, b"x"), read(2, b"h", offset)):
        with pytest.raises(WireError, match="offset"):
            with_file(R | W).from_client(request)


CHANGES = [
    (packet(13, uint32(7) + string(b"/x")), ("remove", "/x", None)),
    (packet(14, uint32(7) + string(b"/x") + uint32(0)), ("mkdir", "/x", None)),
    (packet(15, uint32(7) + string(b"/x")), ("rmdir", "/x", None)),
    (packet(18, uint32(7) + string(b"/x") + string(b"/y")), ("rename", "/x", "/y")),
    (packet(20, uint32(7) + string(b"/x") + string(b"/y")), ("symlink", "/x", "/y")),
    (packet(9, uint32(7) + string(b"/x") + uint32(0)), ("setstat", "/x", None)),
    (packet(10, uint32(7) + string(b"h") + uint32(0)), ("fsetstat", "/f", None)),
    (extended(7, b"posix-rename@openssh.com", string(b"/x"), string(b"/y")), ("posix-rename@openssh.com", "/x", "/y")),
    (extended(7, b"hardlink@openssh.com", string(b"/x"), string(b"/y")), ("hardlink@openssh.com", "/x", "/y")),
    (extended(7, b"fsync@openssh.com", string(b"h")), ("fsync@openssh.com", "/f", None)),
    (extended(7, b"z" * 5000, b"?"), ("z" * 64, "", None)),
]


@pytest.mark.parametrize(("request_", "expected"), CHANGES)
@pytest.mark.parametrize(("code", "outcome"), [(0, "ok"), (FAILURE, "failed"), (None, "unanswered")])
def test_every_change_is_noted_with_its_outcome(
    request_: bytes, expected: tuple[str, str, str | None], code: int | None, outcome: str
) -> None:
    """Also one whose answer nobody waited for: the node has done it all the same."""
    gate = with_file(R | W)
    assert gate.from_client(request_).onward == request_
    notes = gate.closed() if code is None else gate.from_node(status(7, code))[1]

    found = [note for note in files(notes) if note["operation"] not in ("read", "write")]
    assert [(note["operation"], note["path"], note["target"]) for note in found] == [expected]
    assert found[0]["outcome"] == outcome


def test_what_the_node_copies_by_itself_has_no_hash_here() -> None:
    """FS-06"""
    gate = with_file(R | W)
    copy = extended(7, b"copy-data", string(b"h"), uint64(0), uint64(0), string(b"h"), uint64(0))
    assert gate.from_client(copy).onward == copy
    _, notes = gate.from_node(status(7))
    assert [(note["operation"], note["path"], note["target"]) for note in files(notes)] == [("copy-data", "/f", "/f")]
    gate.from_client(closed(8, b"h"))
    assert [note["sha256"] for note in files(gate.from_node(status(8))[1])] == [None]


def test_a_listing_and_a_failed_open_are_noted() -> None:
    gate = begun()
    passed = gate.from_client(packet(11, uint32(1) + string(b"/d")) + opened(2, b"/no", R))
    assert [(note.code, note.fields["operation"]) for note in passed.notes] == [("sftp.operation", "opendir")]
    _, notes = gate.from_node(handle(1, b"d") + status(2, 2))
    assert [(note.code, note.fields) for note in notes] == [
        ("sftp.failed", {"operation": "open", "path": "/no", "status": 2})
    ]


def test_what_is_open_when_the_channel_ends_is_noted_as_incomplete() -> None:
    gate = with_file(W)
    gate.from_client(write(2, b"h", 0, b"abc"))
    assert [(note["size"], note["sha256"], note["outcome"]) for note in files(gate.closed())] == [
        (3, None, "incomplete")
    ]
    assert gate.closed() == []

    gate = with_file(W)
    gate.from_client(write(2, b"h", 0, b"abc") + closed(3, b"h"))
    assert [note["outcome"] for note in files(gate.closed())] == ["incomplete"]


def test_a_path_that_is_not_text_keeps_its_bytes() -> None:
    gate = begun()
    gate.from_client(packet(13, uint32(7) + string(b"/\xff\n")))
    assert files(gate.from_node(status(7))[1])[0]["path"] == "/\\xff\n"


# --- properties ------------------------------------------------------------------------------------------------


@settings(max_examples=max(300, settings.default.max_examples))
@given(st.lists(st.binary(max_size=80), max_size=6), st.booleans(), st.booleans(), st.booleans())
def test_any_bytes_pass_are_answered_or_are_a_wire_error(
    pieces: list[bytes], reads: bool, writes: bool, framed: bool
) -> None:
    gate = SftpInspector(read=reads, write=writes)
    gate.from_client(hello())
    for piece in pieces:
        sent = string(piece) if framed else piece
        try:
            passed = gate.from_client(sent)
            gate.from_node(sent)
        except WireError:
            return
        assert passed.dropped >= 0
    gate.closed()


requests = st.lists(st.sampled_from([*WRITING, *READING, *NEUTRAL]), max_size=8)


@given(requests, st.lists(st.integers(1, 60), max_size=10))
def test_with_both_rights_what_reaches_the_node_is_what_was_sent(script: list[bytes], cuts: list[int]) -> None:
    """However the stream is cut; reads and writes of files that are not open apart."""
    numbered = [each[:5] + uint32(n) + each[9:] for n, each in enumerate(script) if each[4] not in (READ, WRITE)]
    stream, gate = b"".join(numbered), begun()
    left, onward = stream, b""
    for cut in [*cuts, len(stream)]:
        onward += gate.from_client(left[:cut]).onward
        left = left[cut:]
    assert onward == stream


@given(requests, st.booleans())
def test_nothing_passes_for_two_rights_that_would_not_pass_for_the_one_it_needs(
    script: list[bytes], reads: bool
) -> None:
    gate = begun(reads=reads, writes=not reads)
    for n, each in enumerate(script):
        request = each[:5] + uint32(n) + each[9:]
        passed = gate.from_client(request)
        forbidden = each in WRITING if reads else each in READING
        assert not (forbidden and passed.onward)
        assert bool(passed.onward) != bool(passed.answers)


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=1, max_size=8)), max_size=10))
def test_a_hash_of_a_file_is_right_or_absent(writes: list[tuple[int, bytes]]) -> None:
    gate, content, seen = with_file(W | CREATE), bytearray(), set[int]()
    clean = True
    for n, (gap, piece) in enumerate(writes):
        at = max(0, len(content) + gap - 1) if gap else 0
        gate.from_client(write(100 + n, b"h", at, piece))
        content += bytes(max(0, at + len(piece) - len(content)))
        content[at : at + len(piece)] = piece
        places = set(range(at, at + len(piece)))
        clean = clean and not places & seen
        seen |= places
        gate.from_node(status(100 + n))
    gate.from_client(closed(5, b"h"))
    (note,) = files(gate.from_node(status(5))[1])

    if note["sha256"]:
        assert note["sha256"] == hashed(bytes(content))
    elif clean and seen == set(range(len(content))):
        raise AssertionError("the whole file passed once, and there is no hash")


def arriving(inspector: SftpInspector, handle: bytes, *, flags: int) -> tuple[bytes, list[Passed]]:
    """A write of 30,000 bytes, and what became of each piece of it as it arrived."""
    inspector.from_client(string(b"\x01" + uint32(3)))
    inspector.from_client(string(b"\x03" + uint32(1) + string(b"/f") + uint32(flags) + uint32(0)))
    inspector.from_node(string(b"\x02" + uint32(3)) + string(b"\x66" + uint32(1) + string(b"handle")))
    write = string(b"\x06" + uint32(7) + string(handle) + bytes(8) + string(b"x" * 30_000))
    return write, [inspector.from_client(write[at : at + 1000]) for at in range(0, len(write), 1000)]


def test_a_granted_write_passes_while_it_arrives() -> None:
    """A node's window may be smaller than one request: held back as a whole, its end would never come."""
    write, passed = arriving(SftpInspector(read=False, write=True), b"handle", flags=0x0A)
    assert b"".join(one.onward for one in passed) == write
    assert all(one.onward for one in passed)


@pytest.mark.parametrize(
    ("inspector", "handle"),
    [(SftpInspector(read=True, write=False), b"handle"), (SftpInspector(read=True, write=True), b"guessed")],
    ids=["not granted", "no such handle"],
)
def test_a_write_that_is_refused_passes_in_no_part(inspector: SftpInspector, handle: bytes) -> None:
    write, passed = arriving(inspector, handle, flags=0x01)
    assert b"".join(one.onward for one in passed) == b""
    assert sum(one.dropped for one in passed) == len(write)
    assert [len(one.answers) for one in passed][-1] == 1


def test_half_a_handle_is_not_taken_for_another_that_is_open() -> None:
    """A beginning that passed, of a request that is then refused, would shift every frame that follows: what stands
    inside a file's bytes would be read as requests that nobody has judged."""
    inspector = begun(reads=False)
    inspector.from_client(opened(1, b"/f", W | CREATE))
    inspector.from_node(handle(1, b"abcd"))
    request = write(2, b"abcdefgh", 0, b"x" * 100)
    passed = [inspector.from_client(request[start : start + 1]) for start in range(len(request))]
    assert b"".join(piece.onward for piece in passed) == b""
    assert [answer[4] for piece in passed for answer in piece.answers] == [STATUS]
    after = write(3, b"abcd", 0, b"y" * 100)
    assert inspector.from_client(after).onward == after


@settings(max_examples=max(300, settings.default.max_examples))
@given(st.lists(st.tuples(st.sampled_from([b"a", b"ab", b"abc", b""]), st.binary(max_size=12)), max_size=6), st.data())
def test_what_passes_is_whole_requests_however_they_arrive(
    writes: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    inspector = begun(reads=False)
    inspector.from_client(opened(1, b"/f", W | CREATE))
    inspector.from_node(handle(1, b"ab"))
    requests = [write(number, name, 0, content) for number, (name, content) in enumerate(writes, start=2)]
    stream, onward = b"".join(requests), b""
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        onward += inspector.from_client(stream[:cut]).onward
        stream = stream[cut:]
    assert onward == b"".join(one for one, (name, _) in zip(requests, writes, strict=True) if name == b"ab")
