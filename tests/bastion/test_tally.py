"""Size and SHA-256 of files that come in pieces."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from bastion.tally import PIECE_COST, Shelf, Tally


def hashed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=12), st.randoms(use_true_random=False))
def test_pieces_in_any_order_give_the_hash_of_the_file(pieces: list[bytes], random: object) -> None:
    offsets = [sum(map(len, pieces[:n])) for n in range(len(pieces))]
    order = list(zip(offsets, pieces, strict=True))
    random.shuffle(order)  # type: ignore[attr-defined]
    tally = Tally()
    for offset, data in order:
        tally.add(offset, data)

    whole = b"".join(pieces)
    assert (tally.size, tally.sha256) == (len(whole), hashed(whole))


@given(st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=10)), max_size=12))
def test_a_hash_is_right_or_absent(pieces: list[tuple[int, bytes]]) -> None:
    tally, file, seen = Tally(), bytearray(), [0] * 60
    for offset, data in pieces:
        tally.add(offset, data)
        file += bytes(max(0, offset + len(data) - len(file)))
        file[offset : offset + len(data)] = data
        for n in range(offset, offset + len(data)):
            seen[n] += 1

    if tally.sha256:
        assert tally.sha256 == hashed(bytes(file[: sum(1 for n in seen if n)]))
        assert max(seen) <= 1
    assert tally.size == max((offset + len(data) for offset, data in pieces if data), default=0)


def test_a_hole_in_a_file_has_no_hash_but_its_size_is_exact() -> None:
    """FS-09"""
    tally = Tally()
    tally.add(0, b"a")
    tally.add(1 << 62, b"z")

    assert (tally.size, tally.sha256) == ((1 << 62) + 1, "")


def test_early_pieces_of_all_files_share_one_shelf() -> None:
    """DOS: a thousand files that each wait for their first byte."""
    shelf = Shelf(room=10 * (100 + PIECE_COST))
    files = [Tally(shelf) for _ in range(30)]
    for file in files:
        file.add(1000, bytes(100))

    assert shelf.room == 0
    for file in files:
        file.add(0, bytes(1000))
    assert sum(bool(file.sha256) for file in files) == 10
    assert shelf.room == 10 * (100 + PIECE_COST)


def test_many_tiny_pieces_cost_what_they_take() -> None:
    shelf = Shelf(room=100 * (PIECE_COST + 1))
    file = Tally(shelf)
    for offset in range(2, 1000, 2):
        file.add(offset, b"x")

    assert file.sha256 == ""
    assert shelf.room == 100 * (PIECE_COST + 1)


def test_a_file_whose_content_did_not_pass_here_has_no_hash() -> None:
    file = Tally()
    file.add(0, b"abc")
    file.give_up()

    assert (file.size, file.sha256) == (3, "")
