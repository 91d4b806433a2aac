"""bart login, logout, status, ls and config, from the keyboard to the files."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete

from cli.bart import bart
from cli.config import BEGIN, END
from cli.fresh_key import NAMESPACE
from cli.profile import Home
from recordings import sshsig
from recordings.sshkey import PublicKey
from tests.cli.authority import Stand, standing
from tests.cli.desk import NONCE, answer, everything_in, login, me, run
from tests.cli.test_ssh_config import CLUSTER, KEY
from tests.sshd import free_port


def test_a_sign_in_writes_all_that_ssh_needs(stand: Stand, home: Path) -> None:
    result = login(stand)
    assert result.exit_code == 0, result.output
    assert "signed in as alice for 12 h (until" in result.stderr
    assert "you may reach web1" in result.stderr
    assert result.stdout == ""
    assert set(everything_in(home)) == {
        "id",
        "id.pub",
        "id-cert.pub",
        "token",
        "profile.json",
        "root.pem",
        "ssh_config",
        "known_hosts",
        "connect.py",
        "asked/template.conf.in",
        "asked/template.known_hosts.in",
    }


def test_every_file_is_for_the_owner_alone(stand: Stand, home: Path) -> None:
    """CLI-04."""
    login(stand)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for name in everything_in(home):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600, name


def test_the_key_is_new_and_its_possession_is_proven(stand: Stand, home: Path) -> None:
    login(stand, "--ttl", "8h")
    [sent] = stand.heard("POST /v1/login")
    assert sent["ttl_seconds"] == 8 * 3600
    blob = sshsig.verify(sent["possession"], NONCE.encode(), namespace=NAMESPACE)
    assert blob == PublicKey.from_line(sent["public_key"]).blob
    assert (home / "id.pub").read_text().startswith(sent["public_key"])
    login(stand)
    assert stand.heard("POST /v1/login")[1]["public_key"] != sent["public_key"]


def test_a_wrong_pin_stops_before_a_password_leaves(stand: Stand, home: Path) -> None:
    result = login(stand, pin="sha256:" + "0" * 64)
    assert result.exit_code == 1
    assert "shows the pin sha256:" in result.stderr
    assert "hint: compare with `bartizan pin`" in result.stderr
    assert [call for call, _ in stand.diary] == ["GET /v1/tls-root"]
    assert not home.exists()


@pytest.mark.parametrize("pin", ["sha256:12", "md5:" + "0" * 64, "0" * 64])
def test_a_pin_that_is_none_is_refused_before_anything_is_asked(stand: Stand, pin: str) -> None:
    assert login(stand, pin=pin).exit_code == 1
    assert login(stand, pin=pin).stderr.startswith("bart: error: this is not a pin")


def test_without_a_pin_only_the_system_is_trusted(stand: Stand) -> None:
    result = run("login", "--authority", stand.url, "--user", "alice", "--password-stdin", stdin="x" * 12 + "\n")
    assert result.exit_code == 1
    assert "is not one that is trusted here" in result.stderr
    assert "bartizan pin" in result.stderr
    assert stand.diary == []


def test_an_authority_that_is_down_is_told_before_a_password_is_asked_for(stand: Stand) -> None:
    login(stand)
    port = free_port()
    result = run("login", "--authority", f"https://127.0.0.1:{port}", "--user", "alice")
    assert result.exit_code == 1
    first, hint = result.stderr.splitlines()
    assert first == f"bart: error: cannot reach the authority at https://127.0.0.1:{port}: connection refused"
    assert hint.startswith("hint: is `bartizan up` running there")


def test_a_folder_that_cannot_be_written_is_one_line_and_no_incident(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BART_HOME", str(tmp_path / "file" / "bart"))
    result = login(stand)
    assert (result.exit_code, result.stderr) == (1, f"bart: error: {tmp_path}/file/bart: not a directory\n")


def test_a_hint_with_a_blank_in_the_path_can_be_typed(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BART_HOME", str(tmp_path / "my home"))
    assert f"hint: ssh -F '{tmp_path}/my home/ssh_config' web1 " in login(stand).stderr


def test_passwords_travel_over_https_alone() -> None:
    result = run("login", "--authority", "http://127.0.0.1:1", "--user", "alice", "--password-stdin", stdin="x\n")
    assert result.exit_code == 1
    assert "write it as https://HOST:PORT" in result.stderr


def test_the_next_sign_in_remembers_where_and_who(stand: Stand) -> None:
    login(stand)
    result = run("login", "--password-stdin", stdin="correct horse battery\n")
    assert result.exit_code == 0, result.stderr
    assert len(stand.heard("GET /v1/tls-root")) == 1  # the proven root is stored


def test_another_root_behind_the_same_address_is_noticed(stand: Stand, home: Path, tmp_path: Path) -> None:
    login(stand)
    with standing(tmp_path / "other") as other:
        (home / "root.pem").write_text(other.root)
        result = run("ls")
    assert result.exit_code == 1
    assert "is not one that is trusted here" in result.stderr


@pytest.mark.parametrize(
    "said",
    [
        (401, {"error": "not_signed_in", "message": "name or password is wrong"}),
        (200, {"certificate": "nonsense"}),
        (200, answer(cluster=CLUSTER.model_dump() | {"cluster": "*"})),
        (200, answer(cluster=CLUSTER.model_dump() | {"bastion_ca": ["x"]})),
        (500, "not even JSON"),
    ],
)
def test_a_failed_sign_in_leaves_the_old_one_as_it_was(stand: Stand, home: Path, said: tuple[int, Any]) -> None:
    """CLI-02; nothing half written."""
    login(stand)
    before = everything_in(home)
    stand.answers["POST /v1/login"] = said
    result = login(stand)
    assert result.exit_code == 1
    assert result.stderr.startswith("bart: error: ")
    assert "Traceback" not in result.output
    assert everything_in(home) == before


def test_a_disk_that_fails_in_the_middle_leaves_the_old_one_as_it_was(
    stand: Stand, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login(stand)
    before = everything_in(home)
    real, count = Path.replace, iter(range(100))

    def failing(self: Path, target: Path) -> Path:
        if next(count) == 4:
            raise OSError(28, "No space left on device")
        return real(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", failing)
        result = login(stand)
    assert (result.exit_code, result.stderr) == (1, "bart: error: no space left on device\n")
    assert everything_in(home) == before


def test_the_reason_of_a_refusal_is_shown_with_its_hint(stand: Stand) -> None:
    problem = {"error": "locked_out", "message": "Too many failures.", "hint": "wait 30 minutes"}
    stand.answers["POST /v1/login"] = (403, problem)
    assert login(stand).stderr == "bart: error: too many failures\nhint: wait 30 minutes\n"


def test_what_an_authority_says_cannot_drive_the_terminal(stand: Stand) -> None:
    stand.answers["POST /v1/login"] = (403, {"error": "x", "message": "a\x1b]0;owned\x07\nb\u202ec"})
    assert login(stand).stderr == "bart: error: a\\x1b]0;owned\\x07\\x0ab\\u202ec\n"


def test_status_tells_who_and_until_when(stand: Stand) -> None:
    login(stand)
    stand.answers["GET /v1/me"] = (200, me())
    result = run("status", "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert (told["user"], told["signed_in"], told["nodes"]) == ("alice", True, ["web1"])
    assert run("status").stdout.startswith("user")


def test_status_of_nobody_is_1() -> None:
    result = run("status")
    assert result.exit_code == 1
    assert result.stderr.startswith("bart: error: nobody is signed in here\nhint: bart login")


def test_ls_shows_and_writes_what_is_reachable_now(stand: Stand, home: Path) -> None:
    login(stand)
    node = {"name": "db1", "labels": {"env": "prod"}, "logins": ["postgres"], "actions": ["shell"]}
    stand.answers["GET /v1/me"] = (200, me(nodes=[node]))
    (home / "asked" / "db1.conf").write_text("old")
    result = run("ls")
    assert result.stdout == "NODE  LOGINS    ACTIONS  LABELS\ndb1   postgres  shell    env=prod\n"
    assert f"@cert-authority db1,db1.bartizan {KEY}" in (home / "known_hosts").read_text()
    assert "web1" not in (home / "ssh_config").read_text()
    assert not (home / "asked" / "db1.conf").exists()
    assert json.loads(run("ls", "--json").stdout) == [node]


def test_logout_leaves_nothing_to_steal(stand: Stand, home: Path) -> None:
    login(stand)
    stand.answers["POST /v1/logout"] = (200, {})
    assert run("logout").exit_code == 0
    assert stand.heard("POST /v1/logout") == [None]
    assert everything_in(home) == {}


def test_logout_works_when_the_authority_is_gone(stand: Stand, home: Path) -> None:
    login(stand)
    result = run("logout")
    assert result.exit_code == 0
    assert "warning: the authority could not be told" in result.stderr
    assert everything_in(home) == {}


def test_the_block_in_ones_own_config_comes_and_goes(stand: Stand, home: Path, tmp_path: Path) -> None:
    login(stand)
    stand.answers["GET /v1/me"] = (200, me())
    own = tmp_path / "home" / ".ssh" / "config"
    own.parent.mkdir(parents=True)
    own.write_text("Host elsewhere\n    Port 99\n")
    assert run("config", "--install").exit_code == 1  # nobody there to be asked
    assert "Include" not in own.read_text()
    for _ in range(2):
        assert run("config", "--install", "--yes").exit_code == 0
    assert own.read_text() == f'{BEGIN}\nInclude "{home}/ssh_config"\n{END}\n\nHost elsewhere\n    Port 99\n'
    assert run("config", "--remove", "--yes").exit_code == 0
    assert own.read_text() == "Host elsewhere\n    Port 99\n"


def test_a_config_that_is_a_link_stays_one(stand: Stand, tmp_path: Path) -> None:
    login(stand)
    stand.answers["GET /v1/me"] = (200, me())
    own = tmp_path / "home" / ".ssh" / "config"
    own.parent.mkdir(parents=True)
    (tmp_path / "dotfiles").write_text("")
    own.symlink_to(tmp_path / "dotfiles")
    run("config", "--install", "--yes")
    assert own.is_symlink()
    assert BEGIN in (tmp_path / "dotfiles").read_text()


def test_the_home_can_be_read_back(stand: Stand, home: Path) -> None:
    login(stand)
    profile = Home(home).profile()
    assert (profile.user, profile.authority, profile.pin) == ("alice", stand.url, stand.pin)
    assert profile.cluster == CLUSTER


def test_usage_is_one_line_a_hint_and_2() -> None:
    result = run("login", "--quux")
    assert result.exit_code == 2
    assert result.stderr == "bart: error: no such option '--quux'\nhint: bart login --help\n"


def test_bart_ssh_has_help_of_its_own_and_leaves_the_rest_to_ssh(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login(stand)
    assert run("ssh", "--help").stdout.startswith("Usage: bart ssh ")
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "ssh"
    fake.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/words\n')
    fake.chmod(0o755)
    env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "BART_HOME": os.environ["BART_HOME"], "PYTHONPATH": str(Path.cwd())}
    words = ["-o", "BatchMode=yes", "web1", "ls", "--help"]
    subprocess.run([sys.executable, "-m", "cli.bart", "ssh", *words], env=env, check=True)
    assert (tmp_path / "words").read_text().endswith("/ssh_config -o BatchMode=yes web1 ls --help\n")


def test_a_shell_can_complete_the_nodes_of_the_last_sign_in(stand: Stand) -> None:
    login(stand)
    asked = ShellComplete(bart, {}, "bart", "_BART_COMPLETE")
    assert [one.value for one in asked.get_completions(["ssh"], "we")] == ["web1"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_completion(shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert "_BART_COMPLETE" in result.stdout
