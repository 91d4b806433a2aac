"""A person with one laptop: the key in an agent, two clusters side by side, out everywhere at once."""

from __future__ import annotations

import html
import json
import os
import re
import secrets
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from cli.agent import Agent
from tests.journeys.stage import guest, live_session
from tests.product import BIN, ROLES, Person, Product, Site, running_product
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


# --- through the browser ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Browser:
    """The person's browser, without a screen: it keeps cookies, fills forms in and presses buttons."""

    http: httpx.Client

    def opens(self, url: str) -> str:
        return self.http.get(url, follow_redirects=True).raise_for_status().text

    def sends(self, page: str, action: str, **fields: str) -> httpx.Response:
        """Press a button of the form on *page* that goes to *action*; what is hidden in it goes along."""
        [form] = [one for one in re.findall(r"<form.*?</form>", page, re.DOTALL) if f'action="{action}"' in one]
        hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form)
        data = {name: html.unescape(value) for name, value in hidden} | fields
        return self.http.post(action, data=data, headers={"Origin": str(self.http.base_url).rstrip("/")})

    def signs_in(self, person: Person, page: str) -> None:
        answer = self.sends(page, "/sign-in", user=person.name, password=person.password)
        assert answer.status_code == 303, answer.text


@pytest.fixture
def browser(laptop: Person) -> Iterator[Browser]:
    context = ssl.create_default_context(cadata=(laptop.home / "root.pem").read_text())
    with httpx.Client(base_url=f"https://{laptop.product.web}", verify=context, timeout=30, trust_env=False) as http:
        yield Browser(http)


@contextmanager
def begun(person: Person, *options: str) -> Iterator[subprocess.Popen[str]]:
    """``bart login``, which waits for the browser."""
    command = [BIN / "bart", "login", *options]
    process = subprocess.Popen(command, env=person.environment, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def read_until(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """The first line on standard error that *pattern* finds."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if found := re.search(pattern, line):
            return found
    raise AssertionError("".join(seen))


def test_a_browser_lets_the_terminal_in_and_the_second_time_it_is_signed_in_already(
    laptop: Person, browser: Browser
) -> None:
    for time in ("first", "second"):
        with begun(laptop, "--no-open") as bart:
            word = read_until(bart, r"shows the word ([A-Z2-7]{4}):")[1]
            url = read_until(bart, r"https://\S+")[0]
            page = browser.opens(url)
            if time == "first":
                browser.signs_in(laptop, page)
                page = browser.opens(url)
            assert f">{word}<" in page
            answer = browser.sends(page, "/sign-in/terminal", answer="yes")
            assert answer.status_code == 303
            assert httpx.get(answer.headers["location"], trust_env=False).status_code == 200
            read_until(bart, f"signed in as {laptop.name}")
            assert bart.wait(timeout=30) == 0
        assert laptop.ssh("web1", "true").returncode == 0


def test_a_no_in_the_browser_ends_the_wait(laptop: Person, browser: Browser) -> None:
    with begun(laptop, "--no-open") as bart:
        url = read_until(bart, r"https://\S+")[0]
        browser.signs_in(laptop, browser.opens(url))
        answer = browser.sends(browser.opens(url), "/sign-in/terminal", answer="no")
        assert httpx.get(answer.headers["location"], trust_env=False).status_code == 200
        read_until(bart, "error: the sign-in was refused on the page")
        assert bart.wait(timeout=30) == 1


def test_a_code_is_approved_on_another_machine(laptop: Person, browser: Browser) -> None:
    with begun(laptop, "--no-browser", "--agent") as bart:
        url, code = read_until(bart, r"\(or (https://\S+), and type (\S+) there\)").groups()
        word = read_until(bart, r"shows the word ([A-Z2-7]{4})")[1]
        browser.signs_in(laptop, browser.opens(url))
        page = browser.opens(f"{url}?code={code}")
        assert f">{word}<" in page
        assert browser.sends(page, "/device", step="approve").is_success
        read_until(bart, f"signed in as {laptop.name}")
        assert bart.wait(timeout=30) == 0
    assert laptop.ssh("web1", "true").returncode == 0
    told = json.loads(laptop.bart("status", "--json").stdout)
    assert (told["signed_in_by"], told["keys"]) == ("device", "agent")
