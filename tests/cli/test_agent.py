"""bart's own agent: the real ssh-agent, asked with the real ssh-add."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from ca.errors import InvalidInput, NotFound, Unavailable
from cli.agent import Agent
from cli.fresh_key import FreshKey
from tests.journeys.stage import argv, eventually

HOUR = timedelta(hours=1)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    folder = tmp_path / "bart"
    folder.mkdir(mode=0o700)
    agent = Agent(folder)
    yield agent
    for path in folder.glob("agent.pid"):
        with suppress(ProcessLookupError):
            os.kill(int(path.read_text()), 15)


def certified(folder: Path, key: FreshKey) -> str:
    """A certificate of a CA of this test's own, made by the real ssh-keygen."""
    ca = folder / "ca"
    if not ca.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ca], check=True)
    public = folder / "key.pub"
    public.write_text(f"{key.line}\n")
    words = ["-q", "-s", ca, "-I", "alice", "-n", "alice", "-V", "-1m:+1h", public]
    subprocess.run(["ssh-keygen", *words], check=True)
    return (folder / "key-cert.pub").read_text().strip()


def listed(agent: Agent) -> list[str]:
    """What the real ssh-add sees in there."""
    env = {"PATH": os.environ["PATH"], "SSH_AUTH_SOCK": str(agent.socket)}
    return subprocess.run(["ssh-add", "-L"], env=env, capture_output=True, text=True, check=False).stdout.splitlines()


def pid(agent: Agent) -> int:
    return int((agent.socket.parent / "agent.pid").read_text())


def test_key_and_certificate_are_there_for_ssh_add_until_they_are_removed(agent: Agent, tmp_path: Path) -> None:
    key = FreshKey()
    certificate = certified(tmp_path, key)
    agent.ensure()
    agent.add(key, certificate, life=HOUR, comment="alice at prod")
    assert {line.rsplit(" ", 3)[0] for line in listed(agent)} == {certificate.rsplit(" ", 1)[0], key.line}
    assert all(line.endswith("alice at prod") for line in listed(agent))
    assert agent.holds(certificate)
    agent.remove(key.line, certificate)
    assert not agent.holds(certificate)
    assert listed(agent) == ["The agent has no identities."]


def test_a_key_is_gone_when_its_time_is_over(agent: Agent, tmp_path: Path) -> None:
    """CLI-04: the life time is set."""
    key = FreshKey()
    certificate = certified(tmp_path, key)
    agent.ensure()
    agent.add(key, certificate, life=timedelta(seconds=1.5), comment="")
    assert agent.holds(certificate)
    eventually(lambda: not agent.holds(certificate), within=10)
    with pytest.raises(Unavailable, match="over already"):
        agent.add(key, certificate, life=timedelta(0), comment="")


def test_it_outlives_who_started_it_and_listens_for_its_owner_alone(agent: Agent) -> None:
    agent.ensure()
    assert argv(pid(agent)) == [agent.found(), "-D", "-a", str(agent.socket)]
    assert os.getsid(pid(agent)) != os.getsid(0)
    assert agent.socket.stat().st_mode & 0o777 == 0o600
    first = pid(agent)
    agent.ensure()
    assert pid(agent) == first


def test_the_agent_that_people_forward_never_hears_of_it(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Agent(tmp_path)
    own.ensure()
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(own.socket))
        key = FreshKey()
        agent.ensure()
        agent.add(key, certified(tmp_path, key), life=HOUR, comment="")
        assert listed(own) == ["The agent has no identities."]
        environment = Path(f"/proc/{pid(agent)}/environ").read_bytes()
        assert b"SSH_AUTH_SOCK" not in environment
    finally:
        own.end()


def test_it_ends_when_it_holds_nothing_and_leaves_nothing(agent: Agent, tmp_path: Path) -> None:
    key = FreshKey()
    certificate = certified(tmp_path, key)
    agent.ensure()
    started = pid(agent)
    agent.add(key, certificate, life=HOUR, comment="")
    agent.end()
    assert agent.answers()  # another cluster's key may be in there
    agent.remove(key.line, certificate)
    agent.end()
    eventually(lambda: "ssh-agent" not in " ".join(argv(started)), within=10)
    assert list(agent.socket.parent.iterdir()) == []


def test_a_pid_that_belongs_to_somebody_else_by_now_is_left_alone(agent: Agent) -> None:
    with subprocess.Popen(["sleep", "60"]) as bystander:
        try:
            (agent.socket.parent / "agent.pid").write_text(f"{bystander.pid}\n")
            agent.end()
            time.sleep(0.2)
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_a_socket_that_a_crash_left_is_replaced(agent: Agent) -> None:
    agent.ensure()
    os.kill(pid(agent), 9)
    eventually(lambda: not agent.answers(), within=10)
    assert agent.socket.exists()
    agent.ensure()
    assert agent.answers()


def test_a_path_that_is_too_long_for_a_socket_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="longer than the system allows"):
        Agent(tmp_path / ("x" * 100)).found()


def test_without_ssh_agent_there_is_a_hint(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as empty:
        monkeypatch.setenv("PATH", empty)
        with pytest.raises(NotFound, match="no ssh-agent"):
            agent.ensure()
