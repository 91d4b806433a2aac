"""bart second-factor and bartizan users reset-factor, and the QR code on a real terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyotp
import pytest
import segno
from click.testing import CliRunner, Result

from ca.identity import totp
from cli import qr
from cli.bart import bart
from tests.cli.authority import Stand, standing
from tests.cli.test_login import NONCE, answer, login
from tests.journeys.test_recordings import terminal
from tests.product import BIN, Product

SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
URI = totp.uri(SECRET, user="alice", cluster="bartizan")
CODES = ["k7qdw-m3xpb-9fzrt", "bcdfg-hjkmn-pqrst"]
WRONG = {"error": "second_factor_failed", "message": "the code is wrong, or was used before", "hint": "wait"}
LIGHT = "\x1b[40;97m"


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    """Somebody is signed in."""
    with standing(tmp_path / "authority") as stand:
        stand.answers["POST /v1/login/challenge"] = (200, {"nonce": NONCE})
        stand.answers["POST /v1/login"] = (200, answer())
        stand.answers["POST /v1/me/second-factor"] = (200, {"secret": SECRET, "uri": URI})
        stand.answers["POST /v1/me/second-factor/confirmation"] = (200, {"codes": CODES})
        stand.answers["POST /v1/me/second-factor/recovery-codes"] = (200, {"codes": CODES})
        stand.answers["DELETE /v1/me/second-factor"] = (204, b"")
        assert login(stand).exit_code == 0
        yield stand


def run(*words: str, stdin: str = "") -> Result:
    return CliRunner().invoke(bart, ["second-factor", *words], input=stdin)


def modules(lines: list[str]) -> list[list[int]]:
    """Half blocks as a camera sees them: 1 is dark. An odd last row is blank."""
    pairs = {" ": (1, 1), "▀": (0, 1), "▄": (1, 0), "█": (0, 0)}
    return [[pairs[one][half] for one in line] for line in lines for half in (0, 1)]


def test_the_codes_are_data_and_the_rest_is_told(stand: Stand) -> None:
    result = run("add", "--code-stdin", stdin="123456\n")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "k7qdw-m3xpb-9fzrt\nbcdfg-hjkmn-pqrst\n"
    assert "bart: key: GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ\n" in result.stderr
    assert "▀" not in result.stderr, "no picture without a terminal"
    assert stand.heard("POST /v1/me/second-factor/confirmation") == [{"code": "123456"}]


def test_a_wrong_code_is_one_line_and_1(stand: Stand) -> None:
    stand.answers["POST /v1/me/second-factor/confirmation"] = (401, WRONG)
    result = run("add", "--code-stdin", stdin="000000\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith("bart: error: the code is wrong, or was used before\nhint: wait\n")


@pytest.mark.parametrize("command", ["add", "remove", "recovery-codes"])
@pytest.mark.parametrize("typed", ["", "\n", "1" * 65 + "\n"])
def test_what_is_no_code_is_not_sent(stand: Stand, command: str, typed: str) -> None:
    result = run(command, "--code-stdin", stdin=typed)
    assert result.exit_code == 1
    assert result.stderr.endswith("bart: error: a code has between 1 and 64 characters\n")
    assert not [call for call, _ in stand.diary if "second-factor/" in call or call.startswith("DELETE")]


def test_without_a_terminal_nobody_is_asked(stand: Stand) -> None:
    result = run("remove")
    assert result.exit_code == 1
    assert result.stderr.endswith("there is no terminal to type a code on\nhint: use --code-stdin\n")


def test_it_is_removed_for_a_code(stand: Stand) -> None:
    assert run("remove", "--code-stdin", stdin=" 123 456 \n").exit_code == 0
    assert stand.heard("DELETE /v1/me/second-factor") == [{"code": "123 456"}]


def test_new_recovery_codes_are_printed_once(stand: Stand) -> None:
    result = run("recovery-codes", "--code-stdin", stdin=f"{CODES[0]}\n")
    assert result.stdout == "k7qdw-m3xpb-9fzrt\nbcdfg-hjkmn-pqrst\n"


@pytest.mark.parametrize(
    ("view", "first", "hinted"),
    [
        ({"confirmed": False, "created": None, "recovery_codes_left": 0}, "none", False),
        ({"confirmed": True, "created": "2026-06-01T12:00:00Z", "recovery_codes_left": 9}, "authenticator app", False),
        ({"confirmed": True, "created": "2026-06-01T12:00:00Z", "recovery_codes_left": 1}, "authenticator app", True),
    ],
)
def test_how_it_stands(stand: Stand, view: dict[str, Any], first: str, hinted: bool) -> None:
    stand.answers["GET /v1/me/second-factor"] = (200, view)
    result = run("status")
    assert result.stdout.splitlines()[0] == f"second factor        {first}"
    assert ("hint: bart second-factor recovery-codes" in result.stderr) is hinted
    assert json.loads(run("status", "--json").stdout) == view


# --- the picture ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uri", [URI, "https://bastion.example:8443/device?code=BCDF-GHJK"])
def test_what_is_drawn_is_the_code_and_a_light_border(uri: str) -> None:
    seen = modules(qr.drawn(uri))
    made = [list(row) for row in segno.make_qr(uri, error="l").matrix]
    size = len(made) + 2 * qr.BORDER
    assert [row[qr.BORDER : -qr.BORDER] for row in seen[qr.BORDER : qr.BORDER + len(made)]] == made
    border = seen[: qr.BORDER] + seen[size - qr.BORDER : size]
    assert border == [[0] * size] * (2 * qr.BORDER)


def shown_on(columns: int, **env: str) -> str:
    """What ``qr.show`` puts on a terminal that is so wide, and its answer."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    program = f"from cli import qr; print(qr.show({URI!r}))"
    environment = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", **env}
    done = subprocess.run([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            seen += os.read(ours, 65_536)
        except OSError:
            break
    os.close(ours)
    return seen.decode() + done.stdout.decode()


WIDTH = len(qr.drawn(URI)[0])


def test_it_is_shown_where_it_fits_in_its_own_colours() -> None:
    assert WIDTH <= 80
    for columns in (WIDTH, 80, 0):
        shown = shown_on(columns, NO_COLOR="1").splitlines()
        assert shown[-1] == "True"
        assert [line.removeprefix(LIGHT).removesuffix("\x1b[0m") for line in shown[:-1]] == qr.drawn(URI)


@pytest.mark.parametrize(
    ("columns", "env"),
    [(WIDTH - 1, {}), (80, {"TERM": "dumb"}), (80, {"PYTHONIOENCODING": "ascii"})],
    ids=["narrow", "dumb", "ascii"],
)
def test_it_is_not_shown_where_nobody_could_read_it(columns: int, env: dict[str, str]) -> None:
    assert shown_on(columns, **env) == "False\n"


# --- with the real authority ----------------------------------------------------------------------------------------


def test_somebody_adds_an_app_on_a_terminal_loses_the_telephone_and_is_let_in_again(product: Product) -> None:
    fay = product.person("fay", "developer")
    with terminal([str(BIN / "bart"), "second-factor", "add"], fay.environment | {"TERM": "xterm"}) as keyboard:
        seen = keyboard.wait(b"code that the app shows: ").decode()
        key = re.search(r"key: ([A-Z2-7 ]+)", seen)
        assert key is not None
        secret = key[1].replace(" ", "")
        picture = [line.partition(LIGHT)[2].partition("\x1b")[0] for line in seen.split("\r\n") if LIGHT in line]
        assert picture == qr.drawn(totp.uri(secret, user="fay", cluster="bartizan"))
        keyboard.say(b"000000\n")
        keyboard.wait(b"the code is wrong, or was used before")
        keyboard.wait(b"code that the app shows: ")
        keyboard.say(pyotp.TOTP(secret).now().encode() + b"\n")
        keyboard.wait(b"not shown again:")
        _, *codes = [keyboard.wait(b"\r\n").decode() for _ in range(11)]
        assert keyboard.ends() == 0
    view = json.loads(fay.bart("second-factor", "status", "--json").stdout)
    assert (view["confirmed"], view["recovery_codes_left"]) == (True, 10)
    new = fay.bart("second-factor", "recovery-codes", "--code-stdin", stdin=f"{codes[0].upper()}\n")
    assert len(new.stdout.split()) == 10
    again = fay.bart("second-factor", "remove", "--code-stdin", stdin=f"{codes[0]}\n", check=False)
    assert (again.returncode, again.stdout) == (1, "")
    assert "fay" in product.bartizan("users", "list").stdout
    said = product.bartizan("users", "reset-factor", "fay").stderr
    assert said == "bartizan: fay has no second factor any more, and signs in anew\n"
    assert fay.bart("second-factor", "status", check=False).returncode == 1
    fay.login()
    assert json.loads(fay.bart("second-factor", "status", "--json").stdout)["confirmed"] is False
    codes_of_events = {one["code"] for one in product.audit() if one["fields"].get("user") == "fay"}
    assert {"factor.added", "factor.recovery_code_used", "factor.removed"} <= codes_of_events
