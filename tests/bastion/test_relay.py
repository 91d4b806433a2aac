"""Laws of bastion/relay.py: what passes, what is recorded before it passes, and how a channel ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bastion import relay
from bastion.channels import Start
from bastion.relay import (
    HELD_BYTES,
    Began,
    Broken,
    ChannelRelay,
    Close,
    Data,
    Eof,
    Extended,
    Message,
    Note,
    Order,
    Passed,
    RecordError,
    RecordInput,
    RecordOutput,
    RecordResize,
    Reply,
    Request,
    ToClient,
    ToNode,
    Used,
    Window,
)
from recordings.sshwire import WireError, string, uint32

WINDOW = 1 << 20
RESERVE = 8192
SHELL = Request(b"shell", True, b"")
EXIT_255 = ToClient(Request(b"exit-status", False, uint32(255)))


def command(text: bytes = b"id", *, want_reply: bool = True) -> Request:
    return Request(b"exec", want_reply, string(text))


def pty(columns: int = 80, rows: int = 24) -> Request:
    return Request(b"pty-req", True, string(b"xterm") + size(columns, rows) + string(b"\0"))


def size(columns: int, rows: int) -> bytes:
    return uint32(columns) + uint32(rows) + uint32(0) + uint32(0)


def exited(status: int = 0) -> Request:
    return Request(b"exit-status", False, uint32(status))


def make(
    *, window: int = WINDOW, granted: Iterable[str] = ("shell", "exec", "sftp.read", "sftp.write")
) -> ChannelRelay:
    allowed = set(granted)
    return ChannelRelay(
        client_window=window, permits=allowed.__contains__, why_not=lambda action: f"no {action} for you"
    )


def feed(channel: ChannelRelay, *script: tuple[str, Message]) -> list[Order]:
    """Play *script*; gives the orders that its last message led to."""
    orders: list[Order] = []
    for side, message in script:
        orders = list(channel.from_client(message) if side == "client" else channel.from_node(message))
    return orders


def running(**options: object) -> ChannelRelay:
    """A channel on which a command runs."""
    channel = make(**options)  # type: ignore[arg-type]
    feed(channel, ("client", command()), ("node", Reply(True)))
    return channel


def kinds(orders: Iterable[Order]) -> list[str]:
    return [type(order).__name__ for order in orders]


# --- recorded before forwarded --------------------------------------------------------------------------------


def test_a_byte_is_recorded_before_it_is_shown() -> None:
    assert feed(running(), ("node", Data(b"hi"))) == [RecordOutput(b"hi"), ToClient(Data(b"hi"))]


def test_input_is_recorded_before_it_reaches_the_node() -> None:
    assert feed(running(), ("client", Data(b"hi"))) == [RecordInput(b"hi"), ToNode(Data(b"hi"))]


def test_standard_error_is_recorded_apart() -> None:
    orders = feed(running(), ("node", Extended(1, b"oops")))
    assert orders == [RecordError(b"oops"), ToClient(Extended(1, b"oops"))]


def test_the_stream_of_the_recording_begins_before_the_command_is_passed_on() -> None:
    orders = feed(make(), ("client", command(b"id \xff")))

    assert kinds(orders) == ["Began", "Used", "Note", "ToNode"]
    assert orders[-1] == ToNode(command(b"id \xff"))
    assert isinstance(orders[2], Note)
    assert orders[2].fields["command"] == "id \\xff"


def test_a_resize_is_recorded_and_clamped() -> None:
    """SSH-21"""
    channel = make()
    feed(channel, ("client", pty()), ("node", Reply(True)), ("client", SHELL), ("node", Reply(True)))
    orders = feed(channel, ("client", Request(b"window-change", False, size(0, 4_000_000_000))))

    assert orders == [RecordResize(1, 1000), ToNode(Request(b"window-change", False, size(1, 1000)))]


@given(st.lists(st.tuples(st.sampled_from(["client", "node"]), st.binary(min_size=1, max_size=40), st.booleans())))
def test_whatever_passes_was_recorded_just_before(script: list[tuple[str, bytes, bool]]) -> None:
    channel = running()
    passed: list[Order] = []
    for side, data, apart in script:
        message = Extended(1, data) if apart and side == "node" else Data(data)
        passed += feed(channel, (side, message))

    for before, order in zip([None, *passed], passed, strict=False):
        match order:
            case ToClient(Data(data)):
                assert before == RecordOutput(data)
            case ToClient(Extended(_, data)):
                assert before == RecordError(data)
            case ToNode(Data(data)):
                assert before == RecordInput(data)
            case _:
                pass
    assert sum(isinstance(order, ToClient | ToNode) for order in passed) == len(script)


# --- requests -------------------------------------------------------------------------------------------------


def test_a_request_that_is_not_granted_gets_one_line_status_255_and_the_end() -> None:
    channel = make(granted=["shell"])
    orders = feed(channel, ("client", command()))

    assert [order for order in orders if isinstance(order, ToClient | ToNode)] == [
        ToClient(Reply(True)),
        ToClient(Extended(1, b"bartizan: no exec for you\n")),
        EXIT_255,
        ToClient(Eof()),
        ToClient(Close()),
        ToNode(Close()),
    ]
    assert not any(isinstance(order, Used) for order in orders)
    refused = next(order for order in orders if isinstance(order, Note) and order.code == "session.refused")
    assert refused.fields["command"] == "id"


def test_after_a_refusal_nothing_passes_in_either_direction() -> None:
    channel = make(granted=["shell"])
    feed(channel, ("client", command()))

    assert feed(channel, ("client", Data(b"x"))) == []
    assert feed(channel, ("client", SHELL)) == []
    assert feed(channel, ("node", Data(b"x"))) == []
    assert feed(channel, ("node", exited())) == []
    assert feed(channel, ("node", Close())) == []
    assert feed(channel, ("client", Close())) == []
    assert channel.over


def test_a_channel_starts_one_thing() -> None:
    channel = running()
    orders = feed(channel, ("client", SHELL))

    assert orders[-1] == ToClient(Reply(False))
    assert not any(isinstance(order, ToNode) for order in orders)


def test_a_second_terminal_is_refused() -> None:
    """SSH-12"""
    channel = make()
    feed(channel, ("client", pty()), ("node", Reply(True)))
    assert feed(channel, ("client", pty()))[-1] == ToClient(Reply(False))


def test_a_terminal_after_the_start_is_refused() -> None:
    orders = feed(running(), ("client", pty()))
    assert orders[-1] == ToClient(Reply(False))
    assert not any(isinstance(order, ToNode) for order in orders)


@pytest.mark.parametrize("signal", [b"KILL; x", b"", b"FOO", b"int", b"\xff"])
def test_an_unknown_signal_is_dropped(signal: bytes) -> None:
    """SSH-23"""
    orders = feed(running(), ("client", Request(b"signal", False, string(signal))))
    assert not any(isinstance(order, ToNode) for order in orders)


def test_a_signal_and_a_break_pass_and_are_noted() -> None:
    signal, pause = Request(b"signal", False, string(b"INT")), Request(b"break", True, uint32(500))
    assert feed(running(), ("client", signal)) == [Note("channel.signal", {"signal": "INT"}), ToNode(signal)]
    assert feed(running(), ("client", pause)) == [Note("channel.break", {"milliseconds": 500}), ToNode(pause)]


@pytest.mark.parametrize("name", [b"LANG", b"LC_ALL", b"LC_X", b"TZ", b"GIT_PROTOCOL"])
def test_a_harmless_variable_passes_and_is_noted(name: bytes) -> None:
    request = Request(b"env", False, string(name) + string(b"v"))
    assert feed(make(), ("client", request)) == [
        Note("channel.env", {"name": name.decode(), "value": "v"}),
        ToNode(request),
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"LD_PRELOAD", b"x"),
        (b"PATH", b"x"),
        (b"LC_", b"x"),
        (b"LANG\0", b"x"),
        (b"LANG", b"a\0b"),
        (b"LANG", bytes(5000)),
    ],
)
def test_other_variables_do_not_pass(name: bytes, value: bytes) -> None:
    orders = feed(make(), ("client", Request(b"env", True, string(name) + string(value))))
    assert orders == [ToClient(Reply(False))]


@pytest.mark.parametrize("name", [b"auth-agent-req@openssh.com", b"x11-req"])
def test_a_forward_is_refused_by_its_name(name: bytes) -> None:
    """SSH-16, SSH-17"""
    orders = feed(make(), ("client", Request(name, True, b"")))
    assert kinds(orders) == ["Note", "ToClient"]
    assert orders[1] == ToClient(Reply(False))
    assert isinstance(orders[0], Note)
    assert orders[0].fields["action"].startswith("forward.")  # type: ignore[attr-defined]


def test_an_unknown_request_is_refused_and_noted() -> None:
    orders = feed(make(), ("client", Request(b"x" * 5000, True, b"")))
    assert kinds(orders) == ["Note", "ToClient"]


@given(
    st.sampled_from(
        [b"pty-req", b"env", b"signal", b"window-change", b"exec", b"subsystem", b"shell", b"break", b"zzz"]
    ),
    st.binary(max_size=40),
)
def test_any_request_passes_is_answered_or_breaks_the_connection(name: bytes, body: bytes) -> None:
    orders = feed(make(), ("client", Request(name, True, body)))
    answered = [
        o
        for o in orders
        if isinstance(o, ToNode | Broken) or (isinstance(o, ToClient) and isinstance(o.message, Reply))
    ]
    assert answered


def test_replies_keep_the_order_of_their_requests() -> None:
    """RFC 4254 §5.4"""
    channel = make()
    feed(channel, ("client", Request(b"env", True, string(b"LANG") + string(b"C"))))
    assert feed(channel, ("client", Request(b"zzz", True, b"")))[1:] == []  # ours waits for the node's
    assert feed(channel, ("node", Reply(True))) == [ToClient(Reply(True)), ToClient(Reply(False))]


@given(st.lists(st.sampled_from(["env", "zzz", "node"]), max_size=60))
def test_every_request_gets_one_reply_in_its_turn(script: list[str]) -> None:
    channel, expected, replies, with_node = make(), [], [], 0
    for step in script:
        if step == "node" and with_node:
            with_node -= 1
            orders = feed(channel, ("node", Reply(True)))
        elif step == "env":
            with_node += 1
            expected.append(True)
            orders = feed(channel, ("client", Request(b"env", True, string(b"LANG") + string(b"C"))))
        elif step == "zzz":
            expected.append(False)
            orders = feed(channel, ("client", Request(b"zzz", True, b"")))
        else:
            continue
        replies += [o.message.ok for o in orders if isinstance(o, ToClient) and isinstance(o.message, Reply)]
    for _ in range(with_node):
        orders = feed(channel, ("node", Reply(True)))
        replies += [o.message.ok for o in orders if isinstance(o, ToClient) and isinstance(o.message, Reply)]

    assert replies == expected


def test_sixty_five_requests_at_once_break_the_connection() -> None:
    """DOS-08"""
    channel = make()
    request = Request(b"env", True, string(b"LANG") + string(b"C"))
    for _ in range(64):
        assert not any(isinstance(order, Broken) for order in feed(channel, ("client", request)))
    assert feed(channel, ("client", request)) == [Broken("client", "too many channel requests at once")]


def test_answers_to_nothing_break_the_connection() -> None:
    """DOS-09"""
    assert kinds(feed(running(), ("client", Reply(True)))) == ["Broken"]
    assert feed(running(), ("node", Reply(True))) == [Broken("node", "an answer to a request nobody made")]


def test_a_request_of_the_node_is_answered_by_the_user() -> None:
    channel = running()
    asked = Request(b"keepalive@openssh.com", True, b"")
    assert feed(channel, ("node", asked)) == [ToClient(asked)]
    assert feed(channel, ("client", Reply(False))) == [ToNode(Reply(False))]
    assert kinds(feed(channel, ("client", Reply(False)))) == ["Broken"]


def test_a_request_of_the_node_that_nobody_knows_stays_here() -> None:
    assert feed(running(), ("node", Request(b"zzz", True, b""))) == [ToNode(Reply(False))]
    assert feed(running(), ("node", Request(b"zzz", False, b""))) == []


# --- the terminal ----------------------------------------------------------------------------------------------


def test_with_a_terminal_the_recording_knows_it() -> None:
    channel = make()
    feed(channel, ("client", pty(100, 30)), ("node", Reply(True)))
    began = next(order for order in feed(channel, ("client", SHELL)) if isinstance(order, Began))

    assert began.terminal is not None
    assert (began.terminal.term, began.terminal.columns, began.terminal.rows) == ("xterm", 100, 30)


def test_what_starts_waits_until_the_node_has_granted_the_terminal() -> None:
    channel = make()
    feed(channel, ("client", pty()))
    assert feed(channel, ("client", SHELL)) == []
    assert feed(channel, ("client", Data(b"early"))) == []
    orders = feed(channel, ("node", Reply(True)))

    assert kinds(orders) == ["ToClient", "Began", "Used", "Note", "ToNode", "RecordInput", "ToNode"]
    assert orders[-1] == ToNode(Data(b"early"))


def test_a_terminal_that_the_node_refuses_is_none_so_that_input_is_recorded_in_full() -> None:
    """No byte without a record: a script on stdin must not pass for keystrokes."""
    channel = make()
    feed(channel, ("client", pty()), ("client", command(b"bash")), ("client", Data(b"rm -r x")))
    orders = feed(channel, ("node", Reply(False)))

    assert orders[0] == Note("channel.no_pty", {})
    assert orders[1] == ToClient(Reply(False))
    began = next(order for order in orders if isinstance(order, Began))
    assert began.terminal is None
    assert RecordInput(b"rm -r x") in orders


def test_a_terminal_is_asked_for_with_a_reply_even_if_the_user_wants_none() -> None:
    channel = make()
    silent = Request(b"pty-req", False, pty().body)
    asked = feed(channel, ("client", silent))[-1]

    assert asked == ToNode(pty())
    assert feed(channel, ("node", Reply(True))) == []


def test_while_the_terminal_is_undecided_little_is_kept_and_closing_works() -> None:
    channel = make()
    feed(channel, ("client", pty()), ("client", SHELL))
    orders: list[Order] = []
    for _ in range(relay.HELD_MESSAGES):
        orders += feed(channel, ("client", Data(b"x")))
    assert kinds(orders) == ["Broken"]
    assert feed(channel, ("client", Close())) == [ToNode(Close())]


# --- windows ---------------------------------------------------------------------------------------------------


def test_windows_are_end_to_end_less_a_small_reserve() -> None:
    channel = running()
    assert channel.first_window == WINDOW - RESERVE
    assert feed(channel, ("client", Window(1000))) == [ToNode(Window(1000))]
    assert feed(channel, ("node", Window(1000))) == [ToClient(Window(1000))]


def test_the_reserve_is_restored_from_what_the_client_opens_next() -> None:
    channel = running()
    said = next(channel.tell("hello"))
    assert isinstance(said, RecordError)
    list(channel.from_client(Window(5)))
    length = len(said.data)

    channel = running()
    list(channel.tell("hello"))
    assert feed(channel, ("client", Window(length + 100))) == [ToNode(Window(100))]


def test_a_node_that_sends_more_than_its_window_is_cut_off() -> None:
    channel = running(window=1000)
    assert feed(channel, ("node", Data(bytes(channel.first_window))))[-1] == ToClient(Data(bytes(875)))
    assert feed(channel, ("node", Data(b"x"))) == [Broken("node", "more data than the window allows")]
    assert feed(channel, ("node", Extended(1, b"x"))) == [Broken("node", "more data than the window allows")]


def test_a_client_that_opens_its_window_later_can_still_be_spoken_to() -> None:
    channel = make(window=0, granted=[])
    feed(channel, ("client", Window(65_536)))
    orders = feed(channel, ("client", SHELL))
    assert ToClient(Extended(1, b"bartizan: no shell for you\n")) in orders


@settings(max_examples=max(200, settings.default.max_examples))
@given(
    st.integers(0, 100_000),
    st.lists(
        st.one_of(
            st.tuples(st.just("opens"), st.integers(0, 50_000)),
            st.tuples(st.just("sends"), st.integers(0, 50_000)),
            st.tuples(st.just("errs"), st.integers(0, 50_000)),
            st.tuples(st.just("tell"), st.integers(1, 900)),
        ),
        max_size=30,
    ),
)
def test_the_client_is_never_sent_more_than_it_opened(window: int, script: list[tuple[str, int]]) -> None:
    """For any node that keeps to its window; and all that the client opened reaches the node but for the reserve."""
    channel = make(window=window)
    opened, sent, node_may = window, 0, channel.first_window
    list(channel.from_client(command()))
    for step, amount in script:
        if step == "opens":
            opened += amount
            orders = list(channel.from_client(Window(amount)))
        elif step == "tell":
            orders = list(channel.tell("x" * amount))
        else:
            data = bytes(min(amount, node_may))
            node_may -= len(data)
            orders = list(channel.from_node(Data(data) if step == "sends" else Extended(1, data)))
        for order in orders:
            match order:
                case ToClient(Data(data) | Extended(_, data)):
                    sent += len(data)
                case ToNode(Window(more)):
                    node_may += more
                case Broken():
                    raise AssertionError(order)
                case _:
                    pass
        assert sent <= opened
        assert sent + node_may <= opened
        assert opened - sent - node_may <= RESERVE


# --- the end ---------------------------------------------------------------------------------------------------

CLOSINGS = [
    [("client", Close()), ("node", Close())],
    [("node", Close()), ("client", Close())],
    [("client", Eof()), ("node", Eof()), ("node", exited()), ("node", Close()), ("client", Close())],
    [("node", exited()), ("node", Eof()), ("node", Close()), ("client", Eof()), ("client", Close())],
    [("client", Close()), ("client", Close()), ("node", Data(b"x")), ("node", Close()), ("node", Close())],
    [("node", Eof()), ("client", Close()), ("node", Close())],
]


@pytest.mark.parametrize("script", CLOSINGS)
def test_each_side_gets_one_close_whatever_the_order(script: list[tuple[str, Message]]) -> None:
    channel, orders = running(), []
    for n, (side, message) in enumerate(script):
        assert not bool(channel.over), n
        orders += feed(channel, (side, message))
        if channel.over:
            break

    assert channel.over
    assert orders.count(ToClient(Close())) == 1
    assert orders.count(ToNode(Close())) == 1


ends = st.sampled_from(["client close", "node close", "end", "data", "eof", "exit"])


@given(st.lists(ends, max_size=12))
def test_any_mix_of_endings_closes_each_side_at_most_once_and_nothing_follows_a_close(script: list[str]) -> None:
    channel, orders = running(), []
    acts: dict[str, Message] = {
        "client close": Close(), "node close": Close(), "data": Data(b"x"), "eof": Eof(), "exit": exited()
    }  # fmt: skip
    for step in script:
        if step == "end":
            orders += list(channel.end("over"))
        else:
            side = "client" if step == "client close" else "node"
            orders += feed(channel, (side, acts[step]))
    for kind in (ToClient, ToNode):
        sent = [order.message for order in orders if isinstance(order, kind)]
        assert sent.count(Close()) <= 1
        if Close() in sent:
            assert sent[-1] == Close()
    assert sum(order == EXIT_255 or order == ToClient(exited()) for order in orders) <= 1


def test_an_end_from_our_side_says_why_and_closes_both_legs() -> None:
    channel = running()
    orders = list(channel.end("the lease is over"))

    assert orders == [
        RecordError(b"bartizan: the lease is over\n"),
        ToClient(Extended(1, b"bartizan: the lease is over\n")),
        Note("channel.exit", {"status": 255, "by": "bastion"}),
        EXIT_255,
        ToClient(Eof()),
        ToClient(Close()),
        ToNode(Close()),
    ]
    assert list(channel.end("again")) == []


def test_on_a_terminal_our_words_stand_on_a_line_of_their_own() -> None:
    channel = make()
    feed(channel, ("client", pty()), ("node", Reply(True)), ("client", SHELL), ("node", Reply(True)))
    feed(channel, ("node", Data(b"$ ")))
    assert ToClient(Extended(1, b"\r\nbartizan: bye\r\n")) in list(channel.end("bye"))


def test_our_words_hold_nothing_that_a_terminal_acts_upon() -> None:
    """A node's disconnect reason may be part of them."""
    said = list(running().tell("it said \x1b[2J\x07\r\n\u202e\x9b"))[-1]
    assert said == ToClient(Extended(1, b"bartizan: it said ?[2J?????\n"))


def test_the_exit_status_passes_and_is_noted() -> None:
    orders = feed(running(), ("node", exited(3)))
    assert orders == [Note("channel.exit", {"status": 3}), ToClient(exited(3))]


def test_the_end_by_a_signal_passes_as_it_came_and_its_text_is_data() -> None:
    body = string(b"TERM") + b"\0" + string(b"\x1b[31m\xff") + string(b"")
    orders = feed(running(), ("node", Request(b"exit-signal", False, body)))

    assert orders[-1] == ToClient(Request(b"exit-signal", False, body))
    assert orders[0] == Note("channel.exit", {"signal": "TERM", "core": False, "message": "\x1b[31m\\xff"})


def test_a_second_exit_status_is_the_nodes_fault() -> None:
    """SSH-19"""
    assert feed(running(), ("node", exited()), ("node", exited())) == [Broken("node", "a second exit status")]


@pytest.mark.parametrize("body", [b"", b"\0", uint32(0) + b"x"])
def test_a_malformed_exit_status_is_the_nodes_fault(body: bytes) -> None:
    assert kinds(feed(running(), ("node", Request(b"exit-status", False, body)))) == ["Broken"]


def test_data_after_end_of_file_breaks_the_side_that_sent_it() -> None:
    """SSH-19"""
    assert feed(running(), ("node", Eof()), ("node", Data(b"x"))) == [Broken("node", "data after end of file")]
    assert kinds(feed(running(), ("node", Eof()), ("node", Extended(1, b"x")))) == ["Broken"]
    assert feed(running(), ("client", Eof()), ("client", Data(b"x"))) == [Broken("client", "data after end of file")]


def test_after_the_nodes_end_of_file_we_end_in_silence() -> None:
    """Even our own words would be data after end of file, and clients disconnect over it."""
    channel = running()
    feed(channel, ("node", Eof()))
    assert [order for order in channel.end("bye") if isinstance(order, ToClient)] == [EXIT_255, ToClient(Close())]


def test_half_closed_channels_go_on_in_the_other_direction() -> None:
    channel = running()
    feed(channel, ("client", Eof()))
    assert ToClient(Data(b"x")) in feed(channel, ("node", Data(b"x")))
    channel = running()
    feed(channel, ("node", Eof()))
    assert ToNode(Data(b"x")) in feed(channel, ("client", Data(b"x")))


def test_data_before_anything_started_breaks_the_connection() -> None:
    assert kinds(feed(make(), ("client", Data(b"x")))) == ["Broken"]


def test_extended_data_has_one_direction_and_one_kind() -> None:
    assert kinds(feed(running(), ("client", Extended(1, b"x")))) == ["Broken"]
    assert kinds(feed(running(), ("node", Extended(2, b"x")))) == ["Broken"]


def test_a_refused_channel_outside_any_session_ends_in_the_same_words() -> None:
    assert list(relay.refused_channel("no\x1b", pty=False)) == [
        Extended(1, b"bartizan: no?\n"),
        exited(255),
        Eof(),
        Close(),
    ]


# --- inspectors ------------------------------------------------------------------------------------------------


class Gate:
    """Refuses lines that begin with ``!``; the node's answers are lines too."""

    def __init__(self) -> None:
        self._left = b""
        self.open_things = 1

    def from_client(self, data: bytes) -> Passed:
        if data == b"?":
            raise WireError("not understood")
        refused = data.startswith(b"!")
        return Passed(b"", [b"refused\n"], len(data)) if refused else Passed(data)

    def from_node(self, data: bytes) -> tuple[bytes, list[Note]]:
        self._left = (self._left + data).rpartition(b"\n")[2]
        return data, []

    @property
    def whole(self) -> bool:
        return not self._left

    def closed(self) -> list[Note]:
        return [Note("left.open", {})]


def gated(window: int = WINDOW) -> ChannelRelay:
    def gate(start: Start) -> Gate:
        return Gate()

    channel = ChannelRelay(client_window=window, permits=lambda _: True, why_not=str, inspector=gate)
    feed(channel, ("client", Request(b"subsystem", True, string(b"sftp"))), ("node", Reply(True)))
    return channel


def test_what_an_inspector_refuses_never_reaches_the_node_and_gives_its_window_back() -> None:
    orders = feed(gated(), ("client", Data(b"!rm")))
    assert orders == [
        RecordInput(b"!rm"), RecordOutput(b"refused\n"), ToClient(Data(b"refused\n")), ToClient(Window(3))
    ]  # fmt: skip


def test_an_answer_of_ours_never_stands_inside_one_of_the_node() -> None:
    channel = gated()
    assert feed(channel, ("node", Data(b"begin ")))[-1] == ToClient(Data(b"begin "))
    assert feed(channel, ("client", Data(b"!rm"))) == [RecordInput(b"!rm")]
    orders = feed(channel, ("node", Data(b"end\n")))
    assert [order for order in orders if isinstance(order, ToClient)] == [
        ToClient(Data(b"end\n")), ToClient(Data(b"refused\n")), ToClient(Window(3))
    ]  # fmt: skip


def test_answers_that_nobody_reads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks for what it may not and never opens its window."""
    monkeypatch.setattr(relay, "UNSAID_BYTES", 8_000)
    channel, said = gated(window=4096), 0
    for _ in range(1 + (8_000 + 4096) // 8):
        orders = feed(channel, ("client", Data(b"!x")))
        said += sum(isinstance(order, ToClient) for order in orders)
        if any(isinstance(order, Broken) for order in orders):
            break
    else:
        raise AssertionError("kept everything")
    assert said < 200


def test_what_cannot_be_understood_breaks_the_connection() -> None:
    assert kinds(feed(gated(), ("client", Data(b"?")))) == ["RecordInput", "Broken"]


@pytest.mark.parametrize("way", ["node", "end", "lost"])
def test_what_was_left_open_is_noted_once_however_the_channel_ends(way: str) -> None:
    channel = gated()

    def over() -> Iterator[Order]:
        if way == "node":
            yield from channel.from_node(Close())
        elif way == "end":
            yield from channel.end("bye")
        yield from channel.finish()

    assert [order for order in over() if isinstance(order, Note) and order.code == "left.open"] == [
        Note("left.open", {})
    ]


gate_steps = st.lists(
    st.one_of(
        st.tuples(st.just("client"), st.sampled_from([b"!a", b"ok"])),
        st.tuples(st.just("node"), st.sampled_from([b"answer\n", b"ans", b"wer\n", b"a\nb"])),
        st.tuples(st.just("opens"), st.sampled_from([b"", bytes(3), bytes(50)])),
    ),
    max_size=40,
)


@given(st.integers(0, 600), gate_steps)
def test_the_user_reads_whole_answers_whoever_gives_them(window: int, script: list[tuple[str, bytes]]) -> None:
    """Every line that the user reads is the node's or ours, never a mixture; no window is overrun."""
    channel = gated(window)
    read, theirs, opened, may = b"", b"", window, channel.first_window
    for side, data in script:
        if side == "opens":
            opened += len(data)
            orders = list(channel.from_client(Window(len(data))))
        elif side == "client":
            orders = list(channel.from_client(Data(data)))
        elif len(data) <= may:
            may -= len(data)
            theirs += data
            orders = list(channel.from_node(Data(data)))
        else:
            continue
        read += b"".join(o.message.data for o in orders if isinstance(o, ToClient) and isinstance(o.message, Data))
        may += sum(o.message.more for o in orders if isinstance(o, ToNode) and isinstance(o.message, Window))
        assert len(read) <= opened
    lines = [line for line in read.split(b"\n") if line != b"refused"]
    assert b"\n".join(lines).rstrip(b"\n") == theirs.rstrip(b"\n")


# --- no byte without a record --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"eow@openssh.com", b"keepalive@openssh.com", b"break", b"pty-req"])
def test_a_users_request_has_no_room_for_bytes_that_nobody_records(name: bytes) -> None:
    secret = b"a whole file" * 1000
    body = string(b"xterm") + bytes(16) + string(secret) if name == b"pty-req" else bytes(4) + secret
    channel = make() if name == b"pty-req" else running()
    orders = feed(channel, ("client", Request(name, True, body)))
    assert not [order for order in orders if isinstance(order, ToNode)]
    assert [order.side for order in orders if isinstance(order, Broken)] == ["client"]


@pytest.mark.parametrize("name", [b"eow@openssh.com", b"keepalive@openssh.com", b"xon-xoff", b"exit-status"])
def test_a_nodes_request_has_no_room_for_bytes_that_nobody_records(name: bytes) -> None:
    orders = feed(running(), ("node", Request(name, False, b"\1" + b"a whole file" * 1000)))
    assert not [order for order in orders if isinstance(order, ToClient)]
    assert [order.side for order in orders if isinstance(order, Broken)] == ["node"]


def test_of_an_exit_signal_passes_what_is_noted() -> None:
    message, language = b"m" * 5000, b"a whole file" * 1000
    body = string(b"TERM" * 100) + b"\0" + string(message) + string(language)
    orders = feed(running(), ("node", Request(b"exit-signal", False, body)))
    (passed,) = [order.message for order in orders if isinstance(order, ToClient)]
    assert isinstance(passed, Request)
    assert passed.body == string((b"TERM" * 100)[:64]) + b"\0" + string(message[:1000]) + string(b"")
    (noted,) = [dict(order.fields) for order in orders if isinstance(order, Note)]
    assert noted == {"signal": ("TERM" * 100)[:64], "core": False, "message": "m" * 1000}


def test_the_modes_of_a_terminal_are_noted() -> None:
    """An echo that is switched off explains why a recording does not show what was typed."""
    modes = b"\x35\0\0\0\0\0"
    body = string(b"xterm") + b"".join(map(uint32, (80, 24, 0, 0))) + string(modes)
    orders = feed(make(), ("client", Request(b"pty-req", True, body)))
    (noted,) = [dict(order.fields) for order in orders if isinstance(order, Note)]
    assert noted["modes"] == modes.hex()


def test_what_waits_for_the_answer_to_a_terminal_is_bounded_in_bytes() -> None:
    """DOS-08: a node that never answers, and a client that goes on."""
    channel = make()
    feed(channel, ("client", pty()), ("client", Request(b"shell", True, b"")))
    orders = feed(channel, *[("client", Data(b"x" * 200_000))] * 100)
    assert [order.side for order in orders if isinstance(order, Broken)][:1] == ["client"]
    assert sum(len(message.data) for message in channel._held if isinstance(message, Data)) <= HELD_BYTES


def test_a_window_wider_than_there_can_be_breaks_the_connection() -> None:
    orders = feed(running(), *[("client", Window(0xFFFF_FFFF))] * 2)
    assert [order.side for order in orders if isinstance(order, Broken)][:1] == ["client"]
