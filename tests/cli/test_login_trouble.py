"""What bart says when something around it is wrong: the clock, the network, the pin, the folder."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from cli import clock
from tests.cli.authority import Stand, standing
from tests.cli.desk import WORDS, answer, at, everything_in, login, me, run, shell
from tests.sshd import free_port

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


# --- the clock ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes", [-5, 5])
def test_a_clock_that_is_off_is_told_with_both_times(stand: Stand, minutes: int) -> None:
    stand.ahead = timedelta(minutes=minutes)
    result = login(stand)
    assert result.exit_code == 0
    warning = result.stderr.splitlines()[0]
    assert warning.startswith(f"bart: warning: this machine's clock is 5 min {'behind' if minutes > 0 else 'ahead'}: ")
    assert warning.count(":") >= 2 + 4
    assert ", at the authority " in warning


def test_status_tells_it_too(stand: Stand) -> None:
    login(stand)
    stand.answers["GET /v1/me"] = (200, me())
    stand.ahead = timedelta(minutes=5)
    assert "warning: this machine's clock is 5 min behind" in run("status").stderr


@pytest.mark.parametrize(
    ("seconds", "warned"), [(0, False), (59, False), (60, True), (-59, False), (-60, True), (86_400, True)]
)
def test_a_minute_is_the_limit(seconds: int, warned: bool) -> None:
    ahead = clock.difference(format_datetime(NOON + timedelta(seconds=seconds), usegmt=True), NOON)
    assert ahead == timedelta(seconds=seconds)
    assert (clock.warning(ahead, NOON) is not None) is warned


@pytest.mark.parametrize("date", [None, "", "yesterday", "Thu, 99 Jan 2026 99:00:00 GMT", "x" * 9000])
def test_a_date_that_is_none_tells_nothing(date: str | None) -> None:
    assert clock.difference(date, NOON) is None
    assert clock.warning(None, NOON) is None


@pytest.mark.parametrize(
    ("valid", "said"),
    [
        ("+1h:+2h", "by this machine's clock the certificate is not valid before "),
        ("-2h:-1h", "by this machine's clock the certificate is over since "),
        ("-1h:+1h", None),
    ],
)
def test_a_certificate_that_this_clock_does_not_like_is_told(
    stand: Stand, tmp_path: Path, valid: str, said: str | None
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    subprocess.run(["ssh-keygen", "-q", "-s", key, "-I", "x", "-n", "alice", "-V", valid, f"{key}.pub"], check=True)
    line = (tmp_path / "key-cert.pub").read_text().strip()
    stand.answers["POST /v1/login"] = (200, answer(certificate=line))
    result = login(stand)
    assert result.exit_code == 0
    assert "by this machine's clock" not in result.stderr if said is None else said in result.stderr


# --- the network and who answers there ------------------------------------------------------------------------


def test_without_a_network_the_hint_is_about_the_network(stand: Stand) -> None:
    login(stand)
    words = ["login", "--authority", "https://authority.example:8443", "--pin", stand.pin, "--user", "alice"]
    result = run(*words)  # no name resolves in tests
    assert result.exit_code == 1
    assert result.stderr.startswith("bart: error: cannot reach the authority at https://authority.example:8443: ")
    assert result.stderr.endswith("hint: is this machine on the network, and the name right?\n")


def test_status_still_tells_what_is_known_here(stand: Stand, home: Path) -> None:
    login(stand)
    profile = (home / "profile.json").read_text()
    (home / "profile.json").write_text(profile.replace(stand.url, f"https://127.0.0.1:{free_port()}"))
    result = run("status")
    assert result.exit_code == 0  # ssh may work all the same
    assert result.stdout.startswith("user")
    assert "error: cannot reach the authority" in result.stderr


def test_a_pin_that_changed_is_named_and_nothing_is_sent(stand: Stand, home: Path, tmp_path: Path) -> None:
    login(stand)
    with standing(tmp_path / "other") as other:
        profile = (home / "profile.json").read_text()
        (home / "profile.json").write_text(profile.replace(stand.url, other.url))
        for words in (("ls",), ("login", "--user", "alice", "--password-stdin")):
            result = run(*words, stdin="correct horse battery\n")
            assert result.exit_code == 1
            assert f"changed: it was {stand.pin}, now it shows {other.pin}; nothing was sent to it" in result.stderr
            assert "somebody may be in between" in result.stderr
        assert {call for call, _ in other.diary} == {"GET /v1/tls-root"}
        other.answers |= stand.answers
        result = run("login", "--pin", other.pin, "--user", "alice", "--password-stdin", stdin="correct horse bat\n")
        assert result.exit_code == 0


# --- folders --------------------------------------------------------------------------------------------------


def like_anybody(*words: str) -> list[str]:
    """*words* run without the right of root to write everywhere."""
    return ["setpriv", "--bounding-set", "-dac_override", *words] if os.geteuid() == 0 else list(words)


def test_a_folder_that_is_read_only_is_told_before_anything_is_asked_or_sent(stand: Stand, home: Path) -> None:
    login(stand)
    before = everything_in(home)
    heard = len(stand.diary)
    home.chmod(0o500)
    try:
        words = like_anybody(*WORDS, *at(stand), "--user", "alice", "--password-stdin")
        result = subprocess.run(words, env=shell(home), input="x" * 12, capture_output=True, text=True, check=False)
    finally:
        home.chmod(0o700)
    assert result.returncode == 1
    assert result.stderr == (
        f"bart: error: {home} cannot be written, and what a sign-in gives is kept there; nothing was asked or sent\n"
        "hint: set BART_HOME to a folder that can be written\n"
    )
    assert len(stand.diary) == heard
    assert everything_in(home) == before


def test_a_folder_that_cannot_even_be_made_is_told_as_early(stand: Stand, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    home = tmp_path / "locked" / "a" / "bart"
    words = like_anybody(*WORDS, *at(stand), "--user", "alice", "--password-stdin")
    result = subprocess.run(words, env=shell(home), input="x" * 12, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"error: {tmp_path}/locked cannot be written" in result.stderr
    assert stand.diary == []


def test_an_own_ssh_config_that_is_read_only_is_left_alone_with_a_hint(stand: Stand, home: Path) -> None:
    login(stand)
    stand.answers["GET /v1/me"] = (200, me())
    own = home.parent / "home" / ".ssh" / "config"
    own.parent.mkdir(parents=True)
    own.write_text("Host elsewhere\n")
    for path, mode in ((own, 0o400), (own.parent, 0o500)):
        path.chmod(mode)
        words = like_anybody(WORDS[0], "config", "--install", "--yes")
        result = subprocess.run(words, env=shell(home), capture_output=True, text=True, check=False)
        path.chmod(0o700)
        assert result.returncode == 1
        assert result.stderr == (
            f"bart: error: {own} cannot be written; it was left alone\n"
            f'hint: put this line first in it yourself: Include "{home}/ssh_config"\n'
        )
        assert own.read_text() == "Host elsewhere\n"


def test_login_can_include_the_config_at_once_but_never_unasked(stand: Stand, home: Path) -> None:
    result = login(stand, "--install")  # no terminal: the answer is no
    assert result.exit_code == 1
    assert "was left alone" in result.stderr
    assert (home / "id").exists()
    assert not (home.parent / "home" / ".ssh" / "config").exists()
