"""bart login --agent: the key lives in bart's own agent and never on the disk."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.agent import Agent
from tests.cli.authority import Stand
from tests.cli.desk import answer, everything_in, login, me, run
from tests.cli.test_ssh_config import ssh_reads
from tests.journeys.stage import eventually


@pytest.fixture
def door(stand: Stand, home: Path, tmp_path: Path) -> Iterator[Stand]:
    """An authority whose certificates are real; bart's agent is ended afterwards, if it still runs."""
    stand.answers["POST /v1/login"] = lambda body: (200, certified(tmp_path, body))
    stand.answers["GET /v1/me"] = (200, me())
    stand.answers["POST /v1/logout"] = (204, "")
    yield stand
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((home / "agent.pid").read_text()), 15)


def certified(folder: Path, body: dict[str, Any]) -> dict[str, Any]:
    ca, public = folder / "ca", folder / "sent.pub"
    if not ca.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ca], check=True)
    public.write_text(f"{body['public_key']}\n")
    subprocess.run(["ssh-keygen", "-q", "-s", ca, "-I", "alice", "-n", "alice", "-V", "-1m:+1d", public], check=True)
    seconds = body["ttl_seconds"] or 12 * 3600
    return answer(
        certificate=(folder / "sent-cert.pub").read_text().strip(),
        expires=(datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(),
    )


def private_halves(home: Path) -> list[str]:
    return [name for name, data in everything_in(home).items() if b"PRIVATE KEY" in data]


def test_the_private_half_never_touches_the_disk(door: Stand, home: Path) -> None:
    assert login(door, "--agent").exit_code == 0
    assert private_halves(home) == []
    assert not (home / "id").exists()
    assert Agent(home).holds((home / "id-cert.pub").read_text())
    assert (home / "id.pub").exists()


def test_ssh_is_led_to_that_agent_and_forwards_none(door: Stand, home: Path) -> None:
    login(door, "--agent")
    for name in ("web1", "db9.bartizan", "bartizan"):
        found = ssh_reads(home / "ssh_config", name)
        assert found["identityagent"] == str(home / "agent.sock")
        assert found["identityfile"] == str(home / "id.pub")
        assert found["certificatefile"] == str(home / "id-cert.pub")
        assert (found["identitiesonly"], found["forwardagent"], found["addkeystoagent"]) == ("yes", "no", "false")


def test_it_is_remembered_and_no_agent_goes_back(door: Stand, home: Path) -> None:
    login(door, "--agent")
    first = (home / "id-cert.pub").read_text()
    assert login(door).exit_code == 0
    assert not (home / "id").exists()
    assert not Agent(home).holds(first)
    assert Agent(home).holds((home / "id-cert.pub").read_text())
    assert login(door, "--no-agent").exit_code == 0
    assert private_halves(home) == ["id"]
    assert not Agent(home).answers()
    assert not (home / "agent.sock").exists()
    assert ssh_reads(home / "ssh_config", "web1")["identityagent"] == "none"
    assert login(door).exit_code == 0
    assert (home / "id").exists()


def test_from_files_to_the_agent_no_private_half_stays_behind(door: Stand, home: Path) -> None:
    login(door)
    assert private_halves(home) == ["id"]
    login(door, "--agent")
    assert private_halves(home) == []


def test_the_key_is_gone_with_the_life_of_its_certificate(door: Stand, home: Path) -> None:
    """CLI-04: also where this machine's clock is wrong."""
    door.ahead = timedelta(hours=-5)
    door.answers["POST /v1/login"] = lambda body: (
        200,
        certified(home.parent, body) | {"expires": (datetime.now(UTC) - timedelta(hours=5, seconds=-3)).isoformat()},
    )
    begin = time.monotonic()
    assert login(door, "--agent").exit_code == 0
    certificate = (home / "id-cert.pub").read_text()
    assert Agent(home).holds(certificate)
    eventually(lambda: not Agent(home).holds(certificate), within=15)
    assert time.monotonic() - begin < 10


def test_status_tells_where_the_key_is_and_when_it_went_with_its_agent(door: Stand, home: Path) -> None:
    login(door, "--agent")
    told = json.loads(run("status", "--json").stdout)
    assert (told["keys"], told["signed_in"]) == ("agent", True)
    os.kill(int((home / "agent.pid").read_text()), 9)
    eventually(lambda: not Agent(home).answers())
    result = run("status")
    assert result.exit_code == 1
    assert "error: the key is gone with the agent that held it\nhint: bart login" in result.stderr


def test_logout_empties_the_agent_and_ends_it(door: Stand, home: Path) -> None:
    login(door, "--agent")
    pid = int((home / "agent.pid").read_text())
    assert run("logout").exit_code == 0
    eventually(lambda: not Path(f"/proc/{pid}/exe").exists() or b"Z" in Path(f"/proc/{pid}/stat").read_bytes())
    assert [path.name for path in home.iterdir()] == [".lock"]


def test_a_sign_in_that_fails_leaves_the_key_in_the_agent(door: Stand, home: Path) -> None:
    login(door, "--agent")
    before = everything_in(home)
    door.answers["POST /v1/login"] = (200, answer(certificate="ssh-ed25519-cert-v01@openssh.com AAAA"))
    assert login(door).exit_code == 1
    assert everything_in(home) == before
    assert Agent(home).holds((home / "id-cert.pub").read_text())
    run("logout")
    assert login(door, "--agent").exit_code == 1
    assert not Agent(home).answers()
    assert set(everything_in(home)) == set()


def test_a_folder_too_deep_for_a_socket_is_told_before_anything_is_sent(
    door: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BART_HOME", str(tmp_path / ("deep" * 25)))
    result = login(door, "--agent")
    assert result.exit_code == 1
    assert "the path of the agent's socket is longer than the system allows" in result.stderr
    assert door.diary == []
