"""Several clusters side by side: the first as ever, the others beside it, one ssh_config that leads to all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from cli.bart import bart
from cli.bartizan import bartizan
from tests.cli.authority import Stand, standing
from tests.cli.desk import answer, everything_in, login, me, run
from tests.cli.test_ssh_config import CLUSTER, ssh_reads


def node(name: str) -> dict[str, Any]:
    return {"name": name, "labels": {}, "logins": ["alice"], "actions": ["shell"]}


def called(stand: Stand, name: str, *nodes: str, port: int = 2222) -> Stand:
    """An authority of the cluster *name* with these nodes."""
    cluster = CLUSTER.model_dump() | {"cluster": name, "ssh_port": port}
    said = {"cluster": cluster, "nodes": [node(one) for one in nodes]}
    stand.answers["POST /v1/login/challenge"] = (200, {"nonce": "n0nce"})
    stand.answers["POST /v1/login"] = (200, answer(**said))
    stand.answers["GET /v1/me"] = (200, me(**said))
    stand.answers["GET /v1/cluster"] = (200, cluster)
    stand.answers["POST /v1/logout"] = (204, "")
    return stand


@pytest.fixture
def prod(tmp_path: Path) -> Iterator[Stand]:
    with standing(tmp_path / "prod") as stand:
        yield called(stand, "prod", "web1", "db1", port=2300)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Stand]:
    with standing(tmp_path / "lab") as stand:
        yield called(stand, "lab", "web1", "db1", "prod", port=2400)


def login_at(cluster: str, stand: Stand, *more: str) -> Result:
    where = ["--authority", stand.url, "--pin", stand.pin, "--user", "alice", "--password-stdin"]
    return run("--cluster", cluster, "login", *where, *more, stdin="correct horse battery\n")


def test_the_first_lies_where_it_always_did_and_the_others_beside_it(stand: Stand, prod: Stand, home: Path) -> None:
    login(stand)
    alone = everything_in(home)
    assert login_at("prod", prod).exit_code == 0
    now = everything_in(home)
    assert {name for name in now if not name.startswith("clusters/")} == set(alone)
    assert all(now[name] == alone[name] for name in alone if name != "ssh_config")
    assert now["ssh_config"].startswith(alone["ssh_config"])
    assert {name.removeprefix("clusters/prod/") for name in now if name.startswith("clusters/")} == set(alone)


def test_one_included_file_leads_to_all_and_the_first_that_has_a_name_keeps_it(
    stand: Stand, prod: Stand, lab: Stand, home: Path
) -> None:
    login(stand)
    login_at("prod", prod)
    login_at("lab", lab)
    config = home / "ssh_config"
    where = {
        "web1": ("2222", home),
        "web1.bartizan": ("2222", home),
        "web1.prod": ("2300", home / "clusters" / "prod"),
        "web1.lab": ("2400", home / "clusters" / "lab"),
        "db1": ("2400", home / "clusters" / "lab"),  # by name, lab comes before prod
        "db1.prod": ("2300", home / "clusters" / "prod"),
        "new7.prod": ("2300", home / "clusters" / "prod"),
        "new7.bartizan": ("2222", home),
    }
    for name, (port, folder) in where.items():
        found = ssh_reads(config, name)
        assert f" 127.0.0.1 {port} " in found["proxycommand"], name
        assert found["identityfile"] == str(folder / "id"), name
        assert found["hostkeyalias"] == name.partition(".")[0]
    assert (ssh_reads(config, "lab")["port"], ssh_reads(config, "bartizan")["port"]) == ("2400", "2222")
    assert "proxycommand" not in ssh_reads(config, "example.org")


def test_the_name_of_a_cluster_is_no_node_of_another(stand: Stand, prod: Stand, lab: Stand, home: Path) -> None:
    login(stand)
    login_at("lab", lab)  # has a node named prod
    login_at("prod", prod)
    found = ssh_reads(home / "ssh_config", "prod")
    assert (found["port"], "proxycommand" in found) == ("2300", False)
    assert ssh_reads(home / "ssh_config", "prod.lab")["hostkeyalias"] == "prod"
    called(stand, "bartizan", "web1", "prod")
    run("ls")  # now the first one has such a node, too
    assert ssh_reads(home / "ssh_config", "prod")["port"] == "2300"
    assert ssh_reads(home / "ssh_config", "prod.bartizan")["hostkeyalias"] == "prod"


def test_one_cluster_is_chosen_by_option_or_environment(
    stand: Stand, prod: Stand, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.answers["GET /v1/me"] = (200, me())
    login(stand)
    login_at("prod", prod)
    assert [one["name"] for one in json.loads(run("ls", "--json").stdout)] == ["web1"]
    assert [one["name"] for one in json.loads(run("--cluster", "prod", "ls", "--json").stdout)] == ["web1", "db1"]
    assert run("config").stdout == f"{home}/ssh_config\n"
    monkeypatch.setenv("BART_CLUSTER", "prod")
    assert run("config").stdout == f"{home}/clusters/prod/ssh_config\n"
    assert run("--cluster", "bartizan", "config").stdout == f"{home}/ssh_config\n"
    assert ssh_reads(home / "clusters" / "prod" / "ssh_config", "web1")["proxycommand"].find(" 2300 ") > 0


def test_a_name_that_is_none_is_refused(stand: Stand) -> None:
    login(stand)
    result = run("--cluster", "../x", "status")
    assert result.exit_code == 1
    assert result.stderr.startswith("bart: error: '../x' is not the name of a cluster")


def test_nobody_there_says_so(stand: Stand) -> None:
    login(stand)
    result = run("--cluster", "prod", "status")
    assert (result.exit_code, "nobody is signed in here" in result.stderr) == (1, True)


def test_the_very_first_sign_in_is_the_first_even_when_it_is_named(prod: Stand, home: Path) -> None:
    assert login_at("prod", prod).exit_code == 0
    assert (home / "id").exists()
    assert not (home / "clusters").exists()
    assert run("--cluster", "prod", "ls").exit_code == 0


def test_another_name_than_the_clusters_own_is_refused_before_a_password_leaves(
    stand: Stand, prod: Stand, home: Path
) -> None:
    login(stand)
    before = everything_in(home)
    result = login_at("production", prod)
    assert result.exit_code == 1
    assert "is called 'prod', not 'production'\nhint: bart --cluster prod login --authority https://" in result.stderr
    assert prod.heard("POST /v1/login") == []
    assert everything_in(home) == before


def test_two_clusters_of_one_name_are_refused_with_what_to_do(stand: Stand, tmp_path: Path, home: Path) -> None:
    login(stand)
    before = everything_in(home)
    with standing(tmp_path / "twin") as twin:
        called(twin, "bartizan", "web1")
        result = login_at("bartizan", twin)
        assert result.exit_code == 1
        assert f"you are signed in at another cluster named 'bartizan', {stand.url}" in result.stderr
        assert "hint: bart clusters remove bartizan, or keep this one in another BART_HOME" in result.stderr
        assert twin.heard("POST /v1/login") == []
    assert everything_in(home) == before


def test_an_authority_that_is_known_needs_no_name(stand: Stand, prod: Stand, home: Path) -> None:
    login(stand)
    login_at("prod", prod)
    first = everything_in(home)
    result = run("login", "--authority", prod.url, "--user", "alice", "--password-stdin", stdin="x" * 12 + "\n")
    assert result.exit_code == 0
    assert everything_in(home)["id"] == first["id"]
    assert everything_in(home)["clusters/prod/id"] != first["clusters/prod/id"]


def test_bartizan_finds_the_sign_in_of_the_authority_that_it_is_told(stand: Stand, prod: Stand) -> None:
    login(stand)
    login_at("prod", prod)
    prod.answers["GET /v1/users"] = (200, [])
    result = CliRunner().invoke(bartizan, ["--authority", prod.url, "users", "list"])
    assert (result.exit_code, prod.heard("GET /v1/users")) == (0, [None])


def test_another_authority_without_a_name_takes_the_first_place_as_ever_and_says_so(
    stand: Stand, prod: Stand, home: Path
) -> None:
    login(stand)
    result = login(prod)
    assert result.exit_code == 0
    assert f"warning: this takes the place of your sign-in at {stand.url}" in result.stderr
    assert not (home / "clusters").exists()


def test_the_list_marks_the_one_that_is_meant(stand: Stand, prod: Stand) -> None:
    assert run("clusters", "list").stderr == "bart: nobody is signed in here\n"
    login(stand)
    login_at("prod", prod)
    lines = run("clusters", "list").stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["*", "bartizan"], ["prod", "alice"]]
    told = json.loads(run("--cluster", "prod", "clusters", "list", "--json").stdout)
    assert [(one["cluster"], one["current"]) for one in told] == [("bartizan", False), ("prod", True)]


def test_status_tells_of_the_others(stand: Stand, prod: Stand) -> None:
    stand.answers["GET /v1/me"] = (200, me(provider="corp"))
    login(stand)
    login_at("prod", prod)
    result = run("status")
    assert "bart: also at prod as alice, for 12 h more\n" in result.stderr
    told = json.loads(run("status", "--json").stdout)
    assert [one["cluster"] for one in told["clusters"]] == ["bartizan", "prod"]
    assert told["provider"] == "corp"


def test_what_is_removed_is_gone_and_the_rest_goes_on(stand: Stand, prod: Stand, lab: Stand, home: Path) -> None:
    stand.answers["POST /v1/logout"] = (204, "")
    login(stand)
    alone = everything_in(home)
    login_at("prod", prod)
    assert run("clusters", "remove", "prod").exit_code == 0
    assert prod.heard("POST /v1/logout") == [None]
    assert everything_in(home) == alone
    assert not (home / "clusters").exists()
    login_at("lab", lab)
    assert run("logout").exit_code == 0
    assert ssh_reads(home / "ssh_config", "web1")["identityfile"] == str(home / "clusters" / "lab" / "id")
    assert run("--cluster", "lab", "ls").exit_code == 0
    assert "or bart --cluster lab …" in run("status").stderr
    assert login(stand).exit_code == 0
    assert ssh_reads(home / "ssh_config", "web1")["identityfile"] == str(home / "id")
    assert run("clusters", "remove", "nope").exit_code == 1


def test_clusters_and_their_nodes_are_completed(stand: Stand, prod: Stand) -> None:
    login(stand)
    login_at("prod", prod)

    def completed(*words: str, begun: str) -> list[str]:
        found = ShellComplete(bart, {}, "bart", "_BART_COMPLETE").get_completions(list(words), begun)
        return [one.value for one in found]

    assert completed("--cluster", begun="p") == ["prod"]
    assert completed("clusters", "remove", begun="") == ["bartizan", "prod"]
    assert completed("ssh", begun="w") == ["web1", "web1.prod"]
    assert completed("ssh", begun="root@web1.") == ["root@web1.bartizan", "root@web1.prod"]
    assert completed("--cluster", "prod", "ssh", begun="d") == ["db1"]
    assert completed("--cluster", "prod", "ssh", begun="w") == ["web1.bartizan", "web1"]
