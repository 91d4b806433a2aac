"""Promises of recordings/reader.py: damage is named where it is, and no input can hurt the reader."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from recordings import frames, reader, seal, sshsig
from recordings.format import Header, Output, Resize
from recordings.reader import Problem, ReadError, Tail, TooLarge, Verdict
from recordings.sshkey import SignatureError
from recordings.writer import countersign
from tests.recordings.making import (
    AUTHORITIES,
    AUTHORITY,
    META,
    RECORDER,
    RECORDERS,
    STRANGER,
    allowed_signers,
    later,
    recording,
    sealed_and_countersigned,
    signed_by,
    signer,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sealed recording of two channels: c0 in two parts, the first of four frames."""
    made = recording(tmp_path)
    for second in range(0, 24, 4):
        made.write(0, Output(second, b"second %d\n" % second))
        made.flush(later(second))
    made.open_channel(1, Header(), limit=1 << 30, pty=False, record_input=False)
    made.write(1, Output(24, b"other\n"))
    made.event(24, "exit", {"status": 0})
    return sealed_and_countersigned(made)


def verdict(folder: Path) -> Verdict:
    return reader.verify(folder, recorder_keys=RECORDERS, authority_keys=AUTHORITIES)


def problems(folder: Path) -> list[tuple[str, str | None, int | None]]:
    return [(problem.code, problem.part, problem.frame) for problem in verdict(folder).problems]


def frame_sizes(path: Path) -> list[int]:
    return [len(frame.data) for frame in frames.split(path.read_bytes())]


# --- verifying ----------------------------------------------------------------------------------------------------


def test_a_recording_that_nobody_touched_verifies(folder: Path) -> None:
    found = verdict(folder)
    assert found.ok
    assert found.recorder == RECORDERS[0]
    assert found.authority == AUTHORITIES[0]
    assert found.manifest is not None
    assert len(found.manifest.parts) == 4
    assert frame_sizes(folder / "c0.000001.cast.zst") == [size for size, _ in found.manifest.parts[0].frames]
    assert len(found.manifest.parts[0].frames) == 4


def test_every_changed_byte_is_found_in_its_frame(folder: Path) -> None:
    """REC-13: one byte changed."""
    part = folder / "c0.000001.cast.zst"
    data = part.read_bytes()
    ends = [sum(frame_sizes(part)[: index + 1]) for index in range(4)]
    for at in range(len(data)):
        part.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        frame = next(index for index, end in enumerate(ends, start=1) if at < end)
        ((code, name, named),) = problems(folder)
        assert (code, name) in {("frame_changed", part.name), ("part_changed", part.name)}
        assert named in (frame, None)  # a bit that zstd ignores is known by the part's hash alone
        if named is None:
            assert frames.unpack(list(frames.split(part.read_bytes()))[frame - 1])


@pytest.mark.parametrize("frame", [1, 2, 3, 4])
def test_a_removed_frame_is_named(folder: Path, frame: int) -> None:
    """REC-13: frame removed."""
    part = folder / "c0.000001.cast.zst"
    whole = [bytes(each.data) for each in frames.split(part.read_bytes())]
    part.write_bytes(b"".join(whole[: frame - 1] + whole[frame:]))
    ((code, name, named),) = problems(folder)
    assert (name, named) == (part.name, frame)
    assert code in {"frame_changed", "part_cut"}


def test_swapped_frames_are_named(folder: Path) -> None:
    """REC-13: frames swapped."""
    part = folder / "c0.000001.cast.zst"
    first, second, third, fourth = (bytes(each.data) for each in frames.split(part.read_bytes()))
    part.write_bytes(first + third + second + fourth)
    assert problems(folder) == [("frame_changed", part.name, 2)]


@pytest.mark.parametrize("left", [0, 1, 40, -1])
def test_a_cut_tail_is_named(folder: Path, left: int) -> None:
    """REC-13: tail cut."""
    part = folder / "c0.000001.cast.zst"
    data = part.read_bytes()[:left]
    part.write_bytes(data)
    ((code, name, frame),) = problems(folder)
    assert (code, name) == ("part_cut", part.name)
    assert frame is not None
    assert sum(frame_sizes_before(folder, frame)) <= len(data)


def frame_sizes_before(folder: Path, frame: int) -> list[int]:
    return [size for size, _ in reader.manifest(folder).parts[0].frames[: frame - 1]]


def test_an_added_frame_is_named(folder: Path) -> None:
    part = folder / "c0.000001.cast.zst"
    with part.open("ab") as file:
        file.write(frames.pack(b'[99,"o","never happened"]\n'))
    assert problems(folder) == [("part_longer", part.name, None)]


def test_swapped_parts_are_named(folder: Path) -> None:
    one, two = folder / "c0.000001.cast.zst", folder / "c0.000002.cast.zst"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    found = verdict(folder).problems
    assert found == (
        Problem("part_swapped", "holds what was sealed as c0.000002.cast.zst", one.name),
        Problem("part_swapped", "holds what was sealed as c0.000001.cast.zst", two.name),
    )


def test_a_missing_part_is_named(folder: Path) -> None:
    (folder / "c1.000001.cast.zst").unlink()
    assert problems(folder) == [("part_missing", "c1.000001.cast.zst", None)]


def test_a_part_that_was_slipped_in_is_named(folder: Path) -> None:
    shutil.copy(folder / "c1.000001.cast.zst", folder / "c2.000001.cast.zst")
    assert problems(folder) == [("part_unlisted", "c2.000001.cast.zst", None)]


def test_a_link_to_the_right_bytes_is_not_the_part(folder: Path) -> None:
    part = folder / "c1.000001.cast.zst"
    part.rename(folder.parent / "elsewhere")
    part.symlink_to(folder.parent / "elsewhere")
    assert problems(folder) == [("part_missing", part.name, None)]


def test_a_changed_manifest_is_found(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"alice"', b'"carol"'))
    assert problems(folder) == [
        ("signature_invalid", "manifest.json.sig", None),
        ("signature_invalid", "manifest.json.authority.sig", None),
    ]


@pytest.mark.parametrize("name", ["manifest.json.sig", "manifest.json.authority.sig"])
def test_a_missing_signature_is_found(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert problems(folder) == [("signature_missing", name, None)]


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"-----BEGIN SSH SIGNATURE-----\n", b"x" * 100_000])
def test_a_signature_that_is_none_is_found(folder: Path, text: bytes) -> None:
    (folder / "manifest.json.sig").write_bytes(text)
    assert problems(folder) == [("signature_invalid", "manifest.json.sig", None)]


def test_a_signature_of_a_stranger_is_found(folder: Path) -> None:
    (folder / "manifest.json.sig").write_text(signed_by(STRANGER)((folder / "manifest.json").read_bytes()))
    assert problems(folder) == [("signer_unknown", "manifest.json.sig", None)]


def test_a_bastion_cannot_countersign_and_the_authority_does_not_record(folder: Path) -> None:
    for name in ("manifest.json.sig", "manifest.json.authority.sig"):
        shutil.copy(folder / name, folder / f"{name}.kept")
    shutil.copy(folder / "manifest.json.sig.kept", folder / "manifest.json.authority.sig")
    shutil.copy(folder / "manifest.json.authority.sig.kept", folder / "manifest.json.sig")
    assert [code for code, _, _ in problems(folder)] == ["signer_unknown", "signer_unknown"]


def test_a_recorder_that_rewrites_the_past_is_found_by_the_countersignature(folder: Path) -> None:
    """A bastion that was taken over seals its own version: its signature is good, the authority's is not there."""
    part = folder / "c1.000001.cast.zst"
    lie = frames.pack(b'{"version":2,"width":80,"height":24}\n[24,"o","nothing\\n"]\n')
    part.write_bytes(lie)
    manifest = reader.manifest(folder)
    parts = tuple(p if p.name != part.name else _part_of(p, lie) for p in manifest.parts)
    forged = seal.encode(_with_parts(manifest, parts))
    (folder / "manifest.json").write_bytes(forged)
    (folder / "manifest.json.sig").write_text(signed_by(RECORDER)(forged))
    assert problems(folder) == [("signature_invalid", "manifest.json.authority.sig", None)]


def test_a_key_that_was_not_in_use_then_is_found(folder: Path) -> None:
    late = seal.Signer("bastion-1", RECORDERS[0].key, valid_after=later(61))
    early = seal.Signer("bastion-1", RECORDERS[0].key, valid_before=later(60))
    for known in (late, early):
        found = reader.verify(folder, recorder_keys=[known], authority_keys=AUTHORITIES)
        assert [problem.code for problem in found.problems] == ["signer_not_valid"]


def test_a_signature_for_another_purpose_is_refused(folder: Path) -> None:
    data = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json.sig").write_text(sshsig.sign(RECORDER, data, namespace="file"))
    assert problems(folder) == [("signature_invalid", "manifest.json.sig", None)]


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"null", b'{"format":"bartizan-recording","version":1}', b"\xff"])
def test_a_manifest_that_is_none_is_said(folder: Path, text: bytes) -> None:
    (folder / "manifest.json").write_bytes(text)
    assert problems(folder) == [("manifest_malformed", "manifest.json", None)]


def test_a_live_recording_is_not_taken_for_a_sealed_one(tmp_path: Path) -> None:
    made = recording(tmp_path)
    assert problems(made.folder) == [("not_sealed", "manifest.json", None)]
    [problem] = verdict(made.folder).problems
    assert problem.message == "there is no manifest: the session still goes on, or this is no whole recording"


def test_a_manifest_whose_parts_are_out_of_order_is_found_though_it_is_signed(folder: Path) -> None:
    manifest = reader.manifest(folder)
    data = seal.encode(_with_parts(manifest, manifest.parts[::-1]))
    (folder / "manifest.json").write_bytes(data)
    (folder / "manifest.json.sig").write_text(signed_by(RECORDER)(data))
    countersign(folder, signed_by(AUTHORITY)(data))
    assert {code for code, _, _ in problems(folder)} == {"order"}


def test_allowed_signers_are_read_as_ssh_keygen_reads_them() -> None:
    recorders, authorities = seal.signers("# comment\n\n" + allowed_signers())
    assert [known.principal for known in recorders] == ["bastion-1"]
    assert recorders[0].key == RECORDERS[0].key
    assert recorders[0].valid_after is not None
    assert recorders[0].valid_after.isoformat() == "2026-01-01T00:00:00+00:00"
    assert [known.principal for known in authorities] == ["authority"]


@pytest.mark.parametrize(
    "options",
    ["", 'cert-authority,namespaces="bartizan-recording" ', 'namespaces="bartizan-recording",valid-after="x" '],
)
def test_a_line_of_allowed_signers_that_means_more_than_we_know_is_refused(options: str) -> None:
    with pytest.raises(seal.SealError):
        seal.signers(f"bastion-1 {options}{RECORDERS[0].key.line()}\n")


def test_keys_for_other_purposes_are_left_out() -> None:
    assert seal.signers(f'git namespaces="git" {RECORDERS[0].key.line()}\n') == ((), ())


def _part_of(part: seal.Part, data: bytes) -> seal.Part:
    known = ((len(data), frames.mark(data)),)
    return replace(part, bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), frames=known)


def _with_parts(manifest: seal.Manifest, parts: tuple[seal.Part, ...]) -> seal.Manifest:
    return replace(manifest, parts=parts, chain=seal.chain_of(manifest.session, parts))


# --- reading ------------------------------------------------------------------------------------------------------


def test_a_sealed_recording_is_read(folder: Path) -> None:
    assert reader.channels(folder) == [0, 1]
    assert reader.header(folder, 0) == Header(timestamp=int(later(0).timestamp()))
    assert [event.at for event in reader.events(folder, 0)] == [0, 4, 8, 12, 16, 20]
    assert list(reader.session_events(folder)) == [{"at": 24, "code": "exit", "fields": {"status": 0}}]


def test_a_missing_part_is_not_read_over(folder: Path) -> None:
    (folder / "c0.000001.cast.zst").unlink()
    with pytest.raises(ReadError, match="part 000001 of c0 is missing"):
        list(reader.events(folder, 0))


def test_a_damaged_frame_is_named_when_reading(folder: Path) -> None:
    part = folder / "c0.000001.cast.zst"
    data = bytearray(part.read_bytes())
    data[sum(frame_sizes(part)[:2]) - 1] ^= 1
    part.write_bytes(data)
    with pytest.raises(ReadError, match=r"c0\.000001\.cast\.zst, frame 2") as caught:
        list(reader.events(folder, 0))
    assert (caught.value.part, caught.value.frame) == (part.name, 2)


def test_a_sealed_recording_that_is_cut_is_not_read_as_if_it_were_whole(folder: Path) -> None:
    part = folder / "c0.000002.cast.zst"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(ReadError):
        list(reader.events(folder, 0))


def test_a_channel_that_does_not_exist_is_said(folder: Path) -> None:
    with pytest.raises(ReadError):
        reader.header(folder, 7)
    assert list(reader.events(folder, 7)) == []


# --- bombs --------------------------------------------------------------------------------------------------------


def bomb(folder: Path, data: bytes) -> Path:
    folder.mkdir()
    (folder / "c0.000001.cast.zst").write_bytes(data)
    return folder


def test_a_part_that_unpacks_to_gigabytes_is_refused_before_it_is(tmp_path: Path) -> None:
    """REC-08: 1 MB → 10 GB."""
    frame = frames.pack(bytes(16 << 20))
    packed = frame * (10 << 30 >> 24)
    assert len(packed) < 1 << 20
    with pytest.raises(TooLarge):
        for _ in frames_of(bomb(tmp_path / "s1", b"".join([frames.pack(HEADER), packed]))):
            pass


HEADER = b'{"version":2,"width":80,"height":24}\n'


def frames_of(folder: Path) -> list[object]:
    """Unpacks the whole stream, whatever is in it."""
    return [len(content) for _, _, content in reader._contents(folder, "c0")]


def test_a_frame_that_says_it_is_huge_is_refused_unread(tmp_path: Path) -> None:
    """REC-08."""
    with pytest.raises(TooLarge):
        list(reader.events(bomb(tmp_path / "s1", frames.pack(bytes((16 << 20) + 1))), 0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress(b"x"),
        lambda: zstandard.ZstdCompressor(write_checksum=False).compress(b"x"),
        lambda: b"\x28\xb5\x2f\xfd" + bytes(20),
        lambda: b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd",
        lambda: b"plain text\n",
        lambda: frames.pack(b""),
        lambda: frames.pack(b"\n"),
        lambda: frames.pack(b"{}\n"),
    ],
)
def test_what_is_not_a_frame_of_ours_is_refused(tmp_path: Path, make: Callable[[], bytes]) -> None:
    with pytest.raises(ReadError):
        list(reader.events(bomb(tmp_path / "s1", make()), 0))


def test_a_file_that_is_too_long_to_be_a_part_is_refused(tmp_path: Path) -> None:
    folder = bomb(tmp_path / "s1", b"")
    os.truncate(folder / "c0.000001.cast.zst", 1 << 40)
    with pytest.raises(ReadError, match="cannot be read"):
        list(reader.events(folder, 0))


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_can_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes, framed: bool) -> None:
    folder = bomb(tmp_path_factory.mktemp("r") / "s1", frames.pack(data) if framed else data)
    try:
        list(reader.events(folder, 0))
        Tail(folder, 0).poll()
    except ReadError:
        pass
    assert not verdict(folder).ok


@given(st.data())
def test_no_change_to_a_recording_can_crash_the_reader(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    made = recording(tmp_path_factory.mktemp("r"))
    made.write(0, Output(0.1, b"x" * 40))
    folder = sealed_and_countersigned(made)
    path = folder / data.draw(st.sampled_from(sorted(path.name for path in folder.iterdir())))
    old = path.read_bytes()
    start = data.draw(st.integers(0, len(old)))
    new = old[:start] + data.draw(st.binary(max_size=10)) + old[start + data.draw(st.integers(0, 20)) :]
    path.write_bytes(new)
    try:
        list(reader.events(folder, 0))
    except ReadError:
        pass
    # Where the lines of an armored signature break says nothing, as ssh-keygen has it.
    same = path.suffix == ".sig" and unarmored(new) == unarmored(old)
    assert verdict(folder).ok == (new == old or same)


def unarmored(text: bytes) -> bytes | None:
    """The signature in *text*, however its lines are broken; None if there is none."""
    try:
        return sshsig._unarmor(text.decode("ascii"))
    except (SignatureError, UnicodeDecodeError):
        return None


@pytest.mark.parametrize("breaks", ["\r\n", "\n\n", "\nAAAA\n"])
def test_other_line_breaks_in_a_signature_change_nothing_and_other_letters_all(tmp_path: Path, breaks: str) -> None:
    folder = sealed_and_countersigned(recording(tmp_path))
    path = folder / "manifest.json.authority.sig"
    first, rest = path.read_text().split("\n", 1)
    path.write_bytes(f"{first}{breaks}{rest}".encode())
    assert verdict(folder).ok == ("AAAA" not in breaks)


# --- following ----------------------------------------------------------------------------------------------------


def test_following_gives_everything_once_and_says_when_it_is_over(tmp_path: Path) -> None:
    made = recording(tmp_path, pty=True)
    tail = Tail(made.folder, 0)
    assert tail.poll() == []
    written, read = [], []
    for second in range(0, 40, 3):
        event = Output(second, b"caf\xe9 %d" % second)
        written.append(event)
        made.write(0, event)
        made.flush(later(second))
        if second % 2:
            read += tail.poll()
    assert tail.header is not None
    assert tail.header.pty
    assert not tail.ended
    made.write(0, Resize(50, 100, 40))
    made.seal(later(51), "closed")
    read += tail.poll()
    assert read == [*written, Resize(50, 100, 40)]
    assert tail.ended


def test_following_waits_for_a_frame_that_is_being_written(tmp_path: Path) -> None:
    made = recording(tmp_path)
    made.write(0, Output(1, b"one"))
    made.flush(later(1))
    part = made.folder / "c0.000001.cast.zst"
    frame = frames.pack(b'[2,"o","two"]\n')
    tail = Tail(made.folder, 0)
    assert tail.poll() == [Output(1, b"one")]
    for end in range(len(frame)):
        part.write_bytes(part.read_bytes() + frame[end : end + 1])
        assert tail.poll() == ([Output(2, b"two")] if end == len(frame) - 1 else [])


# --- finding ------------------------------------------------------------------------------------------------------


def test_the_list_is_newest_first_and_knows_live_and_sealed(tmp_path: Path) -> None:
    sealed_and_countersigned(recording(tmp_path, "s1"))
    live = recording(tmp_path, "s2")
    live.write(0, Output(0, b"x"))
    live.flush(later(0))
    entries = {entry.session: entry for entry in reader.listing(tmp_path)}
    assert (entries["s1"].how, entries["s1"].ended, entries["s1"].meta) == ("closed", later(60), META)
    assert (entries["s2"].how, entries["s2"].started, entries["s2"].meta) == (None, later(0), META)
    assert entries["s2"].bytes > 0


def test_one_broken_recording_does_not_hide_the_others(tmp_path: Path) -> None:
    for index in range(4):
        sealed_and_countersigned(recording(tmp_path, f"s{index}"))
    day = tmp_path / "2026/03/01"
    (day / "s1/manifest.json").write_bytes(b"\xff")
    shutil.rmtree(day / "s2")
    (day / "s2").mkdir()
    (day / "notes.txt").write_text("not a recording")
    (day / "link").symlink_to(day / "s3")
    (tmp_path / "lost+found").mkdir()
    entries = reader.listing(tmp_path)
    assert [(entry.session, entry.problem is None) for entry in entries] == [
        ("s3", True),
        ("s0", True),
        ("s2", False),
        ("s1", False),
    ]


def test_a_recording_is_found_by_its_id_alone(tmp_path: Path) -> None:
    made = recording(tmp_path)
    assert reader.find(tmp_path, "s1") == made.folder
    for other in ("s2", "../01/s1", "*", "", "."):
        assert reader.find(tmp_path, other) is None
    assert reader.find(tmp_path / "nothing", "s1") is None
    assert reader.listing(tmp_path / "nothing") == []


def test_a_stranger_may_be_a_recorder_elsewhere(folder: Path) -> None:
    found = reader.verify(folder, recorder_keys=[signer("other", STRANGER)], authority_keys=AUTHORITIES)
    assert [problem.code for problem in found.problems] == ["signer_unknown"]
