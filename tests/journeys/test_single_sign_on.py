"""
Access hangs on the identity provider: the real one of the tests, the real product, bart, ssh and sshd. What is told
here is what a team lives through: somebody comes, changes groups, leaves; the provider goes down and comes back.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ca.identity.hub import running_hub
from tests.canaries import plant, plant_home
from tests.idp import Idp, running_idp
from tests.journeys.stage import events, live_session
from tests.played_browser import PlayedBrowser
from tests.product import BIN, HOUSE, ROLES, Person, Product, environment, running_product

FILE = """\
name: corp
title: Example Corp
kind: oidc
issuer: {issuer}
client: {client}
scopes: [openid, profile, groups, offline_access]
user: preferred_username
allow: [{{groups: [staff]}}]
roles: [{{when: {{groups: [dev]}}, roles: [developer]}}]
traits: {{team: groups}}
"""
HUB = """\
name: hub
title: GitHub
kind: github
issuer: {issuer}
client: {client}
allow: [{{orgs: [example]}}]
roles: [{{when: {{teams: [example/sre]}}, roles: [developer]}}]
"""


@dataclass(frozen=True, slots=True)
class Company:
    """A team with a provider, a node and somebody to sign in."""

    product: Product
    idp: Idp

    def newcomer(self, name: str, *groups: str) -> Person:
        """Somebody whom the provider knows, and we do not yet."""
        self.idp.set_account(name, groups=list(groups))
        person = Person(self.product, name, "", self.product.folder / "people" / name)
        person.folder.mkdir(parents=True)
        return person

    @contextmanager
    def browser(self) -> Iterator[PlayedBrowser]:
        with PlayedBrowser((self.product.data / "root.pem").read_text()) as browser:
            yield browser

    def sign_in(self, person: Person, *options: str) -> str:
        """``bart login`` with a browser; gives all that bart said."""
        with self.bart_login(person, "--no-open", *options) as bart, self.browser() as browser:
            said = bart.until("https://")
            page = browser.click(browser.go(said.split()[-1]), "Continue with Example Corp")
            page = browser.sign_in_at_provider(page, person.name)
            browser.click(page, "Let bart in")
            said += bart.rest()
            assert bart.program.wait(timeout=30) == 0, said
        plant_home(person.home)
        return said

    @contextmanager
    def talking(self, *words: str) -> Iterator[Talk]:
        """An operator's command that takes its time."""
        command = [BIN / "bartizan", "--data", self.product.data, *words]
        with _listening(command, environment(self.product.folder)) as talk:
            yield talk

    @contextmanager
    def bart_login(self, person: Person, *options: str) -> Iterator[Talk]:
        where = ["--authority", f"https://{self.product.web}", "--pin", self.product.pin]
        with _listening([BIN / "bart", "login", *where, *options], person.environment) as talk:
            yield talk


@dataclass(frozen=True, slots=True)
class Talk:
    """A program that is listened to."""

    program: subprocess.Popen[str]

    def until(self, word: str) -> str:
        said = ""
        assert self.program.stdout is not None
        for line in self.program.stdout:
            said += line
            if word in line:
                return said
        raise AssertionError(f"it never said {word!r}: {said}")

    def rest(self) -> str:
        assert self.program.stdout is not None
        return self.program.stdout.read()


@contextmanager
def _listening(command: Sequence[str | Path], env: Mapping[str, str]) -> Iterator[Talk]:
    """A program that is listened to; ended on the way out by its own process id."""
    with subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as program:
        try:
            yield Talk(program)
        finally:
            program.kill()


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    folder = tmp_path_factory.mktemp("company")
    with running_idp(folder / "idp") as idp, running_product(folder / "product", "--workers", "1") as product:
        product.apply_roles(ROLES)
        with product.node("web1", env="dev"):
            file = folder / "corp.yaml"
            file.write_text(FILE.format(issuer=idp.issuer, client=idp.client))
            secret = plant(idp.secret, "the client secret")
            product.bartizan("idp", "apply", file, "--secret-stdin", stdin=f"{secret}\n")
            yield Company(product, idp)


def test_somebody_signs_in_at_the_provider_and_types_ssh(company: Company) -> None:
    alice = company.newcomer("alice", "staff", "dev")
    said = company.sign_in(alice)
    assert "signed in as alice" in said
    assert alice.ssh("web1", "echo in").stdout == b"in\n"
    assert events(company.product, "identity.added", user="alice", provider="corp")
    assert events(company.product, "login.succeeded", user="alice", method="browser")
    people = json.loads(company.product.bartizan("users", "list", "--json").stdout)
    (listed,) = [one for one in people if one["name"] == "alice"]
    assert (listed["provider"], listed["roles"], listed["traits"]) == (
        "corp",
        ["developer"],
        {"team": ["staff", "dev"]},
    )


def test_a_group_that_is_taken_away_ends_the_session_and_gives_no_new_one(company: Company) -> None:
    bob = company.newcomer("bob", "staff", "dev")
    company.sign_in(bob)
    with live_session(bob) as live:
        company.idp.set_account("bob", groups=["staff"])
        assert "yes, with other roles" in company.product.bartizan("idp", "recheck", "corp", "--user", "bob").stdout
        assert live.ends() == 255
    assert "none of your roles reaches web1" in live.said
    refused = bob.ssh("web1", "true")
    assert refused.returncode == 255
    company.idp.set_account("bob", groups=["staff", "dev"])
    company.product.bartizan("idp", "recheck", "corp", "--user", "bob")
    assert bob.ssh("web1", "echo again").stdout == b"again\n", "the certificate was good all the time"


def test_somebody_who_is_removed_there_is_out_here(company: Company) -> None:
    """OIDC-19"""
    dora = company.newcomer("dora", "staff", "dev")
    company.sign_in(dora)
    with live_session(dora) as live:
        company.idp.disable("dora")
        assert "no: signed out" in company.product.bartizan("idp", "recheck", "corp", "--user", "dora").stdout
        assert live.ends() == 255
    assert "Example Corp no longer vouches for you" in live.said
    refused = dora.ssh("web1", "true")
    assert refused.returncode == 255
    assert b"Example Corp no longer vouches for you" in refused.stderr
    assert dora.bart("ls", check=False).returncode == 1
    company.idp.set_account("dora", groups=["staff", "dev"])
    company.sign_in(dora)
    assert dora.ssh("web1", "echo back").stdout == b"back\n"


def test_a_provider_that_is_down_takes_nobody_out_and_lets_nobody_in(company: Company, tmp_path: Path) -> None:
    with running_idp(tmp_path / "idp") as other:
        other.set_account("emil", groups=["staff", "dev"])
        file = tmp_path / "away.yaml"
        away = FILE.replace("name: corp", "name: away").replace("Example Corp", "Away")
        file.write_text(away.format(issuer=other.issuer, client=other.client))
        company.product.bartizan("idp", "apply", file, "--secret-stdin", stdin=f"{other.secret}\n")
        emil = company.newcomer("emil", "staff", "dev")
        with company.bart_login(emil, "--no-open") as bart, company.browser() as browser:
            page = browser.go(bart.until("https://").split()[-1])
            browser.click(browser.sign_in_at_provider(browser.click(page, "Continue with Away"), "emil"), "Let bart in")
            assert bart.program.wait(timeout=30) == 0, bart.rest()
    try:
        with live_session(emil) as live:
            assert "it does not answer" in company.product.bartizan("idp", "recheck", "away").stdout
            assert emil.ssh("web1", "echo in").stdout == b"in\n"
            assert not live.stopped(after=1)
        assert events(company.product, "provider.unreachable", provider="away")
        failed = company.product.bartizan("idp", "test", "away", check=False)
        assert failed.returncode == 1
        assert "failed" in failed.stdout
        with company.browser() as browser:
            page = browser.click(browser.go(f"https://{company.product.web}/sign-in"), "Continue with Away")
        assert page.status_code == 503
        assert "Away" in page.text
    finally:
        company.product.bartizan("idp", "remove", "away", "--yes")
    assert emil.ssh("web1", "true").returncode == 255, "a provider that is removed takes its people along"


def test_whom_the_file_does_not_let_in_reads_why(company: Company) -> None:
    guest = company.newcomer("guest", "visitors")
    with company.bart_login(guest, "--no-open") as bart, company.browser() as browser:
        page = browser.click(browser.go(bart.until("https://").split()[-1]), "Continue with Example Corp")
        page = browser.sign_in_at_provider(page, "guest")
        assert page.status_code == 403
        assert "Example Corp" in page.text
    assert events(company.product, "login.refused", provider="corp", reason="not_allowed")


def test_a_machine_without_a_browser_is_let_in_from_another(company: Company) -> None:
    """OIDC-18: nothing is approved without a sign-in, and the page says which machine asks, and from where"""
    fay = company.newcomer("fay", "staff", "dev")
    with company.bart_login(fay, "--no-browser") as bart, company.browser() as browser:
        said = bart.until("code=")
        link = re.search(r"https://\S+code=\S+", said)
        assert link is not None
        page = browser.click(browser.go(link[0]), "Continue with Example Corp")
        page = browser.sign_in_at_provider(page, "fay")
        assert "127.0.0.1" in page.text
        browser.click(page, "Let it in")
        assert bart.program.wait(timeout=60) == 0, said + bart.rest()
    plant_home(fay.home)
    assert fay.ssh("web1", "echo in").stdout == b"in\n"


def test_a_team_at_github_gives_a_role_and_takes_it_away(company: Company, tmp_path: Path) -> None:
    with running_hub() as hub:
        file = tmp_path / "hub.yaml"
        file.write_text(HUB.format(issuer=hub.issuer, client=hub.client))
        secret = plant(str(hub.secret), "the secret at the hub")
        company.product.bartizan("idp", "apply", file, "--secret-stdin", stdin=f"{secret}\n")
        cat = Person(company.product, "octocat", "", company.product.folder / "people" / "octocat")
        cat.folder.mkdir(parents=True)
        with company.bart_login(cat, "--no-open") as bart, company.browser() as browser:
            page = browser.click(browser.go(bart.until("https://").split()[-1]), "Continue with GitHub")
            browser.click(page, "Let bart in")
            assert bart.program.wait(timeout=30) == 0, bart.rest()
        for token in hub.tokens:
            plant(token, "a token of the hub")
        with live_session(cat) as live:
            hub.teams.clear()
            company.product.bartizan("idp", "recheck", "hub")
            assert live.ends() == 255
        assert "none of your roles reaches web1" in live.said
        hub.tokens.clear()
        assert "no: signed out" in company.product.bartizan("idp", "recheck", "hub").stdout
        company.product.bartizan("idp", "remove", "hub", "--yes")


def test_an_administrator_sees_what_a_sign_in_would_give(company: Company) -> None:
    company.newcomer("hal", "staff", "dev")
    with company.talking("idp", "test", "corp", "--sign-in") as trial, company.browser() as browser:
        page = browser.go(trial.until("https://").split()[-1])
        page = browser.sign_in_at_provider(page, "hal")
        assert "nobody was signed in" in page.text
        said = trial.rest()
        assert trial.program.wait(timeout=30) == 0, said
        assert browser.go(f"https://{company.product.web}/you").url.path == "/sign-in"
    assert "would sign in as hal, new here" in said
    assert re.search(r"corp.*groups has dev: roles developer|groups has dev: roles developer", said)
    assert not events(company.product, "identity.added", user="hal")


def test_the_demo_with_an_identity_provider_plays_to_the_end(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.demo_sso"],
        env=environment(tmp_path),
        cwd=HOUSE,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for shown in ("signed in as alice", "no: signed out, sessions ended", "Example Corp no longer vouches for you"):
        assert shown in done.stdout, done.stdout
