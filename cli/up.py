"""
``bartizan up``: an authority and bastion workers on one machine, kept running and drained together.

It holds no key and opens no port itself. Secrets reach the programs it starts by file or by pipe, never by argument.
What it starts it also ends, by process id; if it is killed, the system ends them (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click

from ca import settings, wire
from ca.errors import BartizanError, Conflict, InvalidInput, Unavailable
from cli import output
from cli.client import Authority, pin_of
from cli.parameters import ADDRESS, FOLDER, NETWORK, split_address
from cli.profile import beside, write_new
from cli.way_in import SYSTEM_DATA, WayIn, pass_way

ROOM = Path(__file__).resolve().parent.parent
"""Where our packages are found by the programs we start, installed or not."""

BASTION = "local"
"""The bastion of this machine."""
WEB = "127.0.0.1:8443"
LISTEN_HINTS = {
    errno.EADDRINUSE: "stop what listens there, or choose another port",
    errno.EACCES: "choose a port of 1024 or more, or give the right to bind lower ones (CAP_NET_BIND_SERVICE)",
    errno.EADDRNOTAVAIL: "this machine has no such address; give one of its own",
}
START_SECONDS = 60.0
DRAIN_SECONDS = 30.0
CRASHES = 5
"""So many ends of one program within a minute are no accident: everything stops."""

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What shall run."""

    data: Path
    web: str
    ssh: str
    workers: int
    cluster: str | None = None
    public_web: str | None = None
    public_ssh: str | None = None
    recordings: Path | None = None
    keep_days: int | None = None
    web_certificate: Path | None = None
    web_key: Path | None = None
    balancers: Sequence[str] = ()
    passphrase: Sequence[str] = ()
    inherited: tuple[int, ...] = ()
    ready_file: Path | None = None

    @property
    def bastion(self) -> Path:
        return self.data / "bastion"

    @property
    def recordings_folder(self) -> Path:
        return self.recordings or self.data / "recordings"

    @property
    def authority_url(self) -> str:
        """Where a bastion on this machine finds the authority."""
        return f"https://{_written(*_nearby(self.web))}"

    def authority(self) -> list[str]:
        options = {
            "--data": self.data,
            "--web": self.web,
            "--cluster": self.cluster,
            "--public-web": self.public_web,
            "--public-ssh": self.public_ssh or self.ssh,
            "--recordings": self.recordings_folder,
            "--recordings-keep-days": self.keep_days,
            "--web-certificate": self.web_certificate,
            "--web-key": self.web_key,
        }
        return python("ca.serve", **options) + list(self.passphrase)

    def worker(self, number: int) -> list[str]:
        options: dict[str, object] = {
            "--state": self.bastion,
            "--authority": self.authority_url,
            "--ssh": self.ssh,
            "--recordings": self.recordings_folder,
            "--worker": f"w{number}",
        }
        balancers = [word for network in self.balancers for word in ("--balancer", network)]
        return python("bastion.serve", **options) + balancers


@dataclass(slots=True)
class Program:
    """One program that is kept running."""

    name: str
    words: list[str]
    inherited: tuple[int, ...] = ()
    process: Process | None = None
    ends: deque[float] = field(default_factory=deque)

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *self.words,
            stdin=DEVNULL,
            stdout=PIPE,
            env=environment(),
            pass_fds=self.inherited,
            start_new_session=True,  # Ctrl-C must reach us alone: the order of ends matters
            preexec_fn=end_with_us,
        )

    async def announced(self) -> None:
        """Wait for the line ``ready`` on its standard output. Raises Unavailable when it ends instead."""
        assert self.process is not None
        assert self.process.stdout is not None
        while (await self.process.stdout.readline()).strip() != b"ready":
            if self.process.stdout.at_eof():
                await self.process.wait()
                self.check_alive()

    def check_alive(self) -> None:
        if self.process is not None and self.process.returncode is not None:
            raise Unavailable(f"{self.name} did not start ({_ended(self.process.returncode)}); it said why above")

    async def keep(self, stopping: asyncio.Event) -> None:
        """Start it again when it ends by itself. Raises Unavailable when that does not help."""
        while not stopping.is_set():
            assert self.process is not None
            await self.process.communicate()
            status = self.process.returncode or 0
            if stopping.is_set():
                return
            now = time.monotonic()
            self.ends = deque((*(end for end in self.ends if end > now - 60), now))
            if len(self.ends) >= CRASHES:
                raise Unavailable(f"{self.name} ended {CRASHES} times within a minute; everything stops")
            output.warning(f"{self.name} ended ({_ended(status)}); it is started again")
            await asyncio.sleep(0.2 * 2 ** len(self.ends))
            if not stopping.is_set():
                await self.start()

    async def end(self, *, within: float, hurry: asyncio.Event) -> None:
        """SIGTERM, and SIGKILL when it takes too long or somebody is in a hurry."""
        if self.process is None or self.process.returncode is not None:
            return
        _signal(self.process, signal.SIGTERM)
        if not await _before(hurry, self.process.wait(), within=within):
            output.warning(f"{self.name} did not end in time and is killed; the next start repairs what it left")
            _signal(self.process, signal.SIGKILL)
        await self.process.wait()


@dataclass(frozen=True, slots=True)
class _Told:
    """What bartizan.toml and the environment say. The authority reads the same; this is what it must hear from us."""

    values: Mapping[str, object]

    def text(self, name: str) -> str | None:
        value = self.values.get(name)
        if value is not None and not isinstance(value, str):
            raise InvalidInput(f"{name}: expected text")
        return value

    def address(self, name: str, *, default_port: int | None = None) -> str | None:
        text = self.text(name)
        if text is None:
            return None
        return str(settings.Address.parse(text, field_name=name, default_port=default_port))

    def folder(self, name: str) -> Path | None:
        text = self.text(name)
        return None if text is None else Path(text)


@click.command()
@click.option("--data", type=FOLDER, help="The folder that holds everything.")
@click.option("--web", type=ADDRESS, help=f"Where HTTPS is bound. Default: {WEB}.")
@click.option("--ssh", type=ADDRESS, default="127.0.0.1:2222", show_default=True, help="Where the bastion is bound.")
@click.option(
    "--workers", type=click.IntRange(1, 64), default=lambda: min(4, os.cpu_count() or 1), help="Bastion processes."
)
@click.option("--cluster", help="The cluster's name: people type `ssh -J NAME`. Default: bartizan.")
@click.option("--public-web", help="HOST[:PORT] where people find the web door, if not as bound.")
@click.option("--public-ssh", type=ADDRESS, help="HOST:PORT where people find the bastion, if not as bound.")
@click.option(
    "--web-certificate",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A certificate chain (PEM) that browsers believe, for the name in --public-web.",
)
@click.option("--web-key", type=click.Path(path_type=Path, dir_okay=False), help="Its private key (PEM).")
@click.option("--recordings", type=click.Path(path_type=Path, file_okay=False), help="Default: recordings in --data.")
@click.option("--recordings-keep-days", type=click.IntRange(min=1), help="Delete recordings after so many days.")
@click.option("--balancer", "balancers", type=NETWORK, multiple=True, help="A network; its PROXY headers are believed.")
@click.option("--passphrase-file", type=click.Path(path_type=Path, dir_okay=False), help="Opens the sealed CA keys.")
@click.option("--passphrase-fd", type=click.IntRange(min=3), help="The same from a file descriptor.")
@click.option("--ready-file", type=click.Path(path_type=Path, dir_okay=False), help="Made when both doors are open.")
@pass_way
def up(
    way: WayIn,
    data: Path | None,
    web: str | None,
    ssh: str,
    workers: int,
    cluster: str | None,
    public_web: str | None,
    public_ssh: str | None,
    web_certificate: Path | None,
    web_key: Path | None,
    recordings: Path | None,
    recordings_keep_days: int | None,
    balancers: tuple[str, ...],
    passphrase_file: Path | None,
    passphrase_fd: int | None,
    ready_file: Path | None,
) -> None:
    """Run an authority and a bastion here, until SIGTERM or Ctrl-C.

    What no option says is taken from bartizan.toml in the data folder.
    """
    if passphrase_file and passphrase_fd:
        raise click.UsageError("--passphrase-file and --passphrase-fd exclude each other")
    secret = ["--passphrase-file", str(passphrase_file.absolute())] if passphrase_file else []
    if passphrase_fd:
        secret = ["--passphrase-fd", str(passphrase_fd)]
    folder = (data or way.data or SYSTEM_DATA).absolute()
    told = _Told(settings.written(folder, os.environ))
    plan = Plan(
        data=folder,
        web=web or told.address("web") or WEB,
        ssh=ssh,
        workers=workers,
        cluster=cluster,
        public_web=public_web or told.text("public_web"),
        public_ssh=public_ssh or told.address("public_ssh", default_port=22),
        recordings=recordings.absolute() if recordings else told.folder("recordings"),
        keep_days=recordings_keep_days,
        web_certificate=web_certificate.absolute() if web_certificate else None,
        web_key=web_key.absolute() if web_key else None,
        balancers=balancers,
        passphrase=secret,
        inherited=(passphrase_fd,) if passphrase_fd else (),
        ready_file=ready_file.absolute() if ready_file else None,
    )
    _check(plan)
    os.umask(0o077)
    with _alone(plan.data):
        try:
            asyncio.run(run(plan))
        except BaseExceptionGroup as failures:
            raise _first_of(failures) from None
    output.note("stopped")


async def run(plan: Plan) -> None:
    """Start in order, keep running, end in reverse order."""
    stopping, hurry = asyncio.Event(), asyncio.Event()
    _listen_to_signals(stopping, hurry)
    authority = Program("the authority", plan.authority(), plan.inherited)
    workers = [Program(f"bastion worker w{number}", plan.worker(number)) for number in range(1, plan.workers + 1)]
    try:
        async with _ended_at_last([authority], stopping, hurry):
            await authority.start()
            if not await _in_time(_answers(authority, plan.data), authority, stopping):
                return
            await _enrol(plan)
            async with _ended_at_last(workers, stopping, hurry):
                for worker in workers:
                    await worker.start()
                for worker in workers:
                    if not await _in_time(worker.announced(), worker, stopping):
                        return
                await asyncio.to_thread(_told, plan)
                with _ready_file(plan.ready_file):
                    await _kept([authority, *workers], stopping)
                output.note("draining: recordings are being sealed (Ctrl-C again ends at once)")
    finally:
        stopping.set()


async def _kept(programs: Sequence[Program], stopping: asyncio.Event) -> None:
    """Keep all of them running until we are told to stop."""
    async with asyncio.TaskGroup() as group:
        keepers = [group.create_task(program.keep(stopping)) for program in programs]
        await stopping.wait()
        for keeper in keepers:
            keeper.cancel()


async def _in_time(ready: Coroutine[object, object, None], program: Program, stopping: asyncio.Event) -> bool:
    """Wait until *ready*; False when told to stop first. Raises Unavailable when it takes too long."""
    if await _before(stopping, ready, within=START_SECONDS):
        return True
    if not stopping.is_set():
        raise Unavailable(f"{program.name} did not become ready within {START_SECONDS:.0f} s")
    return False


@asynccontextmanager
async def _ended_at_last(
    programs: Sequence[Program], stopping: asyncio.Event, hurry: asyncio.Event
) -> AsyncIterator[None]:
    """Whatever happens inside, these programs are over afterwards."""
    try:
        yield
    finally:
        stopping.set()
        async with asyncio.TaskGroup() as group:
            for program in programs:
                group.create_task(program.end(within=DRAIN_SECONDS, hurry=hurry))


async def _answers(authority: Program, data: Path) -> None:
    """Wait until the authority says that it is ready. Raises Unavailable when it ends instead."""
    while not await asyncio.to_thread(_authority_ready, data):
        authority.check_alive()
        await asyncio.sleep(0.05)
    authority.check_alive()  # what answered was ours


def _authority_ready(data: Path) -> bool:
    try:
        with Authority.over_socket(data) as authority:
            return authority.ready()
    except BartizanError:
        return False


async def _enrol(plan: Plan) -> None:
    """Give the bastion of this machine its identity, once. Its token goes in by standard input."""
    if (plan.bastion / "identity.json").exists():
        return
    token, pin = await asyncio.to_thread(_token_and_pin, plan.data)
    options: dict[str, object] = {
        "--state": plan.bastion,
        "--authority": plan.authority_url,
        "--pin": pin,
        "--name": BASTION,
    }
    enrolment = await asyncio.create_subprocess_exec(
        *python("bastion.enrol", **options), stdin=PIPE, stdout=DEVNULL, env=environment(), preexec_fn=end_with_us
    )
    async with asyncio.timeout(START_SECONDS):
        await enrolment.communicate(f"{token}\n".encode())
    if enrolment.returncode:
        raise Unavailable(f"the bastion could not be enrolled ({_ended(enrolment.returncode)}); see above")


def _token_and_pin(data: Path) -> tuple[str, str]:
    with Authority.over_socket(data) as authority:
        return authority.bastion_token(wire.NewBastionToken(name=BASTION)).token, pin_of(authority.tls_root())


def _told(plan: Plan) -> None:
    """What runs, and what to type next."""
    with Authority.over_socket(plan.data) as authority:
        pin, cluster, people = pin_of(authority.tls_root()), authority.cluster(), authority.users()
        by_browser = bool(authority.providers())
    door = f"{cluster.ssh_host}:{cluster.ssh_port}"
    many = "1 worker" if plan.workers == 1 else f"{plan.workers} workers"
    output.note(f"authority {cluster.web_url}   bastion {door} ({many})   data {plan.data}")
    output.note(f"pin {pin}")
    output.note(f"whoever can read {plan.recordings_folder} can read the recordings")
    us = f"bartizan --data {output.word(plan.data)}"
    if not people:
        output.note("next, in another terminal:")
        output.hint(f"{us} roles apply roles.yaml")
        output.hint(f"{us} users add alice --role developer")
        output.hint(f"{us} nodes add web1 --address HOST:22 --label env=dev")
    whom = "" if by_browser else f" --user {people[0].name if people else 'alice'}"
    output.hint(f"bart login --authority {cluster.web_url} --pin {pin}{whom}")


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    """One `bartizan up` per data folder."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (data / "up.lock").open("a")
    except OSError as error:
        why = os.strerror(error.errno).lower() if error.errno else str(error)
        raise InvalidInput(f"{data} cannot be used: {why}", hint="bartizan up --data FOLDER") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"`bartizan up` is already running on {data}", hint="stop it first, or choose another --data"
            ) from None
        yield


@contextmanager
def _ready_file(path: Path | None) -> Iterator[None]:
    """*path* exists exactly while both doors are open."""
    if path is None:
        yield
        return
    new = beside(path)
    write_new(new, f"{os.getpid()}\n")
    new.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _check(plan: Plan) -> None:
    if plan.web == plan.ssh:
        raise InvalidInput(f"--web and --ssh cannot both be {plan.web}", hint="give each a port of its own")
    for bound, public, option in (
        (plan.ssh, plan.public_ssh, "--public-ssh"),
        (plan.web, plan.public_web, "--public-web"),
    ):
        if split_address(bound)[0] in ("0.0.0.0", "::") and public is None:
            key = option.removeprefix("--").replace("-", "_")
            raise InvalidInput(
                f"{bound} is every address and names none",
                hint=f'add {option} HOST:PORT, or {key} = "HOST:PORT" in {plan.data / settings.FILE}',
            )
        _check_free(bound)


def _check_free(bound: str) -> None:
    """Bastion workers share their port; that of another product must not be shared unnoticed."""
    host, port = split_address(bound)
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        hint = LISTEN_HINTS.get(error.errno or 0)
        why = os.strerror(error.errno).lower() if error.errno else str(error)
        raise Conflict(f"cannot listen on {bound}: {why}", hint=hint) from None


def _listen_to_signals(stopping: asyncio.Event, hurry: asyncio.Event) -> None:
    def heard() -> None:
        (hurry if stopping.is_set() else stopping).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, heard)


async def _before(event: asyncio.Event, work: Coroutine[object, object, object], *, within: float) -> bool:
    """Whether *work* was done before *event* happened and before the time was up."""
    async with asyncio.TaskGroup() as group:
        mine, other = group.create_task(work), group.create_task(event.wait())
        await asyncio.wait([mine, other], timeout=within, return_when=asyncio.FIRST_COMPLETED)
        done = mine.done()
        mine.cancel()
        other.cancel()
    return done


def python(module: str, **options: object) -> list[str]:
    """The command line of one of our programs. ``-P``: nothing is imported from where we happen to stand."""
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    return [sys.executable, "-P", "-m", module, *words]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOM), "PYTHONUNBUFFERED": "1"}


def end_with_us() -> None:
    """Runs in the new process before its program: when we are killed, the system ends it too."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal(process: Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except ProcessLookupError:
        pass  # it has just ended


def _nearby(address: str) -> tuple[str, int]:
    """Where a bound address is reached from this machine."""
    host, port = split_address(address)
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _ended(status: int) -> str:
    return f"status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"


def _first_of(failures: BaseException) -> BaseException:
    while isinstance(failures, BaseExceptionGroup):
        failures = failures.exceptions[0]
    return failures
