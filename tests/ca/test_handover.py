"""ca/handover.py: a terminal gets in by a browser that is signed in, once, and only the terminal that asked."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ca import handover, login
from ca.errors import Conflict, NotFound, TooMany
from ca.handover import MOST_PENDING
from ca.store import Db
from ca.wire import DeviceRequest
from tests.ca import forge
from tests.ca.house import ROLES, House, house, possession

SOURCE = "192.0.2.7"


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        await made.roles()
        await made.user("alice", "developer")
        await made.user("bob", "developer")
        yield made


async def request(home: House, grant: str, verifier: str, **change: object) -> dict[str, Any]:
    key = forge.ed25519()
    nonce = (await home.web.post("/v1/login/challenge")).json()["nonce"]
    return {
        "grant": grant,
        "verifier": verifier,
        "public_key": key.public.line(),
        "nonce": nonce,
        "possession": possession(key, nonce),
        **change,
    }


async def device(home: House, verifier: str, **change: object) -> dict[str, Any]:
    body = {"challenge": login.challenge_of(verifier), "host": "build7", **change}
    answer = await home.web.post("/v1/login/device", json=body)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def state(home: House, grant: str) -> str:
    return str((await home.web.post("/v1/login/device/poll", json={"grant": grant})).json()["state"])


def new_verifier() -> str:
    return secrets.token_urlsafe(48)


async def test_a_browser_grant_becomes_one_certificate(home: House) -> None:
    verifier = new_verifier()
    grant = await handover.grant(home.authority, "alice", login.challenge_of(verifier), source=SOURCE)
    answer = await home.web.post("/v1/login/exchange", json=await request(home, grant, verifier))
    assert answer.status_code == 200, answer.text
    assert answer.json()["user"] == "alice"
    assert (await home.client(answer.json()["token"]).get("/v1/me")).json()["user"] == "alice"
    (event,) = await home.events("login.succeeded")
    assert (event.fields["user"], event.fields["method"]) == ("alice", "browser")
    again = await home.web.post("/v1/login/exchange", json=await request(home, grant, verifier))
    assert (again.status_code, again.json()["error"]) == (403, "grant_invalid")


async def test_of_fifty_exchanges_of_one_grant_exactly_one_succeeds(home: House) -> None:
    verifier = new_verifier()
    grant = await handover.grant(home.authority, "alice", login.challenge_of(verifier), source=SOURCE)
    bodies = [await request(home, grant, verifier) for _ in range(50)]
    statuses: list[int] = []

    async def use(body: dict[str, Any]) -> None:
        statuses.append((await home.web.post("/v1/login/exchange", json=body)).status_code)

    async with asyncio.TaskGroup() as group:
        for body in bodies:
            group.create_task(use(body))
    assert sorted(statuses) == [200] + [403] * 49
    assert len(await home.events("certificate.issued")) == 1


async def test_a_grant_that_somebody_else_brings_is_over_for_all(home: House) -> None:
    """OIDC-10, OIDC-17: PKCE, and a wrong verifier leaves nothing to guess at"""
    verifier = new_verifier()
    grant = await handover.grant(home.authority, "alice", login.challenge_of(verifier), source=SOURCE)
    stolen = await home.web.post("/v1/login/exchange", json=await request(home, grant, new_verifier()))
    assert (stolen.status_code, stolen.json()["error"]) == (403, "grant_invalid")
    honest = await home.web.post("/v1/login/exchange", json=await request(home, grant, verifier))
    assert honest.status_code == 403


async def test_a_grant_ends_after_a_minute(home: House) -> None:
    verifier = new_verifier()
    grant = await handover.grant(home.authority, "alice", login.challenge_of(verifier), source=SOURCE)
    home.clock.turn(seconds=60)
    late = await home.web.post("/v1/login/exchange", json=await request(home, grant, verifier))
    assert late.json()["error"] == "grant_invalid"


async def test_a_slip_uses_nothing_up(home: House) -> None:
    verifier = new_verifier()
    grant = await handover.grant(home.authority, "alice", login.challenge_of(verifier), source=SOURCE)
    for change, error in (
        ({"ttl_seconds": -1}, "ttl_invalid"),
        ({"public_key": "ssh-dss AAAA"}, None),
        ({"possession": "x"}, "pop_failed"),
    ):
        bad = await home.web.post("/v1/login/exchange", json=await request(home, grant, verifier, **change))
        assert bad.status_code in (400, 403)
        assert error in (None, bad.json()["error"])
    good = await home.web.post("/v1/login/exchange", json=await request(home, grant, verifier))
    assert good.status_code == 200


async def test_a_machine_without_a_browser_is_let_in_by_its_code(home: House) -> None:
    verifier = new_verifier()
    started = await device(home, verifier)
    assert started["url_with_code"] == f"https://127.0.0.1:8443/device?code={started['user_code']}"
    assert await state(home, started["grant"]) == "pending"
    early = await home.web.post("/v1/login/exchange", json=await request(home, started["grant"], verifier))
    assert early.json()["error"] == "grant_invalid", "nobody has approved it"
    found = await handover.device_find(home.authority, started["user_code"].lower(), source=SOURCE)
    assert (found.host, found.source) == ("build7", SOURCE)
    await handover.device_decide(home.authority, started["user_code"], user="bob", approve=True, source=SOURCE)
    assert await state(home, started["grant"]) == "approved"
    answer = await home.web.post("/v1/login/exchange", json=await request(home, started["grant"], verifier))
    assert answer.json()["user"] == "bob"
    assert await state(home, started["grant"]) == "over"
    (decided,) = await home.events("device.decided")
    assert (decided.actor, decided.fields["approved"], decided.fields["host"]) == ("user:bob", True, "build7")


async def test_a_code_is_decided_once_and_a_refusal_stays(home: House) -> None:
    """OIDC-18: the same code twice"""
    verifier = new_verifier()
    started = await device(home, verifier)
    await handover.device_decide(home.authority, started["user_code"], user="bob", approve=False, source=SOURCE)
    with pytest.raises((NotFound, Conflict)):
        await handover.device_decide(home.authority, started["user_code"], user="bob", approve=True, source=SOURCE)
    assert await state(home, started["grant"]) == "denied"
    answer = await home.web.post("/v1/login/exchange", json=await request(home, started["grant"], verifier))
    assert answer.json()["error"] == "grant_invalid"


async def test_of_fifty_approvals_of_one_code_exactly_one_counts(home: House) -> None:
    started = await device(home, new_verifier())
    outcomes: list[str] = []

    async def approve(number: int) -> None:
        try:
            await handover.device_decide(
                home.authority, started["user_code"], user="alice", approve=True, source=f"192.0.2.{number}"
            )
            outcomes.append("yes")
        except (NotFound, Conflict):
            outcomes.append("no")

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(approve(number))
    assert sorted(outcomes) == ["no"] * 49 + ["yes"]


async def test_codes_cannot_be_guessed_at_speed(home: House) -> None:
    """OIDC-18: ten a minute from one place"""
    started = await device(home, new_verifier())
    for _ in range(10):
        with pytest.raises(NotFound):
            await handover.device_find(home.authority, login.new_user_code(), source=SOURCE)
    with pytest.raises(TooMany):
        await handover.device_find(home.authority, started["user_code"], source=SOURCE)
    await handover.device_find(home.authority, started["user_code"], source="192.0.2.8")
    home.clock.turn(seconds=61)
    await handover.device_find(home.authority, started["user_code"], source=SOURCE)


async def test_a_poll_with_an_unknown_code_does_not_wait_for_the_writer(home: House) -> None:
    """A stranger who makes codes up keeps nobody from writing."""
    begun, over = threading.Event(), threading.Event()

    def busy(_: Db) -> None:
        begun.set()
        over.wait(10)

    async with asyncio.TaskGroup() as group:
        group.create_task(home.authority.store.write(busy))
        try:
            await asyncio.to_thread(begun.wait, 10)
            async with asyncio.timeout(5):
                assert await state(home, "bzd_nobody-was-given-this") == "over"
        finally:
            over.set()


async def test_codes_cannot_be_asked_for_without_end(home: House) -> None:
    """OIDC-18: a flood from one place is stopped, and one from many places cannot fill the table"""
    for _ in range(10):
        await device(home, new_verifier())
    body = {"challenge": login.challenge_of(new_verifier()), "host": "h"}
    refused = await home.web.post("/v1/login/device", json=body)
    assert (refused.status_code, refused.json()["error"], refused.headers["Retry-After"]) == (429, "too_many", "60")
    asked = DeviceRequest(challenge=login.challenge_of(new_verifier()), host="h")
    for number in range(10, MOST_PENDING):
        await handover.device_ask(home.authority, asked, source=f"source {number}")
    with pytest.raises(TooMany):
        await handover.device_ask(home.authority, asked, source="another")
    home.clock.turn(minutes=10)
    await handover.device_ask(home.authority, asked, source="another")


async def test_a_code_ends_after_ten_minutes(home: House) -> None:
    started = await device(home, new_verifier())
    home.clock.turn(minutes=10)
    assert await state(home, started["grant"]) == "over"
    with pytest.raises(NotFound):
        await handover.device_find(home.authority, started["user_code"], source=SOURCE)


async def test_what_a_machine_calls_itself_cannot_act_on_a_terminal(home: House) -> None:
    started = await device(home, new_verifier(), host="build7\x1b[2J\u202e")
    found = await handover.device_find(home.authority, started["user_code"], source=SOURCE)
    assert found.host == "build7\\x1b[2J\\u202e"


async def test_who_is_closed_or_locked_out_meanwhile_gets_nothing(home: House) -> None:
    for change, error in (("lock", "locked"), ("disable", "user_disabled")):
        verifier = new_verifier()
        grant = await handover.grant(home.authority, "alice", login.challenge_of(verifier), source=SOURCE)
        if change == "lock":
            lock = (await home.operator.post("/v1/locks", json={"user": "alice", "reason": "x"})).json()["id"]
        else:
            (await home.operator.delete(f"/v1/locks/{lock}")).raise_for_status()
            (await home.operator.patch("/v1/users/alice", json={"disabled": True})).raise_for_status()
            grant = await handover.grant(home.authority, "alice", login.challenge_of(verifier), source=SOURCE)
        answer = await home.web.post("/v1/login/exchange", json=await request(home, grant, verifier))
        assert (answer.status_code, answer.json()["error"]) == (403, error)
    assert not await home.events("certificate.issued")


async def test_a_browser_that_showed_no_code_gives_no_certificate_where_a_role_wants_one(home: House) -> None:
    await home.roles(ROLES.replace("- name: developer", "- name: developer\n    mfa: login"))
    for with_code, status in ((False, 403), (True, 200)):
        verifier = new_verifier()
        grant = await handover.grant(
            home.authority, "alice", login.challenge_of(verifier), source=SOURCE, with_code=with_code
        )
        answer = await home.web.post("/v1/login/exchange", json=await request(home, grant, verifier))
        assert answer.status_code == status, answer.text
        started = await device(home, verifier)
        await handover.device_decide(
            home.authority, started["user_code"], user="alice", approve=True, source=SOURCE, with_code=with_code
        )
        answer = await home.web.post("/v1/login/exchange", json=await request(home, started["grant"], verifier))
        assert answer.status_code == status, answer.text


async def test_signing_out_everywhere_ends_tokens_grants_and_certificates(home: House) -> None:
    first, second = await home.person("alice"), await home.person("alice")
    verifier, other = new_verifier(), new_verifier()
    grant = await handover.grant(home.authority, "alice", login.challenge_of(verifier), source=SOURCE)
    started = await device(home, other)
    await handover.device_decide(home.authority, started["user_code"], user="alice", approve=True, source=SOURCE)
    assert (await first.post("/v1/logout", json={"everywhere": True})).status_code == 204
    assert (await second.get("/v1/me")).status_code == 401
    for text, proof in ((grant, verifier), (started["grant"], other)):
        answer = await home.web.post("/v1/login/exchange", json=await request(home, text, proof))
        assert answer.json()["error"] == "grant_invalid"
    (event,) = await home.events("login.ended_everywhere")
    assert (event.fields["tokens"], event.fields["certificates"]) == (3, 2)
    assert len(await home.events("certificate.revoked")) == 2


async def test_a_password_counts_as_long_as_somebody_has_one(home: House) -> None:
    methods = (await home.web.get("/v1/login/methods")).json()["methods"]
    assert methods == [{"kind": "password", "name": "password", "title": "Password"}]
