"""A real sshd per test process, and a bastion worker per test that may enter it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recordings.sshkey import PublicKey
from tests.bastion.door import MemoryAuthority, Rig, certified, rig
from tests.bastion.rawssh import key_pair
from tests.sshd import LOGIN, Sshd, running_sshd


@dataclass(frozen=True)
class Node:
    """The node ``web1`` and the CAs that it believes and that believe it."""

    sshd: Sshd
    authority: MemoryAuthority
    """Holds the target CA and the host CA of this node; asked by nobody."""

    def cas(self) -> dict[str, object]:
        """What an authority needs to know to let people enter here."""
        keys = {name: list(lines) for name, lines in self.authority.host_keys.items()}
        return {"target": self.authority.target, "host": self.authority.host, "host_keys": keys}


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("node")
    key_pair(folder / "host_key")
    authority = MemoryAuthority(PublicKey.of(Ed25519PrivateKey.generate().public_key()))
    certificate = certified(folder, authority, "web1", folder / "host_key")
    with running_sshd(
        folder / "sshd",
        target_ca=authority.target.public.line(),
        principals=[f"{LOGIN}@n-web1"],
        host_key=folder / "host_key",
        host_certificate=certificate,
    ) as sshd:
        yield Node(sshd, authority)


@pytest_asyncio.fixture
async def post(tmp_path: Path, node: Node) -> AsyncIterator[Rig]:
    """A worker that leads to ``web1``, with alice's certificate ready."""
    async with rig(tmp_path / "post", **node.cas()) as running:
        running.authority.nodes["web1"] = node.sshd.address
        running.user()
        yield running
