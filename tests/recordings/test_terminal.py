"""Promises of recordings/terminal.py: a recording cannot make an auditor's terminal answer, obey, or stay changed."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recordings.terminal import TerminalSafe, plain


def shown(*chunks: bytes) -> str:
    safe = TerminalSafe()
    return "".join(safe.feed(chunk) for chunk in chunks)


@pytest.mark.parametrize(
    "sequence",
    [
        pytest.param(b"\x1b]52;c;aGk=\x07", id="OSC 52 writes the clipboard"),
        pytest.param(b"\x1b]52;c;?\x1b\\", id="OSC 52 reads the clipboard"),
        pytest.param(b"\x1b]0;<script>alert(1)</script>\x07", id="title"),
        pytest.param(b"\x1b]2;x\x9c", id="title, ended by an 8-bit ST that is not UTF-8, goes on"),
        pytest.param(b"\x1b]11;?\x07", id="what colour are you"),
        pytest.param(b"\x1b]8;;file:///etc/passwd\x07", id="hyperlink"),
        pytest.param(b"\x1b]777;notify;a;b\x07", id="notification"),
        pytest.param(b"\x1b[21t", id="title report"),
        pytest.param(b"\x1b[22;0t", id="title stack"),
        pytest.param(b"\x1b[c", id="DA1"),
        pytest.param(b"\x1b[0c", id="DA1 with a number"),
        pytest.param(b"\x1b[>c", id="DA2"),
        pytest.param(b"\x1b[=c", id="DA3"),
        pytest.param(b"\x1bZ", id="DECID"),
        pytest.param(b"\x1b[5n", id="DSR"),
        pytest.param(b"\x1b[6n", id="cursor position"),
        pytest.param(b"\x1b[?6n", id="cursor position, extended"),
        pytest.param(b"\x1b[x", id="DECREQTPARM"),
        pytest.param(b"\x1b[?1$p", id="DECRQM"),
        pytest.param(b"\x1b[1$p", id="DECRQM, ANSI"),
        pytest.param(b"\x1b[>q", id="XTVERSION"),
        pytest.param(b"\x1b[1;1;1;1;1;1*y", id="DECRQCRA"),
        pytest.param(b"\x1b[?u", id="which keyboard mode"),
        pytest.param(b"\x1b[>1u", id="keyboard mode"),
        pytest.param(b"\x1b[>4;2m", id="modifyOtherKeys"),
        pytest.param(b"\x1b[?4m", id="which modifyOtherKeys"),
        pytest.param(b"\x1b[?2;1;0S", id="which graphics"),
        pytest.param(b"\x1b[5i", id="print"),
        pytest.param(b"\x1bP$qm\x1b\\", id="DECRQSS"),
        pytest.param(b"\x1bP+q544e\x1b\\", id="XTGETTCAP"),
        pytest.param(b"\x1bPq#0;2;0;0;0~\x1b\\", id="sixel"),
        pytest.param(b"\x1b_Ga=q;AAAA\x1b\\", id="kitty graphics"),
        pytest.param(b"\x1b^x\x1b\\", id="PM"),
        pytest.param(b"\x1bXx\x1b\\", id="SOS"),
        pytest.param(b"\x05", id="ENQ"),
        pytest.param(b"\x07", id="BEL"),
        pytest.param(b"\x1b[?1000h", id="mouse"),
        pytest.param(b"\x1b[?1003;1006h", id="mouse, all of it"),
        pytest.param(b"\x1b[?25;1000h", id="mouse beside something harmless"),
        pytest.param(b"\x1b[?1004h", id="focus reports"),
        pytest.param(b"\x1b[?2004h", id="paste brackets"),
        pytest.param(b"\x1b[?1h", id="cursor keys"),
        pytest.param(b"\x1b[2h", id="keyboard lock"),
        pytest.param(b"\xc2\x9b6n", id="8-bit CSI"),
        pytest.param(b"\xc2\x9d52;c;?\xc2\x9c", id="8-bit OSC"),
        pytest.param(b"\xc2\x90$qm\xc2\x9c", id="8-bit DCS"),
        pytest.param(b"\xc2\x9a", id="8-bit DECID"),
        pytest.param(b"\x1b#3", id="double height"),
        pytest.param(b"\x1b%@", id="leave UTF-8"),
    ],
)
def test_what_a_terminal_would_answer_or_obey_does_not_pass(sequence: bytes) -> None:
    """REC-03, REC-04."""
    if sequence.endswith(b"\x9c") and not sequence.endswith(b"\xc2\x9c"):
        assert shown(b"a" + sequence + b"b\x07c") == "ac"
        return
    assert shown(b"a" + sequence + b"b") == "ab"
    assert shown(b"a", *[bytes([byte]) for byte in sequence], b"b") == "ab"


@pytest.mark.parametrize(
    "harmless",
    [
        b"plain \xe2\x82\xac text\r\n\tx\x08y",
        b"\x1b[1;31mred\x1b[0m \x1b[38;2;1;2;3mtrue\x1b[38:5:1mx\x1b[m",
        b"\x1b[2J\x1b[H\x1b[10;20Hx\x1b[K\x1b[3A\x1b[4;20r\x1b[2L\x1b[P",
        b"\x1b[?1049h\x1b[?25l\x1b[?7h\x1b[?2026h",
        b"\x1b(0lqk\x1b(B\x1b)0\x0e\x0f",
        b"\x1b7\x1b8\x1bM\x1bD\x1bc\x1b=\x1b>",
        b"\x1b[2 q\x1b[!p\x1b[4h",
    ],
)
def test_what_draws_passes_unchanged(harmless: bytes) -> None:
    assert shown(harmless) == harmless.decode()
    assert shown(*[bytes([byte]) for byte in harmless]) == harmless.decode()


def test_a_sequence_that_never_ends_hides_no_more_than_a_bounded_piece() -> None:
    text = shown(b"\x1b]52;c;" + b"A" * 70_000, b"seen")
    assert text.endswith("seen")
    text = shown(b"\x1b[" + b"1" * 70_000, b"m seen")
    assert "seen" in text
    assert "\x1b" not in text


def test_a_sequence_cut_off_by_another_does_not_take_it_with_it() -> None:
    assert shown(b"\x1b[12\x1b[31mred") == "\x1b[31mred"
    assert shown(b"\x1b]0;title\x1b[31mred") == "\x1b[31mred"
    assert shown(b"\x1b\x1b[31mred") == "\x1b[31mred"
    assert shown(b"\x1b[3\n1m") == "\n1m"
    assert shown(b"\x1b]0;x\x18y") == "y"


DRAWS = re.compile(
    r"\x1b\[[0-9:;]*[@A-HJKLMPSTXZ`abdefgmrsuIhl]|\x1b\[\?[0-9;]+[hlJK]|\x1b\[!p|\x1b\[[0-9;]* q"
    r"|\x1b[()*+][0AB12]|\x1b#8|\x1b[78=>DEHMc]"
)
alphabet = st.sampled_from(
    [
        b"\x1b",
        b"[",
        b"]",
        b"P",
        b"\\",
        b"?",
        b"6",
        b"n",
        b"c",
        b"m",
        b";",
        b"\x07",
        b"\xc2",
        b"\x9b",
        b"\x9c",
        b"a",
        b"(",
        b"0",
        b"\x18",
    ]
)


@given(st.lists(alphabet | st.binary(max_size=4), max_size=40))
def test_only_text_and_listed_sequences_come_out_however_it_arrives(chunks: list[bytes]) -> None:
    text = shown(*chunks)
    assert text == shown(b"".join(chunks))
    rest = DRAWS.sub("", text)
    assert not re.search(r"[\x00-\x07\x10-\x1f\x7f-\x9f]", rest)


def test_how_much_was_left_out_is_known() -> None:
    safe = TerminalSafe()
    safe.feed(b"\x1b[6n\x05\x1b]0;x\x07\x1b[1m")
    assert safe.dropped == 3


def test_one_line_of_foreign_text_cannot_leave_its_line() -> None:
    assert plain("ls\x1b[2J\n\x9b6n é") == "ls\\x1b[2J\\x0a\\x9b6n é"
