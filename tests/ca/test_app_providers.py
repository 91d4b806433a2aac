"""The routes of identity providers: what is stored, what is told, and what a removal ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from ca import sign_in
from ca.identity import registry
from ca.identity.provider import Attempt, Probe, Proven, Refused
from ca.provider_file import parse
from ca.store import identities
from ca.store import providers as stored
from ca.store.providers import providers as rows
from tests.ca.house import House, house

FILE = """\
name: corp
title: Example Corp
kind: oidc
issuer: https://id.example.com
client: bartizan
user: preferred_username
allow: "*"
roles:
  - {when: {groups: sre}, roles: [developer]}
"""
SECRET = "canary-of-the-client"


@dataclass
class StandIn:
    """A provider that vouches for what the test says, and keeps a diary of the secrets it was opened with."""

    claims: dict[str, object] = field(default_factory=lambda: {"preferred_username": "alice", "groups": ["sre"]})
    probes: list[Probe] = field(default_factory=lambda: [Probe("discovery", True, "found")])
    subject: str = "sub-1"
    refusal: Refused | None = None
    secrets: list[str | None] = field(default_factory=list)

    async def address(self, attempt: Attempt) -> str:
        raise NotImplementedError

    async def prove(self, attempt: Attempt, answer: Mapping[str, str], *, now: datetime) -> Proven:
        raise NotImplementedError

    async def ask_again(self, renewal: str, *, subject: str, now: datetime) -> Proven:
        raise NotImplementedError

    async def probe(self, *, now: datetime) -> list[Probe]:
        return self.probes

    async def read_token(self, token: str, *, now: datetime) -> Proven:
        if self.refusal is not None:
            raise self.refusal
        return Proven("https://id.example.com", self.subject, self.claims, None)

    async def close(self) -> None:
        pass


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        await made.roles()
        yield made


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    there = StandIn()

    def opened(text: str, secret: str | None) -> tuple[object, StandIn]:
        there.secrets.append(secret)
        return parse(text), there

    monkeypatch.setattr(registry, "opened", opened)
    return there


async def apply(home: House, text: str = FILE, **more: object) -> dict[str, Any]:
    answer = await home.operator.put("/v1/idp", json={"text": text, **more})
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


async def sign_in_alice(home: House) -> None:
    claims = {"preferred_username": "alice", "groups": ["sre"]}
    proven = Proven("https://id.example.com", "sub-1", claims, "refresh")
    await sign_in.with_provider(home.authority, "corp", proven, source="192.0.2.7")


async def test_a_provider_is_applied_and_shown_without_its_secret(home: House) -> None:
    applied = await apply(home, secret=SECRET)
    callback = "https://127.0.0.1:8443/sign-in/callback/corp"
    assert applied == {"name": "corp", "created": True, "callback_url": callback, "notes": []}
    [shown] = (await home.operator.get("/v1/idp")).json()
    assert (shown["title"], shown["kind"], shown["issuer"]) == ("Example Corp", "oidc", "https://id.example.com")
    assert (shown["has_secret"], shown["users"], shown["revision"], shown["text"]) == (True, 0, 1, FILE)
    assert shown["applied_by"] == "local"
    [event] = await home.events("provider.applied")
    assert SECRET not in str(event) + str(shown) + str(applied)
    for file in home.authority.settings.data.glob("bartizan.db*"):
        assert SECRET.encode() not in file.read_bytes()


async def test_a_later_file_keeps_the_secret_until_a_new_one_comes(home: House, stand_in: StandIn) -> None:
    await apply(home, secret=SECRET)
    assert (await apply(home, FILE + "# changed\n"))["created"] is False
    await home.authority.providers.find("corp")
    await apply(home, secret="another")
    await home.authority.providers.find("corp")
    assert stand_in.secrets == [SECRET, "another"]


async def test_what_a_person_should_know_is_noted(home: House) -> None:
    notes = (await apply(home, FILE.partition("roles:")[0]))["notes"]
    assert notes == [
        "idp.yaml:1: without an entry under roles nobody who signs in holds a role",
        "there is no client secret: the provider must know this client as a public one",
    ]


async def test_a_dry_run_changes_nothing(home: House) -> None:
    assert (await apply(home, secret=SECRET, dry_run=True))["created"] is True
    assert (await home.operator.get("/v1/idp")).json() == []
    assert await home.events("provider.applied") == []


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        ({"text": "name: Corp\n", "file": "c.yaml"}, "provider_invalid", "c.yaml:1: "),
        ({"text": FILE, "secret": "two\nlines"}, "invalid_input", "secret: expected printable ASCII"),
        ({"text": FILE, "secret": ""}, "invalid_input", "secret: "),
        (
            {"text": "name: gh\nkind: github\nclient: x\nallow: [{orgs: [example]}]\n"},
            "secret_missing",
            "GitHub wants a client secret",
        ),
    ],
)
async def test_what_is_not_taken_is_told(home: House, body: dict[str, str], code: str, told: str) -> None:
    answer = await home.operator.put("/v1/idp", json=body)
    assert (answer.status_code, answer.json()["error"]) == (400, code)
    assert answer.json()["message"].startswith(told)


async def test_an_issuer_is_not_swapped_under_people_who_signed_in(home: House, stand_in: StandIn) -> None:
    """OIDC-12"""
    await apply(home, secret=SECRET)
    await sign_in_alice(home)
    other = FILE.replace("https://id.example.com", "https://other.example.com")
    answer = await home.operator.put("/v1/idp", json={"text": other, "secret": "new"})
    assert (answer.status_code, answer.json()["error"]) == (409, "issuer_changed")
    assert "bartizan idp remove corp" in answer.json()["hint"]


async def test_a_stored_secret_does_not_go_to_another_issuer(home: House) -> None:
    await apply(home, secret=SECRET)
    other = FILE.replace("https://id.example.com", "https://other.example.com")
    answer = await home.operator.put("/v1/idp", json={"text": other})
    assert (answer.status_code, answer.json()["error"]) == (400, "secret_missing")
    assert (await apply(home, other, secret="new"))["created"] is False


async def test_a_removal_ends_what_it_gave_and_keeps_the_names(home: House, stand_in: StandIn) -> None:
    """OIDC-12: after it, nobody else takes a name, whichever provider says so."""
    await apply(home, secret=SECRET)
    await sign_in_alice(home)
    assert (await home.operator.get("/v1/idp")).json()[0]["users"] == 1
    assert (await home.operator.delete("/v1/idp/corp")).status_code == 204
    assert (await home.operator.get("/v1/idp")).json() == []
    [alice] = (await home.operator.get("/v1/users")).json()
    assert alice["refused"] == "the identity provider corp was removed here"
    [removed] = await home.events("provider.removed")
    assert (removed.fields["provider"], removed.fields["users"]) == ("corp", 1)
    assert len(await home.events("identity.refused")) == 1
    assert (await home.operator.delete("/v1/idp/corp")).status_code == 404
    other = FILE.replace("https://id.example.com", "https://other.example.com")
    await apply(home, other, secret="new")
    stranger = Proven("https://other.example.com", "sub-1", {"preferred_username": "alice"}, None)
    with pytest.raises(Refused) as refused:
        await sign_in.with_provider(home.authority, "corp", stranger, source="192.0.2.7")
    assert refused.value.code == "principal_conflict"


async def trial(home: House, **body: str) -> dict[str, Any]:
    found: dict[str, Any] = (await home.operator.post("/v1/idp/corp/trial", json=body)).raise_for_status().json()
    return found


async def test_a_trial_says_whom_a_token_gives_by_which_line(home: House, stand_in: StandIn) -> None:
    await apply(home, secret=SECRET)
    without = await trial(home)
    assert without == {
        "ok": True,
        "steps": [{"what": "discovery", "ok": True, "detail": "found"}],
        "person": None,
    }
    tested = await trial(home, token="canary-token")
    assert [step["what"] for step in tested["steps"]] == ["discovery", "token", "person"]
    assert tested["person"] == {
        "user": "alice",
        "roles": ["developer"],
        "traits": {},
        "lines": [
            "idp.yaml:7: everybody: may sign in",
            "idp.yaml:6: preferred_username is alice: user alice",
            "idp.yaml:9: groups has sre: roles developer",
        ],
    }
    assert (await home.operator.get("/v1/users")).json() == [], "a trial signs nobody in"
    events = await home.events("provider.tested")
    assert len(events) == 2
    assert "canary-token" not in str(events)


async def test_a_trial_says_whether_the_name_is_theirs(home: House, stand_in: StandIn) -> None:
    """CA-12"""
    await apply(home, secret=SECRET)
    assert (await trial(home, token="x"))["steps"][-1]["detail"] == "would sign in as alice, new here"
    await sign_in_alice(home)
    assert (await trial(home, token="x"))["steps"][-1]["detail"] == "would sign in as alice, who was here before"
    await home.user("bob", "developer")
    stand_in.claims, stand_in.subject = {"preferred_username": "bob"}, "sub-2"
    tested = await trial(home, token="x")
    assert (tested["ok"], tested["steps"][-1]["ok"]) == (False, False)
    assert tested["steps"][-1]["detail"] == "the name bob belongs to another account here (principal_conflict)"


async def test_a_trial_that_fails_says_where(home: House, stand_in: StandIn) -> None:
    await apply(home, secret=SECRET)
    stand_in.claims = {"preferred_username": "root"}
    tested = await trial(home, token="x")
    assert (tested["ok"], tested["person"]) == (False, None)
    assert tested["steps"][-1]["what"] == "person"
    assert tested["steps"][-1]["detail"].endswith("(privileged_principal)")
    stand_in.refusal = Refused("the signature does not verify", code="token_signature")
    assert (await trial(home, token="x"))["steps"][-1] == {
        "what": "token",
        "ok": False,
        "detail": "the signature does not verify (token_signature)",
    }
    stand_in.probes = [Probe("discovery", False, "it does not answer"), Probe("keys", None, "no address")]
    assert (await trial(home))["ok"] is False


async def test_a_trial_of_nothing_is_not_found(home: House) -> None:
    assert (await home.operator.post("/v1/idp/corp/trial", json={})).status_code == 404


async def broken(home: House) -> None:
    """The stored file is one that an earlier version took."""
    await home.authority.store.write(lambda db: db.run(update(rows).values(text="name: corp\n", revision=99)))


async def test_a_file_that_is_no_longer_understood_hides_no_other_provider(home: House) -> None:
    await apply(home, FILE.replace("name: corp", "name: other"))
    await apply(home)
    await home.authority.store.write(
        lambda db: db.run(update(rows).where(rows.c.name == "corp").values(text="?", revision=99))
    )
    methods = (await home.web.get("/v1/login/methods")).json()["methods"]
    assert [one["name"] for one in methods] == ["other"]
    shown = (await home.operator.get("/v1/idp")).json()
    assert [(one["name"], one["kind"], one["text"][:1]) for one in shown] == [
        ("corp", "not understood", "?"),
        ("other", "oidc", "n"),
    ]


async def test_a_file_that_is_no_longer_understood_can_be_mended(home: House, stand_in: StandIn) -> None:
    await apply(home, secret=SECRET)
    await sign_in_alice(home)
    await broken(home)
    elsewhere = FILE.replace("id.example.com", "id.example.net")
    refused = await home.operator.put("/v1/idp", json={"text": elsewhere})
    assert refused.json()["error"] == "issuer_changed", "people still say whose it is"
    await apply(home)
    assert [one["name"] for one in (await home.web.get("/v1/login/methods")).json()["methods"]] == ["corp"]


async def test_a_secret_whose_issuer_is_no_longer_known_goes_to_none(home: House) -> None:
    await apply(home, secret=SECRET)
    await broken(home)
    refused = await home.operator.put("/v1/idp", json={"text": FILE})
    assert refused.json()["error"] == "secret_missing"
    await apply(home, secret=SECRET)


async def test_strangers_who_ask_for_the_ways_have_no_file_parsed_again(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await apply(home)
    parsed: list[str] = []
    monkeypatch.setattr(registry.provider_file, "parse", lambda text: parsed.append(text) or parse(text))
    for _ in range(3):
        await home.web.get("/v1/login/methods")
    await apply(home, FILE + "# changed\n")
    for _ in range(3):
        await home.web.get("/v1/login/methods")
    assert parsed == [FILE, FILE + "# changed\n"]


async def test_a_revision_is_opened_once_however_many_ask_at_once(home: House, stand_in: StandIn) -> None:
    await apply(home, secret=SECRET)
    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(home.authority.providers.find("corp"))
    assert stand_in.secrets == [SECRET]


async def test_who_applies_other_rules_is_told_when_they_count(home: House, stand_in: StandIn) -> None:
    await apply(home, secret=SECRET)
    await sign_in_alice(home)
    for dry_run in (True, False):
        notes = (await apply(home, FILE + "# changed\n", dry_run=dry_run))["notes"]
        assert notes == [
            "people already signed in are asked about within five minutes of work, or now: bartizan idp recheck corp"
        ]


async def test_what_was_given_to_another_client_is_not_asked_with(home: House, stand_in: StandIn) -> None:
    """A refresh token is bound to its client: sent by another, it would end everybody."""
    await apply(home, secret=SECRET)
    await sign_in_alice(home)
    changed = FILE.replace("client: bartizan", "client: another")

    async def renewal() -> str | None:
        tie = await home.authority.store.read(lambda db: identities.of_user(db, "alice"))
        assert tie is not None
        return tie.renewal

    await apply(home, changed, dry_run=True)
    assert await renewal() is not None
    (note,) = (await apply(home, changed))["notes"]
    assert note.startswith("the client is another one, so nobody who is signed in can be asked about")
    assert await renewal() is None


async def test_a_provider_that_comes_after_one_of_the_same_name_is_another(home: House) -> None:
    """Nothing that was kept of the first, its address least of all, serves the second."""
    for issuer in ("https://one.example.com", "https://two.example.com"):
        text = FILE.replace("https://id.example.com", issuer)
        assert issuer in text
        (await home.operator.put("/v1/idp", json={"text": text, "secret": "s"})).raise_for_status()
        assert (await home.authority.providers.find("corp")).file.issuer == issuer
        assert [one.issuer for one in await home.authority.providers.all()] == [issuer]
        await home.authority.store.write(lambda db: stored.remove(db, "corp"))
