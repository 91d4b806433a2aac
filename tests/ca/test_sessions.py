"""ca/sessions.py: a bastion gets one certificate for one proof, and a countersignature for what it reported."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ca import sshcert
from ca.certificate import CA
from ca.sessions import session_id
from recordings import seal, sshsig
from tests.ca import forge
from tests.ca.house import BEGAN, BastionKeys, House, house
from tests.ca.visit import shown, visit


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        await made.roles()
        await made.user("alice", "developer")
        await made.node("web1", env="dev")
        await made.node("db1", env="prod")
        yield made


@pytest.fixture
async def bastion(home: House) -> BastionKeys:
    return await home.bastion("local", "192.0.2.50")


async def test_a_proof_gives_one_certificate_that_says_exactly_what_was_decided(
    home: House, bastion: BastionKeys
) -> None:
    answer = await (await visit(home, bastion)).ask()
    assert answer.status_code == 200
    said = answer.json()
    assert (said["decision"], said["user"], said["node"], said["login"]) == ("allow", "alice", "web1", "root")
    target = sshcert.from_line(said["target_certificate"])
    assert target.principals == (f"root@{said['node_id']}",)
    assert target.key_id == f"u=alice;s={said['session']}"
    assert target.valid_before - target.valid_after == 120
    assert target.critical_options == {"source-address": "192.0.2.50/32"}
    assert target.ca_key.blob == home.authority.issuer.public_key(CA.TARGET).blob
    assert [one["action"] for one in said["actions"]] == ["shell", "exec", "sftp.read", "sftp.write"]
    assert [event.fields["session"] for event in await home.events("session.started")] == [said["session"]]


async def test_of_fifty_submissions_of_one_proof_exactly_one_gets_a_certificate(
    home: House, bastion: BastionKeys
) -> None:
    request = (await visit(home, bastion)).request()
    answers: list[tuple[int, dict[str, Any]]] = []

    async def submit() -> None:
        answer = await bastion.http.post("/v1/sessions", json=request)
        answers.append((answer.status_code, answer.json()))

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(submit())
    assert sorted(status for status, _ in answers) == [200] + [403] * 49
    assert {body["error"] for status, body in answers if status == 403} == {"proof_replayed"}
    assert len([one for one in await home.events("certificate.issued") if one.fields["ca"] == "target"]) == 1


async def test_a_proof_is_not_good_again_after_a_denial(home: House, bastion: BastionKeys) -> None:
    request = (await visit(home, bastion, node="db1")).request()
    first = await bastion.http.post("/v1/sessions", json=request)
    assert (first.status_code, first.json()["code"]) == (200, "no_role_reaches_node")
    again = await bastion.http.post("/v1/sessions", json=request)
    assert (again.status_code, again.json()["error"]) == (403, "proof_replayed")


async def test_a_proof_held_back_for_121_seconds_is_refused(home: House, bastion: BastionKeys) -> None:
    request = (await visit(home, bastion)).request()
    home.clock.turn(seconds=121)
    answer = await bastion.http.post("/v1/sessions", json=request)
    assert (answer.status_code, answer.json()["error"]) == (403, "proof_stale")


@pytest.mark.parametrize(("field", "value"), [("node", "db1"), ("login", "deploy"), ("way", "jump")])
async def test_a_proof_is_good_for_its_node_and_login_alone(
    home: House, bastion: BastionKeys, field: str, value: str
) -> None:
    request = (await visit(home, bastion)).request()
    answer = await bastion.http.post("/v1/sessions", json={**request, field: value})
    if field == "way":  # ways 1 and 2 sign the same words
        assert answer.status_code == 200
        return
    assert answer.status_code == 403
    assert answer.json()["error"].startswith("proof_")
    assert len(await home.events("session.proof_failed")) == 1


async def test_another_bastion_cannot_use_the_proof(home: House, bastion: BastionKeys) -> None:
    other = await home.bastion("other")
    request = (await visit(home, bastion)).request()
    answer = await other.http.post("/v1/sessions", json=request)
    assert (answer.status_code, answer.json()["error"][:6]) == (403, "proof_")


async def test_a_node_that_does_not_exist_is_answered_like_one_out_of_reach(home: House, bastion: BastionKeys) -> None:
    answers = [(await (await visit(home, bastion, node=name)).ask()).json() for name in ("db1", "nowhere")]
    assert answers[0]["code"] == answers[1]["code"] == "no_role_reaches_node"
    assert answers[0]["reason"].replace("db1", "nowhere") == answers[1]["reason"]
    assert answers[0]["hint"] == answers[1]["hint"]


async def test_a_login_that_is_not_granted_is_denied_with_those_that_are(home: House, bastion: BastionKeys) -> None:
    said = (await (await visit(home, bastion, login="postgres")).ask()).json()
    assert (said["decision"], said["code"]) == ("deny", "login_not_granted")
    assert "alice, deploy, root" in said["hint"]


async def test_an_unbound_client_is_denied_unless_a_role_says_otherwise(home: House, bastion: BastionKeys) -> None:
    said = (await (await visit(home, bastion, bound=False)).ask()).json()
    assert (said["decision"], said["code"]) == ("deny", "unbound_client")


async def test_the_user_name_binds_by_itself(home: House, bastion: BastionKeys) -> None:
    came = await visit(home, bastion, way="username", bound=False)
    said = (await came.again(shown=await own_certificate(bastion)).ask()).json()
    assert said["decision"] == "allow"


async def own_certificate(bastion: BastionKeys) -> bytes:
    answer = await bastion.http.post("/v1/bastions/shown-certificates", json={"names": []})
    return sshcert.from_line(answer.json()["certificates"][0]).blob


async def test_a_revoked_certificate_opens_nothing(home: House, bastion: BastionKeys) -> None:
    came = await visit(home, bastion)
    serial = sshcert.parse(came.certificate).serial
    assert (await home.operator.post(f"/v1/certificates/user/{serial}/revocation")).status_code == 200
    said = (await came.ask()).json()
    assert (said["decision"], said["code"]) == ("deny", "certificate_revoked")


async def test_a_closed_account_opens_nothing(home: House, bastion: BastionKeys) -> None:
    came = await visit(home, bastion)
    await home.operator.patch("/v1/users/alice", json={"disabled": True})
    assert (await came.ask()).json()["code"] == "user_disabled"


async def test_without_a_client_certificate_nothing_is_decided(home: House, bastion: BastionKeys) -> None:
    request = (await visit(home, bastion)).request()
    assert (await home.web.post("/v1/sessions", json=request)).status_code == 401
    assert (await home.operator.post("/v1/sessions", json=request)).status_code == 401


async def test_arbitrary_names_are_shown_so_that_existence_does_not_leak(home: House, bastion: BastionKeys) -> None:
    for name in ("web1", "nowhere", "web1.bartizan"):
        made = sshcert.parse(await shown(bastion, name))
        assert made.principals == (name,)
        assert made.valid_before - int(BEGAN.timestamp()) == 3600
    answer = await bastion.http.post("/v1/bastions/shown-certificates", json={"names": ["*"]})
    assert (answer.status_code, answer.json()["error"]) == (400, "principal_invalid")


# --- the end --------------------------------------------------------------------------------------------------------


def part(name: str, content: bytes) -> seal.Part:
    return seal.Part(name, len(content), hashlib.sha256(content).hexdigest(), datetime(2026, 6, 1, 12, 1, tzinfo=UTC))


def manifest(session: str, *parts: seal.Part, how: str = "closed") -> bytes:
    at = datetime(2026, 6, 1, 12, 1, tzinfo=UTC)
    return seal.encode(
        seal.Manifest(session, {"user": "alice"}, at, at, at, how, (), parts, seal.chain_of(session, parts))
    )


def ending(data: bytes, how: str = "closed") -> dict[str, str]:
    import base64

    return {"manifest": base64.b64encode(data).decode(), "how": how}


def head(session: str, *closed: seal.Part, **open_: tuple[int, str]) -> dict[str, Any]:
    return {
        "session": session,
        "closed": len(closed),
        "chain": seal.chain_of(session, closed),
        "open": {name.replace("_", "."): value for name, value in open_.items()},
    }


ONE, TWO = part("c0.000001.cast.zst", b"one"), part("c0.000002.cast.zst", b"second")


async def started(home: House, bastion: BastionKeys) -> str:
    session: str = (await (await visit(home, bastion)).ask()).json()["session"]
    return session


async def heard(bastion: BastionKeys, *heads: dict[str, Any]) -> None:
    answer = await bastion.http.post("/v1/bastions/sync", json={"worker": "w1", "heads": list(heads)})
    assert answer.status_code == 200, answer.text


async def test_a_manifest_that_goes_on_from_the_last_head_is_countersigned(home: House, bastion: BastionKeys) -> None:
    session = await started(home, bastion)
    await heard(bastion, {**head(session, ONE), "open": {TWO.name: (3, hashlib.sha256(b"sec").hexdigest())}})
    data = manifest(session, ONE, TWO)
    answer = await bastion.http.post(f"/v1/sessions/{session}/end", json=ending(data))
    assert answer.status_code == 200, answer.text
    signer = sshsig.verify(answer.json()["signature"], data, namespace="bartizan-recording")
    assert signer == home.authority.issuer.recorder.blob
    (sealed,) = await home.events("session.sealed")
    assert sealed.fields["manifest"] == hashlib.sha256(data).hexdigest()
    view = (await home.operator.get("/v1/sessions")).json()[0]
    assert (view["id"], view["how"]) == (session, "closed")
    again = await bastion.http.post(f"/v1/sessions/{session}/end", json=ending(data))
    assert again.json() == answer.json(), "asked again, it answers the same"
    other = await bastion.http.post(f"/v1/sessions/{session}/end", json=ending(manifest(session, ONE)))
    assert (other.status_code, other.json()["error"]) == (409, "already_sealed")


@pytest.mark.parametrize(
    "parts",
    [(), (TWO,), (part(ONE.name, b"forged"), TWO), (ONE,), (ONE, part(TWO.name, b"se"))],
    ids=["nothing", "one missing", "one changed", "the open one missing", "the open one shorter"],
)
async def test_a_manifest_that_lost_or_changed_what_was_heard_is_not_countersigned(
    home: House, bastion: BastionKeys, parts: tuple[seal.Part, ...]
) -> None:
    session = await started(home, bastion)
    await heard(bastion, {**head(session, ONE), "open": {TWO.name: (3, hashlib.sha256(b"sec").hexdigest())}})
    if parts == (TWO,):
        parts = (part("c0.000001.cast.zst", b"second"),)
    for _ in range(2):
        answer = await bastion.http.post(f"/v1/sessions/{session}/end", json=ending(manifest(session, *parts)))
        assert (answer.status_code, answer.json()["error"]) == (409, "attest_broken")
    assert len(await home.events("session.attest_broken")) == 1
    assert not await home.events("session.sealed")


async def test_a_manifest_of_another_session_or_another_end_is_refused(home: House, bastion: BastionKeys) -> None:
    session = await started(home, bastion)
    for body in (
        ending(manifest("sother", ONE)),
        ending(manifest(session, ONE, how="crash")),
        ending(b"{}"),
        ending(manifest(session, ONE).replace(ONE.sha256.encode(), b"0" * 64)),
    ):
        answer = await bastion.http.post(f"/v1/sessions/{session}/end", json=body)
        assert (answer.status_code, answer.json()["error"]) == (400, "manifest_invalid")


async def test_a_bastion_ends_and_asks_about_its_own_sessions_alone(home: House, bastion: BastionKeys) -> None:
    session, other = await started(home, bastion), await home.bastion("other")
    for answer in (
        await other.http.post(f"/v1/sessions/{session}/end", json=ending(manifest(session))),
        await other.http.get(f"/v1/sessions/{session}/head"),
        await other.http.get("/v1/sessions/s0000000000000000000000000/head"),
    ):
        assert (answer.status_code, answer.json()["error"]) == (403, "not_own_session")
    assert (await bastion.http.get(f"/v1/sessions/{session}/head")).json() is None
    await heard(bastion, head(session, ONE))
    assert (await bastion.http.get(f"/v1/sessions/{session}/head")).json()["closed"] == 1


def test_session_ids_sort_by_time_and_are_short_and_plain() -> None:
    early, late = session_id(BEGAN), session_id(BEGAN.replace(year=2027))
    assert early < late
    assert len(early) == 26
    assert early.isalnum()
    assert early.islower()


async def test_of_two_manifests_at_once_one_is_countersigned(home: House, bastion: BastionKeys) -> None:
    """Two signatures over two stories of one session would let a bastion choose its evidence later."""
    session = await started(home, bastion)
    stories = [manifest(session, ONE), manifest(session, part(ONE.name, b"another"))]
    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(bastion.http.post(f"/v1/sessions/{session}/end", json=ending(data)))
            for data in stories * 10
        ]
    signed = {task.result().text for task in asked if task.result().status_code == 200}
    assert len(signed) == 1
    assert {task.result().json()["error"] for task in asked if task.result().status_code != 200} == {"already_sealed"}
    assert len(await home.events("session.sealed")) == 1
    assert len(await home.events("session.ended")) == 1


@pytest.mark.parametrize("how", ["not_started", "broken", "x" * 33, "Closed", ""])
async def test_a_bastion_cannot_say_what_only_the_authority_says_of_an_end(
    home: House, bastion: BastionKeys, how: str
) -> None:
    """A session that "never started" has no recording in the list: a bastion could hide one so."""
    session = await started(home, bastion)
    answer = await bastion.http.post(f"/v1/sessions/{session}/end", json=ending(manifest(session, ONE, how=how), how))
    assert (answer.status_code, answer.json()["error"]) == (400, "manifest_invalid")
    assert not await home.events("session.sealed")


@pytest.mark.parametrize("serial", [77, 1], ids=["unknown serial", "serial of another certificate"])
async def test_a_certificate_that_is_not_in_the_log_to_the_last_byte_opens_nothing_and_alarms(
    home: House, bastion: BastionKeys, serial: int
) -> None:
    """CV-22: the signature holds, so somebody else has the user CA's key."""
    came = await visit(home, bastion)
    key, now = forge.ed25519(), int(BEGAN.timestamp())
    ca = home.authority.issuer._keys.authorities[CA.USER]
    unsigned = sshcert.encode(
        kind=sshcert.CertKind.USER, public_key=key.public, serial=serial, key_id="v1;u=alice;n=1", principals=["alice"],
        valid_after=now - 60, valid_before=now + 3600, critical_options={}, extensions=["permit-pty"],
        ca_key=ca.public_key, nonce=bytes(32),
    )  # fmt: skip
    forged = sshcert.with_signature(unsigned, ca._sign(unsigned))
    said = (await came.again(key=key, certificate=forged).ask()).json()
    assert (said["decision"], said["code"]) == ("deny", "not_in_log")
    assert 'bartizan_alarms_total{kind="certificate_not_in_log"} 1.0' in home.authority.metrics.text().decode()
    (told,) = await home.events("session.denied")
    assert told.fields["denial"] == "not_in_log"
