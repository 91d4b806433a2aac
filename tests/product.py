"""
The product as its users run it: real processes, real commands, real ssh, on free loopback ports.

Nothing here reaches into the code of the product; what can be done here, an operator can do.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.canaries import found_in, plant, plant_home
from tests.sshd import LOGIN, Sshd, free_port, running_sshd, stop

HOUSE = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
Way = Literal["config", "jump", "username"]
START_TRIES = 3

ROLES = f"""\
roles:
  - name: developer
    allow:
      - nodes: {{env: [dev]}}
        logins: ["{LOGIN}"]
        actions: [shell, exec, sftp.read, sftp.write]
  - name: auditor
    audit: {{recordings: "*", events: "*"}}
"""


@dataclass(slots=True)
class Product:
    """A running ``bartizan up``."""

    folder: Path
    web: str
    ssh: str
    process: subprocess.Popen[bytes]
    nodes: dict[str, Sshd] = field(default_factory=dict)
    _pin: str = ""

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> str:
        return (self.folder / "up.log").read_text(errors="backslashreplace")

    @property
    def pin(self) -> str:
        if not self._pin:
            self._pin = self.bartizan("pin").stdout.strip()
        return self._pin

    def bartizan(
        self, *args: str | Path, stdin: str = "", check: bool = True, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``bartizan --data D …`` as an operator on this machine does."""
        command = [BIN / "bartizan", "--data", self.data, *args]
        return run(command, environment(self.folder), stdin=stdin, check=check, cwd=cwd)

    def apply_roles(self, text: str) -> subprocess.CompletedProcess[str]:
        file = self.folder / f"roles-{secrets.token_hex(4)}.yaml"
        file.write_text(text)
        return self.bartizan("roles", "apply", file)

    def add_user(self, name: str, *roles: str) -> str:
        """Add a person; gives the password."""
        password = plant(secrets.token_urlsafe(18), f"password of {name}")
        options = [word for role in roles for word in ("--role", role)]
        self.bartizan("users", "add", name, *options, "--password-stdin", stdin=f"{password}\n")
        return password

    def person(self, name: str, *roles: str) -> Person:
        """Add a person and sign them in."""
        person = Person(self, name, self.add_user(name, *roles), self.folder / "people" / name)
        person.login()
        return person

    def trust(self, name: str, server: Sshd, **labels: str) -> None:
        """Register *server* as the node *name* and make it trust the target CA, with the commands an operator uses."""
        options = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
        self.bartizan("nodes", "add", name, "--address", server.address, *options)
        self.bartizan("nodes", "certify", name, server.host_key.with_suffix(".pub"), cwd=server.folder)
        ca, revoked = server.folder / "target_ca.pub", server.folder / "revoked_keys"
        ca.write_text(self.bartizan("ca", "export", "target").stdout)
        revoked.touch()
        certificate = f"{server.host_key}-cert.pub"
        files = ["--trusted-ca", ca, "--host-certificate", certificate, "--revoked-keys", revoked]
        lines = self.bartizan("nodes", "sshd-config", name, *files).stdout
        if os.geteuid() != 0:  # an sshd that is not root cannot become nobody
            lines = lines.replace("CommandUser nobody", f"CommandUser {LOGIN}")
        server.reload(*lines.splitlines())
        self.nodes[name] = server

    @contextmanager
    def node(self, name: str, **labels: str) -> Iterator[Sshd]:
        """A new node with its own sshd, registered under *name*."""
        with running_sshd(self.folder / "nodes" / name) as server:
            self.trust(name, server, **labels)
            yield server

    def audit(self) -> list[dict[str, Any]]:
        """All events so far."""
        return _documents(self.bartizan("audit", "export", "--json").stdout)

    def recording_folder(self, session: str) -> Path:
        found = list((self.data / "recordings").glob(f"*/*/*/{session}"))
        assert len(found) == 1, f"{session}: {found}"
        return found[0]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a laptop: an own ``$BART_HOME``, no agent, no other configuration."""

    product: Product
    name: str
    password: str
    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "bart"

    @property
    def config(self) -> Path:
        return self.home / "ssh_config"

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.folder, BART_HOME=str(self.home))

    def bart(
        self, *args: str | Path, stdin: str = "", check: bool = True, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return run([BIN / "bart", *args], self.environment, stdin=stdin, check=check, cwd=cwd)

    def login(self, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        where = ["--authority", f"https://{self.product.web}", "--pin", self.product.pin, "--user", self.name]
        done = self.bart("login", *where, "--password-stdin", *options, stdin=f"{self.password}\n", check=check)
        plant_home(self.home)
        return done

    def destination(self, node: str, *, way: Way = "config", login: str = LOGIN) -> list[str]:
        """The words after ``ssh`` that lead to *node*."""
        match way:
            case "config":
                return [f"{login}@{node}"]
            case "jump":
                return ["-J", "bartizan", f"{login}@{node}"]
            case "username":
                return [f"{login}+{node}@bartizan"]

    def ssh_command(
        self, node: str, *command: str, way: Way = "config", login: str = LOGIN, options: Sequence[str] = ()
    ) -> list[str]:
        """The argv of a stock ssh, for tests that start it themselves. Host keys are checked strictly, always."""
        fixed = ["-F", str(self.config), "-oStrictHostKeyChecking=yes", "-oBatchMode=yes", "-oConnectTimeout=10"]
        return ["ssh", *fixed, *options, *self.destination(node, way=way, login=login), *command]

    def ssh(
        self,
        node: str,
        *command: str,
        way: Way = "config",
        login: str = LOGIN,
        options: Sequence[str] = (),
        stdin: bytes = b"",
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ``ssh NODE COMMAND`` through the bastion, in bytes."""
        argv = self.ssh_command(node, *command, way=way, login=login, options=options)
        return subprocess.run(
            argv, env=self.environment, input=stdin, capture_output=True, timeout=timeout, check=False
        )

    def stock(self, program: str, *args: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[bytes]:
        """Run stock ``scp`` or ``sftp`` with the written config: ``stock("scp", "a", "root@web1:b")``."""
        argv = [program, "-F", self.config, "-oStrictHostKeyChecking=yes", "-oBatchMode=yes", *args]
        return subprocess.run(argv, env=self.environment, input=b"", capture_output=True, timeout=timeout, check=False)

    def recordings(self) -> list[dict[str, Any]]:
        """What ``bart recordings list --json`` says, newest first."""
        listed: list[dict[str, Any]] = json.loads(self.bart("recordings", "list", "--json").stdout)
        return listed


@dataclass(frozen=True, slots=True)
class Site:
    """The product with three people and two nodes."""

    product: Product
    alice: Person
    carol: Person
    root: Person
    web1: Sshd
    db1: Sshd


@contextmanager
def running_product(folder: Path, *options: str) -> Iterator[Product]:
    """``bartizan up`` in *folder*, ready; stopped by its own process id on the way out."""
    folder.mkdir(parents=True, exist_ok=True)
    running = start_product(folder, *options)
    try:
        yield running
        plant((running.data / "admin.token").read_text().strip(), "the operator's token")
    finally:
        stop(running.process, within=30)
    assert found_in(folder) == [], "a secret stands where it does not belong"


def start_product(folder: Path, *options: str, web: str = "", ssh: str = "") -> Product:
    """Start ``bartizan up`` and wait until both doors are open. The caller stops ``.process``.

    Ports are free ones unless given (a restart keeps them); one that somebody else was faster to take is tried again.
    """
    for _ in range(START_TRIES):
        product = _start_once(folder, options, web or f"127.0.0.1:{free_port()}", ssh or f"127.0.0.1:{free_port()}")
        if product.process.poll() is None:
            return product
        if "in use" not in product.log or web or ssh:
            break
    raise ChildProcessError(f"bartizan up ended with {product.process.returncode}:\n{product.log}")


def _start_once(folder: Path, options: Sequence[str], web: str, ssh: str, *, within: float = 60) -> Product:
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    command = [BIN / "bartizan", "up", "--data", folder / "data", "--web", web, "--ssh", ssh, "--ready-file", ready]
    with (folder / "up.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, *options], env=environment(folder), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    product = Product(folder, web, ssh, process)
    end = time.monotonic() + within
    while not ready.exists() and process.poll() is None:
        if time.monotonic() > end:
            stop(process)
            raise TimeoutError(f"bartizan up is not ready after {within:.0f} s:\n{product.log}")
        time.sleep(0.05)
    return product


@contextmanager
def running_site(folder: Path) -> Iterator[Site]:
    """The product with the roles above; alice (developer), carol (auditor), root (admin); web1 (dev), db1 (prod)."""
    with ExitStack() as stack:
        product = stack.enter_context(running_product(folder))
        product.apply_roles(ROLES)
        web1 = stack.enter_context(running_sshd(folder / "nodes" / "web1"))
        db1 = stack.enter_context(running_sshd(folder / "nodes" / "db1"))
        with ThreadPoolExecutor() as hands:  # a dozen commands, each mostly its own start-up
            for done in (
                hands.submit(product.trust, "web1", web1, env="dev"),
                hands.submit(product.trust, "db1", db1, env="prod"),
            ):
                done.result()
            alice = hands.submit(product.person, "alice", "developer")
            carol = hands.submit(product.person, "carol", "auditor")
            root = hands.submit(product.person, "olga", "admin")
            yield Site(product, alice.result(), carol.result(), root.result(), web1, db1)


def environment(home: Path, **more: str) -> dict[str, str]:
    """A clean environment: no agent, no other configuration, one language."""
    path = os.pathsep.join([str(BIN), "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"])
    return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "TERM": "xterm-256color", **more}


def run(
    command: Sequence[str | Path], env: Mapping[str, str], *, stdin: str, check: bool, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run to the end; a failure that was not asked for shows what the program said."""
    result = subprocess.run(
        command, env=env, input=stdin, capture_output=True, text=True, timeout=60, cwd=cwd, check=False
    )
    said = f"{' '.join(map(str, command))}\nexit {result.returncode}\n{result.stdout}{result.stderr}"
    assert not check or result.returncode == 0, said
    return result


def _documents(text: str) -> list[dict[str, Any]]:
    """A JSON array, or one JSON object a line."""
    if text.lstrip().startswith("["):
        array: list[dict[str, Any]] = json.loads(text)
        return array
    return [json.loads(line) for line in text.splitlines() if line]
