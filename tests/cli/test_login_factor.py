"""bart login with a password and a second factor: by a script, on a terminal, and setting one up on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cli.authority import Stand
from tests.cli.desk import WORDS, answer, at, login, refusal, run, shell
from tests.cli.terminal import terminal

PASSWORD = "correct horse battery"


def wanting(stand: Stand, code: str, *, without: tuple[int, Any]) -> None:
    """An authority that takes *code* alone, and answers *without* when there is none."""

    def answered(body: dict[str, Any]) -> tuple[int, Any]:
        if body["code"] is None:
            return without
        wrong = refusal(401, "second_factor_failed", "This code is wrong.")
        return (200, answer()) if body["code"] == code else wrong

    stand.answers["POST /v1/login"] = answered


REQUIRED = refusal(403, "second_factor_required", "A one-time code is needed.")
SETUP = refusal(403, "second_factor_setup", "A role of yours wants a second factor.")


def test_a_script_writes_the_code_below_the_password(stand: Stand) -> None:
    wanting(stand, "123456", without=REQUIRED)
    words = ["login", *at(stand), "--user", "alice", "--password-stdin"]
    result = run(*words, stdin=f"{PASSWORD}\n123456\n")
    assert result.exit_code == 0, result.stderr
    first, second = stand.heard("POST /v1/login")
    assert (first["code"], second["code"]) == (None, "123456")
    assert len(stand.heard("POST /v1/login/challenge")) == 2
    assert first["public_key"] == second["public_key"]


def test_a_second_line_that_is_not_needed_stays_unread(stand: Stand) -> None:
    words = ["login", *at(stand), "--user", "alice", "--password-stdin"]
    assert run(*words, stdin=f"{PASSWORD}\n123456\n").exit_code == 0
    assert [body["code"] for body in stand.heard("POST /v1/login")] == [None]


def test_a_script_without_a_code_is_told_where_it_goes(stand: Stand, home: Path) -> None:
    wanting(stand, "123456", without=REQUIRED)
    result = login(stand)
    assert result.exit_code == 1
    assert result.stderr.startswith("bart: error: a one-time code is needed as well: ")
    assert result.stderr.endswith("\nhint: write it as the second line of standard input\n")
    assert not home.exists()


def test_a_script_has_one_try(stand: Stand) -> None:
    wanting(stand, "123456", without=REQUIRED)
    words = ["login", *at(stand), "--user", "alice", "--password-stdin"]
    result = run(*words, stdin=f"{PASSWORD}\n000000\n123456\n")
    assert (result.exit_code, "error: this code is wrong" in result.stderr) == (1, True)
    assert len(stand.heard("POST /v1/login")) == 2


def test_a_script_cannot_set_a_factor_up(stand: Stand) -> None:
    wanting(stand, "123456", without=SETUP)
    result = login(stand)
    assert (result.exit_code, "error: a role of yours wants a second factor" in result.stderr) == (1, True)
    assert stand.heard("POST /v1/login/second-factor") == []


def test_a_person_is_asked_for_the_code_and_may_mistype_it(stand: Stand, home: Path) -> None:
    wanting(stand, "123456", without=REQUIRED)
    with terminal([*WORDS, *at(stand), "--user", "alice"], shell(home)) as screen:
        screen.reads("password of alice: ")
        screen.types(f"{PASSWORD}\n")
        screen.reads("code of alice: ")
        screen.types("000000\n")
        screen.reads("this code is wrong")
        screen.reads("code of alice: ")
        screen.types("123456\n")
        screen.reads("signed in as alice")
        assert screen.ends() == 0
        assert PASSWORD not in screen.shown


def test_a_factor_is_set_up_on_the_way_and_its_recovery_codes_are_shown_once(stand: Stand, home: Path) -> None:
    wanting(stand, "123456", without=SETUP)
    taken = stand.answers["POST /v1/login"]
    assert callable(taken)
    codes = ["aaaa-bbbb", "cccc-dddd"]

    def confirming(body: dict[str, Any]) -> tuple[int, Any]:
        status, said = taken(body)
        return status, said | {"recovery_codes": codes} if status == 200 else said

    stand.answers["POST /v1/login"] = confirming
    begun = {"secret": "JBSWY3DPEHPK3PXP", "uri": "otpauth://totp/bartizan:alice?secret=JBSWY3DPEHPK3PXP"}
    stand.answers["POST /v1/login/second-factor"] = (200, begun)
    with terminal([*WORDS, *at(stand), "--user", "alice"], shell(home)) as screen:
        screen.reads("password of alice: ")
        screen.types(f"{PASSWORD}\n")
        assert "▀" in screen.reads("key: JBSW Y3DP EHPK 3PXP")
        screen.reads("code of alice: ")
        screen.types("123456\n")
        screen.reads("they are not shown again:")
        screen.reads("aaaa-bbbb")
        screen.reads("cccc-dddd")
        assert screen.ends() == 0
    assert stand.heard("POST /v1/login/second-factor") == [{"user": "alice", "password": PASSWORD}]
    stored = "".join(path.read_text() for path in home.rglob("*") if path.is_file())
    assert "aaaa-bbbb" not in stored
    assert "JBSWY3DPEHPK3PXP" not in stored


def test_json_holds_the_recovery_codes_and_nothing_else_does(stand: Stand) -> None:
    stand.answers["POST /v1/login"] = (200, answer(recovery_codes=["aaaa-bbbb"]))
    result = login(stand, "--json")
    assert json.loads(result.stdout)["recovery_codes"] == ["aaaa-bbbb"]
    assert "aaaa-bbbb" not in result.stderr


def test_with_passwords_alone_bart_login_asks_for_one(stand: Stand, home: Path) -> None:
    stand.answers["GET /v1/login/methods"] = (
        200,
        {"methods": [{"kind": "password", "name": "password", "title": "Password"}]},
    )
    with terminal([*WORDS, *at(stand)], shell(home, DISPLAY=":0")) as screen:
        screen.reads(f"your name at {stand.url}: ")
        screen.types("alice\n")
        screen.reads("password of alice: ")
        screen.types(f"{PASSWORD}\n")
        screen.reads("signed in as alice")
        assert screen.ends() == 0
