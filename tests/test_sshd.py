"""Our own stand-in node must be what the journeys take it for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.sshd import LOGIN, running_sshd


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", tmp_path / "ca"], check=True)
    return tmp_path / "ca"


@pytest.fixture
def key(tmp_path: Path, ca: Path) -> Path:
    """A key that *ca* has certified for the principal ``root@n1``."""
    key = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", key], check=True)
    subprocess.run(["ssh-keygen", "-qs", ca, "-I", "test", "-n", f"{LOGIN}@n1", key.with_suffix(".pub")], check=True)
    return key


@pytest.mark.parametrize(("node", "enters"), [("n1", True), ("n2", False)])
def test_a_certificate_enters_the_node_it_names_and_no_other(
    tmp_path: Path, ca: Path, key: Path, node: str, enters: bool
) -> None:
    folder = tmp_path / "sshd"
    ca_key = ca.with_suffix(".pub")
    with running_sshd(folder, target_ca=ca_key, principals_command=f"/bin/echo %u@{node}") as server:
        result = server.run(key, "echo", "welcome")
        assert (result.stdout == "welcome\n") is enters, server.log.read_text()


def test_a_host_certificate_can_be_added_while_it_runs(tmp_path: Path, ca: Path, key: Path) -> None:
    folder = tmp_path / "sshd"
    with running_sshd(folder, target_ca=ca.with_suffix(".pub"), principals=[f"{LOGIN}@n1"]) as server:
        sign = ["ssh-keygen", "-qs", ca, "-h", "-I", "host", "-n", "web1"]
        subprocess.run([*sign, server.host_key.with_suffix(".pub")], check=True)
        server.reload(f"HostCertificate {server.host_key}-cert.pub")

        scan = subprocess.run(
            ["ssh-keyscan", "-c", "-p", str(server.port), "127.0.0.1"], capture_output=True, text=True, check=True
        )
        assert "ssh-ed25519-cert-v01@openssh.com" in scan.stdout
        assert server.run(key, "true").returncode == 0, server.log.read_text()
