"""What people use today: a stock ``sshd`` as jump host, entered with ``ssh -J``; and the node reached directly."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.product import environment
from tests.sshd import LOGIN, Sshd, running_sshd

PINNED = ("-oCiphers=aes256-gcm@openssh.com", "-oKexAlgorithms=curve25519-sha256")
"""The same key exchange and cipher on both sides of the comparison; both products offer them."""


@dataclass(frozen=True, slots=True)
class Stock:
    """A jump host and a node, both stock, entered with one plain key."""

    folder: Path
    jump: Sshd
    node: Sshd

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.folder)

    def command(self, *words: str, through_jump: bool) -> list[str]:
        way = ["-J", "jump"] if through_jump else []
        return ["ssh", "-F", str(self.folder / "config"), *PINNED, *way, "node", *words]


@contextmanager
def running_stock(folder: Path) -> Iterator[Stock]:
    """A stock jump host and a stock node on loopback."""
    folder.mkdir(parents=True)
    key = folder / "id"
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", key], check=True)
    keys = f"AuthorizedKeysFile {key}.pub"
    with ExitStack() as stack:
        jump = stack.enter_context(running_sshd(folder / "jump", lines=[keys, "MaxSessions 1000"]))
        node = stack.enter_context(running_sshd(folder / "node", lines=[keys, "MaxSessions 1000"]))
        common = (
            f"  HostName 127.0.0.1\n  User {LOGIN}\n  IdentityFile {key}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            "  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n"
            "  Ciphers aes256-gcm@openssh.com\n  KexAlgorithms curve25519-sha256\n"
        )
        (folder / "config").write_text(
            f"Host jump\n  Port {jump.port}\n{common}Host node\n  Port {node.port}\n{common}"
        )
        yield Stock(folder, jump, node)
