"""The operator's commands against the real authority: what scripts rely on, and what a person reads."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest

from tests.product import ROLES, Person, Product, environment, run
from tests.sshd import SSHD, free_port, running_sshd

PASSWORD = "correct horse battery staple"


def test_the_pin_is_one_line(product: Product) -> None:
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", product.bartizan("pin").stdout)


@pytest.mark.parametrize("name", ["user", "target", "host", "bastion"])
def test_each_ca_is_exported_as_one_public_key_line(product: Product, name: str) -> None:
    assert re.fullmatch(r"ssh-ed25519 [A-Za-z0-9+/=]+ \S+\n", product.bartizan("ca", "export", name).stdout)


def test_recorders_are_exported_as_allowed_signers(product: Product) -> None:
    assert 'namespaces="bartizan-recording"' in product.bartizan("ca", "export", "recorders").stdout


def test_somebody_comes_is_disabled_and_comes_back(product: Product) -> None:
    added = product.bartizan("users", "add", "dora", "--role", "developer", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert (added.stdout, added.stderr) == ("", "bartizan: added dora\n")
    dora = Person(product, "dora", PASSWORD, product.folder / "people" / "dora")
    dora.login()
    product.bartizan("users", "disable", "dora")
    assert dora.bart("ls", check=False).returncode == 1
    assert dora.login(check=False).returncode == 1
    [listed] = [
        user for user in json.loads(product.bartizan("users", "list", "--json").stdout) if user["name"] == "dora"
    ]
    assert (listed["roles"], listed["disabled"], listed["has_password"]) == (["developer"], True, True)
    product.bartizan("users", "enable", "dora")
    product.bartizan("users", "set-roles", "dora", "--none")
    assert "you hold no role" in dora.login(check=False).stderr


def test_without_a_password_somebody_is_invited_by_a_link(product: Product) -> None:
    added = product.bartizan("users", "add", "emil")
    assert added.stdout.startswith(f"https://{product.web}/")
    assert "give the person this link; it works once" in added.stderr
    again = product.bartizan("users", "passwd", "emil")
    assert again.stdout.startswith(f"https://{product.web}/")
    assert again.stdout != added.stdout


def test_a_refusal_is_one_line_and_1(product: Product) -> None:
    result = product.bartizan("users", "add", "alice", "--password-stdin", stdin=f"{PASSWORD}\n", check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert re.match(r"bartizan: error: [^\n]+\n(hint: [^\n]+\n)?\Z", result.stderr)


def test_a_role_that_nobody_has_written_is_given_with_a_warning(product: Product) -> None:
    """Roles may be applied later; more often it is a slip, and somebody would wonder why nothing opens."""
    added = product.bartizan("users", "add", "slip", "--role", "developr", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert "warning: no role is named developr (yet); there are: admin, " in added.stderr
    assert "warning" not in product.bartizan("users", "set-roles", "slip", "--role", "developer").stderr


def test_a_lock_on_nobody_says_so(product: Product) -> None:
    made = product.bartizan("locks", "add", "--user", "alcie", "--node", "web99", "--reason", "in a hurry")
    assert "warning: there is no user alcie (yet); is it written right?" in made.stderr
    assert "warning: there is no node web99 (yet); is it written right?" in made.stderr
    product.bartizan("locks", "remove", made.stdout.strip())


def test_a_right_without_effect_is_said_when_it_is_given(product: Product, tmp_path: Path) -> None:
    file = tmp_path / "roles.yaml"
    file.write_text(ROLES.replace("shell, exec", "shell, forward.local, exec", 1))
    assert "forward.local" in file.read_text()
    applied = product.bartizan("roles", "apply", "--dry-run", str(file))
    assert re.search(r"warning: roles.yaml:\d+: forward.local: granted, and refused at the door", applied.stderr)


def test_usage_is_2(product: Product) -> None:
    for words in (["nodes", "add"], ["users", "ad"], ["locks", "add", "--reason", "x"], ["--nonsense"]):
        result = product.bartizan(*words, check=False)
        assert result.returncode == 2, words
        assert result.stderr.startswith("bartizan: error: ")
        assert result.stderr.splitlines()[1].startswith("hint: bartizan")


def test_roles_with_a_mistake_name_the_line_and_change_nothing(product: Product, tmp_path: Path) -> None:
    file = tmp_path / "roles.yaml"
    file.write_text(ROLES + "  - name: broken\n    alow: []\n")
    result = product.bartizan("roles", "apply", file, check=False)
    assert result.returncode == 1
    assert f"roles.yaml:{len(ROLES.splitlines()) + 2}" in result.stderr
    assert product.bartizan("roles", "show").stdout == ROLES


def test_a_dry_run_changes_nothing(product: Product, tmp_path: Path) -> None:
    file = tmp_path / "roles.yaml"
    file.write_text("roles:\n  - name: nobody\n")
    said = product.bartizan("roles", "apply", "--dry-run", file).stderr
    assert "would be added: nobody" in said
    assert "would be removed: auditor, developer" in said
    assert product.bartizan("roles", "show").stdout == ROLES


def test_access_is_explained(product: Product) -> None:
    yes = product.bartizan("access", "explain", "alice", "web1")
    assert yes.stdout.splitlines()[-1].startswith("allowed: ")
    no = product.bartizan("access", "explain", "alice", "db1", check=False)
    assert no.returncode == 1
    assert no.stdout.splitlines()[-1].startswith("denied (no_role_reaches_node): ")


def test_nodes_come_are_certified_and_go(product: Product, site: object, tmp_path: Path) -> None:
    with running_sshd(tmp_path / "sshd") as server:
        key = server.host_key
        product.bartizan("nodes", "add", "web7", "--address", server.address, "--label", "env=dev", "--label", "x=y")
        made = product.bartizan("nodes", "certify", "web7", f"{key}.pub")
        assert made.stdout == f"{key}-cert.pub\n"
        assert stat.S_IMODE(Path(f"{key}-cert.pub").stat().st_mode) == 0o644
        private = product.bartizan("nodes", "certify", "web7", key, check=False)
        assert private.returncode == 1
        assert "is a private key: it must not leave its host" in private.stderr
    listed = {node["name"]: node for node in json.loads(product.bartizan("nodes", "list", "--json").stdout)}
    assert listed["web7"]["labels"] == {"env": "dev", "x": "y"}
    assert "web7" in product.bartizan("nodes", "list").stdout
    product.bartizan("nodes", "remove", "web7")
    assert product.bartizan("nodes", "remove", "web7", check=False).returncode == 1


def test_sshd_believes_what_sshd_config_prints(product: Product, site: object, tmp_path: Path) -> None:
    key = tmp_path / "ssh_host_ed25519_key"
    with running_sshd(tmp_path) as server:
        files = ["--trusted-ca", tmp_path / "ca", "--revoked-keys", tmp_path / "rk", "--host-certificate"]
        words = ["nodes", "sshd-config", "web1", *files, f"{key}-cert.pub"]
        asked = product.bartizan(*words).stdout
        own = product.bartizan(*words, "--principals-file", f"{tmp_path}/%u").stdout
    listed = {node["name"]: node for node in json.loads(product.bartizan("nodes", "list", "--json").stdout)}
    node_id = listed["web1"]["id"]
    assert f"AuthorizedPrincipalsCommand /bin/echo %u@{node_id}\nAuthorizedPrincipalsCommandUser nobody\n" in asked
    assert f"AuthorizedPrincipalsFile {tmp_path}/%u\n" in own
    assert "AuthorizedPrincipalsCommand" not in own
    assert f"ACCOUNT@{node_id}" in own
    assert product.bartizan("ca", "export", "target").stdout.split()[1] in asked
    assert server.port


def test_a_lock_comes_and_goes(product: Product) -> None:
    made = product.bartizan("locks", "add", "--user", "nobody-yet", "--reason", "not now", "--for", "1h")
    id = made.stdout.strip()
    listed = json.loads(product.bartizan("locks", "list", "--json").stdout)
    assert [(lock["id"], lock["user"], lock["reason"]) for lock in listed] == [(id, "nobody-yet", "not now")]
    product.bartizan("locks", "remove", id)
    assert product.bartizan("locks", "list").stdout == ""


def test_the_log_is_an_array_or_lines_and_its_chain_holds(product: Product) -> None:
    array = json.loads(product.bartizan("audit", "export", "--json").stdout)
    lines = [json.loads(line) for line in product.bartizan("audit", "export").stdout.splitlines()]
    assert [record["seq"] for record in array] == list(range(1, len(array) + 1))
    assert lines[: len(array)] == array
    assert product.bartizan("audit", "verify").stdout.startswith("the chain holds: ")
    assert len(product.bartizan("audit", "tail", "-n", "3").stdout.splitlines()) == 3


def test_an_administrator_needs_no_socket(root: Person, alice: Person) -> None:
    words = ["bartizan", "--authority", f"https://{root.product.web}", "users", "list", "--json"]
    listed = run(words, root.environment, stdin="", check=True)
    assert "alice" in listed.stdout
    refused = run(words, alice.environment, stdin="", check=False)
    assert refused.returncode == 1
    assert "administrator" in refused.stderr


# --- node join ------------------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """/etc/ssh of a machine that wants to join, with two host keys."""
    folder = tmp_path / "etc-ssh"
    folder.mkdir()
    for kind in ("ed25519", "ecdsa"):
        run(
            ["ssh-keygen", "-qt", kind, "-N", "", "-f", folder / f"ssh_host_{kind}_key"],
            environment(tmp_path),
            stdin="",
            check=True,
        )
    (folder / "sshd_config").write_text(
        f"Include {folder}/sshd_config.d/*.conf\nListenAddress 127.0.0.1:{free_port()}\n"
        f"HostKey {folder}/ssh_host_ed25519_key\nStrictModes no\nUsePAM no\n"
    )
    return folder


def join(product: Product, host: Path, name: str, *more: str, path: str = "") -> tuple[int, str, str]:
    token = product.bartizan("nodes", "join-token", "--name", "joined-*", "--label", "env=dev").stdout.strip()
    where = ["--authority", f"https://{product.web}", "--pin", product.pin, "--token", "-", "--name", name]
    env = environment(host.parent)
    env["PATH"] = f"{path}:{env['PATH']}"
    words = ["bartizan", "node", "join", *where, "--address", "127.0.0.1:2299", "--ssh-dir", host, *more]
    done = run(words, env, stdin=f"{token}\n", check=False)
    return done.returncode, done.stdout, done.stderr


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_host_joins_and_renews(product: Product, host: Path) -> None:
    status, _, said = join(product, host, "joined-a")
    assert status == 0, said
    assert "joined as joined-a; certificates until " in said
    snippet = (host / "sshd_config.d" / "bartizan.conf").read_text()
    assert f"TrustedUserCAKeys {host}/bartizan/target_ca.pub\n" in snippet
    assert (host / "bartizan" / "revoked_keys").read_text() == ""
    run([SSHD, "-t", "-f", host / "sshd_config"], environment(host), stdin="", check=True)
    before = (host / "ssh_host_ed25519_key-cert.pub").read_text()
    run(["bartizan", "node", "renew", "--ssh-dir", host], environment(host.parent), stdin="", check=True)
    assert (host / "ssh_host_ed25519_key-cert.pub").read_text() != before


def test_print_writes_nothing(product: Product, host: Path) -> None:
    before = files(host)
    status, shown, _ = join(product, host, "joined-b", "--print")
    assert status == 0
    assert files(host) == before
    assert f"TrustedUserCAKeys {host}/bartizan/target_ca.pub\n" in shown
    assert "ecdsa-sha2-nistp256-cert-v01@openssh.com " in shown


def test_when_sshd_says_no_everything_is_as_it_was(product: Product, host: Path, tmp_path: Path) -> None:
    before = files(host)
    fake = tmp_path / "bin" / "sshd"
    fake.parent.mkdir()
    fake.write_text(
        f'#!/bin/sh\n[ -e {host}/sshd_config.d/bartizan.conf ] && echo "bad line 1" >&2 && exit 255\nexit 0\n'
    )
    fake.chmod(0o755)
    status, _, said = join(product, host, "joined-c", path=str(fake.parent))
    assert status == 1
    assert "sshd -t refuses the configuration: bad line 1" in said
    assert "hint: nothing was changed" in said
    assert files(host) == before


def test_a_config_that_would_not_read_ours_is_noticed_before_the_token_is_used(product: Product, host: Path) -> None:
    (host / "sshd_config").write_text("UsePAM no\n")
    status, _, said = join(product, host, "joined-d")
    assert status == 1
    assert "put this first in it: Include" in said
    assert "joined-d" not in product.bartizan("nodes", "list").stdout


def test_a_name_that_the_token_does_not_allow_is_refused(product: Product, host: Path) -> None:
    before = files(host)
    assert join(product, host, "other")[0] == 1
    assert files(host) == before


# --- what was written for ssh, used by ssh ----------------------------------------------------------------------


def test_a_name_that_is_not_reachable_is_refused_by_the_bastion_itself(alice: Person) -> None:
    for way in (["db1.bartizan"], ["-J", "bartizan", "root@db1.bartizan"], ["nowhere.bartizan"]):
        words = ["ssh", "-F", str(alice.config), "-oBatchMode=yes", *way, "true"]
        result = run(words, alice.environment, stdin="", check=False)
        assert result.returncode == 255
        assert "none of your roles reaches" in result.stderr
        assert "Host key" not in result.stderr


def test_the_suffix_leads_to_the_same_node(alice: Person, site: object) -> None:
    result = alice.ssh("web1.bartizan", "echo here")
    assert result.stdout == b"here\n", result.stderr
