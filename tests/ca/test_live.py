"""ca/live.py: what may no longer be ends within the second, and what went silent is noticed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from ca import audit
from ca.errors import Unavailable
from recordings import seal
from tests.ca.house import ROLES, BastionKeys, Clock, House, house
from tests.ca.visit import Visit, visit


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        await made.roles()
        await made.user("alice", "developer")
        await made.node("web1", env="dev")
        yield made


@pytest.fixture
async def bastion(home: House) -> BastionKeys:
    return await home.bastion()


async def begin(home: House, bastion: BastionKeys, **change: Any) -> tuple[Visit, str]:
    came = await visit(home, bastion, **change)
    said = (await came.ask()).json()
    assert said["decision"] == "allow", said
    return came, said["session"]


async def sync(bastion: BastionKeys, **body: Any) -> dict[str, Any]:
    answer = await bastion.http.post("/v1/bastions/sync", json={"worker": "w1", **body})
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


async def orders_after(home: House, bastion: BastionKeys, act: Any) -> tuple[list[dict[str, Any]], float]:
    """What a waiting worker hears once *act* is done, and how long after it began."""
    waiting: dict[str, Any] = {}

    async def wait() -> None:
        waiting.update(await sync(bastion, wait_ms=2_000))
        waiting["heard"] = time.monotonic()

    async with asyncio.TaskGroup() as group:
        group.create_task(wait())
        await asyncio.sleep(0.2)
        began = time.monotonic()
        answer: httpx.Response = await act(home)
        assert answer.is_success, answer.text
    return waiting["orders"], waiting["heard"] - began


NARROWER = ROLES.replace("[shell, exec, sftp.read, sftp.write]", "[shell]")
STRICTER = ROLES.replace("sftp.write]", "sftp.write]\n        options: {max_session: 1h}")


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda h: h.operator.post("/v1/locks", json={"user": "alice", "reason": "r"}), "locked"),
        (lambda h: h.operator.post("/v1/locks", json={"node": "web1", "reason": "r"}), "locked"),
        (lambda h: h.operator.post("/v1/locks", json={"role": "developer", "reason": "r"}), "locked"),
        (lambda h: h.operator.post("/v1/locks", json={"login": "root", "reason": "r"}), "locked"),
        (lambda h: h.operator.patch("/v1/users/alice", json={"disabled": True}), "user_disabled"),
        (lambda h: h.operator.patch("/v1/users/alice", json={"roles": []}), "no_role_reaches_node"),
        (lambda h: h.operator.put("/v1/roles", json={"text": NARROWER}), "access_changed"),
        (lambda h: h.operator.put("/v1/roles", json={"text": STRICTER}), "access_changed"),
        (lambda h: h.operator.delete("/v1/nodes/web1"), "node_removed"),
        (lambda h: h.operator.post("/v1/certificates/user/1/revocation"), "certificate_revoked"),
    ],
    ids=["user", "node", "role", "login", "closed", "roles", "narrower", "stricter", "node gone", "revoked"],
)
async def test_a_change_reaches_a_live_session_at_once(home: House, bastion: BastionKeys, act: Any, code: str) -> None:
    """WEB-08"""
    _, session = await begin(home, bastion)
    orders, seconds = await orders_after(home, bastion, act)
    assert [(one["session"], one["kind"], one["code"]) for one in orders] == [(session, "end", code)]
    assert orders[0]["reason"]
    assert seconds < 1.9  # before the wait of two seconds would have ended by itself: it was woken
    (told,) = await home.events("session.terminated")
    assert (told.fields["session"], told.fields["cause"]) == (session, code)


async def test_a_change_that_takes_nothing_away_ends_nothing(home: House, bastion: BastionKeys) -> None:
    await begin(home, bastion)
    wider = ROLES.replace("[dev]", "[dev, staging]")
    answer = await home.operator.put("/v1/roles", json={"text": wider})
    assert answer.json()["ended_sessions"] == 0
    await home.operator.post("/v1/locks", json={"user": "somebody", "reason": "r"})
    assert (await sync(bastion))["orders"] == []


async def test_the_answer_to_roles_apply_says_how_many_sessions_end(home: House, bastion: BastionKeys) -> None:
    came, _ = await begin(home, bastion)
    await came.again().ask()
    answer = await home.operator.put("/v1/roles", json={"text": NARROWER})
    assert answer.json()["ended_sessions"] == 2


async def test_an_administrator_ends_a_session_with_a_reason(home: House, bastion: BastionKeys) -> None:
    _, session = await begin(home, bastion)
    path = f"/v1/sessions/{session}/termination"
    orders, _ = await orders_after(home, bastion, lambda h: h.operator.post(path, json={"reason": "maintenance"}))
    assert (orders[0]["code"], "maintenance" in orders[0]["reason"]) == ("terminated", True)
    (told,) = await home.events("session.terminated")
    assert (told.fields["by"], told.fields["reason"]) == ("local", "maintenance")


async def test_an_order_is_repeated_until_the_session_has_ended(home: House, bastion: BastionKeys) -> None:
    _, session = await begin(home, bastion)
    await home.operator.post(f"/v1/sessions/{session}/termination", json={"reason": "r"})
    assert len((await sync(bastion))["orders"]) == 1
    assert (await sync(bastion))["orders"] == []
    home.clock.turn(seconds=1)
    assert len((await sync(bastion))["orders"]) == 1


async def test_orders_go_to_the_worker_that_has_the_session(home: House, bastion: BastionKeys) -> None:
    _, session = await begin(home, bastion, worker="w2")
    await home.operator.post(f"/v1/sessions/{session}/termination", json={"reason": "r"})
    assert (await sync(bastion))["orders"] == []
    assert len((await sync(bastion, worker="w2"))["orders"]) == 1
    other = await home.bastion("other")
    assert (await sync(other, worker="w2"))["orders"] == []


async def test_a_session_ends_with_its_certificate_where_the_role_says_so(home: House, bastion: BastionKeys) -> None:
    ends = ROLES.replace("sftp.write]", "sftp.write]\n        options: {on_expiry: end}")
    await home.roles(ends)
    _, session = await begin(home, bastion)
    home.clock.turn(hours=12)
    await sync(bastion, heads=[head(session)])
    await home.authority.live.tick()
    assert [one["code"] for one in (await sync(bastion))["orders"]] == ["certificate_expired"]


TWO_GRANTS = ROLES.replace(
    "actions: [shell, exec, sftp.read, sftp.write]",
    "actions: [shell, sftp.read, sftp.write]\n"
    "      - {nodes: {env: [dev]}, logins: [root], actions: [exec], options: {on_expiry: end, lease: 5m}}",
)


async def test_where_only_some_grants_end_with_the_certificate_the_bastion_decides_by_those_that_were_used(
    home: House, bastion: BastionKeys
) -> None:
    await home.roles(TWO_GRANTS)
    _, session = await begin(home, bastion)
    home.clock.turn(hours=12)
    await sync(bastion, heads=[head(session)])
    await home.authority.live.tick()
    assert (await sync(bastion))["orders"] == []
    assert not await home.events("session.terminated")


async def test_a_silent_session_is_lost_after_the_longest_lease_that_it_was_given(
    home: House, bastion: BastionKeys
) -> None:
    await home.roles(TWO_GRANTS)
    _, session = await begin(home, bastion)
    home.clock.turn(seconds=300)
    await home.authority.live.tick()
    assert not await home.events("session.ended")
    home.clock.turn(seconds=1)
    await home.authority.live.tick()
    (ended,) = await home.events("session.ended")
    assert (ended.fields["session"], ended.fields["how"]) == (session, "lost")


async def test_a_session_outlives_its_certificate_otherwise(home: House, bastion: BastionKeys) -> None:
    _, session = await begin(home, bastion)
    home.clock.turn(hours=12)
    assert (await sync(bastion, heads=[head(session)]))["orders"] == []
    await home.authority.live.tick()
    assert (await sync(bastion))["orders"] == []


# --- leases and silence ---------------------------------------------------------------------------------------------


def head(session: str, closed: int = 0, **open_: tuple[int, str]) -> dict[str, Any]:
    chain = seal.genesis(session) if closed == 0 else "c" * 64
    return {"session": session, "closed": closed, "chain": chain, "open": open_}


async def test_a_worker_that_is_not_heard_for_a_minute_has_lost_its_sessions(home: House, bastion: BastionKeys) -> None:
    _, session = await begin(home, bastion)
    home.clock.turn(seconds=60)
    await home.authority.live.tick()
    assert (await home.operator.get("/v1/sessions?live=true")).json()[0]["id"] == session
    home.clock.turn(seconds=1)
    await home.authority.live.tick()
    assert (await home.operator.get("/v1/sessions?live=true")).json() == []
    assert (await home.operator.get("/v1/sessions")).json()[0]["how"] == "lost"
    (lost,) = await home.events("bastion.lost")
    assert list(lost.fields["sessions"]) == [session]  # type: ignore[call-overload]
    back = await sync(bastion, heads=[head(session)])
    assert [(one["session"], one["code"]) for one in back["orders"]] == [(session, "lost")]


async def test_a_lease_is_kept_by_syncing(home: House, bastion: BastionKeys) -> None:
    _, session = await begin(home, bastion)
    for _ in range(5):
        home.clock.turn(seconds=50)
        await sync(bastion, heads=[head(session)])
        await home.authority.live.tick()
    assert len((await home.operator.get("/v1/sessions?live=true")).json()) == 1


async def test_a_session_that_sends_no_hashes_raises_one_alarm(home: House, bastion: BastionKeys) -> None:
    _, session = await begin(home, bastion)
    for _ in range(3):
        home.clock.turn(seconds=11)
        await sync(bastion)
        await home.authority.live.tick()
    assert [one.fields["session"] for one in await home.events("session.attest_missing")] == [session]
    await sync(bastion, heads=[head(session)])
    home.clock.turn(seconds=11)
    await home.authority.live.tick()
    assert len(await home.events("session.attest_missing")) == 2


async def test_a_restart_takes_up_the_live_sessions(tmp_path: Path) -> None:
    clock = Clock()
    async with house(tmp_path, clock=clock) as home:
        await home.roles()
        await home.user("alice", "developer")
        await home.node("web1", env="dev")
        bastion = await home.bastion()
        _, session = await begin(home, bastion)
        await sync(bastion, heads=[head(session, 0, **{"c0.000001.cast.zst": (5, "a" * 64)})])
    async with house(tmp_path, clock=clock) as again:
        assert [one["id"] for one in (await again.operator.get("/v1/sessions?live=true")).json()] == [session]
        await again.operator.post(f"/v1/sessions/{session}/termination", json={"reason": "r"})


# --- heads and events -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "after",
    [
        {"closed": 1, "chain": "c" * 64, "open": {}},
        {"closed": 2, "chain": "d" * 64, "open": {}},
        {"closed": 2, "chain": "c" * 64, "open": {"c0.000003.cast.zst": (4, "b" * 64)}},
    ],
    ids=["fewer parts", "another chain", "a part that shrank"],
)
async def test_a_head_that_does_not_follow_the_one_before_ends_the_session(
    home: House, bastion: BastionKeys, after: dict[str, Any]
) -> None:
    _, session = await begin(home, bastion)
    before = {"session": session, "closed": 2, "chain": "c" * 64, "open": {"c0.000003.cast.zst": (5, "a" * 64)}}
    await sync(bastion, heads=[before])
    said = await sync(bastion, heads=[{"session": session, **after}])
    assert [one["code"] for one in said["orders"]] == ["recording_broken"]
    assert len(await home.events("session.attest_broken")) == 1
    stored = (await bastion.http.get(f"/v1/sessions/{session}/head")).json()
    assert stored["chain"] == before["chain"]
    assert stored["closed"] == 2


def event(session: str, id: str = "e1", **change: Any) -> dict[str, Any]:
    made = audit.SessionRefused(session=session, channel=0, request="x11-req", reason="not granted")
    return {"id": id, "at": "2026-06-01T12:00:00Z", "code": made.code, "fields": {**audit.record(made), **change}}


async def test_an_event_sent_twice_is_written_once(home: House, bastion: BastionKeys) -> None:
    _, session = await begin(home, bastion)
    for _ in range(3):
        await sync(bastion, events=[event(session), event(session, "e2")])
    told = await home.events("session.refused")
    assert [one.actor for one in told] == ["bastion:local"] * 2


async def test_a_bastion_writes_events_and_heads_of_its_own_sessions_alone(home: House, bastion: BastionKeys) -> None:
    """403, and nothing of the whole request is kept"""
    _, session = await begin(home, bastion)
    other = await home.bastion("other")
    foreign = audit.AuthFailed(bastion="local", user="eve", source="192.0.2.1", reason="expired")
    for body in (
        {"events": [event(session)]},
        {"events": [event("s" + "0" * 25)]},
        {"heads": [head(session)]},
        {"events": [{"id": "e", "at": "2026-06-01T12:00:00Z", "code": foreign.code, "fields": audit.record(foreign)}]},
    ):
        answer = await other.http.post("/v1/bastions/sync", json={"worker": "w1", **body})
        assert (answer.status_code, answer.json()["error"]) == (403, "not_own_session")
    assert not await home.events("session.refused")
    assert not await home.events("auth.failed")


async def test_an_event_that_only_the_authority_can_know_or_of_no_known_shape_is_refused(
    home: House, bastion: BastionKeys
) -> None:
    _, session = await begin(home, bastion)
    issued = {"id": "e", "at": "2026-06-01T12:00:00Z", "code": "certificate.issued", "fields": {}}
    for bad in (issued, {**issued, "code": "no.such"}, event(session, extra=1), event(session, reason=7)):
        answer = await bastion.http.post("/v1/bastions/sync", json={"worker": "w1", "events": [bad]})
        assert (answer.status_code, answer.json()["error"]) == (400, "audit_invalid")


async def test_the_beacon_changes_with_the_time_and_survives_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    async with house(tmp_path, clock=clock) as home:
        issuer = home.authority.issuer
        first = issuer.beacon(clock.now)
        assert issuer.beacon(clock.now + timedelta(seconds=31)) != first
        assert issuer.beacon_age(first, clock.now + timedelta(seconds=100)) == timedelta(seconds=100)
        assert issuer.beacon_age(first, clock.now + timedelta(minutes=5)) is None
        assert issuer.beacon_age("0" * 32, clock.now) is None
        assert issuer.beacon_age("é", clock.now) is None
    async with house(tmp_path, clock=clock) as again:
        assert again.authority.issuer.beacon(clock.now) == first


async def test_the_clocks_go_on_while_sessions_come_and_go(home: House, bastion: BastionKeys) -> None:
    """An end by expiry is written down while another session begins: one look at all clocks must survive that."""
    await home.roles(ROLES.replace("sftp.write]", "sftp.write]\n        options: {on_expiry: end}"))
    came, session = await begin(home, bastion)
    await came.again().ask()
    home.clock.turn(hours=12, seconds=1)
    live, store = home.authority.live, home.authority.store

    async def write(work: Any) -> Any:
        live.gone(session)
        return await type(store).write(store, work)

    store.write = write  # type: ignore[method-assign]
    try:
        await live.tick()
    finally:
        del store.write


async def test_a_database_that_cannot_be_written_for_a_moment_does_not_end_the_watch(
    home: House, bastion: BastionKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CA-36: the disk is full; the authority stays up, and goes on watching once there is room."""
    live, stopping = home.authority.live, asyncio.Event()
    looks: list[str] = []

    async def tick() -> None:
        looks.append("look")
        if len(looks) > 2:
            stopping.set()
            return
        raise Unavailable("the audit log cannot be written")

    monkeypatch.setattr(live, "tick", tick)
    monkeypatch.setattr("ca.live.EVERY_SECONDS", 0.01)
    async with asyncio.timeout(5):
        await live.keep(stopping)
    assert len(looks) == 3
