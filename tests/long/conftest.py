"""One product with one worker for all long tests, so that what is measured is that worker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.journeys import stage
from tests.long.canary import rss
from tests.product import Person, Product, running_product
from tests.sshd import LOGIN, running_sshd

ROLES = f"""\
roles:
  - name: developer
    allow:
      - nodes: {{env: [dev]}}
        logins: ["{LOGIN}"]
        actions: [shell, exec, sftp.read, sftp.write]
        options: {{record_input: true}}
"""


@dataclass(frozen=True)
class Post:
    """The product, somebody who may enter ``web1``, and the worker that she comes through."""

    product: Product
    alice: Person

    @property
    def worker(self) -> int:
        (pid,) = stage.children(self.product, "bastion.serve")
        return pid

    @property
    def memory(self) -> int:
        """Bytes that the worker holds."""
        return rss(self.worker)

    @property
    def port(self) -> int:
        return int(self.product.ssh.rpartition(":")[2])


@pytest.fixture(scope="session")
def post(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Post]:
    folder = tmp_path_factory.mktemp("long")
    with running_product(folder, "--workers", "1") as product:
        product.apply_roles(ROLES)
        with running_sshd(folder / "nodes" / "web1", lines=["MaxSessions 20"]) as web1:
            product.trust("web1", web1, env="dev")
            yield Post(product, stage.guest(product, "alice", "developer"))


@pytest.fixture
def key_folder(post: Post) -> Path:
    """Where alice's key and certificate lie, for the raw client."""
    return post.alice.home
