"""
What is written for OpenSSH: ``ssh_config``, ``known_hosts`` and the templates for names asked for later. Pure.

Never holds text from the authority as it came: every name, host, login and key is parsed first and written anew.
``known_hosts`` lists names, never ``*``. How it reads:

  - ``Host bartizan``: the bastion itself, for ``-J bartizan`` and ``root+web1@bartizan``.
  - ``Host web1 web1.bartizan``: a node that may be reached; ``HostKeyAlias`` is its name, because the bastion shows a
    host certificate whose only principal is that name.
  - any other ``NAME.bartizan``: OpenSSH cannot cut the suffix off by itself, so a ``Match … exec`` has the helper write
    the block for that one name (``asked/NAME.conf``, ``asked/NAME.known_hosts``), and ``Include`` reads it at once.
    The connection then reaches the bastion, which alone says whether and why not.
  - other clusters follow by ``Include``, each for all names but those of the clusters before it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ca import wire
from ca.errors import InvalidInput, Unavailable
from ca.model import LABEL, LOGIN, RESERVED_NODE_NAMES, USER
from cli.parameters import is_host
from recordings.sshkey import PublicKey

_PATH = re.compile(r"/[A-Za-z0-9 _./@+,:=-]*\Z")
ASKED = "@NODE@"


@dataclass(frozen=True, slots=True)
class Destination:
    """A node as it is written: its name and the login that plain ``ssh NAME`` uses."""

    name: str
    login: str


@dataclass(frozen=True, slots=True)
class Access:
    """All that the files say, checked to the last character."""

    user: str
    cluster: str
    host: str
    port: int
    bastion_ca: tuple[str, ...]
    """``algorithm base64`` each; several while the CA is being replaced."""
    nodes: tuple[Destination, ...]
    home: Path
    python: Path
    agent: Path | None = None
    """The socket of bart's own agent, when that holds the key and not a file."""

    def __post_init__(self) -> None:
        _check(USER.match(self.user), "user name", self.user)
        _check(LABEL.match(self.cluster), "cluster name", self.cluster)
        _check(is_host(self.host), "host of the bastion", self.host)
        _check(0 < self.port < 65_536, "port of the bastion", self.port)
        _check(self.bastion_ca, "list of bastion CAs", "empty")
        for node in self.nodes:
            _check(LABEL.match(node.name), "node name", node.name)
            _check(LOGIN.match(node.login), "login", node.login)
        for path in (self.home, self.python):
            if not _PATH.match(str(path)):
                raise InvalidInput(f"ssh cannot be told of this path: {path}", hint="set BART_HOME to a plainer one")

    @property
    def names(self) -> list[str]:
        """Every name that these files answer to; ``*.cluster`` stands for the nodes' long ones."""
        return [self.cluster, *(node.name for node in self.nodes), f"*.{self.cluster}"]


def access(
    user: str,
    cluster: wire.ClusterInfo,
    nodes: Iterable[wire.ReachableNode],
    *,
    home: Path,
    python: Path,
    agent: Path | None = None,
    clusters: Collection[str] = (),
) -> Access:
    """What the authority said, as values that cannot be wrong. Raises Unavailable when it said nonsense.

    A node that is called like one of *clusters* is left out: it has its long name still.
    """
    taken = RESERVED_NODE_NAMES | {cluster.cluster, *clusters}
    try:
        keys = tuple(PublicKey.from_line(line).line() for line in cluster.bastion_ca)
    except ValueError:
        raise Unavailable("the authority sent a bastion CA that is no public key; nothing was written") from None
    return Access(
        user=user,
        cluster=cluster.cluster,
        host=cluster.ssh_host,
        port=cluster.ssh_port,
        bastion_ca=keys,
        nodes=tuple(
            Destination(node.name, user if user in node.logins else node.logins[0])
            for node in sorted(nodes, key=lambda node: node.name)
            if node.logins and node.name not in taken
        ),
        home=home,
        python=python,
        agent=agent,
    )


def files(access: Access) -> Mapping[str, str]:
    """Every file that OpenSSH reads, by its path under the profile's folder."""
    return {
        "ssh_config": config(access),
        "known_hosts": known_hosts(access),
        "asked/template.conf.in": _asked_config(access),
        "asked/template.known_hosts.in": _trusting([ASKED], access),
    }


def config(access: Access) -> str:
    """The ``ssh_config``. The first value that ssh finds for an option is the one it takes."""
    suffix = access.cluster
    names = [word for node in access.nodes for word in (node.name, f"{node.name}.{suffix}")]
    others = ",".join([f"*.{suffix}", *(f"!{node.name}.{suffix}" for node in access.nodes)])
    helper = _command(access, "--ask", "%n", suffix)
    return "\n".join(
        [
            f"# Written by bart for {access.user} on {suffix}.",
            "# Every `bart login`, `bart ls` and `bart config` writes it anew.",
            "",
            f"Host {suffix}",
            f"    HostName {access.host}",
            f"    Port {access.port}",
            f"    User {access.user}",
            f"    HostKeyAlias {suffix}",
            "",
            *(line for node in access.nodes for line in _node(node, suffix)),
            "# Other names: the bastion says why it refuses them.",
            f'Match originalhost {others} exec "{helper}"',
            f'    Include {_quoted(access.home / "asked")[:-1]}/*.conf"',
            "",
            " ".join(["Host", *names, f"*.{suffix}"]),
            f"    ProxyCommand {_command(access, access.host, str(access.port), '%h', suffix)}",
            "    ProxyUseFdpass yes",
            "",
            " ".join(["Host", suffix, *names, f"*.{suffix}"]),
            *_identity(access, access.home / "known_hosts"),
            "",
        ]
    )


def including(others: Sequence[Access], *, taken: Iterable[str] = ()) -> str:
    """What brings in the configs of *others*, in this order: whoever has a name first keeps it.

    But the name of a cluster is its bastion's, never a node's.
    """
    lines: list[str] = []
    before = list(taken)
    for other in others:
        elsewhere = dict.fromkeys(before + [one.cluster for one in others])
        rest = ",".join(["*", *(f"!{name}" for name in elsewhere if name != other.cluster)])
        lines += [
            f"# The cluster {other.cluster}.",
            f"Match originalhost {rest}",
            f"    Include {_quoted(other.home / 'ssh_config')}",
            "",
        ]
        before += other.names
    return "".join(f"{line}\n" for line in lines)


def known_hosts(access: Access) -> str:
    """Exactly the names that may be reached, and the bastion's own, all under the bastion CA."""
    suffix = access.cluster
    door = access.host if access.port == 22 else f"[{access.host}]:{access.port}"
    bastion = _trusting([suffix, door], access)
    if not access.nodes:
        return bastion
    names = [word for node in access.nodes for word in (node.name, f"{node.name}.{suffix}")]
    return _trusting(names, access) + bastion


def _node(node: Destination, suffix: str) -> list[str]:
    return [
        f"Host {node.name} {node.name}.{suffix}",
        f"    User {node.login}",
        f"    HostKeyAlias {node.name}",
        "",
    ]


def _identity(access: Access, known: Path) -> list[str]:
    """Who we are and whom we believe. The key stays in its file or in bart's own agent; no agent is forwarded."""
    key, agent = ("id", "none") if access.agent is None else ("id.pub", _quoted(access.agent))
    return [
        f"    IdentityFile {_quoted(access.home / key)}",
        f"    CertificateFile {_quoted(access.home / 'id-cert.pub')}",
        "    IdentitiesOnly yes",
        f"    IdentityAgent {agent}",
        "    AddKeysToAgent no",
        "    ForwardAgent no",
        "    PreferredAuthentications publickey",
        f"    UserKnownHostsFile {_quoted(known)}",
        "    GlobalKnownHostsFile /dev/null",
        "    StrictHostKeyChecking yes",
        "    UpdateHostKeys no",
    ]


def _asked_config(access: Access) -> str:
    known = access.home / "asked" / f"{ASKED}.known_hosts"
    return "\n".join(
        [
            f"Host {ASKED}.{access.cluster}",
            f"    User {access.user}",
            f"    HostKeyAlias {ASKED}",
            f"    UserKnownHostsFile {_quoted(known)}",
            "",
        ]
    )


def _trusting(names: list[str], access: Access) -> str:
    return "".join(f"@cert-authority {','.join(names)} {key}\n" for key in access.bastion_ca)


def _command(access: Access, *words: str) -> str:
    """The helper's command line for the shell that ssh starts. Words of ssh's own (``%h``) stand in quotes."""
    python, helper = shlex.quote(str(access.python)), shlex.quote(str(access.home / "connect.py"))
    return " ".join([python, "-I", "-S", helper, *(f"'{word}'" if "%" in word else word for word in words)])


def _quoted(path: Path) -> str:
    return f'"{path}"'


def _check(fine: object, what: str, value: object) -> None:
    if not fine:
        raise Unavailable(f"the authority sent a {what} that cannot be right: {str(value)[:80]!r}; nothing was written")
