"""
``python -m tests.web.screenshots FOLDER``: a picture of every page in every state, light and dark, from 400 px to 4K.

The states are made by the real product, as people meet them. Nothing here checks anything: somebody looks.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pyotp
from playwright.sync_api import Page

from tests.idp import Idp, running_idp
from tests.journeys.stage import live_session, operator
from tests.product import ROLES, Product, running_product, running_site
from tests.web.browser import Chromium, running_chromium, sign_in
from tests.web.provider import apply, at_provider

SIZES = {"400": (400, 800), "1280": (1280, 800), "4k": (3840, 2160)}
SCHEMES = ("light", "dark")
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(b"verifier").digest()).decode().rstrip("=")
PASSWORD = "four words and more"
PROVIDERS = ("corp", "Example Corp"), ("github", "GitHub")


@dataclass(slots=True)
class Album:
    """Where the pictures go, and how many there are."""

    folder: Path
    count: int = 0

    def shot(self, page: Page, name: str) -> None:
        """This state in every size and scheme; the page is not loaded again."""
        for size, (width, height) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            for scheme in SCHEMES:
                page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                page.screenshot(path=self.folder / f"{name}-{size}-{scheme}.png", full_page=True)
                self.count += 1
        page.set_viewport_size({"width": 1280, "height": 800})


def main(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    began, album = time.monotonic(), Album(folder)
    with tempfile.TemporaryDirectory(prefix="bartizan-pages-") as place, running_chromium() as chromium:
        with running_product(Path(place) / "empty") as empty:
            _empty(album, chromium, empty)
        with running_site(Path(place) / "site") as site:
            _strangers(album, chromium, site.product)
            _invitation(album, chromium, site.product)
            _second_factor(album, chromium, site.product)
            with live_session(site.alice):
                _person(album, chromium, site.product, site.alice.name, site.alice.password)
            _newcomer(album, chromium, site.product)
            _locked(album, chromium, site.product)
            _wanted_factor(album, chromium, site.product)
            _providers(album, chromium, site.product)
            with running_idp(Path(place) / "idp") as idp:
                _provided(album, chromium, site.product, idp)
    print(f"{album.count} pictures in {folder}, in {time.monotonic() - began:.0f} s")
    return 0


def _empty(album: Album, chromium: Chromium, product: Product) -> None:
    with chromium.person(product.web) as page:
        page.goto("/sign-in")
        album.shot(page, "sign-in-password")


def _strangers(album: Album, chromium: Chromium, product: Product) -> None:
    with chromium.person(product.web) as page:
        for name in ("here", "everywhere"):
            page.goto(f"/sign-in?signed-out={name}")
            album.shot(page, f"sign-in-left-{name}")
        page.goto(f"/sign-in/terminal?{_terminal()}")
        sign_in(page, "mallory", "not her password")
        album.shot(page, "sign-in-wrong")
        for _ in range(5):
            sign_in(page, "mallory", "not her password")
        album.shot(page, "sign-in-locked-out")
        page.goto("/nowhere")
        album.shot(page, "nowhere")
        page.goto("/sign-in/callback/corp?state=x&code=y")
        album.shot(page, "no-such-provider")
        page.goto("/sign-in")
        page.context.clear_cookies()
        sign_in(page, "mallory", "not her password")
        album.shot(page, "form-too-old")


def _invitation(album: Album, chromium: Chromium, product: Product) -> None:
    with operator(product) as door, chromium.person(product.web) as page:
        link = door.post("/v1/users", json={"name": "dora", "roles": ["developer"]}).json()["invitation_url"]
        page.goto(link)
        album.shot(page, "invitation")
        for again, name in (("another one instead", "invitation-wrong"), (PASSWORD, "invitation-done")):
            page.get_by_label("Password", exact=True).fill(PASSWORD)
            page.get_by_label("The same password again").fill(again)
            page.get_by_role("button").click()
            album.shot(page, name)
        page.goto(link)
        album.shot(page, "invitation-over")


def _second_factor(album: Album, chromium: Chromium, product: Product) -> None:
    with chromium.person(product.web) as page:
        sign_in(page, "dora", PASSWORD)
        page.get_by_role("link", name="Set up a second factor").click()
        album.shot(page, "factor-set-up")
        page.get_by_text("No camera?").click()
        totp = pyotp.TOTP(page.locator("pre").inner_text())
        page.get_by_role("textbox", name="Code").fill("000000")
        page.get_by_role("button", name="Confirm").click()
        album.shot(page, "factor-wrong")
        page.get_by_role("textbox", name="Code").fill(totp.now())
        page.get_by_role("button", name="Confirm").click()
        album.shot(page, "recovery-codes")
        page.get_by_role("checkbox").check()
        page.get_by_role("button", name="Go on").click()
        album.shot(page, "you-with-factor")
        page.get_by_role("link", name="Remove").click()
        album.shot(page, "factor-remove")
        page.get_by_role("button", name="Sign out").click()
        sign_in(page, "dora", PASSWORD)
        album.shot(page, "sign-in-code")
        page.get_by_role("textbox", name="Code").fill("000000")
        page.get_by_role("button", name="Sign in").click()
        album.shot(page, "sign-in-code-wrong")


def _person(album: Album, chromium: Chromium, product: Product, user: str, password: str) -> None:
    with chromium.person(product.web) as other, chromium.person(product.web) as page:
        sign_in(other, user, password)
        sign_in(page, user, password)
        album.shot(page, "you")
        page.goto("/you?done=browser")
        album.shot(page, "you-done")
        page.get_by_role("link", name="Sign out everywhere").click()
        album.shot(page, "sign-out-everywhere")
        page.goto("/you")
        page.get_by_role("link", name="Revoke").first.click()
        album.shot(page, "certificate-revoke")
        page.goto(f"/sign-in/terminal?{_terminal()}")
        album.shot(page, "terminal")
        page.goto("/sign-in/terminal?port=22")
        album.shot(page, "terminal-broken")
        page.goto("/device")
        album.shot(page, "device")
        page.get_by_role("textbox", name="Code").fill("BCDFGHJK")
        page.get_by_role("button", name="Go on").click()
        album.shot(page, "device-wrong")
        for answer, name in (("Let it in", "device-approved"), ("No", "device-denied")):
            page.goto(f"/device?code={_device(product)}")
            if answer == "No":
                album.shot(page, "device-ask")
            page.get_by_role("button", name=answer, exact=True).click()
            album.shot(page, name)


def _locked(album: Album, chromium: Chromium, product: Product) -> None:
    password = product.add_user("lou", "developer")
    with chromium.person(product.web) as page:
        sign_in(page, "lou", password)
        product.bartizan("locks", "add", "--user", "lou", "--reason", "laptop lost, call the desk")
        page.goto("/you")
        album.shot(page, "locked")


def _newcomer(album: Album, chromium: Chromium, product: Product) -> None:
    password = product.add_user("nora")
    with chromium.person(product.web) as page:
        sign_in(page, "nora", password)
        album.shot(page, "you-empty")


def _wanted_factor(album: Album, chromium: Chromium, product: Product) -> None:
    careful = "{nodes: {env: [prod]}, logins: [root], actions: [shell], options: {mfa: login}}"
    product.apply_roles(f"{ROLES}  - name: careful\n    allow:\n      - {careful}\n")
    password = product.add_user("karl", "careful")
    with chromium.person(product.web) as page:
        sign_in(page, "karl", password)
        album.shot(page, "sign-in-set-up")


def _provided(album: Album, chromium: Chromium, product: Product, idp: Idp) -> None:
    apply(product, idp, "team", "Team Directory")
    idp.set_account("erin", groups=["staff", "sre"])
    idp.set_account("gus", groups=["visitors"])
    for name in ("gus", "erin"):
        with chromium.person(product.web) as page:
            page.goto(f"/sign-in?next={quote('/device', safe='')}")
            page.get_by_role("link", name="Continue with Team Directory").click()
            at_provider(page, name)
            album.shot(page, "provider-not-allowed" if name == "gus" else "device-after-provider")
            page.goto("/you")
            if name == "erin":
                album.shot(page, "you-provider")
    with chromium.person(product.web) as page:
        for _ in range(31):
            page.goto("/sign-in/with/corp")
        album.shot(page, "too-many")


def _providers(album: Album, chromium: Chromium, product: Product) -> None:
    with operator(product) as door:
        for name, title in PROVIDERS:
            text = (
                f"name: {name}\ntitle: {title}\nkind: oidc\nissuer: http://127.0.0.1:9\nclient: bartizan\n"
                f"user: preferred_username\nallow: '*'\nroles:\n  - {{when: '*', roles: [developer]}}\n"
            )
            answer = door.put("/v1/idp", json={"text": text, "secret": secrets.token_urlsafe(16)})
            answer.raise_for_status()
    with chromium.person(product.web) as page:
        page.goto("/sign-in?next=/device")
        album.shot(page, "sign-in-providers")
        page.goto("/sign-in/callback/corp?state=x&code=y")
        album.shot(page, "callback-over")
        page.goto("/sign-in/with/corp?next=/you")
        album.shot(page, "provider-unreachable")


def _terminal() -> str:
    return f"challenge={CHALLENGE}&port=41234&state={'s' * 22}&host=alice-laptop"


def _device(product: Product) -> str:
    with operator(product) as door:
        answer = door.post("/v1/login/device", json={"challenge": CHALLENGE, "host": "build-runner-7"})
    code: str = answer.raise_for_status().json()["user_code"]
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "site/screenshots")))
