"""Single sign-on, the whole way: browser, real OpenID provider, callback, terminal, certificate, ``ssh web1``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.idp import Idp, running_idp
from tests.journeys.stage import operator
from tests.product import Product
from tests.sshd import free_port
from tests.web.browser import Chromium
from tests.web.provider import FILE, apply, at_provider
from tests.web.terminal import waiting


@pytest.fixture
def corp(product: Product, idp: Idp) -> Iterator[Idp]:
    """The provider, known to the product as *Example Corp*."""
    apply(product, idp, "corp", "Example Corp")
    yield idp
    with operator(product) as door:
        door.delete("/v1/idp/corp")


def test_the_whole_way_from_the_browser_to_a_shell(page: Page, product: Product, corp: Idp, tmp_path: Path) -> None:
    corp.set_account("erin", groups=["staff", "sre"])
    with waiting(product, tmp_path / "terminal") as terminal:
        page.goto(terminal.page)
        page.get_by_role("link", name="Continue with Example Corp").click()
        at_provider(page, "erin")
        expect(page.get_by_text(terminal.word, exact=True)).to_be_visible()
        expect(page.locator("dl")).to_contain_text("erin with Example Corp")
        page.get_by_role("button", name="Let bart in").click()
        expect(page.get_by_text("go back to the terminal")).to_be_visible()
        grant = terminal.answer()["code"]
        assert terminal.exchange(grant).is_success
        assert terminal.ssh("web1", "echo", "welcome").stdout == b"welcome\n"
        assert terminal.exchange(grant).status_code == 403, "a grant is good once"
    page.goto("/you")
    expect(page.get_by_text("with Example Corp")).to_be_visible()
    expect(page.locator("dl")).to_contain_text("staff, sre")


def test_somebody_who_may_not_come_in_is_told_why_and_what_to_do(page: Page, corp: Idp) -> None:
    corp.set_account("gus", groups=["visitors"])
    page.goto("/sign-in")
    page.get_by_role("link", name="Continue with Example Corp").click()
    at_provider(page, "gus")
    expect(page.get_by_role("heading", name="You may not sign in here")).to_be_visible()
    expect(page.get_by_role("link", name="Try again")).to_be_visible()
    page.goto("/you")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_somebody_who_says_no_at_the_provider_comes_back_to_words(page: Page, corp: Idp) -> None:
    page.goto("/sign-in")
    page.get_by_role("link", name="Continue with Example Corp").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="You were not let in")).to_be_visible()
    page.get_by_role("link", name="Other ways to sign in").click()
    expect(page.get_by_label("Password")).to_be_visible()


def test_two_providers_stand_side_by_side_and_one_may_be_down(
    chromium: Chromium, product: Product, corp: Idp, tmp_path: Path
) -> None:
    with running_idp(tmp_path / "second") as second:
        apply(product, second, "partners", "Partners")
        second.set_account("hana", groups=["staff"])
        with chromium.person(product.web) as page:
            page.goto("/sign-in")
            expect(page.get_by_role("link", name="Continue with Example Corp")).to_be_visible()
            page.get_by_role("link", name="Continue with Partners").click()
            at_provider(page, "hana")
            expect(page.get_by_text("with Partners")).to_be_visible()
    with chromium.person(product.web) as page:
        page.goto("/sign-in/with/gone")
        expect(page.get_by_role("heading", name="There is no such way to sign in")).to_be_visible()
    text = FILE.format(name="asleep", title="Asleep Ltd", issuer=f"http://127.0.0.1:{free_port()}", client="bartizan")
    with chromium.person(product.web) as page, operator(product) as door:
        assert door.put("/v1/idp", json={"text": text, "secret": "never told"}).is_success
        page.goto("/sign-in")
        page.get_by_role("link", name="Continue with Asleep Ltd").click()
        expect(page.get_by_role("heading", name="Asleep Ltd does not answer")).to_be_visible()
        page.get_by_role("link", name="Other ways to sign in").click()
        expect(page.get_by_role("link", name="Continue with Example Corp")).to_be_visible()
        door.delete("/v1/idp/asleep")
        door.delete("/v1/idp/partners")
