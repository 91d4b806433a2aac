"""A browser without a screen: it keeps cookies, finds forms and sends them, and follows nothing by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser

import httpx

from tests.ca.house import PASSWORD, House


@dataclass
class Form:
    """One form of a page."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append(Form(given.get("action", ""), given.get("method", "get")))
        elif tag == "input" and given.get("type") == "hidden" and self.found:
            self.found[-1].fields[given["name"]] = given.get("value", "")


def forms(page: httpx.Response) -> dict[str, Form]:
    """The forms of a page, by where they go."""
    parser = _Forms()
    parser.feed(page.text)
    return {form.action: form for form in parser.found}


@dataclass
class Visitor:
    """Somebody with a browser of their own."""

    house: House
    http: httpx.AsyncClient

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.http.get(path, headers=headers)

    async def send(self, page: httpx.Response, action: str, **fields: str) -> httpx.Response:
        """Send the form of *page* that goes to *action*, filled in."""
        form = forms(page)[action]
        assert form.method == "post"
        return await self.http.post(action, data={**form.fields, **fields})

    async def sign_in(self, user: str, password: str = PASSWORD, *, next: str = "/") -> httpx.Response:
        page = await self.get(f"/sign-in?next={next}")
        return await self.send(page, "/sign-in", user=user, password=password)

    @property
    def cookies(self) -> Mapping[str, str]:
        return {one.name: one.value or "" for one in self.http.cookies.jar}


def visitor(house: House) -> Visitor:
    return Visitor(house, house.web)


async def somebody(house: House, user: str = "alice") -> Visitor:
    """Somebody who is signed in."""
    made = visitor(house)
    answer = await made.sign_in(user)
    assert answer.status_code == 303, answer.text
    return made


def set_cookies(answer: httpx.Response) -> Iterator[str]:
    yield from answer.headers.get_list("set-cookie")
