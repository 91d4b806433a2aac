"""ca/web/terminal.py and device.py: a machine is let in by a person who saw which one, and by nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from ca.login import challenge_of, check_word
from tests.ca.house import House, house
from tests.ca.web.visiting import somebody, visitor

CHALLENGE = challenge_of("v" * 43)
ASKED = {"challenge": CHALLENGE, "port": "41234", "state": "s" * 22, "host": "laptop"}


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        await made.roles()
        await made.user("alice", "developer")
        yield made


def terminal(**change: str) -> str:
    return f"/sign-in/terminal?{urlencode({**ASKED, **change})}"


async def test_a_stranger_signs_in_first_and_comes_back(home: House) -> None:
    answer = await visitor(home).get(terminal())
    assert answer.headers["location"].startswith("/sign-in?next=%2Fsign-in%2Fterminal")
    where = parse_qs(urlsplit(answer.headers["location"]).query)["next"][0]
    alice = visitor(home)
    page = await alice.get(answer.headers["location"])
    arrived = await alice.send(page, "/sign-in", user="alice", password="correct horse battery")
    assert arrived.headers["location"] == where == terminal()


async def test_the_page_says_who_asks_and_leads_to_that_address_alone(home: House) -> None:
    alice = await somebody(home)
    page = await alice.get(terminal())
    assert check_word(CHALLENGE) in page.text
    assert "laptop" in page.text
    assert "192.0.2.7" in page.text
    assert page.headers["content-security-policy"].endswith("form-action 'self' http://127.0.0.1:41234")
    answer = await alice.send(page, "/sign-in/terminal", answer="yes")
    where = urlsplit(answer.headers["location"])
    assert (answer.status_code, where.netloc, where.path) == (303, "127.0.0.1:41234", "/")
    assert set(parse_qs(where.query)) == {"code", "state"}


@pytest.mark.parametrize("said", ["no", "", "YES"])
async def test_anything_but_yes_is_no(home: House, said: str) -> None:
    alice = await somebody(home)
    answer = await alice.send(await alice.get(terminal()), "/sign-in/terminal", answer=said)
    assert parse_qs(urlsplit(answer.headers["location"]).query) == {"error": ["access_denied"], "state": ["s" * 22]}


@pytest.mark.parametrize(
    "change",
    [
        {"challenge": "c" * 42}, {"challenge": "c" * 44}, {"challenge": "c" * 42 + "="}, {"challenge": ""},
        {"port": "80"}, {"port": "65536"}, {"port": "0x1F90"}, {"port": "41234/@evil"}, {"port": "041234"},
        {"port": "٤١٢٣٤"},
        {"state": "short"}, {"state": "s" * 200}, {"state": "s" * 22 + "\r\nX: y"}, {"state": "s" * 22 + "&code=x"},
        {"host": ""}, {"host": "h" * 256},
    ],
)  # fmt: skip
async def test_a_link_that_bart_would_not_make_is_refused(home: House, change: dict[str, str]) -> None:
    """OIDC-17"""
    alice = await somebody(home)
    assert (await alice.get(terminal(**change))).status_code == 400
    page = await alice.get(terminal())
    assert (await alice.send(page, "/sign-in/terminal", answer="yes", **change)).status_code == 400


async def test_what_a_machine_calls_itself_cannot_act_on_the_page(home: House) -> None:
    alice = await somebody(home)
    page = await alice.get(terminal(host="<b>\u202eevil"))
    assert "<b>" not in page.text
    assert "\u202e" not in page.text


# --- the device code --------------------------------------------------------------------------------------------------


async def device(home: House, host: str = "build-7") -> tuple[str, str]:
    answer = await home.web.post("/v1/login/device", json={"challenge": CHALLENGE, "host": host})
    return answer.json()["grant"], answer.json()["user_code"]


async def state(home: House, grant: str) -> str:
    said: str = (await home.web.post("/v1/login/device/poll", json={"grant": grant})).json()["state"]
    return said


async def test_a_code_is_not_approved_by_a_stranger(home: House) -> None:
    """OIDC-18"""
    grant, code = await device(home)
    assert (await visitor(home).get(f"/device?code={code}")).headers["location"].startswith("/sign-in?next=%2Fdevice")
    assert (await visitor(home).http.post("/device", data={"code": code, "step": "approve"})).status_code == 303
    assert await state(home, grant) == "pending"


async def test_the_page_shows_the_machine_before_it_is_let_in(home: House) -> None:
    """OIDC-18"""
    grant, code = await device(home)
    alice = await somebody(home)
    page = await alice.get(f"/device?code={code.lower().replace('-', ' ')}")
    for said in ("build-7", "192.0.2.7", code, check_word(CHALLENGE)):
        assert said in page.text
    assert await state(home, grant) == "pending"
    done = await alice.send(page, "/device", step="approve")
    assert "It is let in" in done.text
    assert "build-7 goes on by itself" in done.text
    assert await state(home, grant) == "approved"


async def test_no_is_told_to_the_machine(home: House) -> None:
    grant, code = await device(home)
    alice = await somebody(home)
    await alice.send(await alice.get(f"/device?code={code}"), "/device", step="deny")
    assert await state(home, grant) == "denied"
    assert "No machine shows this code now" in (await alice.get(f"/device?code={code}")).text


async def test_codes_cannot_be_guessed_on_the_page(home: House) -> None:
    """OIDC-18"""
    grant, code = await device(home)
    alice = await somebody(home)
    statuses = [(await alice.get("/device?code=BCDFGHJK")).status_code for _ in range(12)]
    assert (statuses[0], statuses[-1]) == (404, 429)
    refused = await alice.get(f"/device?code={code}")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "60"), "nor a right one among them"
    assert await state(home, grant) == "pending"
