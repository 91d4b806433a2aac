"""bart login without a browser: a code here, a yes on another machine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ca.login import check_word
from cli.by_device import next_interval
from cli.pkce import Pkce
from tests.cli.authority import Stand
from tests.cli.desk import METHODS, WORDS, answer, at, refusal, run, shell
from tests.cli.terminal import terminal


@pytest.fixture
def door(stand: Stand) -> Iterator[Stand]:
    stand.answers["GET /v1/login/methods"] = (200, METHODS)
    stand.answers["POST /v1/login/device"] = lambda _: (200, started(stand))
    stand.answers["POST /v1/login/exchange"] = (200, answer())
    return stand


def started(stand: Stand, *, life: timedelta = timedelta(minutes=10)) -> dict[str, Any]:
    return {
        "grant": "d3vice",
        "user_code": "BCDF-GHJK",
        "url": f"{stand.url}/device",
        "url_with_code": f"{stand.url}/device?code=BCDF-GHJK",
        "expires": (datetime.now(UTC) + stand.ahead + life).isoformat(),
        "interval_seconds": 1,
    }


def says(stand: Stand, *states: str) -> None:
    """One state after the other; the last one for ever."""
    left = list(states)

    def poll(_: object) -> tuple[int, Any]:
        state = left.pop(0) if len(left) > 1 else left[0]
        return refusal(503, "unavailable", "Starting.") if state == "down" else (200, {"state": state})

    stand.answers["POST /v1/login/device/poll"] = poll


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long bart would have slept."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def test_a_code_and_a_link_and_then_a_yes_elsewhere(door: Stand, home: Path, naps: list[float]) -> None:
    says(door, "pending", "approved")
    result = run("login", *at(door), "--no-browser")
    assert result.exit_code == 0, result.stderr
    lines = result.stderr.splitlines()
    assert lines[0] == f"bart: open this page on any machine (or {door.url}/device, and type BCDF-GHJK there):"
    assert lines[1] == f"{door.url}/device?code=BCDF-GHJK"
    [asked] = door.heard("POST /v1/login/device")
    assert lines[2] == f"bart: approve it there only if the page shows the word {check_word(asked['challenge'])}"
    assert asked["host"]
    assert door.heard("POST /v1/login/device/poll") == [{"grant": "d3vice"}] * 2
    [sent] = door.heard("POST /v1/login/exchange")
    assert (sent["grant"], Pkce(sent["verifier"]).challenge) == ("d3vice", asked["challenge"])
    assert json.loads((home / "profile.json").read_text())["way"] == "device"


@pytest.mark.parametrize("missing", [{"SSH_CONNECTION": "192.0.2.1 1 192.0.2.2 22", "DISPLAY": ":0"}, {}])
def test_it_is_chosen_where_no_browser_would_be_seen(
    door: Stand, missing: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in missing.items():
        monkeypatch.setenv(name, value)
    says(door, "approved")
    result = run("login", *at(door))
    assert result.exit_code == 0
    assert ", so no browser is opened; --open opens one all the same" in result.stderr.splitlines()[0]


def test_a_no_is_told(door: Stand, home: Path, naps: list[float]) -> None:
    says(door, "pending", "denied")
    result = run("login", *at(door), "--no-browser")
    assert (result.exit_code, "error: the sign-in was refused on the page" in result.stderr) == (1, True)
    assert not home.exists()


def test_a_code_that_is_over_is_told(door: Stand, naps: list[float]) -> None:
    says(door, "pending", "over")
    result = run("login", *at(door), "--no-browser")
    assert result.exit_code == 1
    assert "error: the code is over: nobody approved it in time" in result.stderr


def test_nobody_polls_longer_than_the_code_lives_by_the_authoritys_clock(door: Stand) -> None:
    door.ahead = timedelta(hours=-3)
    door.answers["POST /v1/login/device"] = lambda _: (200, started(door, life=timedelta(seconds=1.5)))
    says(door, "pending")
    begin = time.monotonic()
    result = run("login", *at(door), "--no-browser")
    assert (result.exit_code, "the code is over" in result.stderr) == (1, True)
    assert 0.4 < time.monotonic() - begin < 20


def test_an_authority_that_is_away_for_a_moment_is_asked_again(door: Stand, naps: list[float]) -> None:
    says(door, "down", "down", "pending", "approved")
    result = run("login", *at(door), "--no-browser")
    assert result.exit_code == 0
    assert result.stderr.count("trying again until the code is over") == 1
    assert sum(naps) == 1 + 2 + 4 + 4


def test_slow_down_means_five_seconds_more_for_good(door: Stand, naps: list[float]) -> None:
    """RFC 8628 §3.5."""
    says(door, "pending", "slow_down", "pending", "slow_down", "approved")
    assert run("login", *at(door), "--no-browser").exit_code == 0
    assert sum(naps) == 1 + 1 + 6 + 6 + 11


def test_the_interval_never_shrinks() -> None:
    assert [next_interval(5, state) for state in ("pending", "slow_down", None)] == [5, 10, 10]
    assert next_interval(50, None) == 60


def test_on_a_terminal_there_is_a_picture_and_the_time_left(door: Stand, home: Path) -> None:
    says(door, "pending")
    with terminal([*WORDS, *at(door), "--no-browser"], shell(home)) as screen:
        screen.reads("type BCDF-GHJK there):")
        assert "▀" in screen.reads("approve it there only if")
        screen.reads("waiting for the approval (9:5")
        says(door, "approved")
        screen.reads("signed in as alice")
        assert screen.ends() == 0


def test_ctrl_c_ends_cleanly(door: Stand, home: Path) -> None:
    says(door, "pending")
    with terminal([*WORDS, *at(door), "--no-browser"], shell(home)) as screen:
        screen.reads("waiting for the approval (")
        screen.types("\x03")
        screen.reads("bart: stopped")
        assert screen.ends() == 1
        assert "Traceback" not in screen.shown
    assert not home.exists()


def test_a_device_code_that_was_used_is_told(door: Stand, home: Path) -> None:
    says(door, "approved")
    door.answers["POST /v1/login/exchange"] = refusal(403, "grant_invalid", "This code is used up.")
    result = run("login", *at(door), "--no-browser")
    assert result.stderr.endswith("bart: error: this code is used up\n")
    assert not home.exists()
