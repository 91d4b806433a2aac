"""
One session: a user on one node as one login, from the decision to the sealed recording.

    1. Ask the authority, with the user's proof. It decides, and gives a certificate for this one entry.
    2. Open the recording. Nothing passes before there is somewhere to keep it.
    3. Enter the node: host key checked, then our certificate.
    4. Relay the channels, each request checked before it is answered, until somebody leaves or a limit ends it.
    5. Close in reverse: channels, the node, the recording, and hand the manifest to the authority.

If a step fails, the user gets one line that says why and what to do next, with exit status 255.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import asyncssh
import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bastion import upstream
from bastion.authority import Authority
from bastion.bridge import Bridge, RefusedChannel
from bastion.channels import FORWARD_CHANNELS, FORWARD_GLOBALS
from bastion.limits import SILENCE, Limits
from bastion.outbox import Outbox, event_of
from bastion.relay import Warnings
from bastion.ssh_adapter import PROHIBITED, SHORTAGE, UNKNOWN_TYPE, NodeConnection, Opening, Proof, UserConnection
from bastion.state import State
from bastion.tape import RecordingError, Tape
from bastion.target import Target
from ca import audit, wire
from ca.errors import AccessDenied, BartizanError, Unavailable
from recordings.folder import countersign
from recordings.sshkey import PublicKey, sign_ed25519
from recordings.writer import Recording

log = structlog.get_logger()

MAX_CHANNELS = 10
CHANNELS_IN_ALL = 4096
"""Channels of one session, one after the other: each leaves files, and a line in the manifest."""
MOST_REFUSALS = 1000
"""Refusals in one session, each an event in the log of all, before it is taken for an attack."""
MOST_EARLY = 32
"""Notes kept until the authority has allowed the session; what it denies it records itself."""
Way = Literal["config", "jump", "username"]
BEAT_SECONDS = 0.5
CLOSE_SECONDS = 10
LEAVE_SECONDS = 1.0
REFUSED_SECONDS = 30.0
"""How long a refused connection may stay, to ask for a channel on which it is told why."""


_BEGAN, _ZERO = datetime.now(UTC), time.monotonic()


def steady() -> datetime:
    """A clock for spans: the wall's time at start, and from then on seconds that nobody sets forward or back."""
    return _BEGAN + timedelta(seconds=time.monotonic() - _ZERO)


@dataclass(slots=True)
class Contact:
    """When the authority was last heard, on the steady clock."""

    at: datetime = field(default_factory=lambda: steady())

    def heard(self) -> None:
        self.at = steady()


@dataclass(slots=True)
class Services:
    """What all sessions of one worker share."""

    state: State
    authority: Authority
    worker: str
    recordings: Path
    outbox: Outbox
    pool: ThreadPoolExecutor
    trust: wire.TrustAnchors
    contact: Contact = field(default_factory=Contact)
    sessions: dict[str, Session] = field(default_factory=dict)
    draining: bool = False


class Session:
    """Owns one user connection's way to one node. ``run`` is its whole life."""

    def __init__(self, services: Services, connection: UserConnection, target: Target, way: Way, proof: Proof) -> None:
        self._services = services
        self._user = connection
        self._target = target
        self._way = way
        self._proof = proof
        self._allowed: wire.SessionAllowed | None = None
        self._actions: dict[str, wire.GrantedAction] = {}
        self._limits: Limits | None = None
        self._tape: Tape | None = None
        self._node: NodeConnection | None = None
        self._bridges: set[Bridge] = set()
        self._channels = 0
        self._refusals = 0
        self._waiting: list[Opening] = []
        self._early: list[tuple[str, Mapping[str, object]]] = []  # noted before there was a session to note it in
        self.warnings = Warnings()
        self._refusal: str | None = None
        self._ending: tuple[str, str] | None = None
        self._recorder_failed: str | None = None
        self._wake = asyncio.Event()
        self._entering: asyncio.Timeout | None = None
        self._gone = asyncio.Event()
        self._blocked = {"user": False, "node": False, "tape": False}

    @property
    def id(self) -> str:
        return self._allowed.session if self._allowed else ""

    # --- the way -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """The session from beginning to end. Never raises but for cancellation: a bug here ends no other session."""
        try:
            await self._run()
        except Exception:
            log.exception("session.bug", session=self.id)
            self._services.sessions.pop(self.id, None)
            self._user.abort()

    async def _run(self) -> None:
        how = "failed"
        try:
            key = await self._authorize()  # 1
            self._record()  # 2
            await self._enter(key)  # 3
            how = await self._relay()  # 4
        except BartizanError as error:
            self._refuse(error)
            how = error.code
        except RecordingError as error:
            how = "recording_failed"
            self._unrecorded(error)
            self._refuse(
                Unavailable(
                    f"the session can{' no longer' if self._node else 'not'} be recorded",
                    hint="tell the operator of the bastion",
                )
            )
        except OSError as error:
            how = "recording_failed"
            self._refuse(
                Unavailable(f"the session cannot be audited: {error.strerror}", hint="tell the operator of the bastion")
            )
        except asyncio.CancelledError:
            how = "bastion_stopped"
            raise
        except Exception:
            incident = secrets.token_hex(4)
            log.exception("session.bug", incident=incident, session=self.id)
            self._refuse(Unavailable(f"something went wrong in the bastion (incident {incident})"))
        finally:
            await self._close(how)  # 5
        await self._wait_for_leaving(REFUSED_SECONDS)

    async def _authorize(self) -> asyncssh.SSHKey:
        services, proof = self._services, self._proof
        if services.draining:
            raise Unavailable("this bastion is about to restart", hint="connect again in a moment")
        if services.outbox.full:
            raise Unavailable("events cannot be handed to the authority: no new sessions for now")
        if steady() - services.contact.at >= SILENCE:
            raise Unavailable(
                "the authority has not been reached for 30 seconds: no new sessions for now",
                hint="try again in a minute",
            )
        private = Ed25519PrivateKey.generate()
        request = wire.SessionRequest(
            worker=services.worker,
            way=self._way,
            node=self._target.node,
            login=self._target.login,
            source=self._user.source,
            transcript=proof.transcript,
            auth_request=proof.auth_request,
            signature=proof.signature,
            session_key=PublicKey.of(private.public_key()).line(),
            possession=sign_ed25519(private, b"bartizan-session\0" + proof.session_id),
        )
        answer = await services.authority.authorize(request)
        if isinstance(answer, wire.SessionDenied):
            raise AccessDenied(answer.reason, hint=answer.hint, code=answer.code)
        self._allowed = answer
        self._actions = {granted.action: granted for granted in answer.actions}
        now = steady()
        self._limits = Limits(started=now, certificate_expires=answer.certificate_expires, last_activity=now)
        services.sessions[answer.session] = self
        return asyncssh.import_private_key(_openssh(private))

    def _record(self) -> None:
        allowed = self._sure()
        meta = {
            "user": allowed.user,
            "node": allowed.node,
            "node_id": allowed.node_id,
            "login": allowed.login,
            "way": self._way,
            "source": self._user.source,
            "client": self._user.client_version[:200],
            "bastion": self._services.state.name,
            "started": allowed.started.isoformat(),
        }
        now = datetime.now(UTC)
        recording = Recording.create(
            self._services.recordings, allowed.session, meta=meta, now=now, sign=self._services.state.sign
        )
        self._tape = Tape(recording, started=now, pool=self._services.pool)
        early, self._early = self._early, []
        for code, fields in early:
            self.note(None, code, fields)

    async def _enter(self, key: asyncssh.SSHKey) -> None:
        allowed = self._sure()
        if self._ending is not None or self._gone.is_set():
            return
        try:
            async with asyncio.timeout(None) as self._entering:
                self._node = await upstream.enter(
                    allowed, self._services.trust, key, blocked=lambda on: self._block("node", on)
                )
        except TimeoutError:
            return  # somebody left, or the session was ended
        except upstream.HostKeyRefused as error:
            self.note(None, "upstream.hostkey_failed", _hostkey_fields(allowed, error))
            raise
        except Unavailable as error:
            self.note(None, "upstream.failed", {"node": allowed.node, "reason": str(error)})
            raise
        finally:
            self._entering = None
        self._node.on_lost = lambda: self.end("node_lost", "the connection to the node was lost")

    async def _relay(self) -> str:
        if self._node is not None and self._ending is None and self._user.alive:
            for opening in self._waiting:
                self._bridge(opening)
            self._waiting.clear()
        tape = self._tape
        assert tape is not None
        assert self._limits is not None
        while True:
            if self._ending is not None:
                return self._ending[0]
            if self._gone.is_set():
                return "closed"
            assert self._node is not None
            if not self._node.alive:
                self.end("node_lost", "the connection to the node was lost")
                continue
            if self._over_its_limits():
                continue
            if tape.long:
                self.end("recording_full", "the recording of this session has become too long: connect again")
                continue
            await self._beat(tape)

    def _over_its_limits(self) -> bool:
        """Whether a limit is reached; the session then ends."""
        assert self._limits is not None
        contact = self._services.contact.at
        due = self._limits.due(steady(), wall=datetime.now(UTC), last_contact=contact)
        if due is None:
            return False
        if due.code == "lease_over":
            silent = steady() - contact
            self.note(None, "session.lease_ended", {"seconds": int(silent.total_seconds())})
        self.end(due.code, due.reason)
        return True

    async def _beat(self, tape: Tape) -> None:
        """Wait for something to happen, half a second at most; bring what was recorded to disk."""
        try:
            async with asyncio.timeout(BEAT_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()
        if self._recorder_failed is None:
            await tape.flush()
        self._block("tape", tape.full)

    async def _close(self, how: str) -> None:
        """Step 5, in reverse order of opening; shielded by time limits, so that a dead peer holds nothing up."""
        if self._allowed is not None and (self._ending is not None or self._refusal is None or self._bridges):
            await self._wait_for_leaving(LEAVE_SECONDS)
        self._refusal = self._refusal or "the session has ended"
        for bridge in list(self._bridges):
            bridge.let_go()
        if self._node is not None:
            self._node.close()
        if self._tape is not None:
            await self._seal(how)
        if self._allowed is not None:
            self._services.sessions.pop(self._allowed.session, None)

    async def _wait_for_leaving(self, seconds: float) -> None:
        """Give the user's client a moment to print what it was told, then disconnect it."""
        try:
            async with asyncio.timeout(seconds):
                await self._gone.wait()
        except TimeoutError:
            if self._user.alive:
                self._user.disconnect(asyncssh.DISC_BY_APPLICATION, (self._ending or ("", "the session has ended"))[1])

    async def _seal(self, how: str) -> None:
        tape, allowed = self._tape, self._sure()
        assert tape is not None
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                manifest = await tape.seal(how)
                answer = await self._services.authority.end(
                    allowed.session, wire.SessionEnd(manifest=manifest, how=how)
                )
                countersign(tape.recording.folder, answer.signature)
        except (RecordingError, BartizanError, OSError, TimeoutError) as error:
            # What is sealed or not yet sealed stays on disk; the sweep brings it to its end.
            tape.abandon()
            log.warning("session.seal_later", session=allowed.session, error=str(error))

    # --- told by the connections -------------------------------------------------------------------------------

    def opening(self, opening: Opening) -> None:
        """The user wants a channel."""
        if opening.kind != b"session":
            self._forward_channel(opening)
        elif self._user.open_channels + len(self._waiting) >= MAX_CHANNELS:
            self._user.refuse(opening, SHORTAGE, f"at most {MAX_CHANNELS} channels at once")
        elif self._refusal is not None:
            RefusedChannel(opening, self._user, self._refusal)
        elif self._channels >= CHANNELS_IN_ALL:
            self._user.refuse(opening, SHORTAGE, f"at most {CHANNELS_IN_ALL} channels in one session: connect again")
        elif self._user.no_more_sessions:
            self._user.refuse(opening, PROHIBITED, "the client said that it wants no more sessions")
        elif self._node is None:
            self._waiting.append(opening)
        else:
            self._bridge(opening)

    def _bridge(self, opening: Opening) -> None:
        assert self._node is not None
        assert self._tape is not None
        index, self._channels = self._channels, self._channels + 1
        self._bridges.add(Bridge(index, opening, self._user, self._node, self._tape, self))

    def _forward_channel(self, opening: Opening) -> None:
        action = FORWARD_CHANNELS.get(opening.kind)
        if action is None:
            self._user.refuse(opening, UNKNOWN_TYPE, "unknown channel type")
            return
        reason = self.why_not(action)
        self._refused(opening.kind.decode(), action, reason)
        self._user.refuse(opening, PROHIBITED, reason)

    def forward_refused(self, request: bytes) -> None:
        """The user asked for a forward by a global request, which is refused."""
        action = FORWARD_GLOBALS.get(request)
        if action is not None:
            self._refused(request.decode(), action, self.why_not(action))
            self.warnings.add(self.why_not(action))

    def _refused(self, request: str, action: str, reason: str) -> None:
        self.note(None, "session.refused", {"request": request, "action": action, "reason": reason})

    def blocked(self, on: bool) -> None:
        self._block("user", on)

    def lost(self) -> None:
        """The user's connection is gone."""
        self._gone.set()
        self._hurry()
        for bridge in list(self._bridges):
            bridge.relay.client_closed = True

    def order(self, order: wire.Order) -> None:
        """The authority ordered this session to end."""
        self.end(order.code, order.reason)

    def end(self, code: str, reason: str) -> None:
        """End the session; the first reason counts. From here on nothing passes, whatever the disk is doing."""
        if self._ending is None:
            self._ending = (code, reason)
            self._refusal = self._refusal or reason
            self._turn_away(reason)
            for bridge in list(self._bridges):
                if self._recorder_failed is None:
                    bridge.end(reason)
                else:
                    bridge.end_unrecorded(reason)
            self._hurry()

    def _hurry(self) -> None:
        """Whatever the session waits for, it waits no longer."""
        self._wake.set()
        entering, self._entering = self._entering, None
        if entering is not None:
            entering.reschedule(asyncio.get_running_loop().time())

    def _refuse(self, error: BartizanError) -> None:
        """From now on whatever the user starts is answered with *error* and status 255."""
        self._refusal = f"{error}; {error.hint}" if error.hint else str(error)
        self._turn_away(self._refusal)
        for bridge in list(self._bridges):
            bridge.end_unrecorded(self._refusal)

    def _turn_away(self, reason: str) -> None:
        """Tell *reason* on the channels that have waited for the node."""
        for opening in self._waiting:
            if self._user.alive:
                RefusedChannel(opening, self._user, reason)
        self._waiting.clear()

    # --- back-pressure -----------------------------------------------------------------------------------------

    def _block(self, who: str, on: bool) -> None:
        """Somebody takes no more: stop reading from the other side, from both if it is the recorder."""
        if self._blocked[who] == on:
            return
        self._blocked[who] = on
        if self._node is not None and self._node.alive:
            self._node.read(not (self._blocked["user"] or self._blocked["tape"]))
        if self._user.alive:
            self._user.read(not (self._blocked["node"] or self._blocked["tape"]))

    # --- asked by the bridges ----------------------------------------------------------------------------------

    def granted(self, action: str) -> wire.GrantedAction | None:
        return self._actions.get(action)

    def why_not(self, action: str) -> str:
        if action.startswith(("forward.", "subsystem:")):
            return f"{action} is not available in this version of Bartizan"
        allowed = self._sure()
        have = ", ".join(sorted(self._actions))
        return f"your roles do not allow {action} as {allowed.login} on {allowed.node}; you may use: {have}"

    def used(self, action: str) -> None:
        assert self._limits is not None
        self._limits.use(self._actions[action])
        self._over_its_limits()  # they may have passed before they began to bind

    def active(self) -> None:
        if self._limits is not None:
            self._limits.touch(steady())
        tape = self._tape
        if tape is not None and tape.wanted.is_set():
            self._wake.set()
            if tape.full:
                self._block("tape", True)

    def note(self, channel: int | None, code: str, fields: Mapping[str, object]) -> None:
        """Into the recording's events; into the audit log too where it knows *code*. Raises if a disk is full."""
        if self._allowed is None:
            if len(self._early) < MOST_EARLY:
                self._early.append((code, fields))
            return
        if code == audit.SessionRefused.code:
            self._refusals += 1
            if self._refusals > MOST_REFUSALS:
                self.end("too_many_refusals", f"more than {MOST_REFUSALS} requests were refused in this session")
                return
        words = dict(fields) | ({} if channel is None else {"channel": channel})
        if self._tape is not None:
            self._tape.note(code, words)
        if code in audit.EVENTS:
            whole = {"channel": channel, "session": self.id} | words
            self._services.outbox.add(event_of(code, whole))

    def broken(self, side: str, reason: str) -> None:
        log.warning("session.protocol", session=self.id, side=side, reason=reason)
        if side == "client":
            self._user.fatal(reason)
        else:
            self.end("node_protocol", "the node broke the SSH protocol")

    def failed(self, error: Exception) -> None:
        """Recording, auditing or our own code failed while a message was handled: the message was not forwarded."""
        if isinstance(error, RecordingError | OSError):
            self._unrecorded(error)
            self.end("recording_failed", "the session can no longer be recorded; tell the operator of the bastion")
        elif isinstance(error, asyncssh.Error):
            raise error
        else:
            incident = secrets.token_hex(4)
            log.error("session.bug", incident=incident, session=self.id, exc_info=error)
            self._recorder_failed = self._recorder_failed or "bug"
            self.end("failed", f"something went wrong in the bastion (incident {incident})")

    def _unrecorded(self, error: Exception) -> None:
        """Say once, in the log and in the audit log, why nothing can be kept any more. The person hears no paths."""
        if self._recorder_failed is not None:
            return
        self._recorder_failed = str(error)
        log.error("session.unrecorded", session=self.id, error=str(error))
        try:
            self._services.outbox.add(audit.SessionUnrecorded(session=self.id, reason=str(error)))
        except OSError as failure:
            log.error("outbox.failed", error=str(failure))

    def bridge_over(self, bridge: Bridge) -> None:
        self._bridges.discard(bridge)

    def head(self) -> wire.RecordingHead | None:
        """How far the recording has come, for the authority's log."""
        if self._tape is None or self._allowed is None:
            return None
        head = self._tape.head()
        return wire.RecordingHead(session=self.id, closed=head.closed, chain=head.chain, open=dict(head.open))

    def _sure(self) -> wire.SessionAllowed:
        assert self._allowed is not None
        return self._allowed


def _openssh(private: Ed25519PrivateKey) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def _hostkey_fields(allowed: wire.SessionAllowed, error: upstream.HostKeyRefused) -> dict[str, object]:
    registered = tuple(PublicKey.from_line(line).fingerprint() for line in allowed.host_keys)
    return {"node": allowed.node, "expected": registered, "shown": error.shown, "reason": str(error)}
