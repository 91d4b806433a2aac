"""ca/web/pages.py and visitor.py: what holds for every page and every form, generated over all of them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.api import NOUNS
from ca.web.pages import PageRoute, local
from tests.ca.house import PASSWORD, House, house
from tests.ca.web.visiting import forms, set_cookies, somebody, visitor

HTML = {"accept": "text/html,*/*"}


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        await made.roles()
        await made.user("alice", "developer")
        yield made


def routes(method: str) -> list[str]:
    found = [
        route.path
        for noun in NOUNS
        for route in noun.router.routes
        if isinstance(route, PageRoute) and method in route.methods
    ]
    return sorted(found)


def place(path: str) -> str:
    return path.replace("{serial}", "1").replace("{name}", "corp").replace("{link}", "bzi_x")


@pytest.mark.parametrize("path", routes("GET"))
async def test_every_page_runs_nothing_loads_nothing_and_is_kept_by_nobody(home: House, path: str) -> None:
    alice = await somebody(home)
    answer = await alice.get(place(path))
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    if answer.status_code == 303:
        return
    policy = answer.headers["content-security-policy"]
    for said in ("default-src 'none'", "style-src 'self'", "base-uri 'none'", "frame-ancestors 'none'", "form-action"):
        assert said in policy
    assert "script" not in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.search(r"<script|\son[a-z]+=|\sstyle=|javascript:|(?:src|href)=\"(?:https?:)?//", answer.text)
    assert '<html lang="en">' in answer.text
    assert 'href="#main"' in answer.text


STRANGERS = {
    "/", "/sign-in", "/sign-in/code", "/sign-in/second-factor", "/sign-in/with/{name}", "/sign-in/callback/{name}",
    "/sign-in/trial/{link}",
    "/invitation/{link}",
}  # fmt: skip
"""Pages for people who are not signed in yet."""


@pytest.mark.parametrize(
    ("method", "path"),
    [(method, path) for method in ("GET", "POST") for path in routes(method) if path not in STRANGERS],
)
async def test_a_stranger_is_sent_to_sign_in(home: House, method: str, path: str) -> None:
    """WEB-10: generated over all pages"""
    for headers in ({}, {"cookie": "__Host-bartizan=bzw_made-up"}):
        answer = await home.web.request(method, place(path), headers=headers)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/sign-in")


@pytest.mark.parametrize("path", routes("POST"))
async def test_a_form_is_taken_only_from_its_own_page_in_the_same_browser(home: House, path: str) -> None:
    """WEB-03"""
    alice, mallory = await somebody(home), await somebody(home)
    foreign = forms(await mallory.get("/you"))["/you/sign-out"].fields["form"]
    mine = forms(await alice.get("/you"))["/you/browsers/end"].fields["form"]
    for form in ("", "0" * 64, foreign, *([] if path == "/you/browsers/end" else [mine])):
        answer = await alice.http.post(place(path), data={"form": form, "where": "everywhere", "step": "approve"})
        redirected = path in ("/sign-in/code", "/sign-in/second-factor") and answer.status_code == 303
        assert answer.status_code == 403 or redirected, (path, form)
    assert (await alice.get("/you")).status_code == 200, "nothing has happened"


@pytest.mark.parametrize("path", [path for path in routes("POST") if path != "/sign-in/code"])
async def test_only_a_short_form_is_read(home: House, path: str) -> None:
    """WEB-03, WEB-06"""
    alice = await somebody(home)
    if path in ("/sign-in/second-factor",):
        return  # nobody is half way
    for kind, body, status in (
        ("text/plain", b'{"form": ""}', 415),
        ("application/json", b"{}", 415),
        ("multipart/form-data; boundary=x", b"--x--", 415),
        ("application/x-www-form-urlencoded", b"a=" + b"x" * 20_000, 413),
        ("application/x-www-form-urlencoded", b"&".join(b"f%d=" % n for n in range(100)), 400),
        ("application/x-www-form-urlencoded", b"form=a&form=b", 400),
        ("application/x-www-form-urlencoded", b"form=%ff", 400),
    ):
        answer = await alice.http.post(place(path), content=body, headers={"content-type": kind})
        assert answer.status_code == status, (path, kind, body[:20])
        assert answer.headers["content-type"].startswith("text/html")


async def test_a_body_that_no_page_would_send_is_cut_off_with_a_page(home: House) -> None:
    """WEB-06"""
    answer = await home.web.post("/sign-in", content=b"x" * (2 << 20), headers=HTML)
    assert (answer.status_code, "too much" in answer.text) == (413, True)


async def test_a_form_from_another_site_is_refused_by_what_the_browser_says(home: House) -> None:
    """WEB-03"""
    alice = visitor(home)
    fields = {**forms(await alice.get("/sign-in"))["/sign-in"].fields, "user": "alice", "password": PASSWORD}
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 303)):
        answer = await alice.http.post("/sign-in", data=fields, headers={"sec-fetch-site": site})
        assert answer.status_code == status


@pytest.mark.parametrize("method", ["HEAD", "TRACE", "PUT", "DELETE", "OPTIONS", "__init__", "GETS"])
@pytest.mark.parametrize("path", ["/", "/sign-in", "/you", "/device", "/static/bartizan.css"])
async def test_a_method_that_no_page_takes_is_refused(home: House, method: str, path: str) -> None:
    """WEB-05"""
    assert (await home.web.request(method, path)).status_code == 405


@pytest.mark.parametrize(
    "path",
    ["..%2fpages.py", "%2e%2e/pages.py", "..\\pages.py", "bartizan.css%00", "%00", "/etc/passwd", "/server/share", "."],
)
async def test_a_file_that_is_not_in_the_list_does_not_exist(home: House, path: str) -> None:
    """WEB-11"""
    assert (await home.web.get(f"/static/{path}")).status_code == 404


@pytest.mark.parametrize("name", ["token", "access_token", "password", "TOKEN"])
async def test_a_secret_in_the_address_is_refused(home: House, name: str) -> None:
    """WEB-09"""
    answer = await home.web.get(f"/sign-in?{name}=x", headers=HTML)
    assert answer.status_code == 400
    assert "does not belong in a URL" in answer.text


async def test_people_get_pages_and_programs_get_problems(home: House) -> None:
    page = await home.web.get("/nowhere", headers=HTML)
    assert (page.status_code, "There is no such page" in page.text) == (404, True)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert (await home.web.get("/nowhere")).json()["error"] == "not_found"
    assert (await home.web.get("/v1/nowhere", headers=HTML)).json()["error"] == "not_found"
    assert (await home.web.delete("/you", headers=HTML)).headers["content-type"].startswith("text/html")


# --- the session ------------------------------------------------------------------------------------------------------


async def test_the_cookie_belongs_to_this_host_and_to_no_script(home: House) -> None:
    answer = await visitor(home).sign_in("alice")
    (session,) = [one for one in set_cookies(answer) if one.startswith("__Host-bartizan=")]
    flags = {flag.strip().lower() for flag in session.split(";")[1:]}
    assert flags == {"secure", "httponly", "samesite=lax", "path=/"}


async def test_every_sign_in_gets_a_new_session_and_ends_the_old_one(home: House) -> None:
    """WEB-08: no session fixation"""
    alice = visitor(home)
    alice.http.cookies.set("__Host-bartizan", "bzw_planted-by-somebody-else")
    await alice.sign_in("alice")
    first = next(text for name, text in alice.cookies.items() if name == "__Host-bartizan" and "planted" not in text)
    again = home.client()
    again.cookies.set("__Host-bartizan", first)
    page = await again.get("/you")
    assert page.status_code == 200
    await again.post("/you/sign-out", data=forms(page)["/you/sign-out"].fields)
    assert (await again.get("/you", headers={"cookie": f"__Host-bartizan={first}"})).status_code == 303


async def test_a_session_ends_when_one_signs_out_and_its_cookie_is_worth_nothing(home: House) -> None:
    """WEB-08"""
    alice = await somebody(home)
    kept = alice.cookies["__Host-bartizan"]
    page = await alice.get("/you")
    answer = await alice.send(page, "/you/sign-out")
    assert answer.headers["location"] == "/sign-in?signed-out=here"
    thief = home.client()
    assert (await thief.get("/you", headers={"cookie": f"__Host-bartizan={kept}"})).status_code == 303
    assert [one.actor for one in await home.events("login.ended")] == ["user:alice"]


async def test_what_a_person_may_counts_from_the_next_page_on(home: House) -> None:
    """WEB-08"""
    await home.node("web1", env="dev")
    alice = await somebody(home)
    assert "ssh web1" in (await alice.get("/you")).text
    await home.operator.patch("/v1/users/alice", json={"roles": []})
    assert "ssh web1" not in (await alice.get("/you")).text
    await home.operator.post("/v1/locks", json={"user": "alice", "reason": "laptop lost"})
    locked = await alice.get("/you")
    assert (locked.status_code, "laptop lost" in locked.text) == (403, True)
    assert (await alice.get("/sign-in")).status_code == 200, "somebody else may sign in with this browser"
    await home.operator.patch("/v1/users/alice", json={"disabled": True})
    assert (await alice.get("/you")).headers["location"].startswith("/sign-in")


async def test_a_session_ends_by_itself(home: House) -> None:
    alice = await somebody(home)
    home.clock.turn(hours=8)
    assert (await alice.get("/you")).headers["location"] == "/sign-in?next=%2Fyou"


async def test_a_web_session_opens_no_api_and_an_api_token_no_page(home: House) -> None:
    alice = await somebody(home)
    session = alice.cookies["__Host-bartizan"]
    assert (await alice.get("/v1/me")).status_code == 401
    assert (await home.client(session).get("/v1/me")).status_code == 401
    token = (await home.login("alice")).json()["token"]
    for headers in ({"cookie": f"__Host-bartizan={token}"}, {"authorization": f"Bearer {token}"}):
        assert (await home.web.get("/you", headers=headers)).status_code == 303


# --- next -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    [
        "//evil", "/\\evil", "\\\\evil", "https:evil", "https://evil", "javascript:alert(1)", "/\t/evil", "/\n/evil",
        "///evil", "evil", "", "/%0d%0aSet-Cookie:x" + "\r\n", "/" + "x" * 3000, "/ä",
    ],
)  # fmt: skip
async def test_nobody_is_sent_elsewhere_after_signing_in(home: House, where: str) -> None:
    """OIDC-20"""
    alice = visitor(home)
    page = await alice.get("/sign-in")
    answer = await alice.send(page, "/sign-in", user="alice", password=PASSWORD, next=where)
    assert answer.headers["location"] == "/you"


@given(st.text())
def test_a_way_on_stays_on_this_site(text: str) -> None:
    """OIDC-20"""
    for where in (text, "/" + text):
        resolved = httpx.URL("https://here.example/sign-in").join(local(where))
        assert (resolved.scheme, resolved.host) == ("https", "here.example")


def test_a_way_on_is_kept_as_it_is() -> None:
    assert local("/device?code=BCDF-GHJK") == "/device?code=BCDF-GHJK"
