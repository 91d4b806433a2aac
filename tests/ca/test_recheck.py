"""
ca/recheck.py and the provider's half of ca/sign_in.py: what a provider says changes the account, and with it every
live session; a provider that says nothing changes nothing. The provider here keeps a diary; the real ones are asked
in tests/ca/identity/ and in the journeys.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ca import handover, login, provider_file
from ca.errors import AccessDenied, NotFound
from ca.identity.provider import Attempt, Probe, Proven, Refused, Unreachable
from ca.identity.registry import Ready
from ca.provider import Provider
from ca.recheck import AT_ONCE, PAUSE, Outcome, Recheck, abandon
from ca.sign_in import with_provider
from ca.sign_out import sign_out
from ca.store import Db, identities, users
from tests.ca.house import House, house
from tests.ca.test_handover import new_verifier, request
from tests.ca.visit import Visit, shown, visit

SOURCE = "192.0.2.7"
FILE = """
name: corp
title: Example Corp
kind: oidc
issuer: https://id.example.com
client: bartizan
user: preferred_username
allow: [{groups: [staff]}]
roles:
  - {when: {groups: [dev]}, roles: [developer]}
traits: {team: team}
"""
ALICE: dict[str, object] = {"preferred_username": "alice", "groups": ["staff", "dev"], "team": "blue"}


@dataclass
class Diary:
    """A provider that says what it is told to, and remembers what it was asked."""

    says: dict[str, object] | Exception = field(default_factory=lambda: dict(ALICE))
    asked: list[str] = field(default_factory=list)
    file: str = FILE

    @property
    def provider(self) -> Provider:
        return provider_file.parse(self.file)

    async def find(self, name: str) -> Ready:
        if name != "corp":
            raise NotFound("there is no such identity provider")
        return Ready(1, self.provider, self)

    async def all(self) -> list[Provider]:
        return [self.provider]

    async def ask_again(self, renewal: str, *, subject: str, now: datetime) -> Proven:
        self.asked.append(renewal)
        if isinstance(self.says, Exception):
            raise self.says
        return Proven("https://id.example.com", subject, self.says, f"{renewal}+")

    async def address(self, attempt: Attempt) -> str:
        raise NotImplementedError

    async def prove(self, attempt: Attempt, answer: Mapping[str, str], *, now: datetime) -> Proven:
        raise NotImplementedError

    async def read_token(self, token: str, *, now: datetime) -> Proven:
        raise NotImplementedError

    async def probe(self, *, now: datetime) -> list[Probe]:
        return []

    async def close(self) -> None:
        return None


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        await made.roles()
        yield made


@pytest.fixture
def corp(home: House) -> Diary:
    authority, diary = home.authority, Diary()
    authority.providers = diary  # type: ignore[assignment]
    authority.recheck = Recheck(authority.store, diary, authority.sealer, authority.live, authority.metrics)  # type: ignore[arg-type]
    return diary


def proven(subject: str = "a1", renewal: str | None = "r", **change: object) -> Proven:
    return Proven("https://id.example.com", subject, {**ALICE, **change}, renewal)


async def certificate(home: House, user: str = "alice") -> Any:
    verifier = new_verifier()
    grant = await handover.grant(home.authority, user, login.challenge_of(verifier), source=SOURCE)
    return await home.web.post("/v1/login/exchange", json=await request(home, grant, verifier))


async def account(home: House, name: str = "alice") -> users.Account:
    found = await home.authority.store.read(lambda db: users.find(db, name))
    assert found is not None
    return found


async def live_session(home: House, monkeypatch: pytest.MonkeyPatch) -> tuple[Visit, str]:
    """alice, signed in with the provider, has a live session on web1."""
    bastion = await home.bastion()
    await home.node("web1", env="dev")

    async def by_provider(user: str, key: Any = None, **_: object) -> Any:
        verifier = new_verifier()
        grant = await handover.grant(home.authority, user, login.challenge_of(verifier), source=SOURCE)
        body = await home.login_request(user, key)
        return await home.web.post(
            "/v1/login/exchange",
            json={"grant": grant, "verifier": verifier}
            | {name: body[name] for name in ("public_key", "nonce", "possession")},
        )

    monkeypatch.setattr(home, "login", by_provider)
    made = await visit(home, bastion, login="deploy")
    answer = await made.ask()
    assert answer.json()["decision"] == "allow", answer.text
    return made, answer.json()["session"]


async def later(made: Visit) -> Visit:
    """The same person connects again, under the beacon of now."""
    beacon = (await made.bastion.http.post("/v1/bastions/sync", json={"worker": "w1"})).json()["beacon"]
    return replace(made.again(), beacon=beacon, shown=await shown(made.bastion, "web1"))


async def orders(made: Visit) -> list[dict[str, Any]]:
    answer = await made.bastion.http.post("/v1/bastions/sync", json={"worker": made.worker})
    found: list[dict[str, Any]] = answer.json()["orders"]
    return found


# --- sign-in ------------------------------------------------------------------------------------------------------


async def test_a_newcomer_becomes_a_person_with_the_roles_and_traits_of_the_claims(home: House, corp: Diary) -> None:
    signed_in = await with_provider(home.authority, "corp", proven(), source=SOURCE)
    assert (signed_in.account.name, signed_in.account.roles, signed_in.method) == ("alice", ("developer",), "corp")
    assert dict(signed_in.account.traits) == {"team": ("blue",)}
    (event,) = await home.events("identity.added")
    assert (event.fields["subject"], event.fields["issuer"]) == ("a1", "https://id.example.com")
    assert (await certificate(home)).json()["roles"] == ["developer"]


async def test_the_next_sign_in_takes_roles_anew(home: House, corp: Diary) -> None:
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    again = await with_provider(home.authority, "corp", proven(groups=["staff"]), source=SOURCE)
    assert again.account.roles == ()
    _, event = await home.events("identity.changed")
    assert (event.fields["before"], event.fields["roles"]) == (["developer"], [])


async def test_the_same_name_from_another_account_is_refused_and_changes_nothing(home: House, corp: Diary) -> None:
    """OIDC-12, CA-12: no takeover, and no two identities give one principal"""
    await with_provider(home.authority, "corp", proven("a1"), source=SOURCE)
    with pytest.raises(Refused) as caught:
        await with_provider(home.authority, "corp", proven("mallory"), source=SOURCE)
    assert caught.value.code == "principal_conflict"
    await home.user("bob", "developer")
    with pytest.raises(Refused) as caught:
        await with_provider(home.authority, "corp", proven("b2", preferred_username="bob"), source=SOURCE)
    assert caught.value.code == "principal_conflict"
    assert (await account(home, "bob")).provider is None
    assert [one.fields["reason"] for one in await home.events("login.refused")] == ["principal_conflict"] * 2


async def test_a_changed_name_claim_renames_nobody(home: House, corp: Diary) -> None:
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    again = await with_provider(home.authority, "corp", proven(preferred_username="root2"), source=SOURCE)
    assert again.account.name == "alice"


async def test_an_administrator_can_free_a_name(home: House, corp: Diary) -> None:
    await with_provider(home.authority, "corp", proven("a1"), source=SOURCE)
    token = (await certificate(home)).json()["token"]
    assert (await home.operator.post("/v1/users/alice/unlinking")).status_code == 204
    assert (await home.client(token).get("/v1/me")).status_code == 401
    signed_in = await with_provider(home.authority, "corp", proven("a2"), source=SOURCE)
    assert signed_in.account.name == "alice"
    assert (await home.events("identity.removed"))[0].fields["subject"] == "a1"
    assert (await home.operator.post("/v1/users/alice/unlinking")).status_code == 204
    await home.user("bob")
    assert (await home.operator.post("/v1/users/bob/unlinking")).status_code == 409


@pytest.mark.parametrize(
    ("claims", "code"),
    [({"groups": ["guests"]}, "not_allowed"), ({"preferred_username": "root"}, "privileged_principal")],
)
async def test_whom_the_file_does_not_let_in_stays_out(
    home: House, corp: Diary, claims: dict[str, object], code: str
) -> None:
    """CA-10"""
    with pytest.raises(AccessDenied) as caught:
        await with_provider(home.authority, "corp", proven(**claims), source=SOURCE)
    assert caught.value.code == code
    assert await home.authority.store.read(users.every) == []


async def test_a_closed_account_and_a_locked_person_stay_out(home: House, corp: Diary) -> None:
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    (await home.operator.post("/v1/locks", json={"user": "alice", "reason": "x"})).raise_for_status()
    with pytest.raises(AccessDenied) as caught:
        await with_provider(home.authority, "corp", proven(), source=SOURCE)
    assert caught.value.code == "locked"
    (await home.operator.patch("/v1/users/alice", json={"disabled": True})).raise_for_status()
    with pytest.raises(AccessDenied) as caught:
        await with_provider(home.authority, "corp", proven(groups=["staff"]), source=SOURCE)
    assert caught.value.code == "user_disabled"
    assert (await account(home)).roles == ("developer",), "what is refused changes nothing"


async def test_roles_of_a_provider_are_not_set_by_hand(home: House, corp: Diary) -> None:
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    answer = await home.operator.patch("/v1/users/alice", json={"roles": ["auditor"]})
    assert (answer.status_code, answer.json()["error"]) == (409, "roles_from_provider")
    assert (await home.operator.post("/v1/users/alice/password", json={"password": "x" * 20})).status_code == 409


# --- asking again -------------------------------------------------------------------------------------------------


async def test_an_old_yes_is_asked_for_again_before_a_certificate(home: House, corp: Diary) -> None:
    """CA-40: the new certificate has the roles of now"""
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    assert (await certificate(home)).status_code == 200
    assert corp.asked == []
    home.clock.turn(minutes=5)
    corp.says = {**ALICE, "groups": ["staff"]}
    answer = await certificate(home)
    assert (answer.status_code, answer.json()["error"]) == (403, "no_role")
    assert corp.asked == ["r"]
    home.clock.turn(minutes=5)
    corp.says = dict(ALICE)
    assert (await certificate(home)).status_code == 200
    assert corp.asked == ["r", "r+"], "a refresh token that was rotated is the one that is used"


async def test_a_no_before_a_certificate_gives_none_and_revokes_what_there_is(home: House, corp: Diary) -> None:
    """OIDC-19"""
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    token = (await certificate(home)).json()["token"]
    home.clock.turn(minutes=5)
    corp.says = Refused("the refresh token is not taken any more", code="identity_refused")
    answer = await certificate(home)
    assert (answer.status_code, answer.json()["error"]) == (403, "identity_refused")
    assert "Example Corp no longer vouches for you" in answer.json()["message"]
    assert (await home.client(token).get("/v1/me")).status_code == 401
    (event,) = await home.events("identity.refused")
    assert (event.fields["tokens"], event.fields["certificates"]) == (2, 1), "the grant that was brought is over too"
    signed_in = await with_provider(home.authority, "corp", proven(), source=SOURCE)
    assert signed_in.account.refused is None, "the next yes opens all again"
    assert (await certificate(home)).status_code == 200


async def test_a_removed_person_ends_a_live_session_with_a_line_that_says_why(
    home: House, corp: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OIDC-19"""
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    made, session = await live_session(home, monkeypatch)
    home.clock.turn(minutes=4)
    corp.says = Refused("the account is disabled", code="identity_refused")
    await home.authority.recheck.look()
    (order,) = await orders(made)
    assert (order["session"], order["code"]) == (session, "identity_refused")
    assert order["reason"] == "Example Corp no longer vouches for you: the account is disabled"


async def test_a_removed_group_ends_a_live_session(home: House, corp: Diary, monkeypatch: pytest.MonkeyPatch) -> None:
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    made, session = await live_session(home, monkeypatch)
    home.clock.turn(minutes=4)
    corp.says = {**ALICE, "groups": ["staff"]}
    await home.authority.recheck.look()
    (order,) = await orders(made)
    assert (order["session"], order["code"]) == (session, "no_role_reaches_node")
    assert (await (await later(made)).ask()).json()["code"] == "no_role_reaches_node"


async def test_nobody_is_asked_about_who_does_nothing(
    home: House, corp: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    home.clock.turn(hours=1)
    await home.authority.recheck.look()
    assert corp.asked == []
    await live_session(home, monkeypatch)
    assert corp.asked == ["r"], "before the certificate"
    home.clock.turn(minutes=3)
    await home.authority.recheck.look()
    assert corp.asked == ["r"]


async def test_a_session_does_not_begin_on_an_old_yes(
    home: House, corp: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removed there = out here, also with a certificate that is still good."""
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    made, _ = await live_session(home, monkeypatch)
    home.clock.turn(minutes=6)
    corp.says = Refused("the account is disabled", code="identity_refused")
    answer = await (await later(made)).ask()
    assert (answer.json()["decision"], answer.json()["code"]) == ("deny", "identity_refused")


async def test_a_silent_provider_changes_nothing_and_is_told_once(
    home: House, corp: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    made, _ = await live_session(home, monkeypatch)
    corp.says = Unreachable("id.example.com does not answer")
    for _ in range(5):
        home.clock.turn(minutes=5)
        await home.authority.recheck.look()
    assert await orders(made) == []
    assert len(corp.asked) == 5
    assert len(await home.events("provider.unreachable")) == 1
    assert (await certificate(home)).status_code == 200, "what exists goes on"
    corp.says = dict(ALICE)
    home.clock.turn(minutes=5)
    await home.authority.recheck.look()
    (event,) = await home.events("provider.returned")
    assert event.fields["seconds"] == 25 * 60
    assert (await account(home)).refused is None


async def test_a_silent_provider_is_not_waited_for_again_at_once(home: House, corp: Diary) -> None:
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    home.clock.turn(minutes=5)
    corp.says = Unreachable("id.example.com does not answer")
    for _ in range(3):
        await home.authority.recheck.fresh("alice")
    assert corp.asked == ["r"]
    home.clock.turn(seconds=PAUSE.total_seconds())
    await home.authority.recheck.fresh("alice")
    assert corp.asked == ["r", "r"]


async def test_a_silence_longer_than_the_operators_limit_counts_as_a_no(
    home: House, corp: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    corp.file = FILE + "unreachable_limit: 1h\n"
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    made, _ = await live_session(home, monkeypatch)
    corp.says = Unreachable("id.example.com does not answer")
    home.clock.turn(hours=3)
    await home.authority.recheck.look()
    assert await orders(made) == [], "nobody asked for three hours; the silence begins now"
    home.clock.turn(minutes=59)
    await home.authority.recheck.look()
    assert await orders(made) == []
    home.clock.turn(minutes=2)
    await home.authority.recheck.look()
    (order,) = await orders(made)
    assert order["code"] == "identity_refused"
    assert "could not be asked since 15:00 UTC" in order["reason"]


async def test_a_provider_that_gives_nothing_to_ask_with_is_not_asked(home: House, corp: Diary) -> None:
    await with_provider(home.authority, "corp", proven(renewal=None), source=SOURCE)
    home.clock.turn(hours=1)
    await home.authority.recheck.fresh("alice")
    assert corp.asked == []


async def test_many_questions_at_once_are_one(home: House, corp: Diary) -> None:
    """A refresh token that is rotated is good once: two questions at a time would end the person."""
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    home.clock.turn(minutes=5)
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(home.authority.recheck.fresh("alice"))
    assert corp.asked == ["r"]


async def test_the_refresh_token_lies_sealed_in_the_database(home: House, corp: Diary) -> None:
    await with_provider(home.authority, "corp", proven(renewal="canary-of-a-refresh-token"), source=SOURCE)
    tie = await home.authority.store.read(lambda db: identities.of_user(db, "alice"))
    assert tie is not None
    assert tie.renewal is not None
    assert home.authority.sealer.open(tie.about, tie.renewal) == "canary-of-a-refresh-token"
    for file in home.authority.settings.data.glob("bartizan.db*"):
        assert b"canary-of-a-refresh-token" not in file.read_bytes()


async def test_a_removed_provider_takes_its_people_along(
    home: House, corp: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    made, _ = await live_session(home, monkeypatch)

    def work(db: Db) -> int:
        return abandon(db, "corp", reason="the identity provider corp was removed here")

    assert await home.authority.change(work) == 1
    (order,) = await orders(made)
    assert order["reason"] == "the identity provider corp was removed here"


async def test_our_clock_five_minutes_off_has_one_outcome(home: House, corp: Diary) -> None:
    """Set back: the last yes lies in the future, and is no older for it. Set forward: it is old, and asked again."""
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    home.clock.now -= timedelta(minutes=5)
    await home.authority.recheck.fresh("alice")
    assert corp.asked == []
    home.clock.now += timedelta(minutes=10)
    await home.authority.recheck.fresh("alice")
    assert corp.asked == ["r"]


async def test_an_administrator_can_ask_at_once(home: House, corp: Diary) -> None:
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    await with_provider(home.authority, "corp", proven("b", None, preferred_username="bob"), source=SOURCE)
    ask = "/v1/idp/corp/recheck"
    assert (await home.operator.post(ask, json={})).json() == {
        "outcomes": {"alice": "same", "bob": "nothing_to_ask_with"}
    }
    for says, outcome in (
        ({**ALICE, "groups": ["staff"]}, "changed"),
        (Unreachable("it does not answer"), "unreachable"),
        (Refused("no", code="identity_refused"), "refused"),
    ):
        corp.says = says  # type: ignore[assignment]
        answer = await home.operator.post(ask, json={"user": "alice"})
        assert answer.json() == {"outcomes": {"alice": outcome}}
    assert (await home.operator.post(ask, json={"user": "nobody"})).status_code == 404
    assert (await home.operator.post("/v1/idp/other/recheck", json={})).status_code == 404


# --- what came of attacks on all of the above ----------------------------------------------------------------------


@dataclass
class Slow(Diary):
    """A provider that answers when it is told to."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask_again(self, renewal: str, *, subject: str, now: datetime) -> Proven:
        self.reached.set()
        await self.go_on.wait()
        return await super().ask_again(renewal, subject=subject, now=now)


def play(home: House, provider: Diary) -> None:
    authority = home.authority
    authority.providers = provider  # type: ignore[assignment]
    authority.recheck = Recheck(authority.store, provider, authority.sealer, authority.live, authority.metrics)  # type: ignore[arg-type]


async def test_an_administrator_who_was_removed_there_administers_no_more(home: House, corp: Diary) -> None:
    corp.file = FILE.replace("roles: [developer]", "roles: [developer, admin]")
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    admin = home.client((await certificate(home)).json()["token"])
    assert (await admin.get("/v1/users")).status_code == 200
    home.clock.turn(minutes=6)
    corp.says = Refused("the account is disabled", code="identity_refused")
    body = {"name": "mallory", "roles": ["admin"], "password": "x" * 20}
    assert (await admin.post("/v1/users", json=body)).json()["error"] == "identity_refused"
    assert (await admin.get("/v1/users")).status_code == 401
    assert [one.name for one in await home.authority.store.read(users.every)] == ["alice"]


@pytest.mark.parametrize("meanwhile", ["unlink", "remove", "everywhere"])
async def test_a_yes_that_comes_too_late_gives_nothing(home: House, meanwhile: str) -> None:
    slow = Slow()
    play(home, slow)
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    home.clock.turn(minutes=6)
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(certificate(home))
        await slow.reached.wait()
        match meanwhile:
            case "unlink":
                (await home.operator.post("/v1/users/alice/unlinking")).raise_for_status()
            case "remove":
                await home.authority.change(lambda db: abandon(db, "corp", reason="removed"))
            case _:
                await sign_out(home.authority, "alice", token=None, everywhere=True, actor="user:alice")
        slow.go_on.set()
    assert asked.result().status_code == 403
    assert not await home.events("certificate.issued")
    if meanwhile != "everywhere":
        assert (await account(home)).refused is not None


async def test_a_no_that_comes_too_late_ends_no_newer_sign_in(home: House) -> None:
    slow = Slow(says=Refused("the old token is not taken", code="identity_refused"))
    play(home, slow)
    await with_provider(home.authority, "corp", proven(renewal="old"), source=SOURCE)
    home.clock.turn(minutes=6)
    async with asyncio.TaskGroup() as group:
        group.create_task(home.authority.recheck.fresh("alice"))
        await slow.reached.wait()
        await with_provider(home.authority, "corp", proven(renewal="new"), source=SOURCE)
        slow.go_on.set()
    assert (await account(home)).refused is None


async def test_a_no_at_sign_in_counts_like_any_other(home: House, corp: Diary, monkeypatch: pytest.MonkeyPatch) -> None:
    await with_provider(home.authority, "corp", proven(renewal=None), source=SOURCE)
    made, _ = await live_session(home, monkeypatch)
    with pytest.raises(Refused):
        await with_provider(home.authority, "corp", proven(groups=["guests"]), source=SOURCE)
    (order,) = await orders(made)
    assert order["code"] == "identity_refused"
    with pytest.raises(Refused):
        await with_provider(home.authority, "corp", proven("stranger", groups=["guests"]), source=SOURCE)


async def test_signing_out_everywhere_ends_sessions_that_outlived_their_certificate(
    home: House, corp: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    made, session = await live_session(home, monkeypatch)
    home.clock.turn(hours=13)
    await sign_out(home.authority, "alice", token=None, everywhere=True, actor="user:alice")
    (order,) = await orders(made)
    assert (order["session"], order["code"]) == (session, "certificate_revoked")


async def test_one_bad_row_keeps_nobody_else_unasked(home: House, corp: Diary, monkeypatch: pytest.MonkeyPatch) -> None:
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    await live_session(home, monkeypatch)
    await with_provider(home.authority, "corp", proven("z9", preferred_username="zoe"), source=SOURCE)

    def spoil(db: Db) -> None:
        tie = identities.of_user(db, "alice")
        assert tie is not None
        identities.silent(db, tie, renewal="s1:spoilt")

    await home.authority.store.write(spoil)
    home.clock.turn(minutes=6)
    corp.asked.clear()
    assert (await home.authority.recheck.now("corp"))["zoe"] is Outcome.SAME
    await home.authority.recheck.look()


async def test_a_fault_in_one_answer_ends_nothing(home: House, corp: Diary, monkeypatch: pytest.MonkeyPatch) -> None:
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    await live_session(home, monkeypatch)
    home.clock.turn(minutes=4)
    corp.says = ZeroDivisionError()
    await home.authority.recheck.look()
    assert (await account(home)).refused is None


async def test_people_of_one_provider_are_asked_about_side_by_side(home: House) -> None:
    together = asyncio.Barrier(AT_ONCE)

    @dataclass
    class Crowd(Diary):
        async def ask_again(self, renewal: str, *, subject: str, now: datetime) -> Proven:
            await together.wait()  # nobody is answered before all are asked about
            return await super().ask_again(renewal, subject=subject, now=now)

    play(home, Crowd())
    for number in range(AT_ONCE):
        claims = proven(f"s{number}", preferred_username=f"u{number}")
        await with_provider(home.authority, "corp", claims, source=SOURCE)
    async with asyncio.timeout(30):
        outcomes = await home.authority.recheck.now("corp")
    assert set(outcomes.values()) == {Outcome.SAME}


async def test_what_one_provider_gave_to_ask_with_is_not_shown_to_another(home: House, corp: Diary) -> None:
    await with_provider(home.authority, "corp", proven(renewal="of corp"), source=SOURCE)
    other = Diary(file=FILE.replace("name: corp", "name: other"))

    async def find(name: str) -> Ready:
        return Ready(1, other.provider, other)

    other.find = find  # type: ignore[method-assign]
    play(home, other)
    await with_provider(home.authority, "other", proven(renewal=None), source=SOURCE)
    tie = await home.authority.store.read(lambda db: identities.of_user(db, "alice"))
    assert tie is not None
    assert (tie.provider, tie.renewal) == ("other", None)


async def test_a_token_that_was_rotated_before_the_answer_failed_is_kept(home: House, corp: Diary) -> None:
    await with_provider(home.authority, "corp", proven(renewal="old"), source=SOURCE)
    home.clock.turn(minutes=6)
    failed = Unreachable("user information does not answer")
    failed.renewal = "newest"
    corp.says = failed
    await home.authority.recheck.fresh("alice")
    corp.says = dict(ALICE)
    home.clock.turn(minutes=6)
    await home.authority.recheck.fresh("alice")
    assert corp.asked == ["old", "newest"]


async def test_a_name_that_changed_into_none_of_ours_cuts_nobody_off(home: House, corp: Diary) -> None:
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    home.clock.turn(minutes=6)
    corp.says = {**ALICE, "preferred_username": "Alice Smith"}
    assert await home.authority.recheck.fresh("alice") is Outcome.SAME
    again = await with_provider(home.authority, "corp", proven(preferred_username="Alice Smith"), source=SOURCE)
    assert again.account.name == "alice"


async def test_a_second_outage_is_told_again(home: House, corp: Diary) -> None:
    """Also when somebody of the first one never came back."""
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    await with_provider(home.authority, "corp", proven("b", preferred_username="bob"), source=SOURCE)
    for _ in range(2):
        corp.says = Unreachable("it does not answer")
        await home.authority.recheck.now("corp")
        corp.says = dict(ALICE)
        await home.authority.recheck.now("corp", "alice")
    assert len(await home.events("provider.unreachable")) == 2
    assert len(await home.events("provider.returned")) == 2


async def test_an_old_word_with_nothing_to_ask_with_gives_no_certificate(home: House, corp: Diary) -> None:
    await with_provider(home.authority, "corp", proven(renewal=None), source=SOURCE)
    home.clock.turn(minutes=14)
    assert (await certificate(home)).status_code == 200, "a device code may have waited ten minutes for its approval"
    home.clock.turn(hours=7)
    answer = await certificate(home)
    assert (answer.status_code, answer.json()["error"]) == (403, "grant_invalid")


async def test_a_clock_that_was_days_ahead_leaves_nobody_unasked(home: House, corp: Diary) -> None:
    home.clock.turn(days=2)
    await with_provider(home.authority, "corp", proven(), source=SOURCE)
    home.clock.turn(days=-2)
    corp.says = Refused("no", code="identity_refused")
    assert await home.authority.recheck.fresh("alice") is Outcome.REFUSED


async def test_a_local_account_can_be_handed_over_to_a_provider(home: House, corp: Diary) -> None:
    await home.user("alice", "developer")
    with pytest.raises(Refused) as caught:
        await with_provider(home.authority, "corp", proven(), source=SOURCE)
    assert "users hand-over alice --provider corp" in str(caught.value.hint)
    token = (await home.login("alice")).json()["token"]
    answer = await home.operator.post("/v1/users/alice/handing-over", json={"provider": "corp"})
    assert answer.status_code == 204
    assert (await home.client(token).get("/v1/me")).status_code == 401
    assert (await home.login("alice")).status_code == 401, "the password is gone"
    signed_in = await with_provider(home.authority, "corp", proven(), source=SOURCE)
    assert (signed_in.account.name, signed_in.account.roles) == ("alice", ("developer",))
    again = await home.operator.post("/v1/users/alice/handing-over", json={"provider": "corp"})
    assert again.status_code == 409
    assert (await home.operator.post("/v1/users/x/handing-over", json={"provider": "other"})).status_code == 404
