"""No test leaves this machine, not even by mistake."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest


@pytest.mark.parametrize("address", ["192.0.2.1", "169.254.169.254"])
def test_a_test_that_reaches_for_another_machine_fails(address: str) -> None:
    with socket.socket() as probe, pytest.raises(AssertionError, match="tried to reach"):
        probe.connect((address, 9))


def test_names_do_not_resolve() -> None:
    with pytest.raises(socket.gaierror):
        socket.create_connection(("example.invalid", 9))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "localhost"])
def test_loopback_is_home(address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect((address, port))


def test_nobody_else_s_files_or_agent_are_in_reach(tmp_path: Path) -> None:
    assert Path.home() == tmp_path / "home"
    assert "SSH_AUTH_SOCK" not in os.environ
