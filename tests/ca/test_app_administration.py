"""The routes of administrators: users, roles, nodes, certificates, locks, audit; and who may not use them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ca import sshcert
from ca.api import NOUNS
from ca.certificate import CA
from ca.web.pages import PageRoute
from tests.ca import forge
from tests.ca.house import ROLES, House, house


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        await made.roles()
        await made.user("alice", "developer")
        yield made


OPEN = {
    "/healthz", "/readyz", "/metrics", "/v1/cluster", "/v1/tls-root", "/v1/login/challenge", "/v1/login", "/v1/join",
    "/v1/join/challenge", "/v1/join/renewal", "/v1/ca/{name}", "/v1/bastions/enrolment",
    "/v1/login/methods", "/v1/login/device", "/v1/login/device/poll", "/v1/login/exchange", "/static/{name}",
    "/v1/login/second-factor",
}  # fmt: skip
"""Routes for strangers. Everything else wants to know who asks."""
PEOPLE = {
    "/v1/logout", "/v1/me", "/v1/sessions", "/v1/recordings", "/v1/recordings/{id}/archive", "/v1/audit",
    "/v1/audit/verification", "/v1/me/second-factor", "/v1/me/second-factor/confirmation",
    "/v1/me/second-factor/recovery-codes",
}  # fmt: skip
BASTIONS = ("/v1/bastions/", "/v1/sessions/{id}/end", "/v1/sessions/{id}/head")


def routes() -> list[tuple[str, str]]:
    """Pages have rules of their own: tests/ca/web/test_pages.py."""
    found = [
        (method, route.path)
        for noun in NOUNS
        for route in noun.router.routes
        if not isinstance(route, PageRoute)
        for method in route.methods
    ]
    return sorted(found)


@pytest.mark.parametrize(("method", "path"), [one for one in routes() if one[1] not in OPEN])
async def test_no_route_answers_strangers_and_no_administration_answers_people(
    home: House, method: str, path: str
) -> None:
    """WEB-10, CA-38: generated over all routes"""
    place = path.replace("{ca}", "user").replace("{serial}", "1").replace("{name}", "alice").replace("{id}", "x")
    body: dict[str, Any] = {"json": {}} if method in ("POST", "PUT", "PATCH") else {}
    for nobody in (home.web, home.client("bzl_wrong"), home.client("bzl_wrong", **{"bartizan.unix": True})):
        assert (await nobody.request(method, place, **body)).status_code == 401
    if path not in PEOPLE or (method, path) == ("POST", "/v1/sessions"):
        alice = await home.person("alice")
        status = (await alice.request(method, place, **body)).status_code
        assert status == (401 if path.startswith(BASTIONS) or path == "/v1/sessions" else 403), path


async def test_an_administrator_administers_over_https(home: House) -> None:
    await home.user("root-of-all", "admin")
    boss = await home.person("root-of-all")
    assert (await boss.get("/v1/me")).json()["administrator"] is True
    assert (await boss.get("/v1/users")).status_code == 200
    await home.operator.patch("/v1/users/root-of-all", json={"roles": []})
    assert (await boss.get("/v1/users")).status_code == 403, "WEB-08: a role that was taken away is gone at once"
    await home.operator.patch("/v1/users/root-of-all", json={"disabled": True})
    assert (await boss.get("/v1/me")).status_code == 401


async def test_the_sockets_token_is_worth_nothing_over_https(home: House) -> None:
    assert (await home.client(home.authority.admin_token).get("/v1/users")).status_code == 401


async def test_a_token_ends_with_logout_and_with_the_certificate(home: House) -> None:
    """WEB-08"""
    first, second = await home.person("alice"), await home.person("alice")
    assert (await first.post("/v1/logout")).status_code == 204
    assert (await first.get("/v1/me")).status_code == 401
    assert (await second.get("/v1/me")).status_code == 200
    home.clock.turn(hours=12)
    assert (await second.get("/v1/me")).status_code == 401


# --- users ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "Alice", "al ice", "-a", "a,b", "*", "al\nice", "ä", "a" * 65, "1a"])
async def test_a_name_that_no_certificate_could_carry_is_refused(home: House, name: str) -> None:
    """CA-02, CA-03, CA-06"""
    answer = await home.operator.post("/v1/users", json={"name": name})
    assert answer.status_code == 400


async def test_no_two_people_have_one_name(home: House) -> None:
    """CA-12"""
    answer = await home.operator.post("/v1/users", json={"name": "alice"})
    assert (answer.status_code, answer.json()["error"]) == (409, "principal_conflict")


async def test_a_short_password_is_refused_everywhere(home: House) -> None:
    for answer in (
        await home.operator.post("/v1/users", json={"name": "bob", "password": "elevenchars"}),
        await home.operator.post("/v1/users/alice/password", json={"password": "elevenchars"}),
    ):
        assert (answer.status_code, answer.json()["error"]) == (400, "password_too_short")
        assert "elevenchars" not in answer.text


async def test_people_are_listed_without_their_secrets(home: House) -> None:
    found = (await home.operator.get("/v1/users")).json()
    assert [(one["name"], one["roles"], one["has_password"]) for one in found] == [("alice", ["developer"], True)]
    assert "argon2" not in str(found)


# --- roles ------------------------------------------------------------------------------------------------------------


async def test_a_roles_file_that_is_wrong_names_its_line_and_changes_nothing(home: House) -> None:
    answer = await home.operator.put("/v1/roles", json={"text": ROLES + "  - nam: x\n", "file": "team.yaml"})
    assert answer.status_code == 400
    assert "team.yaml:" in answer.json()["message"]
    assert (await home.operator.get("/v1/roles")).json()["text"] == ROLES


async def test_a_roles_file_whose_own_test_fails_is_refused(home: House) -> None:
    test = (
        "tests:\n  - {user: {name: a, roles: [developer]}, node: {env: prod}, login: a, action: shell, expect: allow}\n"
    )
    answer = await home.operator.put("/v1/roles", json={"text": ROLES + test})
    assert (answer.status_code, answer.json()["error"]) == (400, "role_test_failed")


async def test_a_dry_run_says_what_would_change_and_changes_nothing(home: House) -> None:
    text = ROLES.replace("auditor", "reviewer")
    said = (await home.operator.put("/v1/roles", json={"text": text, "dry_run": True})).json()
    assert (said["added"], said["removed"]) == (["reviewer"], ["auditor"])
    assert (await home.operator.get("/v1/roles")).json()["text"] == ROLES


async def test_access_is_explained(home: House) -> None:
    await home.node("web1", env="dev")
    said = (await home.operator.post("/v1/access/explain", json={"user": "alice", "node": "web1"})).json()
    assert said["allowed"] is True
    assert any("developer" in line for line in said["lines"])
    said = (await home.operator.post("/v1/access/explain", json={"user": "alice", "node": "nowhere"})).json()
    assert (said["allowed"], said["code"]) == (False, "no_role_reaches_node")


# --- nodes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bastion", "bartizan", "localhost", "Web1", "web.1", "-a", "*", "a" * 64])
async def test_a_node_name_is_one_plain_label_that_is_not_reserved(home: House, name: str) -> None:
    """CA-07, CA-08"""
    answer = await home.operator.post("/v1/nodes", json={"name": name, "address": "192.0.2.1:22"})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254:80",
        "[fe80::1]:22",
        "[::ffff:169.254.169.254]:22",
        "224.0.0.1:22",
        "[::]:22",
        "[fd00:ec2::254]:80",
    ],
)
async def test_no_node_can_be_where_a_cloud_keeps_credentials(home: House, address: str) -> None:
    """SSH-10"""
    answer = await home.operator.post("/v1/nodes", json={"name": "web1", "address": address})
    assert (answer.status_code, answer.json()["error"]) == (400, "address_forbidden")
    assert (await home.operator.post("/v1/nodes", json={"name": "web1", "address": "127.0.0.1:22"})).status_code == 201


@pytest.mark.parametrize(
    "address", ["", "host:99999", "0.0.0.0:22", "user@host:22", "host:22 -oProxyCommand=x", "h/22"]
)
async def test_an_address_is_a_host_and_a_port(home: House, address: str) -> None:
    answer = await home.operator.post("/v1/nodes", json={"name": "web1", "address": address})
    assert answer.status_code == 400


async def test_a_vouched_for_host_key_is_certified_for_a_year_for_its_node_alone(home: House) -> None:
    node = await home.node("web1", env="dev")
    key = forge.ed25519()
    answer = await home.operator.post("/v1/nodes/web1/certificate", json={"public_key": key.public.line()})
    made = sshcert.from_line(answer.json()["certificate"])
    assert made.principals == ("web1", node["id"])
    assert made.kind is sshcert.CertKind.HOST
    assert made.ca_key.blob == home.authority.issuer.public_key(CA.HOST).blob
    assert made.valid_before - int(home.clock.now.timestamp()) == timedelta(days=365).total_seconds()
    listed = (await home.operator.get("/v1/nodes")).json()[0]
    assert listed["certificate_expires"] == answer.json()["expires"]
    await home.node("web2")
    answer = await home.operator.post("/v1/nodes/web2/certificate", json={"public_key": key.public.line()})
    assert (answer.status_code, answer.json()["error"]) == (403, "key_forbidden")
    (denied,) = await home.events("certificate.denied")
    assert (denied.fields["reason"], denied.fields["node"]) == ("key_forbidden", "web2")


@pytest.mark.parametrize("ca", list(CA))
async def test_a_ca_key_is_no_host_key(home: House, ca: CA) -> None:
    """CA-28"""
    await home.node("web1")
    body = {"public_key": home.authority.issuer.public_key(ca).line()}
    answer = await home.operator.post("/v1/nodes/web1/certificate", json=body)
    assert (answer.status_code, answer.json()["error"]) == (403, "key_forbidden")


async def test_a_node_is_told_its_id_and_the_target_ca(home: House) -> None:
    node = await home.node("web1")
    said = (await home.operator.get("/v1/nodes/web1/trust")).json()
    assert said == {
        "id": node["id"], "name": "web1", "target_ca": [home.authority.issuer.public_key(CA.TARGET).line()],
    }  # fmt: skip


async def test_a_removed_node_is_gone_and_a_new_one_of_the_name_is_another(home: House) -> None:
    old = await home.node("web1")
    assert (await home.operator.delete("/v1/nodes/web1")).status_code == 204
    assert (await home.operator.delete("/v1/nodes/web1")).status_code == 404
    assert (await home.node("web1"))["id"] != old["id"]


# --- certificates, locks, audit ---------------------------------------------------------------------------------------


async def test_a_certificate_is_revoked_once_and_its_sign_in_ends(home: House) -> None:
    alice = await home.person("alice")
    body = {"json": {"reason": "laptop lost"}}
    assert (await home.operator.post("/v1/certificates/user/1/revocation", **body)).json()["state"] == "revoked"
    assert (await alice.get("/v1/me")).status_code == 401
    assert (await home.operator.post("/v1/certificates/user/1/revocation")).status_code == 409
    for missing in ("user/2", "nobody/1", "user/0", f"user/{2**64}"):
        assert (await home.operator.post(f"/v1/certificates/{missing}/revocation")).status_code == 404
    (told,) = await home.events("certificate.revoked")
    assert told.fields["reason"] == "laptop lost"
    assert [one["state"] for one in (await home.operator.get("/v1/certificates")).json()] == ["revoked"]


async def test_a_lock_names_something_and_runs_out(home: House) -> None:
    assert (await home.operator.post("/v1/locks", json={"reason": "r"})).status_code == 400
    assert (await home.operator.post("/v1/locks", json={"user": "alice"})).status_code == 400
    made = (await home.operator.post("/v1/locks", json={"user": "alice", "reason": "r", "ttl_seconds": 60})).json()
    assert [one["id"] for one in (await home.operator.get("/v1/locks")).json()] == [made["id"]]
    home.clock.turn(seconds=60)
    assert (await home.operator.get("/v1/locks")).json() == []
    assert (await home.operator.delete("/v1/locks/none")).status_code == 404


async def test_a_lock_on_a_person_stops_their_token_until_it_is_removed(home: House) -> None:
    alice = await home.person("alice")
    lock = (await home.operator.post("/v1/locks", json={"user": "alice", "reason": "r"})).json()
    assert (await alice.get("/v1/me")).json()["error"] == "locked"
    await home.operator.delete(f"/v1/locks/{lock['id']}")
    assert (await alice.get("/v1/me")).status_code == 200


async def test_the_log_is_for_auditors_and_reading_it_is_in_it(home: House) -> None:
    await home.user("eve", "auditor")
    alice, eve = await home.person("alice"), await home.person("eve")
    assert (await alice.get("/v1/audit")).status_code == 403
    assert (await alice.post("/v1/audit/verification")).status_code == 403
    found = (await eve.get("/v1/audit?after=2&limit=3")).json()
    assert [one["seq"] for one in found] == [3, 4, 5]
    assert (await eve.post("/v1/audit/verification")).json()["ok"] is True
    assert [one.actor for one in await home.events("audit.exported")] == ["user:eve"]
    last = len(await home.events())
    for _ in range(3):
        assert len((await eve.get(f"/v1/audit?after={last - 1}")).json()) <= 3, "following the log does not feed it"


async def test_public_keys_are_public(home: House) -> None:
    for ca in CA:
        line = (await home.web.get(f"/v1/ca/{ca}")).text
        assert line.count("\n") == 1
        assert line.startswith(home.authority.issuer.public_key(ca).line())
    assert (await home.web.get("/v1/ca/other")).status_code == 404
    assert 'namespaces="bartizan-recording"' in (await home.web.get("/v1/ca/recorders")).text
