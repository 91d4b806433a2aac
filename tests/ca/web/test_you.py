"""ca/web/you.py: people see what is theirs, all of it, and nothing of anybody else; and can end it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from ca.web import you
from tests.ca.house import BEGAN, House, house
from tests.ca.web.visiting import forms, somebody


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        await made.roles()
        await made.user("alice", "developer")
        await made.user("mallory", "developer")
        yield made


async def test_an_empty_page_says_what_to_do_next(home: House) -> None:
    page = await (await somebody(home)).get("/you")
    for hint in ("bart login --authority https://127.0.0.1:8443 --pin sha256:", "access explain --user alice"):
        assert hint in page.text


async def test_people_see_what_they_have_been_given_and_nobody_elses(home: House) -> None:
    """WEB-10"""
    await home.node("web1", env="dev")
    await home.node("db1", env="prod")
    await home.login("mallory")
    await home.login("alice")
    page = await (await somebody(home)).get("/you")
    assert "ssh web1" in page.text
    assert "db1" not in page.text
    assert "/you/certificates/2" in page.text
    assert "/you/certificates/1" not in page.text
    assert "mallory" not in page.text


async def test_a_certificate_is_revoked_by_its_owner_alone(home: House) -> None:
    """WEB-10"""
    token = (await home.login("alice")).json()["token"]
    alice, mallory = await somebody(home), await somebody(home, "mallory")
    assert (await mallory.get("/you/certificates/1")).status_code == 404
    page = await alice.get("/you/certificates/1")
    stolen = {**forms(page)["/you/certificates/1"].fields}
    assert (await mallory.http.post("/you/certificates/1", data=stolen)).status_code == 403
    answer = await alice.send(page, "/you/certificates/1")
    assert answer.headers["location"] == "/you?done=certificate"
    assert (await home.client(token).get("/v1/me")).status_code == 401
    (event,) = await home.events("certificate.revoked")
    assert (event.actor, event.fields["serial"]) == ("user:alice", 1)
    assert (await alice.get("/you/certificates/1")).status_code == 404


async def test_another_browser_is_signed_out_from_this_one(home: House) -> None:
    here, there, mallory = await somebody(home), await somebody(home), await somebody(home, "mallory")
    page = await here.get("/you")
    form = forms(page)["/you/browsers/end"].fields
    theirs = await mallory.get("/you")
    assert "/you/browsers/end" not in forms(theirs), "one's own is ended by signing out"
    await here.http.post("/you/browsers/end", data=form)
    assert (await there.get("/you")).status_code == 303
    assert (await here.get("/you")).status_code == 200
    assert (await mallory.get("/you")).status_code == 200


async def test_signing_out_everywhere_ends_all_that_was_given(home: House) -> None:
    """WEB-08"""
    token = (await home.login("alice")).json()["token"]
    here, there = await somebody(home), await somebody(home)
    page = await here.get("/you/sign-out")
    assert "2 browser sign-ins, 1 certificate and 0 live ssh sessions" in page.text
    answer = await here.send(page, "/you/sign-out")
    assert answer.headers["location"] == "/sign-in?signed-out=everywhere"
    assert (await there.get("/you")).status_code == 303
    assert (await home.client(token).get("/v1/me")).status_code == 401
    (event,) = await home.events("login.ended_everywhere")
    assert (event.fields["tokens"], event.fields["certificates"]) == (3, 1)


def test_times_are_said_as_people_say_them() -> None:
    minutes = [0, 1, 59, 60, 60 * 23, 60 * 24, 60 * 49]
    said = [you.ago(BEGAN - timedelta(minutes=one), now=BEGAN) for one in minutes]
    assert said == ["just now", "1 min ago", "59 min ago", "1 h ago", "23 h ago", "1 day ago", "2 days ago"]
    assert you.clock(BEGAN, now=BEGAN) == "12:00 UTC"
    assert you.clock(BEGAN, now=BEGAN + timedelta(days=1)) == "1 Jun, 12:00 UTC"


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537 Chrome/140 Safari/537 Edg/140", "Edge on Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1", "Safari on iOS"),
        ("curl/8", "A browser"),
        ("", "A browser"),
    ],
)
def test_a_browser_is_called_as_its_owner_calls_it(agent: str, name: str) -> None:
    assert you.named(agent) == name
