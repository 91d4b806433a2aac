"""The whole way with ``bart`` itself: it asks, a person says yes in a real browser, and plain ``ssh web1`` works."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.idp import Idp, running_idp
from tests.journeys.stage import eventually, operator
from tests.product import BIN, Person, Product
from tests.sshd import stop
from tests.web.browser import sign_in
from tests.web.provider import apply, at_provider


@contextmanager
def signing_in(person: Person, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """``bart login`` while it waits, and what it says."""
    person.folder.mkdir(parents=True, exist_ok=True)
    said = person.folder / "login.txt"
    where = ["--authority", f"https://{person.product.web}", "--pin", person.product.pin]
    with said.open("wb") as out:
        bart = subprocess.Popen(
            [BIN / "bart", "login", *where, *options],
            env=person.environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        yield bart, said
    finally:
        stop(bart)


def read(said: Path, pattern: str) -> str:
    """What *pattern* finds in the words of ``bart``, as soon as they are there."""

    def look() -> str | None:
        found = re.search(pattern, said.read_text(errors="replace"))
        return found and found[1]

    return eventually(look, what=f"{pattern} in: {said.read_text(errors='replace')}")


def test_single_sign_on_from_bart_to_a_shell(page: Page, product: Product, tmp_path: Path) -> None:
    person = Person(product, "ines", "", tmp_path / "ines")
    with running_idp(tmp_path / "idp") as idp, known(product, idp):
        idp.set_account("ines", groups=["staff", "sre"])
        with signing_in(person, "--no-open") as (bart, said):
            page.goto(read(said, r"(https://\S+/sign-in/terminal\S+)"))
            page.get_by_role("link", name="Continue with Example Corp").click()
            at_provider(page, "ines")
            expect(page.get_by_text(read(said, r"the word ([A-Z2-7]{4})"), exact=True)).to_be_visible()
            page.get_by_role("button", name="Let bart in").click()
            assert bart.wait(timeout=60) == 0, said.read_text()
        assert person.ssh("web1", "echo", "welcome").stdout == b"welcome\n"


def test_a_machine_without_a_browser_is_let_in_from_another(page: Page, product: Product, tmp_path: Path) -> None:
    """OIDC-18"""
    person = Person(product, "jon", product.add_user("jon", "developer"), tmp_path / "jon")
    with signing_in(person, "--no-browser") as (bart, said):
        code = read(said, r"\b([B-DF-HJ-NP-TV-XZ]{4}-[B-DF-HJ-NP-TV-XZ]{4})\b")
        page.goto(f"/device?code={code}")
        sign_in(page, "jon", person.password)
        expect(page.get_by_text(read(said, r"the word ([A-Z2-7]{4})"), exact=True)).to_be_visible()
        page.get_by_role("button", name="Let it in").click()
        assert bart.wait(timeout=60) == 0, said.read_text()
    assert person.ssh("web1", "echo", "welcome").stdout == b"welcome\n"


def test_no_in_the_browser_is_heard_in_the_terminal(page: Page, alice: Person, tmp_path: Path) -> None:
    person = Person(alice.product, alice.name, alice.password, tmp_path / "again")
    with signing_in(person, "--no-open") as (bart, said):
        page.goto(read(said, r"(https://\S+/sign-in/terminal\S+)"))
        sign_in(page, alice.name, alice.password)
        page.get_by_role("button", name="No", exact=True).click()
        assert bart.wait(timeout=60) == 1
    assert "refused on the page" in said.read_text()


@contextmanager
def known(product: Product, idp: Idp) -> Iterator[None]:
    """The provider as *Example Corp*, for a while."""
    apply(product, idp, "corp", "Example Corp")
    yield
    with operator(product) as door:
        door.delete("/v1/idp/corp")
