"""
A real Chromium, headless, as a person has it: a fresh profile for each, the keyboard, and light or dark by the system.

It does not know the authority's root, as no stranger's browser does; a person would compare the pin first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",  # it stays on this machine
)
PATIENCE_MS = 20_000


@dataclass(frozen=True, slots=True)
class Chromium:
    """A running browser program."""

    program: Browser

    @contextmanager
    def person(self, web: str, **options: object) -> Iterator[Page]:
        """A new profile, and a page whose addresses begin at the authority's."""
        context: BrowserContext = self.program.new_context(
            base_url=f"https://{web}",
            ignore_https_errors=True,
            **options,  # type: ignore[arg-type]
        )
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        complaints: list[str] = []
        page.on(
            "console", lambda said: complaints.append(said.text) if "Content Security Policy" in said.text else None
        )
        try:
            yield page
        finally:
            context.close()
        assert not complaints, f"the policy of a page was broken: {complaints}"


@contextmanager
def running_chromium() -> Iterator[Chromium]:
    """Chromium, started once for a module of stories. (Playwright holds an event loop: no async tests beside them.)"""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        program = _launched(playwright)
        try:
            yield Chromium(program)
        finally:
            program.close()


def _launched(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS), headless=True)


def sign_in(page: Page, user: str, password: str) -> None:
    """With a password, from whatever page asks for it."""
    if not page.url.startswith("https://") or "/sign-in" not in page.url:
        page.goto("/sign-in")
    page.get_by_label("User").fill(user)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in", exact=True).click()


def problem(page: Page) -> str:
    """What the page says went wrong."""
    return re.sub(r"\s+", " ", page.get_by_role("alert").inner_text()).strip()


def tab_to(page: Page, name: str, *, most: int = 25) -> None:
    """Press Tab until what has the focus is called *name*; a person without a mouse has nothing else."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if focused(page) == name:
            return
    raise AssertionError(f"Tab never came to {name!r}; last at {focused(page)!r}")


def focused(page: Page) -> str:
    """What has the focus, as it is labelled."""
    found: str = page.evaluate(
        "(() => { const at = document.activeElement; const label = at.labels && at.labels[0];"
        " return (label ? label : at).innerText.trim(); })()"
    )
    return found
