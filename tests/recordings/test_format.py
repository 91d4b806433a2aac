"""Laws of recordings/format.py: what we write is what we read, and nothing else is taken for it."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recordings.format import (
    Digest,
    Event,
    FormatError,
    Header,
    Input,
    Marker,
    Output,
    Resize,
    Stderr,
    decode,
    decode_header,
    decode_lines,
    encode,
    encode_header,
    split_character,
)

times = st.integers(0, 10**12).map(lambda micro: round(micro / 1e6, 6))
data = st.binary(max_size=200) | st.text(max_size=50).map(str.encode)
texts = st.text(max_size=40)
sizes = st.integers(1, 1000)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Output, times, data),
    st.builds(Stderr, times, data),
    st.builds(Input, times, data),
    st.builds(Resize, times, sizes, sizes),
    st.builds(Marker, times, texts),
    st.builds(
        Digest,
        times,
        st.sampled_from("oei"),
        st.integers(0, 1 << 50),
        st.binary(min_size=32, max_size=32).map(bytes.hex),
    ),
)
maybe = st.none() | texts
headers = st.builds(Header, sizes, sizes, st.integers(0, 1 << 40), maybe, maybe, maybe, st.booleans())


@given(events)
def test_what_we_write_is_what_we_read(event: Event) -> None:
    """REC-14: invalid UTF-8 and NUL survive exactly."""
    assert decode(encode(event)) == event


@given(st.lists(events), st.booleans())
def test_a_whole_stream_is_read_as_it_was_written_every_byte_once(written: list[Event], pty: bool) -> None:
    lines = b"".join(encode(event, pty=pty) for event in written).splitlines(keepends=True)
    assert list(decode_lines(lines, pty=pty)) == written


@given(headers)
def test_a_header_is_read_as_it_was_written(header: Header) -> None:
    assert decode_header(encode_header(header)) == header


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
near_misses = st.tuples(
    st.floats() | st.integers(), st.sampled_from(["o", "ob", "od", "r", "m", "zz", "", "b"]), st.text()
)
lines = (
    st.binary() | st.text().map(str.encode) | (json_values | near_misses).map(lambda v: json.dumps(v).encode() + b"\n")
)


@given(lines)
def test_no_line_can_crash_the_reader(line: bytes) -> None:
    """REC-07: another version, comments, unknown codes, garbage: refused with our own error."""
    with suppress(FormatError):
        decode(line)
    with suppress(FormatError):
        decode_header(line)
    with suppress(FormatError):
        list(decode_lines([line, line], pty=True))


@given(events)
def test_a_cut_line_is_reported_not_guessed(event: Event) -> None:
    with pytest.raises(FormatError):
        decode(encode(event)[:-1])


@given(st.lists(st.text(max_size=5)), st.integers(1, 7))
def test_text_cut_anywhere_is_put_together_again(pieces: list[str], step: int) -> None:
    """REC-14: a character split over two messages stays one."""
    whole = "".join(pieces).encode()
    shown, rest = "", b""
    for start in range(0, len(whole), step):
        head, rest = split_character(rest + whole[start : start + step])
        shown += head.decode()
    assert (shown.encode(), rest) == (whole, b"")


@given(st.binary())
def test_splitting_loses_nothing(data: bytes) -> None:
    head, rest = split_character(data)
    assert head + rest == data
    assert len(rest) <= 3


@pytest.mark.parametrize(
    "line",
    [
        b"# a comment\n",
        b'{"version": 1, "width": 80, "height": 24}\n',
        b'{"version": 3, "term": {"cols": 80, "rows": 24}}\n',
        b'{"version": 2, "width": true, "height": 24}\n',
        b'{"version": 2, "width": 80, "height": 24, "timestamp": 1e300}\n',
    ],
)
def test_other_formats_are_refused(line: bytes) -> None:
    """REC-07."""
    with pytest.raises(FormatError):
        decode_header(line)


@pytest.mark.parametrize(
    "line",
    [
        b'[true,"o","x"]\n',
        b'[-1,"o","x"]\n',
        b'[1,"x","0"]\n',
        b'[1,"o","x",1]\n',
        b'[1,"ob","!!"]\n',
        b'[1,"ob","YQ"]\n',
        b'[1,"ob","YQ=="]\n',
        b'[1,"r","80 x24"]\n',
        b'[1,"r","-1x24"]\n',
        b'[1,"od","12 abc"]\n',
        b'[1,"o","\\ud800"]\n',
        b"[" * 5000 + b"\n",
    ],
)
def test_a_line_of_another_shape_is_refused(line: bytes) -> None:
    with pytest.raises(FormatError):
        decode(line)


def test_a_window_has_between_1_and_1000_columns_and_rows() -> None:
    assert Resize(0, 0, 4_294_967_295) == Resize(0, 1, 1000)
    assert (Header(width=-5, height=5000).width, Header(height=5000).height) == (1, 1000)


def test_bytes_that_are_not_text_are_shown_on_a_pty_and_counted_once() -> None:
    written = encode(Output(1.5, b"caf\xe9"), pty=True)
    assert written == b'[1.5,"ob","Y2Fm6Q=="]\n[1.5,"o","caf\xef\xbf\xbd"]\n'
    assert list(decode_lines(written.splitlines(keepends=True), pty=True)) == [Output(1.5, b"caf\xe9")]


def test_a_player_cannot_be_shown_something_else_than_the_bytes() -> None:
    """The text beside base64 is checked: what an auditor saw in a stock player is what was there."""
    shown = [b'[1.5,"ob","Y2Fm6Q=="]\n', b'[1.5,"o","tea"]\n']
    with pytest.raises(FormatError, match="does not show them"):
        list(decode_lines(shown, pty=True))
    with pytest.raises(FormatError, match="missing"):
        list(decode_lines(shown[:1], pty=True))


def test_text_that_holds_what_looks_like_html_or_a_theme_is_only_text() -> None:
    """REC-01, REC-05: strings are JSON strings; themes and env of others are not read."""
    header = decode_header(
        b'{"version":2,"width":80,"height":24,"theme":{"fg":"url(x)"},"env":{"TERM":"<b>"},"title":"</script>"}\n'
    )
    assert header == Header(title="</script>", term="<b>")


def test_a_name_that_is_not_unicode_does_not_stop_the_recorder() -> None:
    assert decode_header(encode_header(Header(command="rm \udcff"))).command == "rm ?"
