"""Stories of people with a local account, told in a real browser against the real product."""

from __future__ import annotations

import time
from pathlib import Path

import pyotp
from playwright.sync_api import Page, expect

from tests.journeys.stage import live_session
from tests.product import Person, Product
from tests.web.browser import Chromium, problem, sign_in, tab_to
from tests.web.terminal import Terminal, waiting


def test_a_person_signs_in_sees_what_is_open_and_leaves(page: Page, alice: Person) -> None:
    page.goto("/")
    sign_in(page, alice.name, alice.password)
    expect(page).to_have_url(f"https://{alice.product.web}/you")
    expect(page.get_by_role("heading", name=alice.name)).to_be_visible()
    expect(page.get_by_role("cell", name="ssh web1")).to_be_visible()
    page.get_by_role("button", name="Sign out", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("You are signed out here")
    page.goto("/you")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_wrong_password_is_told_in_words_and_can_be_mended(page: Page, alice: Person) -> None:
    sign_in(page, alice.name, "not the password")
    assert problem(page) == "User or password is wrong."
    expect(page.get_by_label("User")).to_have_value(alice.name)
    expect(page.get_by_label("Password")).to_have_value("")
    expect(page.get_by_label("Password")).to_be_focused()
    sign_in(page, alice.name, alice.password)
    expect(page.get_by_role("heading", name=alice.name)).to_be_visible()


def test_everything_works_by_keyboard(page: Page, alice: Person) -> None:
    page.goto("/sign-in")
    expect(page.get_by_label("User")).to_be_focused()
    page.keyboard.type(alice.name)
    page.keyboard.press("Tab")
    page.keyboard.type(alice.password)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=alice.name)).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    tab_to(page, "Sign out everywhere")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Sign out everywhere?")).to_be_visible()
    tab_to(page, "No, go back")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "one sees where one is"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=alice.name)).to_be_visible()


def test_a_second_factor_is_set_up_asked_for_and_survives_a_lost_telephone(
    chromium: Chromium, page: Page, product: Product
) -> None:
    password = product.add_user("frida", "developer")
    sign_in(page, "frida", password)
    page.get_by_role("link", name="Set up a second factor").click()
    page.get_by_text("No camera?").click()
    app = pyotp.TOTP(page.locator("pre").inner_text())
    page.get_by_role("textbox", name="Code").fill("000000")
    page.get_by_role("button", name="Confirm").click()
    assert "code is wrong" in problem(page)
    page.get_by_role("textbox", name="Code").fill(app.now())
    page.get_by_role("button", name="Confirm").click()
    codes = page.locator(".codes li").all_inner_texts()
    assert len(set(codes)) == 10
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("checkbox")).to_be_focused()  # not before they are kept
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("10 recovery codes left")).to_be_visible()

    with chromium.person(product.web) as other:
        sign_in(other, "frida", password)
        expect(other.get_by_role("heading", name="One more step")).to_be_visible()
        other.goto("/you")
        expect(other.get_by_role("heading", name="Sign in")).to_be_visible()
        sign_in(other, "frida", password)
        other.get_by_role("textbox", name="Code").fill(app.at(time.time(), counter_offset=1))
        other.get_by_role("button", name="Sign in").click()
        expect(other.get_by_role("heading", name="frida")).to_be_visible()

    page.get_by_role("button", name="Sign out", exact=True).click()
    sign_in(page, "frida", password)
    page.get_by_role("textbox", name="Code").fill(codes[0])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("9 recovery codes left")).to_be_visible()


def test_a_terminal_is_let_in_with_one_click_and_told_no_with_another(
    page: Page, alice: Person, tmp_path: Path
) -> None:
    with waiting(alice.product, tmp_path / "terminal") as terminal:
        page.goto(terminal.page)
        sign_in(page, alice.name, alice.password)
        expect(page.get_by_role("heading", name="Let bart on laptop-of-alice in?")).to_be_visible()
        expect(page.get_by_text(terminal.word, exact=True)).to_be_visible()
        page.get_by_role("button", name="No", exact=True).click()
        assert terminal.answer() == {"error": "access_denied"}
        page.goto(terminal.page)
        page.get_by_role("button", name="Let bart in").click()
        expect(page.get_by_text("go back to the terminal")).to_be_visible()
        assert terminal.exchange(terminal.answer()["code"]).is_success
        assert terminal.ssh("web1", "echo", "welcome").stdout == b"welcome\n"


def test_a_machine_without_a_browser_is_let_in_by_its_code(page: Page, alice: Person, tmp_path: Path) -> None:
    """OIDC-18"""
    terminal = Terminal(alice.product, tmp_path / "headless", host="build-7")
    grant, code = terminal.device()
    page.goto("/device")
    sign_in(page, alice.name, alice.password)
    page.get_by_role("textbox", name="Code").fill(code.replace("-", "").lower())
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("heading", name=f"Let build-7 in as {alice.name}?")).to_be_visible()
    expect(page.locator("dl")).to_contain_text("127.0.0.1")
    assert terminal.state_of(grant) == "pending"
    page.get_by_role("button", name="Let it in").click()
    expect(page.get_by_role("heading", name="It is let in")).to_be_visible()
    assert terminal.exchange(grant).is_success
    page.goto(f"/device?code={code}")
    assert "No machine shows this code now" in problem(page), "a code is good once"


def test_signing_out_everywhere_ends_a_live_session(chromium: Chromium, page: Page, product: Product) -> None:
    """WEB-08"""
    dan = product.person("dan", "developer")
    with chromium.person(product.web) as other, live_session(dan) as live:
        sign_in(other, "dan", dan.password)
        sign_in(page, "dan", dan.password)
        expect(page.get_by_text("live", exact=True)).to_be_visible()
        page.get_by_role("link", name="Sign out everywhere").click()
        expect(page.get_by_text("2 browser sign-ins, 1 certificate and 1 live ssh session")).to_be_visible()
        page.get_by_role("button", name="Sign out everywhere").click()
        expect(page.get_by_role("status")).to_contain_text("signed out everywhere")
        assert live.ends() != 0
        other.goto("/you")
        expect(other.get_by_role("heading", name="Sign in")).to_be_visible()
    assert dan.ssh("web1", "true").returncode == 255


def test_a_certificate_is_taken_back_by_its_owner(page: Page, product: Product) -> None:
    ben = product.person("ben", "developer")
    sign_in(page, "ben", ben.password)
    page.get_by_role("link", name="Revoke certificate").click()
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("status")).to_contain_text("The certificate is revoked")
    expect(page.get_by_text("No certificate of yours is good now.")).to_be_visible()
    assert ben.ssh("web1", "true").returncode == 255


def test_no_page_is_wider_than_a_small_telephone(page: Page, alice: Person) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    sign_in(page, alice.name, alice.password)
    for place in ("/you", "/you/sign-out", "/you/second-factor", "/device", "/nowhere", "/sign-in/terminal?port=1"):
        page.goto(place)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 400, f"{place} is {width} px wide"
