"""
A browser played by plain HTTP: it keeps cookies, follows links and sends forms, and trusts one root. Pages need no
script, so this is all that a person's browser does on the way through sign-in. Real Chromium is in tests/web/.
"""

from __future__ import annotations

import html
import re
import ssl
from urllib.parse import urljoin, urlsplit

import httpx

from tests.idp import PASSWORD

HOPS = 30


class PlayedBrowser:
    """One person's browser. Closed like a file."""

    def __init__(self, root: str) -> None:
        """*root* is the authority's root certificate (PEM)."""
        context = ssl.create_default_context(cadata=root)
        self._http = httpx.Client(verify=context, trust_env=False, timeout=30)

    def __enter__(self) -> PlayedBrowser:
        return self

    def __exit__(self, *details: object) -> None:
        self._http.close()

    def go(self, address: str) -> httpx.Response:
        """The page that *address* leads to."""
        return self._followed(self._http.get(address))

    def click(self, page: httpx.Response, words: str) -> httpx.Response:
        """The page behind the link or the button that says *words*."""
        link = re.search(rf'<a [^>]*href="([^"]+)"[^>]*>[^<]*{re.escape(words)}', page.text)
        if link is not None:
            return self.go(urljoin(str(page.url), html.unescape(link[1])))
        form = next((one for one in _forms(page.text) if words in one), None)
        assert form is not None, f"nothing on {page.url} says {words!r}:\n{page.text}"
        return self.send(page, form, words)

    def send(self, page: httpx.Response, form: str, words: str = "", **typed: str) -> httpx.Response:
        """The page that comes of sending a form, with its button that says *words*."""
        action = re.search(r'<form[^>]*action="([^"]*)"', form)
        where = urljoin(str(page.url), html.unescape(action[1]) if action else "")
        hidden = {
            html.unescape(name): html.unescape(value)
            for name, value in re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form)
        }
        pressed = re.search(rf'<button[^>]*name="([^"]+)" value="([^"]*)"[^>]*>[^<]*{re.escape(words)}', form)
        button = {pressed[1]: pressed[2]} if pressed else {}
        return self._followed(self._http.post(where, data=hidden | button | typed, headers={"origin": _origin(where)}))

    def sign_in_at_provider(self, page: httpx.Response, name: str, password: str = PASSWORD) -> httpx.Response:
        """From the provider's first page to wherever it sends the browser back to; the provider's forms are its own."""
        there = _origin(str(page.url))
        for _ in range(HOPS):
            if _origin(str(page.url)) != there:
                return page
            page = self.send(page, _forms(page.text)[0], login=name, password=password)
        raise AssertionError(f"no way back from {page.url}")

    def _followed(self, answer: httpx.Response) -> httpx.Response:
        for _ in range(HOPS):
            if not answer.is_redirect:
                return answer
            answer = self._http.get(urljoin(str(answer.url), answer.headers["location"]))
        raise AssertionError(f"round and round at {answer.url}")


def _forms(text: str) -> list[str]:
    return re.findall(r"<form.*?</form>", text, re.DOTALL)


def _origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"
