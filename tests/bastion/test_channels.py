"""Which requests exist and what they need: tables, and the one test that decides what an scp is."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.channels import Kind, Start, clamp, start, terminal, window_change
from ca.model import Action
from recordings.sshwire import WireError, string, uint32


def pty(term: bytes = b"xterm", columns: int = 80, rows: int = 24, modes: bytes = b"\0") -> bytes:
    size = uint32(columns) + uint32(rows) + uint32(0) + uint32(0)
    return string(term) + size + string(modes)


def test_a_shell_needs_the_right_to_a_shell() -> None:
    assert start(b"shell", b"") == Start(Kind.SHELL, (Action.SHELL,))


def test_a_command_needs_exec_and_keeps_its_bytes() -> None:
    """SSH-14"""
    assert start(b"exec", string(b"echo \xff")) == Start(Kind.EXEC, (Action.EXEC,), b"echo \xff")


def test_sftp_needs_either_right_and_any_other_subsystem_its_own() -> None:
    assert start(b"subsystem", string(b"sftp")).needs == (Action.SFTP_READ, Action.SFTP_WRITE)
    assert start(b"subsystem", string(b"foo")).needs == ("subsystem:foo",)
    assert start(b"subsystem", string(b"sftp ")).needs == ("subsystem:sftp ",)


@pytest.mark.parametrize(
    "command", [b"scp -t x", b"scp -v -r -p -d -t -- /tmp/a", b"scp -rt ~/x", b"scp -t 'a b'", b"scp -t a\\ b"]
)
def test_the_far_end_of_an_upload_needs_the_right_to_write(command: bytes) -> None:
    begun = start(b"exec", string(command))
    assert (begun.kind, begun.needs, begun.command) == (Kind.SCP_SEND, (Action.SFTP_WRITE,), command)


@pytest.mark.parametrize("command", [b"scp -f x", b"scp -r -f -- /tmp/a", b"scp -pf ."])
def test_the_far_end_of_a_download_needs_the_right_to_read(command: bytes) -> None:
    begun = start(b"exec", string(command))
    assert (begun.kind, begun.needs) == (Kind.SCP_FETCH, (Action.SFTP_READ,))


@pytest.mark.parametrize(
    "command",
    [
        b"scp -t x; bash",
        b"scp -t x\nbash",
        b"scp -t x && bash",
        b"scp -t x | sh",
        b"scp -t $(id)",
        b"scp -t `id`",
        b"scp -t x > y",
        b"scp -t *",
        b'scp -t "$x"',
        b"scp -t x #",
        b"scp -t {a,b}",
        b"scp -S prog -t x",
        b"scp -o ProxyCommand=x -t y",
        b"scp -t -S x y",
        b"scp host:file -t",
        b"scp host:file -f",
        b"scp a b -t",
        b"scp -t a b",
        b"scp -t",
        b"scp -tf x",
        b"scp x",
        b"scp -r x y",
        b"scp -t -x",
        b"scp -t -- -x",
        b"scp  ",
        b"scp",
        b"/usr/bin/scp -t x",
        b" scp -t x",
        b"scpx -t x",
        b"SCP -t x",
        b"scp -t x\0",
        b"scp -t \xff",
        b"scp -t 'x",
        b"scp\t-t x; id",
        b"env scp -t x",
        b"LD_PRELOAD=x scp -t y",
        b"scp -t x & id",
        b"scp -3 -t a",
        b"scp -t -- -- x",
        b"scp -- -t x",
        b"scp -t (x)",
        b"scp -t !x",
        b"scp -t ?",
    ],
)
def test_what_a_shell_could_read_otherwise_is_a_command_like_any_other(command: bytes) -> None:
    """FIELD: ``scp -t x; bash`` waved through by a test for the prefix."""
    assert start(b"exec", string(command)).needs == (Action.EXEC,)


@given(
    st.lists(
        st.sampled_from(["-t", "-f", "-r", "--", "x", "a b", "-v", ";", "$(id)", "host:x", "-S", "'", "\\"]), max_size=6
    )
)
def test_a_command_taken_for_scp_is_flags_and_one_path_and_nothing_else(words: list[str]) -> None:
    command = "scp " + " ".join(words)
    begun = start(b"exec", string(command.encode()))

    if begun.kind is not Kind.EXEC:
        argv = shlex.split(command)
        assert argv[0] == "scp"
        assert all(word.startswith("-") for word in argv[1:-1])
        assert not argv[-1].startswith("-")
        assert not set(command) & set(';$`|&<>(){}*?!#\n"')


@pytest.mark.parametrize("size", [(0, 0), (65535, 65535), (4_000_000_000, 1), (80, 0), (1, 1000)])
def test_a_size_is_clamped_to_what_terminals_and_players_survive(size: tuple[int, int]) -> None:
    """SSH-21"""
    columns, rows = clamp(*size)
    assert 1 <= columns <= 1000
    assert 1 <= rows <= 1000

    body = uint32(size[0]) + uint32(size[1]) + uint32(0xFFFFFFFF) + uint32(0)
    assert window_change(body) == (columns, rows, uint32(columns) + uint32(rows) + uint32(65535) + uint32(0))

    asked, clean = terminal(pty(columns=size[0], rows=size[1]))
    assert (asked.columns, asked.rows) == (columns, rows)
    assert clean == pty(columns=columns, rows=rows)


def test_a_terminals_name_has_usual_characters() -> None:
    assert terminal(pty(b"xterm-256color"))[0].term == "xterm-256color"
    assert terminal(pty(b""))[0].term == ""
    for name in (b"\x1b[2J", b"x\n", b"a" * 64, b"-x", b"\xff", b"x y"):
        with pytest.raises(WireError):
            terminal(pty(name))


@given(st.sampled_from([b"shell", b"exec", b"subsystem"]), st.binary(max_size=64))
def test_any_bytes_are_a_start_or_a_wire_error(name: bytes, body: bytes) -> None:
    try:
        assert start(name, body).needs
    except WireError:
        pass


@given(st.binary(max_size=80))
def test_any_bytes_are_a_terminal_or_a_wire_error(body: bytes) -> None:
    for read in (terminal, window_change):
        try:
            read(body)
        except WireError:
            pass
