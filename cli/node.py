"""``bartizan node``, on the target itself: join with a one-time token, and renew by a timer."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from ca import wire
from ca.errors import Conflict, InvalidInput, NotFound, Unavailable
from ca.model import LABEL
from cli import output, sshd_config
from cli.client import Authority, checked_url, pinned_root
from cli.nodes import certificate_path, key_line
from cli.parameters import ADDRESS, split_address
from cli.profile import replace_files

NAMESPACE = "bartizan-join"
UNITS = Path("/etc/systemd/system")
TIMER = "bartizan-node-renew"
SERVICE = """\
[Unit]
Description=Renew the host certificates of this node

[Service]
Type=oneshot
ExecStart={command}
ExecStartPost=-/bin/systemctl try-reload-or-restart ssh.service sshd.service
"""
TIMER_UNIT = """\
[Unit]
Description=Renew the host certificates of this node

[Timer]
OnCalendar=daily
RandomizedDelaySec=6h
Persistent=true

[Install]
WantedBy=timers.target
"""


@dataclass(frozen=True, slots=True)
class Host:
    """The folder of this host's sshd, and what of it is ours."""

    ssh: Path

    @property
    def folder(self) -> Path:
        return self.ssh / "bartizan"

    @property
    def snippet(self) -> Path:
        return self.ssh / "sshd_config.d" / "bartizan.conf"

    def keys(self) -> list[Path]:
        """Private host keys whose public halves lie beside them."""
        found = sorted(path for path in self.ssh.glob("ssh_host_*_key") if path.with_suffix(".pub").exists())
        if not found:
            raise NotFound(f"there is no host key in {self.ssh}", hint="ssh-keygen -A, or --ssh-dir FOLDER")
        return [path for path in found if not path.name.startswith("ssh_host_dsa")]


ssh_dir_option = click.option(
    "--ssh-dir",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default="/etc/ssh",
    show_default=True,
    help="Where this host's sshd keeps its configuration and keys.",
)


@click.group()
def node() -> None:
    """Join this host as a node, and keep its host certificates fresh."""


@node.command()
@click.option("--authority", required=True, help="Where the authority answers, as https://HOST:PORT.")
@click.option("--pin", help="sha256:… of the authority's root, as `bartizan pin` prints it.")
@click.option("--token", required=True, help="From `bartizan nodes join-token`; `-` reads it from standard input.")
@click.option("--name", help="The node's name. Default: this host's.")
@click.option(
    "--address", type=ADDRESS, help="Where bastions reach its sshd. Default: the address it has now, port 22."
)
@ssh_dir_option
@click.option("--print", "print_only", is_flag=True, help="Certify, but write no configuration: print it.")
def join(
    authority: str,
    pin: str | None,
    token: str,
    name: str | None,
    address: str | None,
    ssh_dir: Path,
    print_only: bool,
) -> None:
    """Prove the host keys of this host, get them certified, and let the bastions in."""
    host = Host(ssh_dir.absolute())
    authority = checked_url(authority)
    name = name or socket.gethostname().partition(".")[0].lower()
    if not LABEL.match(name):
        raise InvalidInput(f"{name!r} is not a node name", hint="--name NAME: lower-case letters, digits and '-'")
    if token == "-":
        token = sys.stdin.readline().strip()
    if not print_only:
        _check_before(host)
    root = pinned_root(authority, pin) if pin else None
    keys = host.keys()
    with Authority.over_https(authority, root=root) as door:
        nonce = door.join_challenge().nonce
        request = wire.JoinRequest(
            token=token,
            nonce=nonce,
            name=name,
            address=address or f"{_own_address(authority)}:22",
            keys=_proven(keys, nonce),
        )
        answer = door.join(request)
    about = {"version": 1, "authority": authority, "node": answer.node.name, "keys": [path.name for path in keys]}
    files = _certificates(keys, answer) | {
        "bartizan/target_ca.pub": "".join(f"{key}\n" for key in answer.node.target_ca),
        "bartizan/node.json": json.dumps(about, indent=2) + "\n",
    }
    if root is not None:
        files["bartizan/root.pem"] = root
    config = _config(host, keys, answer.node)
    if print_only:
        _printed(host, files, config)
        return
    with _undone_on_failure(host, [*files, "bartizan/revoked_keys", "sshd_config.d/bartizan.conf"]):
        if not (host.folder / "revoked_keys").exists():
            files["bartizan/revoked_keys"] = ""
        replace_files(host.ssh, files | {"sshd_config.d/bartizan.conf": config}, mode=0o644)
        _sshd_test(host)
    output.note(f"joined as {answer.node.name}; certificates until {output.when(answer.certificates[0].expires)}")
    output.hint("systemctl reload ssh   (or sshd, or send sshd a SIGHUP)")
    _install_timer(host)


@node.command()
@ssh_dir_option
def renew(ssh_dir: Path) -> None:
    """Get new certificates for the keys that joined. Run by a timer; sshd reads them when it is reloaded."""
    host = Host(ssh_dir.absolute())
    authority, name, names = _joined(host)
    keys = [host.ssh / key for key in names]
    pem = host.folder / "root.pem"
    root = pem.read_text(encoding="ascii") if pem.exists() else None
    with Authority.over_https(authority, root=root) as door:
        nonce = door.join_challenge().nonce
        answer = door.renew(wire.RenewRequest(node=name, nonce=nonce, keys=_proven(keys, nonce)))
    files = _certificates(keys, answer)
    files["bartizan/target_ca.pub"] = "".join(f"{key}\n" for key in answer.node.target_ca)
    replace_files(host.ssh, files, mode=0o644)
    output.note(f"renewed until {output.when(answer.certificates[0].expires)}")


def _proven(keys: Sequence[Path], nonce: str) -> list[wire.JoinKey]:
    """Each public key with the proof that its private half is here. ssh-keygen signs: host keys are of any kind."""
    return [
        wire.JoinKey(public_key=key_line(path.with_suffix(".pub")), possession=_signed(path, nonce)) for path in keys
    ]


def _signed(key: Path, nonce: str) -> str:
    try:
        done = subprocess.run(
            ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", str(key)],
            input=nonce.encode("ascii"),
            capture_output=True,
            check=True,
            timeout=60,
        )
    except FileNotFoundError:
        raise NotFound("there is no ssh-keygen here", hint="apt-get install openssh-client") from None
    except subprocess.CalledProcessError as error:
        why = error.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise Unavailable(f"{key} cannot sign: {why}", hint="host keys are readable by root alone") from None
    return done.stdout.decode("ascii")


def _certificates(keys: Sequence[Path], answer: wire.JoinAnswer) -> dict[str, str]:
    if len(answer.certificates) != len(keys):
        raise Unavailable("the authority did not certify every key; nothing was written")
    pairs = zip(keys, answer.certificates, strict=True)
    return {certificate_path(path.with_suffix(".pub")).name: f"{made.certificate}\n" for path, made in pairs}


def _config(host: Host, keys: Sequence[Path], trust: wire.NodeTrust) -> str:
    paths = sshd_config.Paths(
        trusted_ca=str(host.folder / "target_ca.pub"),
        host_certificates=[str(certificate_path(path.with_suffix(".pub"))) for path in keys],
        revoked_keys=str(host.folder / "revoked_keys"),
    )
    return sshd_config.lines(trust, paths, explain=False, unused_timeout=_knows_unused_timeout(host))


def _printed(host: Host, files: Mapping[str, str], config: str) -> None:
    """Everything there is to copy by hand, in the order in which sshd needs it."""
    for name, text in files.items():
        if not name.endswith((".json", ".pem")):
            output.block(f"# --- {host.ssh / name}\n{text}")
    output.block(f"# --- {host.folder / 'revoked_keys'} (empty, but it must exist)")
    output.block(f"# --- {host.snippet}\n{config}")


def _check_before(host: Host) -> None:
    """Refuse early, while nothing is changed and the token still unused."""
    if not os.access(host.ssh, os.W_OK):
        raise Conflict(f"{host.ssh} cannot be written", hint="run this as root, or with --print")
    main = host.ssh / "sshd_config"
    try:
        text = main.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise NotFound(f"there is no {main}", hint="apt-get install openssh-server, or --print") from None
    lines = [line.split() for line in text.splitlines()]
    if not any(line[0].lower() == "include" and "sshd_config.d/" in line[-1] for line in lines if len(line) > 1):
        raise Conflict(
            f"{main} does not read {host.snippet.parent}",
            hint=f"put this first in it: Include {host.snippet.parent}/*.conf   (or use --print)",
        )
    _sshd_test(host)


def _sshd_test(host: Host) -> None:
    """``sshd -t``: would sshd start with what lies there? Raises Conflict with its words."""
    done = subprocess.run(
        [_sshd(), "-t", "-f", str(host.ssh / "sshd_config")], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        why = done.stderr.strip().rpartition("\n")[2]
        raise Conflict(f"sshd -t refuses the configuration: {why}", hint="nothing was changed")


def _knows_unused_timeout(host: Host) -> bool:
    main = host.ssh / "sshd_config"
    words = [_sshd(), "-t", "-f", str(main), "-o", "UnusedConnectionTimeout=60"]
    try:
        return main.exists() and not subprocess.run(words, capture_output=True, check=False, timeout=60).returncode
    except OSError:
        return False


def _sshd() -> str:
    return (
        shutil.which("sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
        or "sshd"
    )


@contextmanager
def _undone_on_failure(host: Host, names: Sequence[str]) -> Iterator[None]:
    """What these files held before comes back when the work inside fails."""
    before = {name: (host.ssh / name).read_text() if (host.ssh / name).exists() else None for name in names}
    try:
        yield
    except BaseException:
        for name, text in before.items():
            if text is None:
                (host.ssh / name).unlink(missing_ok=True)
            else:
                replace_files(host.ssh, {name: text}, mode=0o644)
        raise


def _joined(host: Host) -> tuple[str, str, list[str]]:
    try:
        about = json.loads((host.folder / "node.json").read_bytes())
    except (OSError, ValueError):
        raise NotFound("this host has not joined", hint="bartizan node join") from None
    match about:
        case {"version": 1, "authority": str(authority), "node": str(name), "keys": [*keys]} if keys:
            return authority, name, [Path(str(key)).name for key in keys]
    raise NotFound(f"{host.folder / 'node.json'} is not understood here", hint="bartizan node join again")


def _own_address(authority: str) -> str:
    """The address with which this host reaches the authority: bastions likely reach it there too."""
    host, _, port = authority.removeprefix("https://").rpartition(":")
    target = split_address(f"{host}:{port}") if host and port.isdigit() else (authority.removeprefix("https://"), 443)
    try:
        with socket.create_connection(target, timeout=10) as probe:
            address = str(probe.getsockname()[0])
    except OSError:
        raise Unavailable(f"cannot reach the authority at {authority}", hint="or give --address HOST:PORT") from None
    return f"[{address}]" if ":" in address else address


def _install_timer(host: Host) -> None:
    """Renew daily. Without systemd: say what to put into cron."""
    command = f"{sys.argv[0]} node renew --ssh-dir {host.ssh}"
    if not Path("/run/systemd/system").is_dir() or not os.access(UNITS, os.W_OK):
        output.warning("there is no systemd here: certificates live 30 days and must be renewed by other means")
        output.hint(f"daily: {command}")
        return
    units = {f"{TIMER}.service": SERVICE.format(command=command), f"{TIMER}.timer": TIMER_UNIT}
    replace_files(UNITS, units, mode=0o644)
    for words in (["daemon-reload"], ["enable", "--now", f"{TIMER}.timer"]):
        subprocess.run(["systemctl", *words], check=False, capture_output=True, timeout=60)
    output.note(f"certificates are renewed by {TIMER}.timer")
