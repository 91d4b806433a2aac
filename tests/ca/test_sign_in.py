"""ca/sign_in.py: a person signs in with a password and a key of theirs, and nobody else does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyotp
import pytest

from ca import sshcert, wire
from ca.certificate import CA
from ca.errors import AccessDenied, NotSignedIn
from ca.identity.local import Passwords
from ca.sign_in import sign_in, web_session, with_password
from ca.sign_out import sign_out
from ca.store import Db, users
from recordings.sshwire import mpint, string
from tests.ca import forge
from tests.ca.house import PASSWORD, House, house, possession

ROLES_12H = """
roles:
  - name: developer
    allow: [{nodes: {env: [dev]}, logins: [deploy], actions: [shell]}]
  - name: brief
    certificate_ttl: 1h
    allow: [{nodes: {env: [dev]}, logins: [deploy], actions: [shell]}]
"""


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        await made.roles(ROLES_12H)
        await made.user("alice", "developer")
        yield made


async def refused(home: House, status: int, code: str, **change: Any) -> None:
    """The request is refused so, nothing is signed, no serial is used, and one event says why."""
    answer = await home.login("alice", **change)
    assert (answer.status_code, answer.json()["error"]) == (status, code), answer.text
    assert not await home.events("certificate.issued")
    (denied,) = await home.events("certificate.denied")
    assert denied.fields["reason"] == code
    made = await home.login("alice")
    assert sshcert.from_line(made.json()["certificate"]).serial == 1


async def test_a_sign_in_gives_a_certificate_for_the_own_name_alone(home: House) -> None:
    answer = await home.login("alice")
    assert answer.status_code == 200
    made = sshcert.from_line(answer.json()["certificate"])
    assert made.principals == ("alice",)
    assert made.valid_before - int(home.clock.now.timestamp()) == 12 * 3600
    assert list(made.extensions) == ["permit-pty"]
    assert not made.critical_options
    assert made.ca_key.blob == home.authority.issuer.public_key(CA.USER).blob
    me = (await home.client(answer.json()["token"]).get("/v1/me")).json()
    assert (me["user"], me["roles"], me["administrator"]) == ("alice", ["developer"], False)


@pytest.mark.parametrize("key", forge.every_kind(), ids=lambda key: key.algorithm)
async def test_every_kind_of_key_that_we_take_is_certified_as_what_it_is(home: House, key: forge.Signer) -> None:
    """CA-32: a hardware key stays one."""
    answer = await home.login("alice", key)
    assert answer.status_code == 200, answer.text
    made = sshcert.from_line(answer.json()["certificate"])
    assert made.public_key.blob == key.blob
    assert answer.json()["certificate"].startswith(f"{key.algorithm.removesuffix('@openssh.com')}-cert-v01@openssh.com")


async def test_more_than_24_hours_is_refused_not_cut(home: House) -> None:
    """CA-14"""
    await refused(home, 400, "ttl_too_long", ttl_seconds=25 * 3600)


@pytest.mark.parametrize("ttl", [0, -1, 60, -(2**63)])
async def test_a_life_that_makes_no_sense_is_refused(home: House, ttl: int) -> None:
    """CA-15"""
    await refused(home, 400, "ttl_invalid", ttl_seconds=ttl)


@pytest.mark.parametrize("ttl", [2**63, 2**64 - 1])
async def test_for_ever_is_refused(home: House, ttl: int) -> None:
    """CA-15, CA-18"""
    await refused(home, 400, "ttl_too_long", ttl_seconds=ttl)


@pytest.mark.parametrize("ttl", ["8h", 1.5, [], {}])
async def test_a_life_that_is_no_number_is_refused_before_anything_is_looked_at(home: House, ttl: object) -> None:
    """CA-15"""
    answer = await home.login("alice", ttl_seconds=ttl)
    assert (answer.status_code, answer.json()["error"]) == (400, "ttl_invalid")


async def test_nan_is_no_json(home: House) -> None:
    """CA-15"""
    request = await home.login_request("alice")
    body = str(request).replace("'", '"')[:-1] + ', "ttl_seconds": NaN}'
    answer = await home.web.post("/v1/login", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (400, "ttl_invalid")


async def test_a_life_cut_short_by_a_role_is_said_so(home: House) -> None:
    """CA-16"""
    await home.user("bob", "brief")
    answer = (await home.login("bob")).json()
    assert sshcert.from_line(answer["certificate"]).valid_before - int(home.clock.now.timestamp()) == 3600
    assert answer["note"]
    assert (await home.login("alice")).json()["note"] is None


@pytest.mark.parametrize("field", ["key_id", "principals", "critical_options", "extensions", "valid_after"])
async def test_a_client_names_nothing_of_the_certificate(home: House, field: str) -> None:
    """CA-17, CA-20, CA-23, CA-26, CA-27"""
    answer = await home.login("alice", **{field: "x\nforged"})
    assert (answer.status_code, answer.json()["error"]) == (400, "unknown_field")
    assert field in answer.json()["message"]


@pytest.mark.parametrize("ca", list(CA))
async def test_the_key_of_a_ca_is_not_certified(home: House, ca: CA) -> None:
    """CA-28: whoever had it could not prove it either, so the proof is what fails first."""
    line = home.authority.issuer.public_key(ca).line()
    await refused(home, 403, "pop_failed", public_key=line)


async def test_a_nodes_host_key_and_a_revoked_key_are_not_certified_for_a_person(home: House) -> None:
    """CA-28"""
    host, own = forge.ed25519(), forge.ed25519()
    body = {"name": "web1", "address": "192.0.2.9:22", "host_keys": [host.public.line()]}
    assert (await home.operator.post("/v1/nodes", json=body)).status_code == 201
    answer = await home.login("alice", host)
    assert (answer.status_code, answer.json()["error"]) == (403, "key_forbidden")
    assert (await home.login("alice", own)).status_code == 200
    await home.operator.post("/v1/certificates/user/1/revocation")
    answer = await home.login("alice", own)
    assert (answer.status_code, answer.json()["error"]) == (403, "key_forbidden")


async def test_a_certificate_is_no_key(home: House) -> None:
    """CA-29"""
    line = (await home.login("alice")).json()["certificate"]
    answer = await home.login("alice", public_key=line)
    assert (answer.status_code, answer.json()["error"]) == (400, "key_type")


def rsa_line(exponent: int, modulus: int) -> str:
    import base64

    blob = base64.b64encode(string(b"ssh-rsa") + mpint(exponent) + mpint(modulus)).decode()
    return f"ssh-rsa {blob}"


@pytest.mark.parametrize(
    "line",
    [
        rsa_line(65537, (1 << 1023) | 1),
        rsa_line(65537, (1 << 16383) | 1),
        rsa_line(1, (1 << 3071) | 1),
        rsa_line(2**65 + 1, (1 << 3071) | 1),
        rsa_line(65537, 1 << 3071),
    ],
    ids=["1024", "16384", "e=1", "e=2^65+1", "even"],
)
async def test_a_weak_rsa_key_is_refused(home: House, line: str) -> None:
    """CA-30"""
    answer = await home.login("alice", public_key=line)
    assert (answer.status_code, answer.json()["error"]) == (400, "key_weak")


async def test_without_possession_nothing_is_certified(home: House) -> None:
    """CA-33: namespace, nonce and key must all be the right ones."""
    key, other = forge.ed25519(), forge.ed25519()
    request = await home.login_request("alice", key)
    nonce = request["nonce"]
    for wrong in (
        {"possession": possession(key, nonce, namespace="git")},
        {"possession": possession(key, "another nonce")},
        {"possession": possession(other, nonce)},
        {"possession": "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"},
        {"nonce": "never given", "possession": possession(key, "never given")},
    ):
        answer = await home.web.post("/v1/login", json={**request, **wrong})
        assert (answer.status_code, answer.json()["error"]) == (403, "pop_failed")
    assert not await home.events("certificate.issued")
    assert (await home.web.post("/v1/login", json=request)).status_code == 200


async def test_a_nonce_is_good_for_two_minutes_once_and_for_its_purpose(home: House) -> None:
    """CA-33"""
    key = forge.ed25519()
    late = await home.login_request("alice", key)
    home.clock.turn(seconds=121)
    assert (await home.web.post("/v1/login", json=late)).json()["error"] == "pop_failed"
    twice = await home.login_request("alice", key)
    assert (await home.web.post("/v1/login", json=twice)).status_code == 200
    assert (await home.web.post("/v1/login", json=twice)).json()["error"] == "pop_failed"
    nonce = (await home.web.post("/v1/join/challenge")).json()["nonce"]
    stray = await home.login_request("alice", key, nonce=nonce, possession=possession(key, nonce))
    assert (await home.web.post("/v1/login", json=stray)).json()["error"] == "pop_failed"


async def test_of_fifty_uses_of_one_nonce_exactly_one_succeeds(home: House) -> None:
    """CA-33, CA-35"""
    request = await home.login_request("alice")
    statuses: list[int] = []

    async def use() -> None:
        statuses.append((await home.web.post("/v1/login", json=request)).status_code)

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(use())
    assert sorted(statuses) == [200] + [403] * 49
    assert len(await home.events("certificate.issued")) == 1


async def test_somebody_without_a_role_gets_no_certificate(home: House) -> None:
    """CA-42: no role is not every role."""
    await home.user("mallory")
    answer = await home.login("mallory")
    assert (answer.status_code, answer.json()["error"]) == (403, "no_role")


async def test_root_is_nobodys_name(home: House) -> None:
    """CA-10"""
    body = {"name": "root", "roles": ["developer"], "password": PASSWORD}
    answer = await home.operator.post("/v1/users", json=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "privileged_principal")
    assert "roles give them that login" in answer.json()["message"]

    def smuggle(db: Db) -> None:  # however the name came here, it is not certified
        alice = users.find(db, "alice")
        assert alice is not None
        users.add(db, replace(alice, name="root"))

    await home.authority.store.write(smuggle)
    answer = await home.login("root")
    assert (answer.status_code, answer.json()["error"]) == (403, "privileged_principal")


async def test_a_renewed_certificate_follows_the_roles_of_now(home: House) -> None:
    """CA-40"""
    assert (await home.login("alice")).status_code == 200
    await home.operator.patch("/v1/users/alice", json={"roles": []})
    assert (await home.login("alice")).json()["error"] == "no_role"


# --- failures -------------------------------------------------------------------------------------------------------


async def fail(home: House, user: str = "alice") -> int:
    return (await home.login(user, password="wrong password")).status_code


async def test_the_fifth_failure_locks_this_person_for_this_source(home: House) -> None:
    assert [await fail(home) for _ in range(6)] == [401] * 5 + [403]
    answer = await home.login("alice")
    assert (answer.status_code, answer.json()["error"]) == (403, "locked_out"), "even the right password waits"
    assert len(await home.events("login.failed")) == 5
    assert len(await home.events("login.locked_out")) == 1
    await home.user("bob", "developer")
    assert (await home.login("bob")).status_code == 200, "nobody else is locked"
    home.clock.turn(minutes=30, seconds=1)
    assert (await home.login("alice")).status_code == 200


async def test_nobody_can_lock_others_out_from_elsewhere(home: House) -> None:
    for _ in range(6):
        await fail(home)
    request = await home.login_request("alice")
    from_socket = home.client(**{"bartizan.unix": True})
    assert (await from_socket.post("/v1/login", json=request)).status_code == 200


async def test_failures_half_an_hour_apart_do_not_add_up(home: House) -> None:
    for _ in range(4):
        await fail(home)
    home.clock.turn(minutes=31)
    for _ in range(4):
        assert await fail(home) == 401
    assert (await home.login("alice")).status_code == 200
    assert [await fail(home) for _ in range(5)] == [401] * 5, "a success begins the count anew"


async def test_fifty_guesses_at_once_are_five_guesses(home: House) -> None:
    """LOG-05: refused beyond the fifth, and every one of them counted."""
    statuses: list[int] = []
    request = await home.login_request("alice", password="wrong password")

    async def guess() -> None:
        statuses.append((await home.web.post("/v1/login", json=request)).status_code)

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(guess())
    assert sorted(statuses) == [401] * 5 + [403] * 45
    numbers = home.authority.metrics.text().decode()
    assert 'bartizan_logins_total{result="failed"} 5.0' in numbers
    assert 'bartizan_logins_total{result="locked_out"} 45.0' in numbers


async def test_an_unknown_person_is_answered_and_counted_like_a_known_one(home: House) -> None:
    known = await home.login("alice", password="wrong password")
    unknown = await home.login("nobody", password="wrong password")
    assert known.json() == unknown.json()
    assert [await fail(home, "nobody") for _ in range(5)] == [401] * 4 + [403]


async def test_a_new_password_opens_the_door_at_once_and_ends_old_sign_ins(home: House) -> None:
    alice = await home.person("alice")
    for _ in range(6):
        await fail(home)
    body = {"password": "another long password"}
    assert (await home.operator.post("/v1/users/alice/password", json=body)).status_code == 200
    assert (await home.login("alice", **body)).status_code == 200
    assert (await alice.get("/v1/me")).status_code == 401


async def test_a_lock_and_a_closed_account_are_told_to_whoever_knows_the_password(home: House) -> None:
    await home.operator.post("/v1/locks", json={"user": "alice", "reason": "on leave"})
    assert (await home.login("alice")).json()["error"] == "locked"
    await home.operator.patch("/v1/users/alice", json={"disabled": True})
    assert (await home.login("alice")).json()["error"] == "user_disabled"
    assert await fail(home) == 401


async def test_no_secret_stands_in_log_or_audit(home: House, capfd: pytest.CaptureFixture[str]) -> None:
    """LOG-02"""
    token = (await home.login("alice")).json()["token"]
    await fail(home)
    told = capfd.readouterr()
    everything = told.out + told.err + "".join(str(dict(one.fields)) for one in await home.events())
    for secret in (token, PASSWORD, "wrong password", home.authority.admin_token):
        assert secret not in everything


async def test_a_source_that_tries_ever_new_names_is_soon_no_longer_heard(home: House) -> None:
    """Each failure leaves a row and an event: a stranger with a list of names writes sixty a minute, not a million."""
    request = await home.login_request("alice", password="wrong password")
    statuses = [
        (await home.web.post("/v1/login", json={**request, "user": f"nobody{number}"})).status_code
        for number in range(70)
    ]
    assert statuses == [401] * 60 + [429] * 10
    assert len(await home.events("login.failed")) == 60
    refused = await home.login("alice")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "60")
    second = await home.web.post("/v1/login/second-factor", json={"user": "nobody", "password": "wrong password"})
    assert second.status_code == 429, "nor by the other door"
    home.clock.turn(seconds=61)
    assert (await home.login("alice")).status_code == 200


async def test_right_sign_ins_from_one_address_are_not_counted(home: House) -> None:
    """An office, or a school, has one address."""
    for _ in range(70):
        assert (await home.login("alice")).status_code == 200


async def test_whoever_shares_the_machine_may_try_on(home: House) -> None:
    for door in (home.client(client=("127.0.0.1", 4711)), home.client(**{"bartizan.unix": True})):
        request = await home.login_request("alice", password="wrong password")
        for number in range(61):
            answer = await door.post("/v1/login", json={**request, "user": f"nobody{number}"})
            assert answer.status_code == 401


async def test_nonces_are_not_given_without_end(home: House) -> None:
    for path in ("/v1/login/challenge", "/v1/join/challenge"):
        home.clock.turn(minutes=2)
        statuses = [(await home.web.post(path)).status_code for _ in range(121)]
        assert statuses == [200] * 120 + [429]


async def test_an_ipv6_line_is_one_source_and_the_log_names_the_address(home: House) -> None:
    request = await home.login_request("alice", password="wrong password")
    statuses = []
    for number in range(1, 7):
        door = home.client(client=(f"2001:db8:1:2::{number}", 4711))
        statuses.append((await door.post("/v1/login", json=request)).status_code)
    assert statuses == [401] * 5 + [403]
    sources = [one.fields["source"] for one in await home.events("login.failed")]
    assert sources == [f"2001:db8:1:2::{number}" for number in range(1, 6)]
    neighbour = home.client(client=("2001:db8:1:3::1", 4711))
    assert (await neighbour.post("/v1/login", json=request)).status_code == 401


async def test_a_source_that_floods_the_door_does_not_keep_others_waiting(home: House) -> None:
    """Each check takes a while and only two run at once: one source has one place in the queue, not a hundred."""
    done: list[str] = []

    async def guess(number: int) -> None:
        request = wire.LoginRequest(**await home.login_request(f"nobody{number}"))
        with pytest.raises(NotSignedIn):
            await sign_in(home.authority, request, source="203.0.113.66")
        done.append("flood")

    async def alice() -> None:
        request = wire.LoginRequest(**await home.login_request("alice"))
        await asyncio.sleep(0.05)
        await sign_in(home.authority, request, source="198.51.100.9")
        done.append("alice")

    slow = type(home.authority.passwords)._same

    def takes_a_while(self: Passwords, password_hash: str, password: str) -> bool:
        time.sleep(0.05)
        return slow(self, password_hash, password)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Passwords, "_same", takes_a_while)
        async with asyncio.TaskGroup() as group:
            for number in range(30):
                group.create_task(guess(number))
            group.create_task(alice())
    assert done.index("alice") < 20


async def test_a_key_that_is_refused_uses_no_code_up_and_makes_no_recovery_codes(home: House) -> None:
    """They are told once: nobody would ever see them."""
    await home.roles(ROLES_12H.replace("- name: developer", "- name: developer\n    mfa: login"))
    begun = await home.web.post("/v1/login/second-factor", json={"user": "alice", "password": PASSWORD})
    code = pyotp.TOTP(begun.json()["secret"]).at(home.clock.now)
    bad = await home.login("alice", code=code, possession="nothing")
    assert bad.json()["error"] == "pop_failed"
    stale = await home.login_request("alice", code=code)
    home.clock.turn(minutes=3)
    assert (await home.web.post("/v1/login", json=stale)).json()["error"] == "pop_failed"
    assert await home.events("factor.added") == []
    good = await home.login("alice", code=pyotp.TOTP(begun.json()["secret"]).at(home.clock.now))
    assert len(good.json()["recovery_codes"]) == 10


async def test_a_password_that_is_changed_meanwhile_lets_nobody_in(home: House) -> None:
    signed_in = await with_password(home.authority, "alice", PASSWORD, None, source="192.0.2.7")
    reset = await home.operator.post("/v1/users/alice/password", json={"password": "quite another password"})
    assert reset.status_code == 200
    with pytest.raises(AccessDenied, match="changed meanwhile"):
        await web_session(home.authority, signed_in, source="192.0.2.7", agent="")


async def test_an_invitation_takes_the_old_password_away(home: House) -> None:
    await home.operator.post("/v1/users/alice/password", json={})
    assert (await home.login("alice")).status_code == 401


async def test_closing_an_account_is_for_good_for_what_was_given(home: House) -> None:
    token = (await home.login("alice")).json()["token"]
    for disabled in (True, False):
        (await home.operator.patch("/v1/users/alice", json={"disabled": disabled})).raise_for_status()
    assert (await home.client(token).get("/v1/me")).status_code == 401
    assert [one.fields["reason"] for one in await home.events("certificate.revoked")] == ["the account was closed"]


async def test_a_certificate_that_is_revoked_before_it_is_handed_out_is_not(home: House) -> None:
    sign = home.authority.issuer.sign

    async def slowly(stored: Any) -> Any:
        await sign_out(home.authority, "alice", token=None, everywhere=True, actor="user:alice")
        return await sign(stored)

    home.authority.issuer.sign = slowly  # type: ignore[method-assign]
    answer = await home.login("alice")
    assert (answer.status_code, answer.json()["error"]) == (403, "certificate_revoked")
    (issued,) = (await home.operator.get("/v1/certificates")).json()
    assert issued["state"] == "revoked"
