"""One relayed channel with its two ends: delivers messages to the pure relay and carries out its orders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, assert_never

from bastion import relay
from bastion.channels import Kind, Start
from bastion.relay import ChannelRelay, Inspector, Message, Order, Warnings, printable
from bastion.scp import ScpInspector
from bastion.sftp import SftpInspector
from bastion.ssh_adapter import CONNECT_FAILED, Answer, ChannelEnd, NodeConnection, Opening, UserConnection
from bastion.tape import Tape
from ca.model import Action
from ca.wire import GrantedAction

PACKET_SIZE = 32_768


class Owner(Protocol):
    """The session that a bridge belongs to."""

    warnings: Warnings

    def granted(self, action: str) -> GrantedAction | None: ...

    def why_not(self, action: str) -> str: ...

    def used(self, action: str) -> None: ...

    def active(self) -> None: ...

    def note(self, channel: int | None, code: str, fields: Mapping[str, object]) -> None: ...

    def broken(self, side: str, reason: str) -> None: ...

    def failed(self, error: Exception) -> None: ...

    def bridge_over(self, bridge: Bridge) -> None: ...


class Bridge:
    """A session channel between *user* and *node*, number *index* in the recording."""

    def __init__(
        self, index: int, opening: Opening, user: UserConnection, node: NodeConnection, tape: Tape, owner: Owner
    ) -> None:
        self.index = index
        self._opening = opening
        self._user, self._node, self._tape, self._owner = user, node, tape, owner
        self.relay = ChannelRelay(
            client_window=opening.window,
            permits=lambda action: owner.granted(action) is not None,
            why_not=owner.why_not,
            inspector=self._inspector,
            warnings=owner.warnings,
        )
        self._recorded = False
        self._told = False  # the user knows whether the channel is open
        self._ended = False  # from our side
        self._user_end = ChannelEnd(user, lambda message: self._deliver(self.relay.from_client, message))
        self._node_end = ChannelEnd(node, lambda message: self._deliver(self.relay.from_node, message))
        self._node_end.lost = self.node_lost
        node.open(
            self._node_end,
            window=self.relay.first_window,
            packet_size=min(opening.packet_size, PACKET_SIZE),
            answer=self._answered,
        )

    def _inspector(self, start: Start) -> Inspector | None:
        if start.kind is Kind.SFTP:
            return SftpInspector(
                read=self._owner.granted(Action.SFTP_READ) is not None,
                write=self._owner.granted(Action.SFTP_WRITE) is not None,
            )
        if start.kind in (Kind.SCP_SEND, Kind.SCP_FETCH):
            return ScpInspector(start.command, sending=start.kind is Kind.SCP_SEND)
        return None

    def _answered(self, answer: Answer) -> None:
        if self._told:
            return  # the session has ended meanwhile
        self._told = True
        if answer.ok:
            self._node_end.peer, self._node_end.packet_size = answer.number, max(1, answer.packet_size)
            self._user.confirm(
                self._opening, self._user_end, window=answer.window, packet_size=min(answer.packet_size, PACKET_SIZE)
            )
            return
        self._owner.note(self.index, "channel.not_opened", {"code": answer.code, "reason": answer.reason[:1000]})
        self._user.refuse(self._opening, answer.code, f"the node opens no more channels: {printable(answer.reason)}")
        self.let_go()

    def _turn_away(self, reason: str) -> bool:
        """Refuse the channel if the user has not been told that it is open; whether that was so."""
        if self._told:
            return False
        self._told = True
        self._user.refuse(self._opening, CONNECT_FAILED, printable(reason))
        self.let_go()
        return True

    def _deliver(self, react: Callable[[Message], Iterator[Order]], message: Message) -> None:
        """Let the relay react to *message*. Nothing may escape: asyncssh would close the connection without a word."""
        try:
            self._owner.active()
            ended = self._ended
            for order in react(message):
                if self._ended and not ended:
                    break  # carrying it out ended the session: the rest of it passes no more
                self._carry_out(order)
        except Exception as error:  # noqa: BLE001  # whatever it is, the session ends and says so
            self._owner.failed(error)
        if self.relay.over:
            self.let_go()

    def _carry_out(self, order: Order) -> None:
        match order:
            case relay.ToClient(message):
                self._user_end.send(message)
            case relay.ToNode(message):
                self._node_end.send(message)
            case relay.RecordOutput(data):
                self._tape.output(self.index, data)
            case relay.RecordInput(data):
                self._tape.input(self.index, data)
            case relay.RecordError(data):
                self._tape.error(self.index, data)
            case relay.RecordResize(columns, rows):
                self._tape.resize(self.index, columns, rows)
            case relay.Began(start, terminal):
                grant = next((g for g in map(self._owner.granted, start.needs) if g is not None), None)
                self._tape.open_channel(
                    self.index,
                    start,
                    terminal,
                    limit=grant.record_limit if grant else 1 << 20,
                    record_input=grant.record_input if grant else False,
                )
                self._recorded = True
            case relay.Used(action):
                self._owner.used(action)
            case relay.Note(code, fields):
                self._owner.note(self.index, code, fields)
            case relay.Broken(side, reason):
                self._owner.broken(side, reason)
            case _:
                assert_never(order)

    def end(self, reason: str) -> None:
        """End the channel from our side, telling the user *reason*."""
        if self._turn_away(reason):
            return
        self._ended = True
        try:
            for order in self.relay.end(reason):
                self._carry_out(order)
        except Exception as error:  # noqa: BLE001  # whatever it is, the session ends and says so
            self._owner.failed(error)
            self.end_unrecorded(reason)

    def end_unrecorded(self, reason: str) -> None:
        """End the channel although nothing can be recorded any more: only our own words still go to the user."""
        if self._turn_away(reason):
            return
        self._ended = True
        for order in self.relay.end(reason):
            if isinstance(order, relay.ToClient | relay.ToNode):
                self._carry_out(order)

    def node_lost(self) -> None:
        """The connection to the node is gone."""
        self.relay.node_closed = True
        self.end("the connection to the node was lost")
        if self.relay.over:
            self.let_go()

    def let_go(self) -> None:
        """The channel is over: what was left open is noted, both numbers are free again, its stream is closed."""
        self._owner.bridge_over(self)
        self._user_end.release()
        self._node_end.release()
        recorded, self._recorded = self._recorded, False
        try:
            for order in self.relay.finish():
                self._carry_out(order)
            if recorded:
                self._tape.close_channel(self.index)
        except Exception as error:  # noqa: BLE001  # whatever it is, the session ends and says so
            self._owner.failed(error)


class RefusedChannel:
    """A channel that leads nowhere: whatever is started on it is answered with one line and exit status 255."""

    def __init__(self, opening: Opening, user: UserConnection, reason: str) -> None:
        self._end = ChannelEnd(user, self._deliver)
        self._reason = reason
        self._closed = False
        self._pty = False
        user.confirm(opening, self._end, window=65_536, packet_size=PACKET_SIZE)

    def _deliver(self, message: Message) -> None:
        match message:
            case relay.Request(name, want_reply, _) if not self._closed:
                self._pty |= name == b"pty-req"
                if want_reply:
                    self._end.send(relay.Reply(name not in (b"auth-agent-req@openssh.com", b"x11-req")))
                if name in (b"shell", b"exec", b"subsystem"):
                    self._closed = True
                    for answer in relay.refused_channel(self._reason, pty=self._pty):
                        self._end.send(answer)
            case relay.Close():
                if not self._closed:
                    self._closed = True
                    self._end.send(relay.Close())
                self._end.release()
            case _:
                pass
