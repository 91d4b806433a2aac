"""
``bartizan demo``: the whole product in under a minute, with the real ssh and sshd, on loopback ports of its own.

Everything it makes lies in one temporary folder; everything it starts ends with it. What it shows is what it ran.
"""

from __future__ import annotations

import fcntl
import getpass
import grp
import os
import pty
import secrets
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import click

from ca.errors import NotFound, Unavailable
from cli import output, sshd_config
from cli.client import Authority, pin_of
from cli.up import end_with_us, environment, python

SSHD_PLACES = "/usr/sbin:/usr/local/sbin:/usr/lib/ssh"
PROGRAMS = {"ssh": "openssh-client", "ssh-keygen": "openssh-client", "sshd": "openssh-server"}
WAIT_SECONDS = 60.0

ROLES = """\
roles:
  - name: developer
    allow:
      - nodes: {{env: [dev]}}
        logins: ["{login}"]
        actions: [shell, exec, sftp.read, sftp.write]
  - name: auditor
    audit: {{recordings: "*", events: "*"}}
tests:
  - {{user: {{name: alice, roles: [developer]}}, node: {{env: dev}}, login: "{login}", action: shell, expect: allow}}
  - {{user: {{name: alice, roles: [developer]}}, node: {{env: prod}}, login: "{login}", action: shell, expect: deny}}
"""

SSHD_CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey {key}
PidFile none
StrictModes no
UsePAM no
PrintMotd no
PrintLastLog no
PermitRootLogin yes
AuthenticationMethods publickey
Subsystem sftp internal-sftp
"""

TYPED = ("whoami", "echo 'every byte of this is recorded'", "ls -d /etc/ssh", "exit")


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the demo plays."""

    folder: Path
    web: str
    ssh: str
    sshd: str
    login: str

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def home(self, person: str) -> Path:
        return self.folder / person

    def of(self, person: str) -> dict[str, str]:
        """The environment of *person*'s laptop."""
        return environment() | {"BART_HOME": str(self.home(person))}

    def bartizan(self, *words: str, stdin: str = "") -> None:
        """Run ``bartizan --data … WORDS``, seen."""
        output.typed(shlex.join(["bartizan", "--data", str(self.data), *words]))
        _run([*python("cli.bartizan"), "--data", str(self.data), *words], environment(), stdin=stdin)

    def bart(self, person: str, *words: str, stdin: str = "") -> None:
        """Run ``bart WORDS`` as *person*, seen."""
        output.typed(shlex.join(["bart", *words]))
        _run([*python("cli.bart"), *words], self.of(person), stdin=stdin)

    def where(self) -> list[str]:
        """The words that tell ``bart`` which authority is meant."""
        with Authority.over_socket(self.data) as authority:
            pin = pin_of(authority.tls_root())
        return ["--authority", f"https://{self.web}", "--pin", pin]

    def config(self, person: str) -> str:
        return str(self.home(person) / "ssh_config")


class Cast(Protocol):
    """How the people of the play prove who they are."""

    def enter(self, stage: Stage) -> None:
        """alice (developer) and carol (auditor) come, and are signed in."""

    def finale(self, stage: Stage) -> None:
        """What only this way to sign in can show."""

    def tips(self, stage: Stage, bart: str) -> list[tuple[str, str]]:
        """More to try by hand: who, and the command."""


class LocalAccounts:
    """People with a password of ours."""

    def enter(self, stage: Stage) -> None:
        output.narrate("   Two people: alice, who works on web1, and carol, who audits.")
        for person, role in (("alice", "developer"), ("carol", "auditor")):
            password = secrets.token_urlsafe(18)
            stage.bartizan("users", "add", person, "--role", role, "--password-stdin", stdin=f"{password}\n")
            stage.bart(person, "login", *stage.where(), "--user", person, "--password-stdin", stdin=f"{password}\n")

    def finale(self, stage: Stage) -> None:
        return None

    def tips(self, stage: Stage, bart: str) -> list[tuple[str, str]]:
        return []


@click.command()
def demo() -> None:
    """Watch the product work: a session is decided, carried, recorded, replayed and proven."""
    play(LocalAccounts())


def play(cast: Cast) -> None:
    """The demo with these people."""
    sshd = _programs()
    signal.signal(signal.SIGTERM, _stop)
    began = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bartizan-demo-", dir=_short_place())))
        stage = Stage(folder, f"127.0.0.1:{_free_port()}", f"127.0.0.1:{_free_port()}", sshd, getpass.getuser())
        _set_up(stage, stack, cast)
        _use(stage)
        session = _look_back(stage)
        _prove(stage, session)
        cast.finale(stage)
        output.narrate(f"That was all of it, in {time.monotonic() - began:.0f} seconds.")
        if sys.stdin.isatty() and sys.stdout.isatty():
            _stay(stage, session, cast)
    output.note("everything is stopped and removed")


# --- the four acts --------------------------------------------------------------------------------------------


def _short_place() -> str:
    """Where temporary files go, unless that is so long that the path of the socket in there would not fit."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= 60 else "/tmp"  # the folder in it gets a name of its own, mode 0700


def _set_up(stage: Stage, stack: ExitStack, cast: Cast) -> None:
    output.narrate("1. An authority and a recording bastion start on this machine. Nothing leaves it.")
    stack.enter_context(_up(stage))
    output.narrate("   Roles say who may do what; the file carries its own tests, and a failing one refuses it.")
    roles = stage.folder / "roles.yaml"
    roles.write_text(ROLES.format(login=stage.login))
    stage.bartizan("roles", "apply", str(roles))
    output.narrate("   Two nodes: stock sshd with a few lines more. web1 is for developers, db1 is production.")
    for name, env in (("web1", "dev"), ("db1", "prod")):
        stack.enter_context(_node(stage, name, env))
    cast.enter(stage)


def _use(stage: Stage) -> None:
    config = stage.config("alice")
    output.narrate("2. alice types plain ssh. No wrapper, no host-key question; her certificate ends by itself.")
    _seen(["ssh", "-F", config, "web1", f"echo hello from $(hostname) as {stage.login}"], stage.of("alice"))
    if _sshd_may_give_terminals():
        output.narrate("   A shell, typed into by hand:")
        _typed_shell(["ssh", "-F", config, "web1"], stage.of("alice"))
    else:
        output.narrate("   A shell (without a terminal: this machine's /dev/pts lets only root's sshd give one):")
        _seen(["ssh", "-F", config, "-T", "web1"], stage.of("alice"), stdin="\n".join([*TYPED, ""]))
    output.narrate("   The same through a jump, as stock tools do it:")
    _seen(["ssh", "-F", config, "-J", "bartizan", f"{stage.login}@web1", "echo through a jump"], stage.of("alice"))
    output.narrate("   db1 is not hers. The bastion says no, and why:")
    _seen(["ssh", "-F", config, "db1.bartizan", "true"], stage.of("alice"), expect=255)


def _look_back(stage: Stage) -> str:
    output.narrate("3. carol looks back. She is no administrator, and what she does is in the log as well.")
    stage.bart("carol", "recordings", "list")
    session = _shell_session(stage)
    output.narrate("   The shell, as it was on alice's screen (twice as fast; pauses cut to half a second):")
    stage.bart("carol", "play", session, "--speed", "2", "--idle-limit", "0.5")
    return session


def _prove(stage: Stage, session: str) -> None:
    output.narrate("4. Proof needs none of our programs: sha256sum, ssh-keygen, zstd and asciinema are enough.")
    evidence = stage.folder / "evidence"
    stage.bart("carol", "recordings", "export", session, "--output", str(evidence))
    command = (
        "ssh-keygen -Y verify -f allowed_signers -n bartizan-recording -s manifest.json.sig "
        "-I $(ssh-keygen -Y find-principals -f allowed_signers -s manifest.json.sig) < manifest.json"
    )
    output.typed(f"cd {evidence}")
    output.typed(command)
    _run(["sh", "-c", command], environment(), cwd=evidence)
    stage.bart("carol", "recordings", "verify", session)
    stage.bartizan("audit", "verify")
    output.narrate("   And the log of what happened, hash-chained (the last lines):")
    stage.bartizan("audit", "tail", "-n", "8")


def _stay(stage: Stage, session: str, cast: Cast) -> None:
    bart = shutil.which("bart", path=str(Path(sys.executable).absolute().parent)) or "bart"
    as_carol, operator = f"BART_HOME={stage.home('carol')} {bart}", f"{bart}izan --data {stage.data}"
    try:
        output.narrate("It stays up until Ctrl-C. In another terminal:")
        for person, command in (
            ("alice", f"ssh -F {stage.config('alice')} web1"),
            ("alice", f"scp -F {stage.config('alice')} /etc/hostname web1:/tmp/"),
            ("carol", f"{as_carol} recordings list"),
            ("carol", f"{as_carol} play {session}"),
            ("operator", f"{operator} sessions list"),
            ("operator", f"{operator} locks add --user alice --reason 'try it while she is in'"),
            *cast.tips(stage, bart),
            ("operator", f"{operator} audit tail -f"),
        ):
            output.block(f"  {command}      # as {person}")
        while True:
            signal.pause()
    except KeyboardInterrupt:
        output.narrate("Stopping: recordings are being sealed.")


# --- the parts ------------------------------------------------------------------------------------------------


@contextmanager
def _up(stage: Stage) -> Iterator[None]:
    """``bartizan up``, ready."""
    ready, log = stage.folder / "ready", stage.folder / "up.log"
    words = ["--data", str(stage.data), "--web", stage.web, "--ssh", stage.ssh, "--workers", "1"]
    output.typed(shlex.join(["bartizan", "up", *words]))
    with (
        log.open("wb") as file,
        _running([*python("cli.bartizan"), "up", *words, "--ready-file", str(ready)], file) as it,
    ):
        deadline = time.monotonic() + WAIT_SECONDS
        while not ready.exists():
            if it.poll() is not None or time.monotonic() > deadline:
                output.block(log.read_text(errors="replace"))
                raise Unavailable("`bartizan up` did not start; its words stand above")
            time.sleep(0.05)
        yield


@contextmanager
def _node(stage: Stage, name: str, env: str) -> Iterator[None]:
    """A stock sshd of our own, registered under *name*."""
    folder = stage.folder / name
    folder.mkdir()
    port = _free_port()
    key = folder / "ssh_host_ed25519_key"
    _run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", str(key)], environment())
    stage.bartizan("nodes", "add", name, "--address", f"127.0.0.1:{port}", "--label", f"env={env}")
    stage.bartizan("nodes", "certify", name, f"{key}.pub")
    with Authority.over_socket(stage.data) as authority:
        trust = authority.node_trust(name)
    (folder / "target_ca.pub").write_text("".join(f"{line}\n" for line in trust.target_ca))
    (folder / "revoked_keys").touch()
    (folder / "principals").write_text(f"{stage.login}@{trust.id}\n")
    paths = sshd_config.Paths(
        trusted_ca=f"{folder}/target_ca.pub",
        host_certificates=[f"{key}-cert.pub"],
        revoked_keys=f"{folder}/revoked_keys",
        principals_file=f"{folder}/principals",
    )
    lines = sshd_config.lines(trust, paths, explain=False, unused_timeout=False)
    own = SSHD_CONFIG.format(port=port, key=key)
    (folder / "sshd_config").write_text(own + lines)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd as root does not start without it
    command = [stage.sshd, "-De", "-f", str(folder / "sshd_config")]
    with (folder / "sshd.log").open("wb") as log, _running(command, log):
        _wait_for_port(port)
        yield


def _shell_session(stage: Stage) -> str:
    """The id of the session in which a shell was typed into: the one with the audit event that says so."""
    with Authority.over_socket(stage.data) as authority:
        for event in authority.audit(after=0, limit=1000):
            if event.code == "session.channel" and event.fields.get("kind") == "shell":
                return str(event.fields["session"])
    raise Unavailable("the shell left no event in the audit log")


def _typed_shell(command: Sequence[str], env: Mapping[str, str]) -> None:
    """Run *command* on a terminal of its own and type into it like a person; what it shows is seen."""
    output.typed(shlex.join(command))
    child, terminal = pty.fork()
    if child == 0:
        try:
            os.execvpe(command[0], list(command), {"TERM": "xterm-256color", **env})
        finally:
            os._exit(127)
    try:
        _sized(terminal)
        lines = iter(TYPED)
        while _shown_until_quiet(terminal, seconds=0.7):
            os.write(terminal, f"{next(lines, 'exit')}\n".encode())
    except OSError:
        pass  # EIO: the other side is gone
    finally:
        os.close(terminal)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise Unavailable(f"the shell ended with status {status}")


def _sized(terminal: int) -> None:
    """The terminal is as large as the person's own."""
    columns, rows = shutil.get_terminal_size()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _shown_until_quiet(terminal: int, *, seconds: float) -> bool:
    """Show what comes until nothing came for so long; False when the other side is gone. At first wait for anything."""
    patience = WAIT_SECONDS
    while select.select([terminal], [], [], patience)[0]:
        data = os.read(terminal, 65_536)
        if not data:
            return False
        output.raw(data)
        patience = seconds
    return True


def _seen(command: Sequence[str], env: Mapping[str, str], *, stdin: str = "", expect: int = 0) -> None:
    output.typed(shlex.join(command))
    _run(command, env, stdin=stdin, expect=expect)


def _sshd_may_give_terminals() -> bool:
    """An sshd of anybody but root needs terminals that belong to the group ``tty`` from the start."""
    if os.geteuid() == 0:
        return True
    ours, theirs = pty.openpty()
    try:
        return os.fstat(theirs).st_gid == grp.getgrnam("tty").gr_gid
    except KeyError:
        return True
    finally:
        os.close(ours)
        os.close(theirs)


def _run(
    command: Sequence[str], env: Mapping[str, str], *, stdin: str = "", expect: int = 0, cwd: Path | None = None
) -> None:
    """Run to the end, seen. Another exit status than *expect* ends the demo."""
    done = subprocess.run(command, env=env, input=stdin, text=True, check=False, timeout=WAIT_SECONDS, cwd=cwd)
    if done.returncode != expect:
        raise Unavailable(f"{shlex.join(command[:6])} … ended with status {done.returncode}, not {expect}")


@contextmanager
def _running(command: Sequence[str], log: object) -> Iterator[subprocess.Popen[bytes]]:
    """A program of ours, out of reach of Ctrl-C, ended on the way out by its own process id."""
    program = subprocess.Popen(
        command,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=log,  # type: ignore[call-overload]
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=end_with_us,
    )
    try:
        yield program
    finally:
        program.terminate()
        try:
            program.wait(timeout=WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()


def _programs() -> str:
    """The path of sshd, which must be absolute. Raises NotFound when something is missing."""
    path = os.pathsep.join([os.environ.get("PATH", ""), SSHD_PLACES])
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program, path=path) is None})
    if missing:
        raise NotFound("the demo uses the real ssh and sshd", hint=f"apt-get install {' '.join(missing)}")
    return str(shutil.which("sshd", path=path))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise Unavailable("the sshd of a node did not start") from None
            time.sleep(0.05)


def _stop(*_: object) -> NoReturn:
    sys.exit(1)
