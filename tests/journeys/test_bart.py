"""A person with one laptop: the key in an agent, two clusters side by side, out everywhere at once."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cli.agent import Agent
from tests.journeys.stage import guest, live_session
from tests.product import ROLES, Person, Product, Site, running_product
from tests.sshd import LOGIN


@pytest.fixture
def laptop(site: Site) -> Iterator[Person]:
    """Somebody new, whose agent is ended afterwards if it still runs."""
    person = guest(site.product, f"u{secrets.token_hex(4)}", "developer")
    yield person
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((person.home / "agent.pid").read_text()), 15)


def private_halves(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]


@pytest.mark.parametrize("way", ["config", "jump", "username"])
def test_a_key_in_the_agent_opens_every_way_and_never_lies_on_the_disk(laptop: Person, way: str) -> None:
    laptop.login("--agent")
    assert private_halves(laptop.folder) == []
    entered = laptop.ssh("web1", "echo in", way=way)  # type: ignore[arg-type]
    assert (entered.returncode, entered.stdout) == (0, b"in\n"), entered.stderr
    laptop.bart("logout")
    assert not Agent(laptop.home).answers()
    assert laptop.ssh("web1", "echo in").returncode == 255


def test_no_agent_is_forwarded_to_a_node_not_even_our_own(laptop: Person, tmp_path: Path) -> None:
    laptop.login("--agent")
    other = Agent(tmp_path)  # the one that the person's own shell has
    other.ensure()
    try:
        env = laptop.environment | {"SSH_AUTH_SOCK": str(other.socket)}
        command = laptop.ssh_command("web1", 'echo "[$SSH_AUTH_SOCK]"')
        result = subprocess.run(command, env=env, capture_output=True, timeout=60, check=False, input=b"")
        assert (result.returncode, result.stdout) == (0, b"[]\n"), result.stderr
        listed = subprocess.run(["ssh-add", "-L"], env=env, capture_output=True, text=True, check=False)
        assert listed.stdout == "The agent has no identities.\n"
    finally:
        other.end()
        laptop.bart("logout")


def test_out_everywhere_ends_what_another_machine_holds(laptop: Person, site: Site) -> None:
    elsewhere = Person(site.product, laptop.name, laptop.password, laptop.folder / "elsewhere")
    elsewhere.login()
    with live_session(elsewhere) as live:
        laptop.bart("logout", "--everywhere")
        live.ends()
    assert elsewhere.ssh("web1", "true").returncode == 255
    assert elsewhere.bart("status", check=False).returncode == 1


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Product]:
    """Another cluster, with a node of its own that is called like one of the first."""
    with running_product(tmp_path / "second", "--cluster", "second") as product:
        product.apply_roles(ROLES)
        with product.node("web1", env="dev"), product.node("only2", env="dev"):
            yield product


def test_two_clusters_side_by_side_from_one_included_file(laptop: Person, second: Product) -> None:
    password = second.add_user(laptop.name, "developer")
    where = ["--authority", f"https://{second.web}", "--pin", second.pin, "--user", laptop.name, "--password-stdin"]
    laptop.bart("--cluster", "second", "login", *where, stdin=f"{password}\n")
    laptop.bart("config", "--install", "--yes")

    def reached(name: str, *options: str, config: str = str(laptop.folder / ".ssh" / "config")) -> str:
        command = ["ssh", "-F", config, "-oBatchMode=yes", *options, f"{LOGIN}@{name}", 'echo "$SSH_CONNECTION"']
        result = subprocess.run(
            command, env=laptop.environment, input="", capture_output=True, text=True, timeout=60, check=False
        )
        assert result.returncode == 0, f"{name}: {result.stderr}"
        return result.stdout.split()[3]  # the port of the sshd that answered

    ports = {
        "first": str(laptop.product.nodes["web1"].port),
        "second": str(second.nodes["web1"].port),
        "only2": str(second.nodes["only2"].port),
    }
    assert reached("web1") == ports["first"]
    assert reached("web1.bartizan") == ports["first"]
    assert reached("web1.second") == ports["second"]
    assert reached("only2") == ports["only2"]
    assert reached("web1", config=str(laptop.home / "clusters" / "second" / "ssh_config")) == ports["second"]
    assert reached("only2", "-J", "second") == ports["only2"]
    listed = json.loads(laptop.bart("clusters", "list", "--json").stdout)
    assert [(one["cluster"], one["current"]) for one in listed] == [("bartizan", True), ("second", False)]

    laptop.bart("logout", "--purge", "--yes")
    assert not laptop.home.exists()
    assert (laptop.folder / ".ssh" / "config").read_text() == ""
