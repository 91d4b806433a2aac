"""recordings/sshwire.py: each value has one spelling."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recordings.sshwire import Reader, WireError, boolean, mpint, string, uint32, uint64


@given(st.binary(), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**8192), st.booleans())
def test_what_is_written_is_what_is_read(text: bytes, small: int, large: int, number: int, flag: bool) -> None:
    reader = Reader(string(text) + uint32(small) + uint64(large) + mpint(number) + boolean(flag) + b"end")
    assert (reader.string(), reader.uint32(), reader.uint64()) == (text, small, large)
    assert (reader.mpint(), reader.boolean(), reader.rest()) == (number, flag, b"end")
    reader.end()


@given(st.binary(max_size=40))
def test_a_number_that_is_read_is_written_back_the_same(data: bytes) -> None:
    with suppress(WireError):
        assert mpint(Reader(string(data)).mpint()) == string(data)


@pytest.mark.parametrize(
    "data",
    [b"\x80", b"\xff\xff", b"\x00", b"\x00\x7f", b"\x00\x00\x80", b"\x01" * 3000],
    ids=["negative", "minus one", "zero", "zero in front", "two zeros", "too long"],
)
def test_a_number_in_another_form_is_refused(data: bytes) -> None:
    """The examples of RFC 4251 §5, turned round."""
    with pytest.raises(WireError):
        Reader(string(data)).mpint()


@given(st.binary(max_size=20))
def test_nothing_is_read_beyond_the_end(data: bytes) -> None:
    with pytest.raises(WireError):
        Reader(uint32(len(data) + 1) + data).string()


def test_leftovers_are_refused() -> None:
    reader = Reader(b"\x01\x02")
    assert reader.byte() == 1
    assert reader.more()
    with pytest.raises(WireError):
        reader.end()


def test_booleans_are_zero_or_one() -> None:
    with pytest.raises(WireError):
        Reader(b"\x02").boolean()


@pytest.mark.parametrize("text", [b"a,,b", b",", b"a,", "ä".encode(), b"a b", b"a\n"])
def test_a_list_of_names_holds_names(text: bytes) -> None:
    with pytest.raises(WireError):
        Reader(string(text)).name_list()


def test_a_list_of_names_may_be_empty() -> None:
    assert Reader(string(b"")).name_list() == ()
    assert Reader(string(b"a,b@c")).name_list() == ("a", "b@c")


def test_negative_numbers_are_not_written() -> None:
    with pytest.raises(WireError):
        mpint(-1)
