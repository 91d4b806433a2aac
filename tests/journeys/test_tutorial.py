"""The tutorial is true: what stands in its boxes is typed into a shell, letter by letter, but for the ports."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.product import Product, environment, running_product
from tests.sshd import free_port

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial" / "first-session.md"


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    with running_product(tmp_path / "tutorial") as running:
        yield running
        pid = running.folder / "node" / "sshd.pid"
        if pid.exists():
            os.kill(int(pid.read_text()), signal.SIGTERM)


def test_every_command_of_the_tutorial_works(product: Product) -> None:
    boxes = re.findall(r"^```bash\n(.*?)^```$", TUTORIAL.read_text(), flags=re.MULTILINE | re.DOTALL)
    ports = {"127.0.0.1:8443": product.web, "127.0.0.1:2222": product.ssh, "127.0.0.1:2200": f"127.0.0.1:{free_port()}"}
    script = "\n".join(["set -euxo pipefail", *boxes])
    for written, here in ports.items():
        script = script.replace(written, here)
    (product.folder / "typed.sh").write_text(script)

    typed = subprocess.run(
        ["bash", "typed.sh"],
        stdin=subprocess.DEVNULL,
        cwd=product.folder,
        env=environment(product.folder),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert typed.returncode == 0, typed.stdout + typed.stderr
    for said in ("hello from", "through a jump", "by user name"):
        assert said in typed.stdout
    assert (product.folder / "evidence" / "manifest.json").exists()
