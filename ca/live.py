"""
What is alive: sessions by bastion worker, their leases, and the orders that wait for a worker to hear them.

A worker asks once a second and may wait for an order (``sync``). Whoever changes roles, people, locks, nodes or
certificates calls ``reconsider``; what may no longer be is ordered to end, and the waiting worker hears it at once.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from ca import audit
from ca.errors import AccessDenied, BartizanError, Conflict, NotFound
from ca.issue import Issuer
from ca.metrics import Metrics
from ca.model import LEASE, Deny
from ca.rights import Rights, still_holds
from ca.store import Db, Store, certificates, nodes, sessions, users
from ca.store import audit as log
from ca.store.bastions import Bastion, unseen
from ca.store.sessions import Session
from ca.wire import GrantedAction, Order, RecordingHead, SyncRequest

SILENCE = timedelta(seconds=10)
SAY_AGAIN = timedelta(seconds=1)
"""An order is repeated until the session has ended: an answer may get lost on its way."""

EVERY_SECONDS = 1.0

logger = structlog.get_logger()


@dataclass(slots=True)
class _Alive:
    """A live session and what is known of it by the second."""

    session: Session
    actions: tuple[GrantedAction, ...]
    heard: datetime
    alarmed: bool = False
    order: Order | None = None
    said: datetime | None = None

    @property
    def lease(self) -> timedelta:
        """Of its grants the longest: which of them were used its bastion knows, and ends it earlier if need be."""
        return timedelta(seconds=max((action.lease_seconds for action in self.actions), default=60))

    @property
    def ends_with_certificate(self) -> bool:
        """
        Whether it ends at the certificate's end whatever it was used for: every grant says so.

        Where only some do, the bastion decides by those that were used: options bind what their grant allowed. Were it
        to tell us which, nothing were gained. An order acts in a bastion that obeys, and that one ends the session by
        itself; one that has been taken over ignores the order, and can prolong what it carries anyway (threat model).
        """
        return all(action.on_expiry == "end" for action in self.actions)


@dataclass(slots=True)
class _Worker:
    bastion: str
    name: str
    heard: datetime
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Live:
    """The sessions that are alive, in memory; the table has the same."""

    def __init__(self, store: Store, rights: Rights, issuer: Issuer, metrics: Metrics) -> None:
        self._store = store
        self._rights = rights
        self._issuer = issuer
        self._metrics = metrics
        self._alive: dict[str, _Alive] = {}
        self._workers: dict[tuple[str, str], _Worker] = {}
        self._released = False

    async def load(self) -> None:
        """Take up the sessions that were alive when we stopped. Their leases begin anew."""
        for session, now in await self._store.read(lambda db: [(one, db.now) for one in sessions.live(db)]):
            self.add(session, now)

    def add(self, session: Session, now: datetime) -> None:
        """A session has begun."""
        actions = tuple(GrantedAction.model_validate(action) for action in session.actions)
        self._alive[session.id] = _Alive(session, actions, heard=now)
        key = (session.bastion_id, session.worker)
        worker = self._workers.setdefault(key, _Worker(session.bastion_id, session.worker, heard=now))
        worker.heard = max(worker.heard, now)
        self._count()

    def gone(self, id: str) -> None:
        """A session has ended."""
        self._alive.pop(id, None)
        self._count()

    def release(self) -> None:
        """Let nobody wait any longer: we are stopping."""
        self._released = True
        for worker in self._workers.values():
            worker.wake.set()

    # --- workers --------------------------------------------------------------------------------------------------

    async def sync(self, bastion: Bastion, request: SyncRequest) -> list[Order]:
        """Take in what a worker says; the orders for it, waiting for one as long as it allows."""
        now = await self._take_in(bastion, request)
        key = (bastion.id, request.worker)
        worker = self._workers.setdefault(key, _Worker(bastion.id, request.worker, heard=now))
        worker.heard = now
        for head in request.heads:
            alive = self._alive.get(head.session)
            if alive is not None:
                alive.heard, alive.alarmed = now, False
        orders = self._due(key, now)
        strays = [head.session for head in request.heads if head.session not in self._alive]
        orders += [Order(session=id, code="lost", reason="this session is not known to be alive") for id in strays]
        if orders or not request.wait_ms or self._released:
            return orders
        worker.wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(request.wait_ms / 1000):
                await worker.wake.wait()
        return self._due(key, now)

    async def _take_in(self, bastion: Bastion, request: SyncRequest) -> datetime:
        """Store heads that changed and events not seen before. Only of the bastion's own sessions; else nothing is."""
        events = {one.id: audit.parse_from_bastion(one.code, one.fields) for one in request.events}
        for event in events.values():
            if getattr(event, "bastion", bastion.name) != bastion.name:
                raise _not_its_own()
        named = {event.session for event in events.values() if hasattr(event, "session")}
        unknown = (named | {head.session for head in request.heads}) - self._known(bastion.id)
        changed = [head for head in request.heads if self._changed(head)]
        broken = [head.session for head in changed if not self._goes_on(head)]
        changed = [head for head in changed if head.session not in broken]

        def work(db: Db) -> datetime:
            if unknown - sessions.owned(db, bastion.id, unknown):
                raise _not_its_own()
            for head in changed:
                sessions.set_head(db, head.session, head.model_dump(mode="json"))
            fresh = unseen(db, bastion.id, list(events)) if events else set()
            for id, event in events.items():
                if id in fresh:
                    log.append(db, event, actor=f"bastion:{bastion.name}")
                    if isinstance(event, audit.SessionUnrecorded):
                        _end_unrecorded(db, event.session, bastion)
            return db.now

        now = await (self._store.write(work) if changed or events else self._store.read(work))
        for event in events.values():
            if isinstance(event, audit.SessionUnrecorded):
                self.gone(event.session)
        for id in broken:
            await self._break(id)
        for head in changed:
            alive = self._alive.get(head.session)
            if alive is not None:  # it may have ended while we wrote
                alive.session = _with_head(alive.session, head)
        return now

    def _known(self, bastion_id: str) -> set[str]:
        return {id for id, alive in self._alive.items() if alive.session.bastion_id == bastion_id}

    def _changed(self, head: RecordingHead) -> bool:
        alive = self._alive.get(head.session)
        return alive is not None and alive.session.head != head.model_dump(mode="json")

    def _goes_on(self, head: RecordingHead) -> bool:
        before = self._alive[head.session].session.head
        return before is None or _follows(RecordingHead.model_validate(before), head)

    async def _break(self, id: str) -> None:
        """A recording that does not go on from what was reported: say so, and end the session."""
        alive = self._alive.get(id)
        if alive is None or alive.order is not None:
            return
        self._order(alive, "recording_broken", "the recording of this session does not go on from what was reported")
        self._metrics.alarm("attest_broken")
        problem = "the bastion reported a head that does not follow the one before"
        event = audit.SessionAttestBroken(session=id, problem=problem)
        await self._store.write(lambda db: log.append(db, event, actor="authority"))

    def _due(self, key: tuple[str, str], now: datetime) -> list[Order]:
        """Orders for this worker that it has not heard, or not lately."""
        due = []
        for alive in self._alive.values():
            if alive.order is None or (alive.session.bastion_id, alive.session.worker) != key:
                continue
            if alive.said is None or now - alive.said >= SAY_AGAIN or now < alive.said:
                alive.said = now
                due.append(alive.order)
        return due

    # --- orders ---------------------------------------------------------------------------------------------------

    async def reconsider(self) -> int:
        """Look at every live session with the roles, locks, people and nodes of now; how many must end."""
        looked_at = [alive for alive in self._alive.values() if alive.order is None]
        if not looked_at:
            return 0
        verdicts = await self._store.read(lambda db: [(one, self._verdict(db, one)) for one in looked_at])
        ends = [(alive, *verdict) for alive, verdict in verdicts if verdict is not None]
        for alive, code, reason in ends:
            self._order(alive, code, reason)
        if ends:

            def work(db: Db) -> None:
                for alive, code, reason in ends:
                    _tell(db, alive, "authority", code, reason)

            await self._store.write(work)
        return len(ends)

    async def terminate(self, id: str, *, by: str, reason: str) -> None:
        """An administrator ends a session."""
        alive = self._alive.get(id)
        if alive is None:
            if await self._store.read(lambda db: sessions.find(db, id)) is None:
                raise NotFound("there is no such session", hint="bartizan sessions list")
            raise Conflict("this session has already ended")
        told = f"ended by an administrator: {reason}"
        await self._store.write(lambda db: _tell(db, alive, by, "terminated", reason))
        self._order(alive, "terminated", told)

    def _order(self, alive: _Alive, code: str, reason: str) -> None:
        alive.order = Order(session=alive.session.id, code=code, reason=reason)
        worker = self._workers.get((alive.session.bastion_id, alive.session.worker))
        if worker is not None:
            worker.wake.set()

    def _verdict(self, db: Db, alive: _Alive) -> tuple[str, str] | None:
        """Why the session must end: code and what the person reads; None when it may go on."""
        session = alive.session
        account = users.find(db, session.user)
        if account is None or account.disabled:
            return "user_disabled", "your account was closed"
        if account.refused is not None:
            return "identity_refused", account.refused
        record = certificates.find(db, "user", session.user_serial)
        if record is None or record.state != "issued":
            return "certificate_revoked", "your certificate was revoked"
        node = nodes.find(db, session.node)
        if node is None or node.id != session.node_id:
            return "node_removed", f"{session.node} was removed"
        access = self._rights.access(db, account.identity, node, session.login, bound=session.bound)
        if isinstance(access, Deny):
            return access.code.value, access.reason
        if not still_holds(alive.actions, access):
            return "access_changed", f"what you may do on {session.node} as {session.login} has changed: connect again"
        return None

    # --- by the second --------------------------------------------------------------------------------------------

    async def keep(self, stopping: asyncio.Event) -> None:
        """Watch leases, silence and expiry until told to stop. A full disk passes: the next look tries again."""
        while not stopping.is_set():
            try:
                await self.tick()
            except BartizanError as error:
                self._metrics.alarm("watch_failed")
                logger.error("the clocks of live sessions cannot be watched", error=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_SECONDS):
                    await stopping.wait()

    async def tick(self) -> None:
        """One look at all clocks."""
        if not self._alive:
            return
        now = await self._store.read(lambda db: db.now)
        for alive in list(self._alive.values()):  # others come and go while we write
            over = now >= alive.session.certificate_expires
            if over and alive.ends_with_certificate and alive.order is None:
                self._order(alive, "certificate_expired", "your certificate expired: run bart login")
                told = (alive, "authority", "certificate_expired", "the certificate expired")
                await self._store.write(lambda db, told=told: _tell(db, *told))  # type: ignore[misc]
        await self._lose(now)
        await self._alarm(now)

    async def _lose(self, now: datetime) -> None:
        """End sessions of which nothing was heard for the length of their lease; forget workers that carry none."""
        by_worker: dict[tuple[str, str], list[_Alive]] = {}
        for alive in self._alive.values():
            if now - alive.heard > alive.lease:
                by_worker.setdefault((alive.session.bastion_id, alive.session.worker), []).append(alive)
        for key, lost in by_worker.items():
            worker = self._workers[key]
            event = audit.BastionLost(
                bastion=worker.bastion,
                worker=worker.name,
                seconds=int((now - worker.heard).total_seconds()),
                sessions=tuple(alive.session.id for alive in lost)[: audit.MOST_ITEMS],
            )
            ids = [alive.session.id for alive in lost]

            def work(db: Db, event: audit.Event = event, ids: list[str] = ids) -> None:
                log.append(db, event, actor="authority")
                for id in ids:
                    if sessions.end(db, id, "lost"):
                        reason = "its bastion was not heard of for the length of the lease"
                        log.append(db, audit.SessionEnded(session=id, how="lost", reason=reason), actor="authority")

            await self._store.write(work)
            self._metrics.alarm("bastion_lost")
            logger.error("sessions lost", bastion=worker.bastion, worker=worker.name, sessions=len(ids))
            for id in ids:
                self.gone(id)
        carrying = {(alive.session.bastion_id, alive.session.worker) for alive in self._alive.values()}
        for key, worker in list(self._workers.items()):
            if now - worker.heard > LEASE and key not in carrying:
                self._workers.pop(key)

    async def _alarm(self, now: datetime) -> None:
        """Say once of each session that its hashes stopped coming."""
        silent = [one for one in self._alive.values() if now - one.heard > SILENCE and not one.alarmed]
        for alive in silent:
            alive.alarmed = True
            seconds = int((now - alive.heard).total_seconds())
            event = audit.SessionAttestMissing(session=alive.session.id, seconds=seconds)
            await self._store.write(lambda db, event=event: log.append(db, event, actor="authority"))  # type: ignore[misc]
            self._metrics.alarm("attest_missing")
            logger.warning("a live session sends no hashes", session=alive.session.id, seconds=seconds)

    def _count(self) -> None:
        self._metrics.live.set(len(self._alive))
        self._metrics.workers.set(len(self._workers))


def _follows(before: RecordingHead, after: RecordingHead) -> bool:
    """Whether *after* can follow *before*: nothing that was closed opens again, and nothing shrinks."""
    if after.closed < before.closed or (after.closed == before.closed and after.chain != before.chain):
        return False
    if after.closed > before.closed:
        return True
    return all(after.open.get(name, (0, ""))[0] >= size for name, (size, _) in before.open.items())


def _with_head(session: Session, head: RecordingHead) -> Session:
    values = {name: getattr(session, name) for name in session.__slots__}
    return Session(**values | {"head": head.model_dump(mode="json")})


def _tell(db: Db, alive: _Alive, by: str, cause: str, reason: str) -> None:
    event = audit.SessionTerminated(session=alive.session.id, by=by, cause=cause, reason=reason)
    log.append(db, event, actor=by)


def _end_unrecorded(db: Db, id: str, bastion: Bastion) -> None:
    """What is not recorded is over. There may be no manifest that says so: the disk did not take one."""
    if sessions.end(db, id, "recording_failed"):
        log.append(db, audit.SessionEnded(session=id, how="recording_failed"), actor=f"bastion:{bastion.name}")


def _not_its_own() -> AccessDenied:
    return AccessDenied("a bastion may only speak of its own sessions", code="not_own_session")
