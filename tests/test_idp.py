"""The whole of a provider's life with the real one: a person signs in, changes, is asked about again, and leaves."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ca.identity.oidc import Oidc
from ca.identity.provider import Attempt, Refused
from ca.provider_file import Provider, parse, person
from tests.idp import HERE, PASSWORD, Idp, running_idp

ATTEMPT = Attempt(
    redirect_uri="https://127.0.0.1:8443/sign-in/callback/corp",
    state="a-state",
    nonce="a-nonce",
    verifier="a-verifier-of-at-least-forty-three-characters-x",
)


FILE = """
name: corp
kind: oidc
issuer: {idp.issuer}
client: {idp.client}
scopes: [openid, profile, email, groups, offline_access]
user: preferred_username
allow: "*"
roles:
  - {{when: {{groups: [sre]}}, roles: [operator]}}
"""


def described(idp: Idp) -> Provider:
    return parse(FILE.format(idp=idp))


@pytest.fixture
async def door(idp: Idp) -> AsyncIterator[Oidc]:
    made = Oidc(described(idp), idp.secret)
    yield made
    await made.close()


def now() -> datetime:
    return datetime.now(UTC)


async def test_a_person_signs_in_changes_and_leaves(idp: Idp, door: Oidc) -> None:
    """OIDC-19"""
    idp.set_account("alice", groups=["sre"])
    answer = idp.sign_in(await door.address(ATTEMPT), "alice")
    assert (answer["state"], answer["iss"]) == (ATTEMPT.state, idp.issuer)

    proven = await door.prove(ATTEMPT, answer, now=now())
    assert (proven.issuer, proven.subject) == (idp.issuer, idp.subject("alice"))
    assert (proven.claims["preferred_username"], proven.claims["groups"]) == ("alice", ["sre"])
    assert proven.claims["email_verified"] is True
    assert person(described(idp), proven.claims).roles == {"operator"}

    idp.set_account("alice", groups=[])
    again = await door.ask_again(str(proven.renewal), subject=proven.subject, now=now())
    assert again.claims["groups"] == []
    assert person(described(idp), again.claims).roles == frozenset()
    assert again.renewal not in (None, proven.renewal)

    idp.disable("alice")
    with pytest.raises(Refused) as caught:
        await door.ask_again(str(again.renewal), subject=proven.subject, now=now())
    assert caught.value.code == "identity_refused"


async def test_a_code_and_a_renewal_work_once(idp: Idp, door: Oidc) -> None:
    idp.set_account("bob")
    answer = idp.sign_in(await door.address(ATTEMPT), "bob")
    proven = await door.prove(ATTEMPT, answer, now=now())
    with pytest.raises(Refused) as caught:
        await door.prove(ATTEMPT, answer, now=now())
    assert caught.value.code == "code_refused"

    proven = await door.prove(ATTEMPT, idp.sign_in(await door.address(ATTEMPT), "bob"), now=now())
    await door.ask_again(str(proven.renewal), subject=proven.subject, now=now())
    other = Oidc(described(idp), idp.secret)  # this one does not know what came in exchange for it
    with pytest.raises(Refused):
        await other.ask_again(str(proven.renewal), subject=proven.subject, now=now())
    await other.close()


async def test_the_real_provider_refuses_the_verifier_of_another_sign_in(idp: Idp, door: Oidc) -> None:
    """OIDC-10"""
    idp.set_account("carol")
    answer = idp.sign_in(await door.address(ATTEMPT), "carol")
    other = Attempt(ATTEMPT.redirect_uri, ATTEMPT.state, ATTEMPT.nonce, "v" * 43)
    with pytest.raises(Refused) as caught:
        await door.prove(other, answer, now=now())
    assert caught.value.code == "code_refused"


async def test_without_offline_access_there_is_no_renewal(idp: Idp) -> None:
    idp.set_account("dave")
    made = Oidc(replace(described(idp), scopes=("openid", "profile")), idp.secret)
    proven = await made.prove(ATTEMPT, idp.sign_in(await made.address(ATTEMPT), "dave"), now=now())
    await made.close()
    assert proven.renewal is None


async def test_a_disabled_person_does_not_get_past_the_provider(idp: Idp, door: Oidc) -> None:
    idp.set_account("erin", disabled=True)
    with pytest.raises(AssertionError, match="Wrong name or password"):
        idp.sign_in(await door.address(ATTEMPT), "erin", PASSWORD)


async def test_the_real_provider_passes_its_trial(idp: Idp, door: Oidc) -> None:
    assert [(probe.what, probe.ok) for probe in await door.probe(now=now())] == [
        ("discovery", True),
        ("clock", True),
        ("keys", True),
        ("client", True),
    ]


async def test_a_trial_with_another_secret_says_so(idp: Idp) -> None:
    made = Oidc(described(idp), "another")
    client = (await made.probe(now=now()))[-1]
    await made.close()
    assert client.ok is False
    assert "invalid_client" in client.detail


async def test_a_provider_may_put_all_claims_into_the_token(tmp_path: Path) -> None:
    with running_idp(tmp_path / "idp", claims_by_user_information=False) as idp:
        idp.set_account("alice", groups=["sre"])
        made = Oidc(described(idp), idp.secret)
        proven = await made.prove(ATTEMPT, idp.sign_in(await made.address(ATTEMPT), "alice"), now=now())
        await made.close()
    assert proven.claims["groups"] == ["sre"]


def test_the_lock_names_no_place_to_fetch_from() -> None:
    lock = json.loads((HERE / "package-lock.json").read_text())
    assert not re.search(r"https?://", json.dumps([entry.get("resolved") for entry in lock["packages"].values()]))
    assert all("integrity" in entry for name, entry in lock["packages"].items() if name)
