"""What is written for OpenSSH, read by the real OpenSSH."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ca import wire
from ca.errors import InvalidInput, Unavailable
from cli import connect, profile, ssh_config

KEY = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
CLUSTER = wire.ClusterInfo(
    cluster="bartizan", ssh_host="127.0.0.1", ssh_port=2222, web_url="https://127.0.0.1:8443", bastion_ca=[KEY]
)
NODES = [
    wire.ReachableNode(name="web1", labels={}, logins=["alice", "root"], actions=["shell"]),
    wire.ReachableNode(name="db-2", labels={}, logins=["deploy"], actions=["shell"]),
]


def access(
    home: Path, *, cluster: wire.ClusterInfo = CLUSTER, nodes: list[wire.ReachableNode] = NODES
) -> ssh_config.Access:
    return ssh_config.access("alice", cluster, nodes, home=home, python=Path(sys.executable).resolve())


def written(home: Path, **change: object) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    files = dict(ssh_config.files(access(home, **change)))  # type: ignore[arg-type]
    profile.replace_files(home, {**files, "connect.py": Path(connect.__file__).read_text()})
    return home / "ssh_config"


def ssh_reads(config: Path, *words: str) -> dict[str, str]:
    """`ssh -G`: what the real ssh makes of it."""
    result = subprocess.run(["ssh", "-G", "-F", config, *words], capture_output=True, text=True, check=True, timeout=10)
    return dict(line.split(" ", 1) for line in result.stdout.splitlines() if " " in line)


@pytest.mark.parametrize("typed", ["web1", "web1.bartizan"])
def test_a_reachable_node_goes_through_the_helper_under_its_own_name(tmp_path: Path, typed: str) -> None:
    found = ssh_reads(written(tmp_path / "with space"), typed)
    assert found["user"] == "alice"
    assert found["hostkeyalias"] == "web1"
    assert found["proxyusefdpass"] == "yes"
    assert found["proxycommand"].endswith("127.0.0.1 2222 '%h' bartizan")
    assert found["identitiesonly"] == "yes"
    assert found["stricthostkeychecking"] == "true"
    assert found["forwardagent"] == "no"
    assert found["addkeystoagent"] == "false"
    assert found["identityfile"] == str(tmp_path / "with space" / "id")
    assert found["certificatefile"] == str(tmp_path / "with space" / "id-cert.pub")
    assert not (tmp_path / "with space" / "asked" / "web1.conf").exists()


def test_the_first_granted_login_stands_in_where_ones_own_name_is_not_granted(tmp_path: Path) -> None:
    assert ssh_reads(written(tmp_path), "db-2")["user"] == "deploy"


def test_the_bastion_has_a_name_for_jumps_and_for_names_in_the_user(tmp_path: Path) -> None:
    found = ssh_reads(written(tmp_path), "root+web1@bartizan")
    assert (found["hostname"], found["port"], found["user"]) == ("127.0.0.1", "2222", "root+web1")
    assert found["hostkeyalias"] == "bartizan"
    assert "proxycommand" not in found


def test_a_jump_typed_by_hand_wins_over_the_helper(tmp_path: Path) -> None:
    found = ssh_reads(written(tmp_path), "-J", "bartizan", "root@web1")
    assert found["proxyjump"] == "bartizan"
    assert "proxycommand" not in found
    assert found["proxyusefdpass"] == "no"
    assert found["hostkeyalias"] == "web1"


def test_any_other_name_under_our_suffix_is_taken_to_the_bastion_too(tmp_path: Path) -> None:
    found = ssh_reads(written(tmp_path / "with space"), "db1.bartizan")
    assert found["hostkeyalias"] == "db1"
    assert found["user"] == "alice"
    assert found["proxyusefdpass"] == "yes"
    assert "asked/db1.known_hosts" in found["userknownhostsfile"]
    known = (tmp_path / "with space" / "asked" / "db1.known_hosts").read_text()
    assert known == f"@cert-authority db1 {KEY}\n"


def test_names_that_are_not_ours_are_left_alone(tmp_path: Path) -> None:
    found = ssh_reads(written(tmp_path), "example.org")
    assert "hostkeyalias" not in found
    assert "proxycommand" not in found
    assert found["stricthostkeychecking"] == "ask"


def test_what_stands_below_the_include_in_ones_own_config_still_counts(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text(f'Include "{written(tmp_path / "bart")}"\nServerAliveInterval 7\n\nHost elsewhere\n    Port 99\n')
    own.chmod(0o600)
    assert ssh_reads(own, "elsewhere")["port"] == "99"
    assert ssh_reads(own, "elsewhere")["serveraliveinterval"] == "7"
    assert ssh_reads(own, "web1")["hostkeyalias"] == "web1"


def test_a_name_with_a_command_in_it_runs_nothing(tmp_path: Path) -> None:
    config = written(tmp_path / "bart")
    for name in (f"x';touch {tmp_path}/ran;'.bartizan", f"$(touch {tmp_path}/ran).bartizan"):
        command = ["ssh", "-F", config, "-oBatchMode=yes", name, "true"]
        subprocess.run(command, capture_output=True, check=False, timeout=20)
    assert not (tmp_path / "ran").exists()


def test_known_hosts_lists_names_and_never_a_star(tmp_path: Path) -> None:
    """CLI-03."""
    known = ssh_config.known_hosts(access(tmp_path))
    assert known == (
        f"@cert-authority db-2,db-2.bartizan,web1,web1.bartizan {KEY}\n"
        f"@cert-authority bartizan,[127.0.0.1]:2222 {KEY}\n"
    )
    assert "*" not in "".join(text for name, text in ssh_config.files(access(tmp_path)).items() if "known" in name)


def test_ssh_keygen_finds_the_names(tmp_path: Path) -> None:
    config = written(tmp_path)
    for name in ("web1", "bartizan", "[127.0.0.1]:2222"):
        command = ["ssh-keygen", "-F", name, "-f", config.parent / "known_hosts"]
        assert subprocess.run(command, capture_output=True, check=False, timeout=10).returncode == 0


def test_without_any_node_the_bastion_still_stands_there(tmp_path: Path) -> None:
    assert ssh_reads(written(tmp_path, nodes=[]), "bartizan")["port"] == "2222"
    assert ssh_reads(written(tmp_path, nodes=[]), "db1.bartizan")["hostkeyalias"] == "db1"


EVIL = "x\n    ProxyCommand touch /tmp/owned"


@pytest.mark.parametrize(
    "cluster",
    [
        CLUSTER.model_copy(update={"cluster": "*"}),
        CLUSTER.model_copy(update={"cluster": EVIL}),
        CLUSTER.model_copy(update={"ssh_host": EVIL}),
        CLUSTER.model_copy(update={"ssh_host": "-oProxyCommand=x"}),
        CLUSTER.model_copy(update={"ssh_host": "a b"}),
        CLUSTER.model_copy(update={"ssh_port": 0}),
        CLUSTER.model_copy(update={"bastion_ca": []}),
        CLUSTER.model_copy(update={"bastion_ca": [f"{KEY}\n@cert-authority * {KEY}"]}),
        CLUSTER.model_copy(update={"bastion_ca": ["ssh-ed25519 AAAA"]}),
    ],
)
def test_nothing_that_an_authority_sends_is_written_as_it_came(tmp_path: Path, cluster: wire.ClusterInfo) -> None:
    """CLI-02."""
    with pytest.raises(Unavailable):
        access(tmp_path, cluster=cluster)


@pytest.mark.parametrize("change", [{"name": "*"}, {"name": EVIL}, {"logins": [EVIL]}, {"logins": ["-oX"]}])
def test_nor_anything_about_a_node(tmp_path: Path, change: dict[str, object]) -> None:
    """CLI-02."""
    with pytest.raises(Unavailable):
        access(tmp_path, nodes=[NODES[0].model_copy(update=change)])


def test_labels_are_not_written_at_all(tmp_path: Path) -> None:
    """CLI-02."""
    node = NODES[0].model_copy(update={"labels": {"env": EVIL}, "actions": [EVIL]})
    assert not any("ProxyCommand touch" in text for text in ssh_config.files(access(tmp_path, nodes=[node])).values())


def test_a_comment_on_a_ca_key_is_not_written(tmp_path: Path) -> None:
    """CLI-02."""
    cluster = CLUSTER.model_copy(update={"bastion_ca": [f"{KEY} some words"]})
    assert ssh_config.known_hosts(access(tmp_path, cluster=cluster)) == ssh_config.known_hosts(access(tmp_path))


def test_several_bastion_cas_are_all_believed(tmp_path: Path) -> None:
    other = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    cluster = CLUSTER.model_copy(update={"bastion_ca": [KEY, other]})
    assert ssh_config.known_hosts(access(tmp_path, cluster=cluster)).count(other) == 2


def test_a_folder_that_ssh_cannot_be_told_of_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        replace(access(tmp_path), home=Path('/home/a"b'))
