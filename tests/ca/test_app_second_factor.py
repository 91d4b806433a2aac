"""Routes of second factors: one's own, before a sign-in that wants one, and an administrator's reset."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pyotp
import pytest
from sqlalchemy import update

from ca.store.users import users
from tests.ca.house import PASSWORD, House, house
from tests.ca.test_second_factor import ROLES


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        await made.roles(ROLES)
        await made.user("alice", "developer")
        await made.user("carol", "developer", "careful")
        yield made


def shown(home: House, secret: str) -> str:
    return pyotp.TOTP(secret).at(home.clock.now)


async def added(home: House, person: httpx.AsyncClient) -> tuple[str, list[str]]:
    secret = (await person.post("/v1/me/second-factor")).json()["secret"]
    body = {"code": shown(home, secret)}
    answer = await person.post("/v1/me/second-factor/confirmation", json=body)
    assert answer.status_code == 200, answer.text
    home.clock.turn(seconds=30)
    return secret, answer.json()["codes"]


async def remove(person: httpx.AsyncClient, code: str) -> httpx.Response:
    return await person.request("DELETE", "/v1/me/second-factor", json={"code": code})


def said(answer: httpx.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()["error"]


async def test_somebody_adds_one_uses_it_and_takes_it_away(home: House) -> None:
    alice = await home.person("alice")
    nothing = {"confirmed": False, "created": None, "recovery_codes_left": 0}
    assert (await alice.get("/v1/me/second-factor")).json() == nothing
    begun = (await alice.post("/v1/me/second-factor")).json()
    assert begun["uri"].startswith("otpauth://totp/bartizan:alice?secret=" + begun["secret"])
    assert (await alice.get("/v1/me/second-factor")).json() == nothing
    secret, codes = await added(home, alice)
    view = (await alice.get("/v1/me/second-factor")).json()
    assert (view["confirmed"], view["recovery_codes_left"]) == (True, 10)
    assert said(await home.login("alice")) == (403, "second_factor_required")
    assert said(await home.login("alice", code="000000")) == (401, "second_factor_failed")
    answer = await home.login("alice", code=shown(home, secret))
    assert (answer.status_code, answer.json()["recovery_codes"]) == (200, [])
    assert said(await home.login("alice", code=shown(home, secret))) == (401, "second_factor_failed")
    body = {"code": codes[0]}
    new = (await alice.post("/v1/me/second-factor/recovery-codes", json=body)).json()["codes"]
    assert len(new) == 10
    assert said(await remove(alice, codes[1])) == (401, "second_factor_failed")
    assert (await remove(alice, new[0])).status_code == 204
    assert (await home.login("alice")).status_code == 200


async def test_a_wrong_password_says_nothing_of_the_second_factor(home: House) -> None:
    await added(home, await home.person("alice"))
    wrong = await home.login("alice", password="wrong password")
    unknown = await home.login("nobody", password="wrong password")
    assert wrong.json() == unknown.json()


async def test_a_role_that_wants_one_has_it_set_up_on_the_way_in(home: House) -> None:
    assert said(await home.login("carol")) == (403, "second_factor_setup")
    body = {"user": "carol", "password": PASSWORD}
    begun = (await home.web.post("/v1/login/second-factor", json=body)).json()
    assert said(await home.login("carol")) == (403, "second_factor_setup")
    answer = await home.login("carol", code=shown(home, begun["secret"]))
    assert answer.status_code == 200, answer.text
    codes = answer.json()["recovery_codes"]
    assert len(codes) == 10
    assert said(await home.login("carol")) == (403, "second_factor_required")
    later = await home.login("carol", code=codes[0])
    assert (later.status_code, later.json()["recovery_codes"]) == (200, [])


async def test_nobody_begins_one_with_the_password_alone_but_where_a_role_wants_it(home: House) -> None:
    alice = {"user": "alice", "password": PASSWORD}
    assert said(await home.web.post("/v1/login/second-factor", json=alice)) == (409, "conflict")
    carol = {"user": "carol", "password": "wrong password"}
    assert said(await home.web.post("/v1/login/second-factor", json=carol)) == (401, "login_failed")
    await added(home, await home.person("alice"))
    assert said(await home.web.post("/v1/login/second-factor", json=alice)) == (403, "second_factor_required")


async def test_guessing_passwords_there_is_counted_too(home: House) -> None:
    body = {"user": "carol", "password": "wrong password"}
    statuses = [(await home.web.post("/v1/login/second-factor", json=body)).status_code for _ in range(6)]
    assert statuses == [401] * 5 + [403]


async def test_of_fifty_sign_ins_with_one_code_exactly_one_succeeds(home: House) -> None:
    secret, _ = await added(home, await home.person("alice"))
    requests = [await home.login_request("alice", code=shown(home, secret)) for _ in range(50)]
    statuses: list[int] = []

    async def use(number: int) -> None:
        statuses.append((await home.web.post("/v1/login", json=requests[number])).status_code)

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(use(number))
    assert statuses.count(200) == 1
    assert len(await home.events("login.succeeded")) == 2


async def test_strangers_and_the_operator_have_none(home: House) -> None:
    code = {"code": "123456"}
    for method, path, body in (
        ("GET", "", None),
        ("POST", "", None),
        ("DELETE", "", code),
        ("POST", "/confirmation", code),
        ("POST", "/recovery-codes", code),
    ):
        assert (await home.web.request(method, f"/v1/me/second-factor{path}", json=body)).status_code == 401
        assert (await home.operator.request(method, f"/v1/me/second-factor{path}", json=body)).status_code == 403


async def test_an_administrator_resets_one_and_nobody_else_does(home: House) -> None:
    alice = await home.person("alice")
    await added(home, alice)
    path = "/v1/users/alice/second-factor/reset"
    assert (await alice.post(path)).status_code == 403
    [listed] = [one for one in (await home.operator.get("/v1/users")).json() if one["name"] == "alice"]
    assert listed["has_factor"] is True
    assert (await home.operator.post(path)).status_code == 204
    assert (await alice.get("/v1/me")).status_code == 401
    [listed] = [one for one in (await home.operator.get("/v1/users")).json() if one["name"] == "alice"]
    assert listed["has_factor"] is False
    assert said(await home.operator.post(path)) == (409, "conflict")
    assert said(await home.operator.post("/v1/users/nobody/second-factor/reset")) == (404, "not_found")


async def test_a_change_of_the_account_still_shows_it(home: House) -> None:
    await added(home, await home.person("alice"))
    changed = await home.operator.patch("/v1/users/alice", json={"roles": ["developer"]})
    assert changed.json()["has_factor"] is True
    reset = await home.operator.post("/v1/users/alice/password", json={"password": PASSWORD})
    assert reset.json()["user"]["has_factor"] is True, "a new password is no way round the code"


async def test_whom_a_provider_vouches_for_is_sent_there(home: House) -> None:
    alice = await home.person("alice")
    await home.authority.store.write(lambda db: db.run(update(users).values(provider="corp")))
    assert said(await alice.get("/v1/me/second-factor")) == (409, "provider_decides")
    assert said(await alice.post("/v1/me/second-factor")) == (409, "provider_decides")
    path = "/v1/users/alice/second-factor/reset"
    assert said(await home.operator.post(path)) == (409, "provider_decides")


@pytest.mark.parametrize("code", ["", "1" * 65, 123456, None])
async def test_what_is_no_code_is_refused_by_its_shape(home: House, code: object) -> None:
    alice = await home.person("alice")
    answer = await alice.post("/v1/me/second-factor/confirmation", json={"code": code})
    assert answer.status_code == 400


async def test_a_stolen_sign_in_cannot_keep_its_owner_from_signing_in(home: House) -> None:
    """Who is signed in need not know the password: wrong codes there close no door elsewhere, and are bounded still."""
    answer = await home.login("alice")
    token = answer.json()["token"]
    secret, _ = await added(home, home.client(token))
    outcomes = [
        said(await remove(home.client(token, client=(f"203.0.113.{number}", 4711)), "000000")) for number in range(21)
    ]
    assert outcomes == [(401, "second_factor_failed")] * 20 + [(403, "locked_out")]
    assert (await home.login("alice", code=shown(home, secret))).status_code == 200
    assert "*signed-in" in [one.fields["source"] for one in await home.events("login.locked_out")]
