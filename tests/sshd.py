"""
A real sshd on a free loopback port: the server that has to believe our certificates.

Runs as root or as anybody. As root every account of this machine can be a login; otherwise only the caller's own.
Each server lives in one folder, logs into it, and is stopped by its own process id.
"""

from __future__ import annotations

import os
import pwd
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SSHD = "/usr/sbin/sshd"  # must be absolute: sshd runs itself again for each connection
SFTP_SERVER = "/usr/lib/openssh/sftp-server"
LOGIN = pwd.getpwuid(os.geteuid()).pw_name
"""The one account that every test can log in to."""

BIND_TRIES = 5


@dataclass(frozen=True, slots=True)
class Sshd:
    """A running server."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "sshd.log"

    @property
    def host_key(self) -> Path:
        """The private host key; its public half lies beside it with ``.pub``."""
        return self.folder / "ssh_host_ed25519_key"

    @property
    def config(self) -> Path:
        return self.folder / "sshd_config"

    def reload(self, *lines: str) -> None:
        """Add *lines* to the configuration and let the server read it again, on the same port."""
        with self.config.open("a") as config:
            config.writelines(f"{line}\n" for line in lines)
        test_config(self.config)
        before = _times_listening(self)
        self.process.send_signal(signal.SIGHUP)
        _wait_until_listening(self, times=before + 1)

    def run(self, key: Path, *command: str, login: str = LOGIN) -> subprocess.CompletedProcess[str]:
        """Log in directly with *key* (and the certificate beside it), without any bastion."""
        options = ["-oBatchMode=yes", "-oIdentitiesOnly=yes", "-oIdentityAgent=none"]
        options += ["-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oLogLevel=ERROR"]
        return subprocess.run(
            ["ssh", "-F/dev/null", *options, "-i", key, "-p", str(self.port), f"{login}@127.0.0.1", *command],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=30,
            check=False,
        )


@contextmanager
def running_sshd(
    folder: Path,
    *,
    target_ca: Path | str | None = None,
    principals: Sequence[str] | None = None,
    principals_command: str | None = None,
    host_key: Path | None = None,
    host_certificate: Path | None = None,
    lines: Iterable[str] = (),
) -> Iterator[Sshd]:
    """Start sshd in *folder*; stop it on the way out.

    target_ca: public key line(s) of the CA that signs who may enter, or a file of them.
    principals: lines of an AuthorizedPrincipalsFile for every login.
    principals_command: an AuthorizedPrincipalsCommand instead, such as ``/bin/echo %u@NODE-ID``.
    host_key, host_certificate: use these; without a key, one is made.
    lines: more lines for sshd_config. Of two equal keywords sshd takes the first, so these come first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _host_key(folder, host_key)
    config = [*lines]
    if target_ca is not None:
        text = target_ca.read_text() if isinstance(target_ca, Path) else target_ca
        (folder / "target_ca.pub").write_text(text.rstrip("\n") + "\n")
        config.append(f"TrustedUserCAKeys {folder}/target_ca.pub")
    if principals is not None:
        (folder / "principals").write_text("".join(f"{name}\n" for name in principals))
        config.append(f"AuthorizedPrincipalsFile {folder}/principals")
    if principals_command is not None:
        user = "nobody" if os.geteuid() == 0 else LOGIN
        config += [f"AuthorizedPrincipalsCommand {principals_command}", f"AuthorizedPrincipalsCommandUser {user}"]
    if host_certificate is not None:
        config.append(f"HostCertificate {host_certificate}")

    server = _start(folder, config)
    try:
        yield server
    finally:
        stop(server.process)


def stop(process: subprocess.Popen[bytes], *, within: float = 10) -> None:
    """End *process*: politely, then not. Sessions that it forked end with their connections."""
    process.terminate()
    try:
        process.wait(timeout=within)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=within)


def free_port() -> int:
    """A loopback port that was free a moment ago. Callers try again when somebody was faster."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def test_config(config: Path) -> None:
    """Fail with sshd's own words when it would not start on *config*."""
    checked = subprocess.run([SSHD, "-t", "-f", config], capture_output=True, text=True, timeout=10, check=False)
    assert checked.returncode == 0, checked.stderr


test_config.__test__ = False  # type: ignore[attr-defined]


def openssh_version() -> tuple[int, int]:
    """Of the OpenSSH on this machine: ``(9, 2)``."""
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, timeout=10, check=True).stderr
    found = re.match(r"OpenSSH_(\d+)\.(\d+)", said)
    assert found, said
    return int(found[1]), int(found[2])


def _host_key(folder: Path, given: Path | None) -> None:
    key = folder / "ssh_host_ed25519_key"
    if given is not None and given != key:
        for suffix in ("", ".pub"):
            key.with_name(key.name + suffix).write_bytes(given.with_name(given.name + suffix).read_bytes())
        key.chmod(0o600)
    elif not key.exists():
        subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-C", "host", "-f", key], check=True, timeout=10)


def _start(folder: Path, lines: list[str]) -> Sshd:
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # privilege separation; only root needs it
    for _ in range(BIND_TRIES):
        port = free_port()
        _write_config(folder, port, lines)
        test_config(folder / "sshd_config")
        log = folder / "sshd.log"
        log.unlink(missing_ok=True)
        command = [SSHD, "-D", "-f", folder / "sshd_config", "-E", log]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        server = Sshd(port, folder, process)
        try:
            _wait_until_listening(server, times=1)
            return server
        except ChildProcessError as error:
            if "Address already in use" not in str(error):
                raise
    raise ChildProcessError(f"no free port in {BIND_TRIES} tries")


def _write_config(folder: Path, port: int, lines: list[str]) -> None:
    more = ["PerSourcePenalties no"] if openssh_version() >= (9, 8) else []
    config = [
        *lines,
        f"ListenAddress 127.0.0.1:{port}",
        f"HostKey {folder}/ssh_host_ed25519_key",
        "AuthenticationMethods publickey",
        "PermitRootLogin yes",
        "UsePAM no",
        "StrictModes no",
        "PidFile none",
        "PrintMotd no",
        "PrintLastLog no",
        "MaxSessions 100",
        "MaxStartups 200:30:400",
        "LogLevel VERBOSE",
        "AcceptEnv LANG LC_*",
        f"Subsystem sftp {SFTP_SERVER}",
        *more,
    ]
    (folder / "sshd_config").write_text("".join(f"{line}\n" for line in config))


def _times_listening(server: Sshd) -> int:
    """How often the server has opened its port so far: once at the start and once for each reload."""
    return server.log.read_text().count("Server listening") if server.log.exists() else 0


def _wait_until_listening(server: Sshd, *, times: int, within: float = 10) -> None:
    end = time.monotonic() + within
    while _times_listening(server) < times:
        if server.process.poll() is not None:
            raise ChildProcessError(f"sshd ended:\n{server.log.read_text() if server.log.exists() else '(no log)'}")
        if time.monotonic() > end:
            stop(server.process)
            raise TimeoutError(f"sshd is not ready:\n{server.log.read_text() if server.log.exists() else '(no log)'}")
        time.sleep(0.02)
