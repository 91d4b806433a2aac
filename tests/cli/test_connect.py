"""Promises of the helper: it starts fast, names the node, hands over the very socket, and never guesses."""

from __future__ import annotations

import array
import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import connect

HELPER = Path(connect.__file__)


@pytest.fixture
def bastion() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield listener


def start(*words: str, stdout: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", HELPER, *words], stdout=stdout, stderr=subprocess.PIPE, text=True
    )


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", HELPER, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def port_of(listener: socket.socket) -> str:
    return str(listener.getsockname()[1])


def handed_over(ours: socket.socket) -> socket.socket:
    """What ssh does with the helper's standard output."""
    _, control, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
    (level, kind, data) = control[0]
    assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
    return socket.socket(fileno=array.array("i", data)[0])


def test_ssh_gets_the_connected_socket_and_the_bastion_one_line(bastion: socket.socket) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        helper = start("127.0.0.1", port_of(bastion), "Web1.bartizan", stdout=theirs.fileno())
        door, _ = bastion.accept()
        with door, handed_over(ours) as passed:
            assert helper.communicate(timeout=10) == (None, "")
            assert helper.returncode == 0
            assert door.recv(128) == b"bartizan/1 web1\n"
            assert passed.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert os.get_blocking(passed.fileno())
            passed.sendall(b"SSH-2.0-x\r\n")  # the helper is gone, the connection is not
            assert door.recv(128) == b"SSH-2.0-x\r\n"


@pytest.mark.parametrize(
    "name",
    ["-oProxyCommand=x", "", "a b", "web1;id", "web1.example.org", "127.0.0.1", "wéb", "-web", "web-", "x" * 64],
)
def test_what_cannot_be_a_node_is_never_sent(bastion: socket.socket, name: str) -> None:
    result = run("127.0.0.1", port_of(bastion), name)
    assert result.returncode == 1
    assert "is not a node name" in result.stderr
    assert result.stderr.count("\n") == 1
    bastion.settimeout(0.1)
    with pytest.raises(TimeoutError):
        bastion.accept()


def test_the_suffix_is_that_of_the_cluster() -> None:
    assert connect.label("web1.acme", "acme") == "web1"
    assert connect.label("web1.bartizan", "acme") is None
    assert connect.label("bartizan", "bartizan") == "bartizan"


def test_a_bastion_that_is_down_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = port_of(probe)
    result = run("127.0.0.1", port, "web1")
    assert result.returncode == 1
    reason = "connection refused; is it running? bart status tells more"
    assert result.stderr == f"bartizan: cannot reach the bastion at 127.0.0.1:{port}: {reason}\n"


def test_started_by_hand_it_says_who_should_start_it(bastion: socket.socket) -> None:
    result = run("127.0.0.1", port_of(bastion), "web1")
    assert result.returncode == 1
    assert "ProxyUseFdpass" in result.stderr


def test_asked_names_get_a_block_of_their_own_readable_by_the_owner_alone(tmp_path: Path) -> None:
    helper = tmp_path / "connect.py"
    helper.write_bytes(HELPER.read_bytes())
    (tmp_path / "asked").mkdir()
    for kind in ("conf", "known_hosts"):
        (tmp_path / "asked" / f"template.{kind}.in").write_text(f"{kind} @NODE@ @NODE@\n")
    command = [sys.executable, "-I", "-S", helper, "--ask", "db1.bartizan", "bartizan"]
    for _ in range(2):
        subprocess.run(command, check=True, timeout=10)
    written = tmp_path / "asked" / "db1.conf"
    assert written.read_text() == "conf db1 db1\n"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert sorted(path.name for path in (tmp_path / "asked").iterdir()) == [
        "db1.conf",
        "db1.known_hosts",
        "template.conf.in",
        "template.known_hosts.in",
    ]


def test_an_asked_name_cannot_lead_out_of_the_folder() -> None:
    result = run("--ask", "../../x.bartizan", "bartizan")
    assert (result.returncode, result.stderr) == (1, ""), "ssh starts the helper once more, and that one says why"


def test_it_takes_less_than_50_ms_of_cpu(bastion: socket.socket) -> None:
    """The middle of several starts: the machine does other things too."""
    used = []
    for _ in range(5):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            helper = start("127.0.0.1", port_of(bastion), "web1", stdout=theirs.fileno())
            with handed_over(ours):
                helper.communicate(timeout=10)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert sorted(used)[2] < 0.050
