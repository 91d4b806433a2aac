"""Promises of recordings/screen.py: the text that a person saw, and nothing that runs."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from recordings.format import Event, Header, Output, Resize
from recordings.screen import Screen, seen

HEADER = Header(width=40, height=5)


def texts(*events: Event) -> list[str]:
    return [line for _, line in seen(HEADER, events)]


def test_colours_and_moves_are_carried_out_not_shown() -> None:
    screen = Screen(40, 5)
    screen.feed(b"\x1b[1;31mred\x1b[0m\r\nabc\x1b[2Dx\x1b]0;title\x07\x1b[6n")
    assert screen.lines() == ["red", "axc"]


def test_lines_that_scrolled_away_within_one_message_were_seen() -> None:
    assert texts(Output(1, b"".join(b"line %d\r\n" % index for index in range(50)))) == [
        f"line {index}" for index in range(50)
    ]


def test_a_line_is_found_at_the_time_it_appeared() -> None:
    found = list(seen(HEADER, [Output(1, b"one\r\n"), Output(5, b"two\r\n"), Output(9, b"three")]))
    assert found == [(1, "one"), (5, "two"), (9, "three")]


def test_text_that_was_overwritten_was_seen() -> None:
    assert texts(Output(1, b"secret plan"), Output(3, b"\x1b[2J\x1b[Hnothing here")) == ["secret plan", "nothing here"]


def test_wide_and_broken_characters_are_survived() -> None:
    assert texts(Output(1, "漢字 é".encode()), Output(2, b"\r\n\xff\xfe"))[0] == "漢字 é"


def test_a_giant_window_does_not_cost_a_gigabyte() -> None:
    screen = Screen(1000, 1000)
    screen.resize(1000, 1000)
    screen.feed(b"x")
    assert screen.lines() == ["x"]


@given(st.lists(st.binary(max_size=60) | st.tuples(st.integers(1, 50), st.integers(1, 50)), max_size=12))
def test_no_bytes_can_crash_the_screen(steps: list[bytes | tuple[int, int]]) -> None:
    events: list[Event] = [
        Output(at, step) if isinstance(step, bytes) else Resize(at, *step) for at, step in enumerate(steps)
    ]
    for _, line in seen(HEADER, events):
        assert "\x1b" not in line


escapes = st.lists(
    st.sampled_from(["\x1b[", "\x1b", "\x1b(", "?", ";", "9999", "0", "7", "25"])
    | st.sampled_from(list("ABCDEFGHJKLMPXZ@dfghlmrsu`ae\r\n#08=>c")),
    max_size=30,
).map("".join)


@given(escapes)
@example("\x1b[9999J\x1b[9999K")
def test_no_escape_sequence_can_crash_the_screen(text: str) -> None:
    texts(Output(0, text.encode()), Resize(1, 3, 2), Output(2, text.encode()))
