"""bart logout: here, everywhere, and without a trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.agent import Agent
from cli.config import BEGIN
from tests.cli.authority import Stand, standing
from tests.cli.desk import everything_in, login, me, refusal, run
from tests.cli.test_clusters import called, login_at
from tests.cli.test_login_agent import certified


@pytest.fixture
def door(stand: Stand) -> Stand:
    stand.answers["GET /v1/me"] = (200, me())
    stand.answers["POST /v1/logout"] = (204, "")
    return stand


def test_everywhere_is_the_authoritys_work(door: Stand, home: Path) -> None:
    login(door)
    result = run("logout", "--everywhere")
    assert (result.exit_code, result.stderr) == (0, "bart: signed out everywhere\n")
    assert door.heard("POST /v1/logout") == [{"everywhere": True}]
    assert everything_in(home) == {}


@pytest.mark.parametrize("said", [refusal(503, "unavailable", "Stopping."), refusal(401, "not_signed_in", "Over.")])
def test_everywhere_that_did_not_happen_changes_nothing_here(
    door: Stand, home: Path, said: tuple[int, dict[str, str]]
) -> None:
    login(door)
    before = everything_in(home)
    door.answers["POST /v1/logout"] = said
    result = run("logout", "--everywhere")
    assert result.exit_code == 1
    assert result.stderr.startswith("bart: error: not signed out anywhere: ")
    assert result.stderr.endswith("\nhint: to sign out here alone: bart logout\n")
    assert everything_in(home) == before


def test_purge_leaves_nothing_that_bart_wrote_and_nothing_else_missing(door: Stand, home: Path, tmp_path: Path) -> None:
    own = tmp_path / "home" / ".ssh" / "config"
    own.parent.mkdir(parents=True)
    own.write_text("Host elsewhere\n    Port 99\n")
    login(door)
    assert run("config", "--install", "--yes").exit_code == 0
    assert BEGIN in own.read_text()
    with standing(tmp_path / "prod") as prod:
        _, said = called(prod, "prod", "db1").answers["POST /v1/login"]  # type: ignore[misc]
        prod.answers["POST /v1/login"] = lambda body: (
            200,
            said | {"certificate": certified(tmp_path, body)["certificate"]},
        )
        assert login_at("prod", prod, "--agent").exit_code == 0
        assert Agent(home).answers()
        result = run("logout", "--purge", "--yes")
        assert result.exit_code == 0, result.stderr
        assert prod.heard("POST /v1/logout") == [None]
    assert door.heard("POST /v1/logout") == [None]
    assert not home.exists()
    assert own.read_text() == "Host elsewhere\n    Port 99\n"


def test_purge_asks_and_without_a_terminal_the_answer_is_no(door: Stand, home: Path) -> None:
    login(door)
    before = everything_in(home)
    result = run("logout", "--purge")
    assert result.exit_code == 1
    assert result.stderr == "bart: error: nothing was removed\nhint: bart logout --purge --yes\n"
    assert everything_in(home) == before


def test_purge_touches_no_file_of_somebody_else_in_the_same_folder(door: Stand, home: Path) -> None:
    login(door)
    (home / "notes.txt").write_text("mine")
    assert run("logout", "--purge", "--yes").exit_code == 0
    assert [path.name for path in home.iterdir()] == ["notes.txt"]


def test_purge_works_where_nobody_is_signed_in_and_where_the_sign_in_is_damaged(door: Stand, home: Path) -> None:
    assert run("logout", "--purge", "--yes").exit_code == 0
    login(door)
    (home / "profile.json").write_text("{")
    assert run("logout", "--purge", "--yes").exit_code == 0
    assert not home.exists()
