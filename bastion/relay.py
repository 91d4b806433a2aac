"""
One session channel between a user and a node, without I/O.

SSH channel messages come in, orders go out, in the order they must be carried out. This file never imports
asyncssh or asyncio, so each rule about what passes and what is recorded is a plain unit test.

Three laws. What is recorded is recorded before it is forwarded. A request is checked before it is answered. Flow
control is end to end: a window that one side opens is opened to the other, so nothing is buffered here; only a
small reserve is held back, from which our own words to the user are paid.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

from bastion import channels
from bastion.channels import Start, Terminal
from recordings.sshwire import Reader, WireError, boolean, string, uint32

PENDING_REPLIES = 64
"""Requests that one channel may have waiting for an answer (DOS-08)."""

HELD_MESSAGES = 256
"""Messages kept while the node decides whether there is a terminal."""

HELD_BYTES = 4 << 20
"""Bytes of data among them; stock servers open windows of half of that."""

UNSAID_BYTES = 1 << 20
"""Answers of our own that may wait for a user who does not read them."""

MOST_ROOM = (1 << 32) - 1
"""The widest window (RFC 4254 §5.2)."""

OWN_WORDS = 8192
"""What the reserve grows to."""


# --- messages (RFC 4254 §5.2-5.4, without channel numbers) ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Data:
    data: bytes


@dataclass(frozen=True, slots=True)
class Extended:
    code: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Window:
    more: int


@dataclass(frozen=True, slots=True)
class Eof:
    pass


@dataclass(frozen=True, slots=True)
class Close:
    pass


@dataclass(frozen=True, slots=True)
class Request:
    name: bytes
    want_reply: bool
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    ok: bool


Message = Data | Extended | Window | Eof | Close | Request | Reply


# --- orders ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToClient:
    message: Message


@dataclass(frozen=True, slots=True)
class ToNode:
    message: Message


@dataclass(frozen=True, slots=True)
class Began:
    """The channel now is something: open its stream in the recording."""

    start: Start
    terminal: Terminal | None


@dataclass(frozen=True, slots=True)
class RecordOutput:
    data: bytes


@dataclass(frozen=True, slots=True)
class RecordError:
    data: bytes


@dataclass(frozen=True, slots=True)
class RecordInput:
    data: bytes


@dataclass(frozen=True, slots=True)
class RecordResize:
    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class Note:
    """Something that is no stream: for the recording's events, and for the audit log where it has that code."""

    code: str
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Used:
    """An action was used: its grant's limits now bind the session."""

    action: str


@dataclass(frozen=True, slots=True)
class Broken:
    """The peer broke the protocol: its connection must end."""

    side: str
    reason: str


Order = ToClient | ToNode | Began | RecordOutput | RecordError | RecordInput | RecordResize | Note | Used | Broken


@dataclass(frozen=True, slots=True)
class Passed:
    """What an inspector made of the user's bytes. ``dropped``: how many will never reach the node."""

    onward: bytes
    answers: Sequence[bytes] = ()
    """Whole answers of our own; one may not stand inside an answer of the node."""
    dropped: int = 0
    notes: Sequence[Note] = ()


class Inspector(Protocol):
    """Understands what runs inside a channel (SFTP, scp) and may answer for the node. Raises WireError."""

    def from_client(self, data: bytes) -> Passed:
        """What to forward to the node, what to answer the user, what to note."""

    def from_node(self, data: bytes) -> tuple[bytes, list[Note]]:
        """What to forward to the client, what to note."""

    def closed(self) -> list[Note]:
        """The channel is over: what was left open."""

    @property
    def whole(self) -> bool:
        """Whether the node's last answer has come to its end, so that ours may follow."""


@dataclass(slots=True)
class _Asked:
    """A request of the user. ``ok`` is None until it is answered, by the node or by us."""

    name: bytes
    wanted: bool
    ok: bool | None = None


class Warnings:
    """What of a session's wishes was refused on the side: told once, on the first channel that starts something."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._untold: list[str] = []

    def add(self, text: str) -> None:
        if text not in self._known:
            self._known.add(text)
            self._untold.append(text)

    def take(self) -> list[str]:
        untold, self._untold = self._untold, []
        return untold


class ChannelRelay:
    """The state of one session channel. ``permits`` says whether an action is granted; ``why_not`` says it in words."""

    def __init__(
        self,
        *,
        client_window: int,
        permits: Callable[[str], bool],
        why_not: Callable[[str], str],
        inspector: Callable[[Start], Inspector | None] = lambda start: None,
        warnings: Warnings | None = None,
    ) -> None:
        self._permits = permits
        self._why_not = why_not
        self._make_inspector = inspector
        self._inspector: Inspector | None = None
        self.terminal: Terminal | None = None
        self.start: Start | None = None
        self._asked: deque[_Asked] = deque()
        self._held: list[Message] = []  # what came while the node decides whether there is a terminal
        self._held_bytes = 0
        self._reserve_size = min(OWN_WORDS, client_window // 8)
        self._reserve = self._reserve_size  # held back from the node, so that we may speak
        self._room = client_window  # what the client still takes
        self._node_room = client_window - self._reserve  # what the node may still send
        self._unsaid: deque[bytes] = deque()  # answers of our own that the client has no room for yet
        self._unsaid_bytes = 0
        self._owed = 0  # window that the client gets back once it has been answered
        self.client_closed = False
        self.node_closed = False
        self._told_client_closed = False
        self._told_node_closed = False
        self._client_eof = False
        self._node_eof = False
        self._node_asks = 0  # requests of the node that the user has not answered
        self._exit_seen = False
        self._node_spoke = False
        self._muted = False  # refused or ended: nothing from the node passes any more
        self._warnings = warnings or Warnings()

    @property
    def first_window(self) -> int:
        """The window to open towards the node."""
        return self._room - self._reserve_size

    @property
    def over(self) -> bool:
        return self.client_closed and self.node_closed

    # --- from the user ---------------------------------------------------------------------------------------

    def from_client(self, message: Message) -> Iterator[Order]:
        """The orders that a message of the user leads to."""
        if self.client_closed or (self._muted and not isinstance(message, Close)):
            return
        if self._must_wait(message):
            yield from self._hold(message)
            return
        match message:
            case Data(data):
                yield from self._client_data(data)
            case Extended():
                yield Broken("client", "extended data from a client")
            case Window(more) if self._room + more > MOST_ROOM:
                yield Broken("client", "a window wider than there can be")
            case Window(more):
                yield from self._widen(more)
            case Eof():
                if not self._client_eof:
                    self._client_eof = True
                    yield Note("channel.eof", {"side": "client"})
                    yield ToNode(message)
            case Close():
                self.client_closed = True
                yield from self._close_node()
            case Request():
                yield from self._client_request(message)
            case Reply():
                if self._node_asks:
                    self._node_asks -= 1
                    yield ToNode(message)
                else:
                    yield Broken("client", "an answer to a request nobody made")
            case _:
                assert_never(message)

    def _must_wait(self, message: Message) -> bool:
        """
        Whether *message* stays here until the node has said whether there is a terminal.

        A node may refuse one and still run the command. Its input is then no keystrokes and is recorded in full.
        """
        if isinstance(message, Close) or not any(asked.name == b"pty-req" for asked in self._asked if asked.ok is None):
            return False
        starts = isinstance(message, Request) and message.name in channels.START_REQUESTS
        return starts or bool(self._held)

    def _hold(self, message: Message) -> Iterator[Order]:
        self._held_bytes += len(message.data) if isinstance(message, Data) else 0
        if len(self._held) >= HELD_MESSAGES or self._held_bytes > HELD_BYTES:
            yield Broken("client", "too many messages before the terminal was granted")
            return
        self._held.append(message)

    def _client_data(self, data: bytes) -> Iterator[Order]:
        if self._client_eof:
            yield Broken("client", "data after end of file")
            return
        if self.start is None:
            # Before anything was started the node would hold these bytes for what starts later: they are input to it.
            yield Broken("client", "data before a shell, command or subsystem was asked for")
            return
        yield RecordInput(data)
        if self._inspector is None:
            yield ToNode(Data(data))
            return
        try:
            passed = self._inspector.from_client(data)
        except WireError as error:
            yield Broken("client", str(error))
            return
        yield from passed.notes
        if passed.onward:
            yield ToNode(Data(passed.onward))
        self._owed += passed.dropped
        for answer in passed.answers:
            self._unsaid.append(answer)
            self._unsaid_bytes += len(answer)
        if self._unsaid_bytes > UNSAID_BYTES:
            yield Broken("client", "too many refused requests whose answers are not read")
            return
        yield from self._speak()

    def _widen(self, more: int) -> Iterator[Order]:
        """Open the node's window by what the client opened, less what the reserve is short of."""
        self._room += more
        self._reserve_size = min(OWN_WORDS, max(self._reserve_size, self._room // 8))
        back = min(more, self._reserve_size - self._reserve)
        self._reserve += back
        yield from self._speak()
        if more > back:
            self._node_room += more - back
            yield ToNode(Window(more - back))

    def _speak(self) -> Iterator[Order]:
        """Give as many answers of our own as the reserve pays for, whole and between those of the node."""
        while self._unsaid and self._inspector is not None and self._inspector.whole:
            if len(self._unsaid[0]) > self._reserve:
                return
            said = self._unsaid.popleft()
            self._unsaid_bytes -= len(said)
            self._reserve -= len(said)
            self._room -= len(said)
            yield RecordOutput(said)
            yield ToClient(Data(said))
        if self._owed and not self._unsaid:
            owed, self._owed = self._owed, 0
            yield ToClient(Window(owed))

    def _client_request(self, request: Request) -> Iterator[Order]:
        if len(self._asked) >= PENDING_REPLIES:
            yield Broken("client", "too many channel requests at once")
            return
        try:
            yield from self._judge(request)
        except WireError as error:
            yield Broken("client", f"malformed {request.name.decode('ascii', 'replace')} request: {error}")

    def _judge(self, request: Request) -> Iterator[Order]:
        name = request.name
        if name in channels.START_REQUESTS:
            yield from self._begin(request)
        elif name == b"pty-req":
            yield from self._pty(request)
        elif name == b"window-change":
            columns, rows, body = channels.window_change(request.body)
            if self.terminal is None:
                yield from self._no(request, "no terminal to resize")
                return
            if self.start is not None:
                yield RecordResize(columns, rows)
            else:
                self.terminal = Terminal(self.terminal.term, columns, rows, self.terminal.modes)
            yield from self._pass(Request(name, request.want_reply, body))
        elif name == b"env":
            reader = Reader(request.body)
            variable, value = reader.string(), reader.string()
            reader.end()
            if channels.ENVIRONMENT.match(variable) and len(value) <= 4096 and b"\0" not in value:
                yield Note("channel.env", {"name": _text(variable), "value": _text(value)})
                yield from self._pass(request)
            else:
                yield from self._no(request, f"variable {_text(variable)} is not passed on", quiet=True)
        elif name == b"signal":
            reader = Reader(request.body)
            signal = reader.string()
            reader.end()
            if signal in channels.SIGNALS:
                yield Note("channel.signal", {"signal": _text(signal)})
                yield from self._pass(request)
            else:
                yield from self._no(request, "unknown signal")
        elif name == b"break":
            yield Note("channel.break", {"milliseconds": channels.span(request.body)})
            yield from self._pass(request)
        elif name in channels.EMPTY:
            Reader(request.body).end()
            yield from self._pass(request)
        elif name in channels.FORWARDS:
            action = channels.FORWARDS[name]
            self._warnings.add(self._why_not(action))
            yield from self._no(request, self._why_not(action), action=action)
        else:
            yield from self._no(request, "unknown channel request")

    def _pty(self, request: Request) -> Iterator[Order]:
        if self.terminal is not None or self.start is not None:
            yield from self._no(request, "one terminal per channel, before anything starts")
            return
        self.terminal, body = channels.terminal(request.body)
        yield Note(
            "channel.pty",
            {
                "term": self.terminal.term,
                "columns": self.terminal.columns,
                "rows": self.terminal.rows,
                "modes": self.terminal.modes.hex(),
            },
        )
        # The node's answer decides whether there is one, so it is asked for even if the user does not want it.
        self._asked.append(_Asked(request.name, request.want_reply))
        yield ToNode(Request(request.name, True, body))

    def _begin(self, request: Request) -> Iterator[Order]:
        if self.start is not None:
            yield from self._no(request, "a channel starts one thing")
            return
        start = channels.start(request.name, request.body)
        granted = [action for action in start.needs if self._permits(action)]
        if not granted:
            self.start = start
            wanted = " or ".join(start.needs)
            reason = self._why_not(wanted)
            yield Began(start, self.terminal)
            yield Note(
                "session.refused",
                {
                    "request": _text(request.name),
                    "action": wanted,
                    "command": _text(start.command),
                    "reason": reason,
                },
            )
            yield from self.refuse(reason, want_reply=request.want_reply)
            return
        self.start = start
        self._inspector = self._make_inspector(start)
        yield Began(start, self.terminal)
        for action in granted:
            yield Used(action)
        yield Note(
            "session.channel",
            {
                "kind": start.kind.value,
                "action": granted[0],
                "command": _text(start.command),
                "pty": self.terminal is not None,
            },
        )
        yield from self._pass(request)
        for warning in self._warnings.take():
            yield from self.tell(warning)

    def _pass(self, request: Request) -> Iterator[Order]:
        if request.want_reply:
            self._asked.append(_Asked(request.name, True))
        yield ToNode(request)

    def _no(self, request: Request, reason: str, *, action: str | None = None, quiet: bool = False) -> Iterator[Order]:
        if not quiet:
            yield Note(
                "session.refused",
                {"request": _text(request.name), "action": action or "", "command": "", "reason": reason},
            )
        if request.want_reply:
            self._asked.append(_Asked(request.name, True, ok=False))
            yield from self._answer()

    def _answer(self) -> Iterator[Order]:
        """Give the answers that have come to the front: replies keep the order of their requests (RFC 4254 §5.4)."""
        while self._asked and self._asked[0].ok is not None:
            asked = self._asked.popleft()
            if asked.wanted:
                yield ToClient(Reply(bool(asked.ok)))

    # --- from the node ---------------------------------------------------------------------------------------

    def from_node(self, message: Message) -> Iterator[Order]:
        """The orders that a message of the node leads to."""
        if self.node_closed or (self._muted and not isinstance(message, Close)):
            return
        match message:
            case Data(data):
                yield from self._node_data(data)
            case Extended(code, data):
                if self._node_eof or code != 1:
                    yield Broken("node", "extended data that no client expects")
                    return
                if not self._fits(data):
                    yield Broken("node", "more data than the window allows")
                    return
                yield RecordError(data)
                yield ToClient(message)
            case Window():
                yield ToClient(message)
            case Eof():
                self._node_eof = True
                yield ToClient(message)
            case Close():
                self.node_closed = True
                yield from self.finish()
                yield from self._close_client()
            case Request():
                yield from self._node_request(message)
            case Reply(ok):
                yield from self._node_reply(ok)
            case _:
                assert_never(message)

    def _node_data(self, data: bytes) -> Iterator[Order]:
        if self._node_eof:
            yield Broken("node", "data after end of file")
            return
        if not self._fits(data):
            yield Broken("node", "more data than the window allows")
            return
        self._node_spoke = True
        yield RecordOutput(data)
        if self._inspector is not None:
            try:
                data, notes = self._inspector.from_node(data)
            except WireError as error:
                yield Broken("node", str(error))
                return
            yield from notes
        yield ToClient(Data(data))
        yield from self._speak()

    def _fits(self, data: bytes) -> bool:
        """Count *data* of the node against the windows; False when the node sends more than it may."""
        if len(data) > self._node_room:
            return False
        self._node_room -= len(data)
        self._room -= len(data)
        return True

    def _node_request(self, request: Request) -> Iterator[Order]:
        if request.name not in channels.FROM_NODE:
            if request.want_reply:
                yield ToNode(Reply(False))
            return
        try:
            request, fields = _from_node(request)
        except WireError:
            yield Broken("node", f"malformed {request.name.decode('ascii')}")
            return
        if fields:
            if self._exit_seen:
                yield Broken("node", "a second exit status")
                return
            self._exit_seen = True
            yield Note("channel.exit", fields)
        if request.want_reply:
            self._node_asks += 1
            if self._node_asks > PENDING_REPLIES:
                yield Broken("node", "too many channel requests at once")
                return
        yield ToClient(request)

    def _node_reply(self, ok: bool) -> Iterator[Order]:
        asked = next((asked for asked in self._asked if asked.ok is None), None)
        if asked is None:
            yield Broken("node", "an answer to a request nobody made")
            return
        asked.ok = ok
        if asked.name == b"pty-req":
            if not ok:
                self.terminal = None
                yield Note("channel.no_pty", {})
            yield from self._answer()
            held, self._held, self._held_bytes = self._held, [], 0
            for message in held:
                yield from self.from_client(message)
        else:
            yield from self._answer()

    # --- our own words ---------------------------------------------------------------------------------------

    def tell(self, text: str) -> Iterator[Order]:
        """One line to the user: on stderr, or in the terminal where there is one."""
        before, after = ("\r\n" if self._node_spoke else "", "\r\n") if self.terminal else ("", "\n")
        line = f"{before}bartizan: {printable(text)}{after}".encode()
        if self._node_eof or self.client_closed or self._told_client_closed:
            return  # after the end of file, even our own words would break the protocol
        if len(line) > min(self._reserve, self._room):
            return
        self._reserve -= len(line)
        self._room -= len(line)
        if self.start is not None:
            yield RecordError(line)
        yield ToClient(Extended(1, line))

    def refuse(self, reason: str, *, want_reply: bool) -> Iterator[Order]:
        """Say no to what was asked for: one line on stderr and exit status 255."""
        if want_reply:
            for asked in self._asked:
                asked.ok = bool(asked.ok)
            self._asked.append(_Asked(b"", True, ok=True))
            yield from self._answer()
        yield from self.end(reason)

    def end(self, reason: str) -> Iterator[Order]:
        """End the channel from our side: the reason on stderr, exit status 255, closed on both legs."""
        if self._muted:
            return
        yield from self.finish()
        yield from self.tell(reason)
        self._muted = True
        self._held.clear()
        if not self.client_closed and not self._told_client_closed:
            if not self._exit_seen:
                self._exit_seen = True
                yield Note("channel.exit", {"status": 255, "by": "bastion"})
                yield ToClient(Request(b"exit-status", False, uint32(255)))
            if not self._node_eof:
                yield ToClient(Eof())
        yield from self._close_client()
        yield from self._close_node()

    def finish(self) -> Iterator[Order]:
        """Nothing more is understood on this channel: note what was left open. Comes to nothing the second time."""
        inspector, self._inspector = self._inspector, None
        if inspector is not None:
            yield from inspector.closed()

    def _close_client(self) -> Iterator[Order]:
        if not self._told_client_closed:
            self._told_client_closed = True
            yield ToClient(Close())

    def _close_node(self) -> Iterator[Order]:
        if not self._told_node_closed:
            self._told_node_closed = True
            yield ToNode(Close())


def _from_node(request: Request) -> tuple[Request, dict[str, object]]:
    """What of a node's request reaches the user, and what to note of it: not a byte more than is noted."""
    reader = Reader(request.body)
    match request.name:
        case b"exit-status":
            status = reader.uint32()
            reader.end()
            return request, {"status": status}
        case b"exit-signal":
            signal, core, message = reader.string()[:64], reader.boolean(), reader.string()[:1000]
            reader.string()  # the message's language
            reader.end()
            body = string(signal) + boolean(core) + string(message) + string(b"")
            noted = {"signal": _text(signal), "core": core, "message": _text(message)}
            return Request(request.name, request.want_reply, body), noted
        case b"xon-xoff":
            reader.boolean()
    reader.end()
    return request, {}


def _text(raw: bytes) -> str:
    """*raw* as text that loses nothing: bytes that are not UTF-8 stand as ``\\xNN``."""
    return raw.decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    """*text*, perhaps a node's, as one line that no terminal acts upon."""
    return "".join(c if c.isprintable() else "?" for c in text)[:1000]


def refused_channel(reason: str, *, pty: bool) -> Iterator[Message]:
    """What a user hears who asked to start something and may not: one line, status 255, the end."""
    end = "\r\n" if pty else "\n"
    yield Extended(1, f"bartizan: {printable(reason)}{end}".encode())
    yield Request(b"exit-status", False, uint32(255))
    yield Eof()
    yield Close()
