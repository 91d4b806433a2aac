"""ca/api/join.py and bastions.py: who joins by a token, proves what it holds, and renews it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ca import sshcert
from recordings.sshkey import PublicKey
from tests.ca import forge
from tests.ca.house import House, certificate_request, house, possession


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        yield made


async def token(home: House, **change: Any) -> str:
    answer = await home.operator.post("/v1/join-tokens", json=change)
    assert answer.status_code == 201, answer.text
    text: str = answer.json()["token"]
    return text


async def keys_of(home: House, *keys: forge.Signer, namespace: str = "bartizan-join") -> dict[str, Any]:
    nonce = (await home.web.post("/v1/join/challenge")).json()["nonce"]
    shown = [
        {"public_key": key.public.line(), "possession": possession(key, nonce, namespace=namespace)} for key in keys
    ]
    return {"nonce": nonce, "keys": shown}


async def join(home: House, text: str, *keys: forge.Signer, name: str = "web1", **change: Any) -> httpx.Response:
    proven = await keys_of(home, *(keys or (forge.ed25519(),)))
    body = {"token": text, "name": name, "address": "192.0.2.9:22", **proven, **change}
    return await home.web.post("/v1/join", json=body)


async def renew(home: House, *keys: forge.Signer, node: str = "web1") -> httpx.Response:
    return await home.web.post("/v1/join/renewal", json={"node": node, **await keys_of(home, *keys)})


async def test_a_host_joins_with_all_its_keys_and_the_labels_of_the_token(home: House) -> None:
    keys = (forge.ed25519(), forge.ecdsa(), forge.rsa_key())
    answer = await join(home, await token(home, labels={"env": "dev"}), *keys)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    for key, made in zip(keys, said["certificates"], strict=True):
        certificate = sshcert.from_line(made["certificate"])
        assert certificate.public_key.blob == key.blob
        assert certificate.principals == ("web1", said["node"]["id"])
        assert certificate.valid_before - int(home.clock.now.timestamp()) == 30 * 86_400
    (node,) = (await home.operator.get("/v1/nodes")).json()
    assert (node["labels"], node["pinned"], len(node["host_keys"])) == ({"env": "dev"}, False, 3)


async def test_of_fifty_hosts_with_one_token_exactly_one_joins(home: House) -> None:
    text = await token(home)
    statuses: list[int] = []

    async def one(number: int) -> None:
        statuses.append((await join(home, text, name=f"web{number}")).status_code)

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(one(number))
    assert sorted(statuses) == [200] + [403] * 49
    assert len((await home.operator.get("/v1/nodes")).json()) == 1


async def test_a_token_is_for_its_name_for_an_hour_and_not_for_a_name_that_exists(home: House) -> None:
    for pattern, name, status in (("web1", "web2", 403), ("web*", "db1", 403), ("web*", "web7", 200)):
        assert (await join(home, await token(home, name=pattern), name=name)).status_code == status
    assert (await join(home, await token(home), name="web7")).status_code == 409
    late = await token(home)
    home.clock.turn(hours=1)
    answer = await join(home, late, name="web8")
    assert (answer.status_code, answer.json()["error"]) == (403, "token_refused")
    assert {one.fields["reason"] for one in await home.events("join.denied")} == {
        "name_not_allowed", "conflict", "token_refused",
    }  # fmt: skip


async def test_a_failed_join_does_not_use_the_token_up(home: House) -> None:
    text = await token(home, name="web1")
    assert (await join(home, text, name="web2")).status_code == 403
    assert (await join(home, text, name="web1")).status_code == 200


async def test_replacing_keeps_the_id_and_forgets_the_old_keys(home: House) -> None:
    old, new = forge.ed25519(), forge.ed25519()
    first = (await join(home, await token(home), old)).json()
    second = (await join(home, await token(home, name="web1", replace=True), new)).json()
    assert first["node"]["id"] == second["node"]["id"]
    (node,) = (await home.operator.get("/v1/nodes")).json()
    assert node["host_keys"] == [new.public.line()]


async def test_a_host_proves_each_key(home: House) -> None:
    """CA-33"""
    mine, stolen = forge.ed25519(), forge.ed25519()
    text = await token(home)
    proven = await keys_of(home, mine)
    for keys in (
        [{**proven["keys"][0], "public_key": stolen.public.line()}],
        [*proven["keys"], {**proven["keys"][0], "public_key": stolen.public.line()}],
        (await keys_of(home, mine, namespace="git"))["keys"],
        (await keys_of(home, mine))["keys"],
    ):
        body = {"token": text, "name": "web1", "address": "192.0.2.9:22", "nonce": proven["nonce"], "keys": keys}
        answer = await home.web.post("/v1/join", json=body)
        assert (answer.status_code, answer.json()["error"]) == (403, "pop_failed")
    twice = {**proven, "keys": proven["keys"] * 2, "token": text, "name": "web1", "address": "192.0.2.9:22"}
    assert (await home.web.post("/v1/join", json=twice)).status_code == 400
    assert not await home.events("certificate.issued")


async def test_another_nodes_key_joins_nothing(home: House) -> None:
    """CA-28"""
    key = forge.ed25519()
    assert (await join(home, await token(home), key, name="web1")).status_code == 200
    answer = await join(home, await token(home), key, name="web2")
    assert (answer.status_code, answer.json()["error"]) == (403, "key_forbidden")


async def test_good_certificates_are_renewed_without_a_token(home: House) -> None:
    key = forge.ed25519()
    await join(home, await token(home), key)
    home.clock.turn(days=20)
    answer = await renew(home, key)
    assert answer.status_code == 200, answer.text
    made = sshcert.from_line(answer.json()["certificates"][0]["certificate"])
    assert (made.serial, made.valid_before - int(home.clock.now.timestamp())) == (2, 30 * 86_400)


async def test_what_is_not_good_is_not_renewed(home: House) -> None:
    """CA-39: expired, revoked, another's, a person's, nobody's"""
    expired, revoked, person = forge.ed25519(), forge.ed25519(), forge.ed25519()
    await join(home, await token(home), expired, name="old")
    await join(home, await token(home), revoked, name="bad")
    await home.operator.post("/v1/certificates/host/2/revocation")
    await home.roles()
    await home.user("alice", "developer")
    assert (await home.login("alice", person)).status_code == 200
    asked = [("bad", revoked), ("old", person), ("old", revoked), ("nowhere", person)]
    answers = [await renew(home, key, node=node) for node, key in asked]
    home.clock.turn(days=30)
    answers.append(await renew(home, expired, node="old"))
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]) in ((403, "renew_denied"), (403, "key_forbidden"))


# --- bastions ---------------------------------------------------------------------------------------------------------


def enrolment(text: str, **change: Any) -> dict[str, Any]:
    return {
        "token": text,
        "name": "edge",
        "host_key": forge.ed25519().public.line(),
        "recording_key": PublicKey.of(Ed25519PrivateKey.generate().public_key()).line(),
        "tls_request": certificate_request(ec.generate_private_key(ec.SECP256R1())),
        **change,
    }


async def bastion_token(home: House) -> str:
    text: str = (await home.operator.post("/v1/bastion-tokens")).json()["token"]
    return text


async def test_of_fifty_enrolments_with_one_token_exactly_one_succeeds(home: House) -> None:
    text = await bastion_token(home)
    statuses: list[int] = []

    async def one(number: int) -> None:
        body = enrolment(text, name=f"edge{number}")
        statuses.append((await home.web.post("/v1/bastions/enrolment", json=body)).status_code)

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(one(number))
    assert sorted(statuses) == [200] + [403] * 49
    assert len(await home.events("bastion.denied")) == 49


async def test_a_bastion_that_enrols_anew_stays_itself_and_its_old_keys_end(home: House) -> None:
    first = await home.bastion("edge")
    second = await home.bastion("edge")
    assert first.id == second.id
    assert (await first.http.get("/v1/bastions/trust")).status_code == 403
    assert (await second.http.get("/v1/bastions/trust")).status_code == 200
    lines = [line for line in (await home.web.get("/v1/ca/recorders")).text.splitlines() if line.startswith("edge ")]
    assert len(lines) == 2
    assert "valid-before=" in lines[0]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "authority"},
        {"name": "Edge"},
        {"egress": ["0.0.0.0/0"]},
        {"egress": ["10.0.0.1/8"]},
        {"egress": ["!10.0.0.0/8"]},
        {"egress": [""]},
        {"egress": ["192.0.2.1"] * 300},
        {"tls_request": "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"},
        {"host_key": "ssh-dss AAAA"},
    ],
    ids=str,
)
async def test_an_enrolment_that_is_not_sound_is_refused(home: House, change: dict[str, Any]) -> None:
    """CA-22"""
    body = enrolment(await bastion_token(home), **change)
    answer = await home.web.post("/v1/bastions/enrolment", json=body)
    assert answer.status_code == 400, answer.text


async def test_a_weak_tls_key_is_refused(home: House) -> None:
    weak = certificate_request(rsa.generate_private_key(65537, 2048))  # type: ignore[arg-type]
    body = enrolment(await bastion_token(home), tls_request=weak)
    assert (await home.web.post("/v1/bastions/enrolment", json=body)).json()["error"] == "key_weak"


async def test_a_client_certificate_is_renewed_for_the_enrolled_key_alone(home: House) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    body = enrolment(await bastion_token(home), tls_request=certificate_request(key))
    made = (await home.web.post("/v1/bastions/enrolment", json=body)).json()
    from ca import tls
    from ca.api.door import PEER

    digest = tls.key_digest(x509.load_pem_x509_certificate(made["tls_certificate"].encode()))
    bastion = home.client(**{PEER: digest})
    home.clock.turn(days=20)
    answer = await bastion.post("/v1/bastions/renewal", json={"tls_request": certificate_request(key)})
    fresh = x509.load_pem_x509_certificate(answer.json()["tls_certificate"].encode())
    assert (fresh.not_valid_after_utc - home.clock.now).days == 30
    other = certificate_request(ec.generate_private_key(ec.SECP256R1()))
    assert (await bastion.post("/v1/bastions/renewal", json={"tls_request": other})).status_code == 403


async def test_a_token_that_may_replace_names_the_one_node(home: House) -> None:
    """One that names none, or a pattern, would be good for taking the place of any node."""
    for change in ({"replace": True}, {"replace": True, "name": "web*"}, {"replace": True, "name": "web?"}):
        answer = await home.operator.post("/v1/join-tokens", json=change)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_input"), change
    await token(home, replace=True, name="web1")


async def test_a_revoked_host_certificate_is_no_longer_believed_by_anyone(home: House) -> None:
    """CV-14: bastions go by the node's registered keys, so the key goes with its certificate."""
    key, other = forge.ed25519(), forge.ecdsa()
    answer = await join(home, await token(home), key, other)
    serial = sshcert.from_line(answer.json()["certificates"][0]["certificate"]).serial
    assert (await home.operator.post(f"/v1/certificates/host/{serial}/revocation")).status_code == 200
    (node,) = (await home.operator.get("/v1/nodes")).json()
    assert node["host_keys"] == [other.public.line()]
    assert (await renew(home, key)).json()["error"] == "renew_denied"


async def test_a_bastion_is_replaced_only_with_a_token_that_names_it(home: House) -> None:
    """Else whoever holds any token could take the place of a bastion, and with it its sessions."""
    first = await home.bastion("edge")
    body = enrolment(await bastion_token(home), name="edge")
    assert (await home.web.post("/v1/bastions/enrolment", json=body)).json()["error"] == "name_not_allowed"
    text = (await home.operator.post("/v1/bastion-tokens", json={"name": "edge"})).json()["token"]
    body = enrolment(text, name="other")
    assert (await home.web.post("/v1/bastions/enrolment", json=body)).json()["error"] == "name_not_allowed"
    assert (await first.http.get("/v1/bastions/trust")).status_code == 200
    assert (await home.web.post("/v1/bastions/enrolment", json=enrolment(text, name="edge"))).status_code == 200
