"""ca/web/invitation.py: a person sets a password by a link that works once, and only for them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.ca.house import House, house

NEW = "a password of my own"


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        await made.roles()
        yield made


async def invited(home: House, name: str = "bob") -> str:
    answer = await home.operator.post("/v1/users", json={"name": name, "roles": ["developer"]})
    assert answer.json()["user"]["has_password"] is False
    link: str = answer.json()["invitation_url"]
    assert link.startswith("https://127.0.0.1:8443/invitation/")
    return link


async def form(browser: httpx.AsyncClient, link: str) -> str:
    page = await browser.get(link)
    assert page.status_code == 200
    found = re.search(r'name="form" value="([0-9a-f]{64})"', page.text)
    assert found is not None
    return found[1]


async def test_a_person_sets_a_password_and_signs_in(home: House) -> None:
    link, browser = await invited(home), home.web
    page = await browser.post(link, data={"form": await form(browser, link), "password": NEW, "again": NEW})
    assert page.status_code == 200
    assert "bart login --authority https://127.0.0.1:8443 --pin sha256:" in page.text
    assert (await home.login("bob", password=NEW)).status_code == 200
    assert [one.actor for one in await home.events("user.password_set")] == ["user:bob"]
    assert (await browser.get(link)).status_code == 404, "the link is used up"


async def test_looking_does_not_use_the_link_up(home: House) -> None:
    link = await invited(home)
    for _ in range(5):
        await form(home.web, link)
    browser = home.web
    data = {"form": await form(browser, link), "password": NEW, "again": NEW}
    assert (await browser.post(link, data=data)).status_code == 200


async def test_a_form_that_was_not_sent_from_the_page_is_refused(home: House) -> None:
    """WEB-03"""
    link, mine, other = await invited(home), home.web, home.web
    token = await form(mine, link)
    await form(other, link)
    for browser, data in (
        (mine, {"password": NEW, "again": NEW}),
        (mine, {"form": "0" * 64, "password": NEW, "again": NEW}),
        (other, {"form": token, "password": NEW, "again": NEW}),
        (home.web, {"form": token, "password": NEW, "again": NEW}),
    ):
        assert (await browser.post(link, data=data)).status_code == 403
    assert (await mine.post(link, json={"form": token, "password": NEW, "again": NEW})).status_code == 415
    assert (await home.login("bob", password=NEW)).status_code == 401


@pytest.mark.parametrize(("password", "again", "says"), [("short", "short", "at least 12"), (NEW, "x", "not the same")])
async def test_a_mistake_can_be_mended_with_the_same_link(home: House, password: str, again: str, says: str) -> None:
    link, browser = await invited(home), home.web
    page = await browser.post(link, data={"form": await form(browser, link), "password": password, "again": again})
    assert page.status_code == 400
    assert says in page.text
    assert password not in page.text
    data = {"form": await form(browser, link), "password": NEW, "again": NEW}
    assert (await browser.post(link, data=data)).status_code == 200


async def test_of_fifty_uses_of_one_link_exactly_one_succeeds(home: House) -> None:
    link, browser = await invited(home), home.web
    token = await form(browser, link)
    statuses: list[int] = []

    async def use(number: int) -> None:
        data = {"form": token, "password": f"{NEW} {number}", "again": f"{NEW} {number}"}
        statuses.append((await browser.post(link, data=data)).status_code)

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(use(number))
    assert sorted(statuses) == [200] + [404] * 49


async def test_a_link_ends_after_a_day_and_with_the_next_one(home: House) -> None:
    first = await invited(home)
    second = (await home.operator.post("/v1/users/bob/password", json={})).json()["invitation_url"]
    assert (await home.web.get(first)).status_code == 404
    assert (await home.web.get(second)).status_code == 200
    home.clock.turn(hours=24)
    assert (await home.web.get(second)).status_code == 404


async def test_the_page_runs_no_script_and_is_kept_by_nobody(home: House) -> None:
    page = await home.web.get(await invited(home))
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "unsafe" not in policy
    assert "<script" not in page.text
    assert not re.search(r"\son[a-z]+=|\sstyle=", page.text)
    assert page.headers["cache-control"] == "no-store"
    cookie = page.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "secure", "samesite=strict", "path=/invitation"))
    style = await home.web.get("/static/bartizan.css")
    assert style.headers["content-type"].startswith("text/css")
    assert "prefers-color-scheme: dark" in style.text
    mark = await home.web.get("/static/bartizan.svg")
    assert mark.headers["content-type"].startswith("image/svg+xml")
