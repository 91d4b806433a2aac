"""Runs one worker of a bastion: wires the parts in one TaskGroup, keeps in touch with the authority, ends in order.

Several workers share the port; each has its own connections. The line ``ready`` on standard output says that the
door is open. SIGTERM ends the sessions with a word to the users, seals their recordings and exits 0.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import structlog
import uvloop

from bastion import state as states
from bastion.authority import HttpAuthority
from bastion.listener import FirstBytes, listening_socket
from bastion.outbox import Outbox
from bastion.penalties import Penalties
from bastion.session import Services
from bastion.shown import ShownKeys
from bastion.ssh_adapter import server_options
from bastion.sweep import sweep
from bastion.visit import Door
from ca import audit, wire
from ca.errors import AccessDenied, BartizanError, InvalidInput, Unavailable

log = structlog.get_logger()

SYNC_WAIT_MS = 400
RETRY_SECONDS = 0.5
START_SECONDS = 30
STOP_SECONDS = 12
EVENTS_AT_ONCE = 500
SWEEP_SECONDS = 30
SWEPT_AGAIN = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Settings:
    """One worker's settings, from its command line."""

    state: Path
    authority: str
    ssh: tuple[str, int]
    recordings: Path
    worker: str
    balancers: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()


class _Stop(Exception):
    """Ends the TaskGroup from within."""


class Sync:
    """Keeps in touch with the authority: alive, heads and events out; orders, beacon and trust in."""

    def __init__(self, door: Door, authority: HttpAuthority) -> None:
        self._door = door
        self._authority = authority
        self._revision: int | None = None
        self._trouble = False

    async def run(self) -> None:
        """Forever: one exchange after the other. The authority holds each answer until there is something to say."""
        while True:
            try:
                await self.once(wait_ms=SYNC_WAIT_MS)
                self._trouble = False
            except Unavailable as error:
                if not self._trouble:
                    log.warning("authority.lost", error=str(error))
                self._trouble = True
                await asyncio.sleep(RETRY_SECONDS)
            except BartizanError as error:
                log.error("sync.refused", error=str(error), code=error.code)
                await self._one_by_one()
                await asyncio.sleep(RETRY_SECONDS)

    async def once(self, *, wait_ms: int, most: int = EVENTS_AT_ONCE) -> None:
        """One exchange."""
        services = self._door.services
        heads = [head for session in list(services.sessions.values()) if (head := session.head()) is not None]
        events = services.outbox.first(most)
        answer = await self._authority.sync(
            wire.SyncRequest(
                worker=services.worker, heads=heads, events=events, wait_ms=0 if len(events) == most else wait_ms
            )
        )
        services.outbox.taken(len(events))
        services.contact.heard()
        self._door.beacon = answer.beacon
        for order in answer.orders:
            session = services.sessions.get(order.session)
            if session is not None:
                session.order(order)
        if self._revision is not None and answer.trust_revision != self._revision:
            self._door.trust(await self._authority.trust())
        self._revision = answer.trust_revision

    async def _one_by_one(self) -> None:
        """An event was refused: find it, put it aside, go on with the rest in order."""
        outbox = self._door.services.outbox
        for _ in range(len(outbox)):
            try:
                await self.once(wait_ms=0, most=1)
            except (InvalidInput, AccessDenied) as error:
                outbox.put_aside(str(error))
            except BartizanError:
                return


async def _first_contact(authority: HttpAuthority, shown: ShownKeys) -> wire.TrustAnchors:
    """Trust anchors and our own certificate; waits for an authority that is just starting."""
    try:
        async with asyncio.timeout(START_SECONDS):
            while True:
                try:
                    anchors = await authority.trust()
                    await shown.fetch("")
                    return anchors
                except Unavailable:
                    await asyncio.sleep(RETRY_SECONDS)
    except TimeoutError:
        raise Unavailable(
            f"the authority was not reached within {START_SECONDS} s", hint="is it running, and is --authority right?"
        ) from None


async def serve(settings: Settings, *, ready: asyncio.Event | None = None) -> None:
    """Run one worker until SIGTERM or SIGINT."""
    state = states.load(settings.state)
    authority = HttpAuthority(settings.authority, state)
    shown = ShownKeys(authority, state.host_key)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    anchors = await _first_contact(authority, shown)
    settings.recordings.mkdir(mode=0o700, parents=True, exist_ok=True)
    outbox = Outbox(state.folder / "outbox" / f"{settings.worker}.ndjson")
    with ThreadPoolExecutor(2, thread_name_prefix="recorder") as pool:
        services = Services(
            state=state,
            authority=authority,
            worker=settings.worker,
            recordings=settings.recordings,
            outbox=outbox,
            pool=pool,
            trust=anchors,
        )
        try:
            async with asyncio.TaskGroup() as group:
                door = Door(services, shown, await server_options(state.host_key), Penalties(), group)
                door.trust(anchors)
                sync = Sync(door, authority)
                await sync.once(wait_ms=0)
                sock = listening_socket(*settings.ssh)
                server = await loop.create_server(
                    lambda: FirstBytes(door, balancers=settings.balancers), sock=sock, backlog=512
                )
                group.create_task(sync.run())
                group.create_task(_sweep_for_ever(services))
                group.create_task(_keep_shown(shown))
                group.create_task(_tell_tries(door))
                sys.stdout.write("ready\n")
                sys.stdout.flush()
                if ready is not None:
                    ready.set()
                await stopping.wait()
                services.draining = True
                server.close()
                await _drain(services)
                door.tell_tries(early=True)
                await sync.once(wait_ms=0)
                raise _Stop
        except* _Stop:
            pass
        finally:
            outbox.close()
            await authority.close()


async def _drain(services: Services) -> None:
    """Tell everybody, let the recordings be sealed."""
    for session in list(services.sessions.values()):
        session.end("bastion_stopping", "the bastion is shutting down: connect again in a moment")
    try:
        async with asyncio.timeout(STOP_SECONDS):
            while services.sessions:  # noqa: ASYNC110  # at the end of a process, not worth an event
                await asyncio.sleep(0.05)
    except TimeoutError:
        log.warning("drain.late", sessions=len(services.sessions))


async def _sweep_for_ever(services: Services) -> None:
    """Bring recordings of crashed workers, and those that the authority has not countersigned, to their end."""
    since: date | None = None  # the first round looks at everything
    while True:
        try:
            await sweep(services, since=since)
            since = (datetime.now(UTC) - SWEPT_AGAIN).date()
        except (BartizanError, OSError) as error:
            log.warning("sweep.failed", error=str(error))
        await asyncio.sleep(SWEEP_SECONDS)


async def _keep_shown(shown: ShownKeys) -> None:
    """Keep the bastion's own certificate fresh, so that no connection waits for it."""
    while True:
        await asyncio.sleep(60)
        if shown.ready("") is None:
            try:
                await shown.fetch("")
            except Unavailable as error:
                log.warning("shown.unavailable", error=str(error))


async def _tell_tries(door: Door) -> None:
    """Tell how often strangers failed, a minute at a time."""
    while True:
        await asyncio.sleep(1)
        door.tell_tries()


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 <= int(port) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is no HOST:PORT")
    return host.strip("[]"), int(port)


def _run(settings: Settings) -> None:
    """Serve to the end. What ends a task of ours ends all: of several reasons, the first is told."""
    try:
        uvloop.run(serve(settings))
    except BaseExceptionGroup as failures:
        first: BaseException = failures
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first if isinstance(first, BartizanError | OSError) else failures from None


def main(arguments: list[str] | None = None) -> int:
    """``python -m bastion.serve``: exit status 0 after an orderly end, 1 with one line when it cannot run."""
    parser = argparse.ArgumentParser(prog="bartizan-bastion", description="One worker of a Bartizan bastion.")
    parser.add_argument("--state", type=Path, required=True, help="folder with the bastion's identity")
    parser.add_argument("--authority", required=True, help="URL of the authority")
    parser.add_argument("--ssh", type=_address, required=True, help="HOST:PORT to listen on")
    parser.add_argument("--recordings", type=Path, required=True, help="folder of the recordings")
    parser.add_argument("--worker", required=True, help="name of this worker, unique on this bastion")
    parser.add_argument(
        "--balancer", action="append", default=[], type=ipaddress.ip_network, help="network whose PROXY headers count"
    )
    given = parser.parse_args(arguments)
    settings = Settings(given.state, given.authority, given.ssh, given.recordings, given.worker, tuple(given.balancer))
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            audit.harmless,
            structlog.processors.LogfmtRenderer(bool_as_flag=False),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        _run(settings)
    except BartizanError as error:
        sys.stderr.write(states.complaint(error))
        return 1
    except OSError as error:
        where = f"{settings.ssh[0]}:{settings.ssh[1]}"
        sys.stderr.write(f"bartizan: error: the bastion cannot run at {where}: {error.strerror or error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
