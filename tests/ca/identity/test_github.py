"""GitHub as a provider: who somebody is, in which organisations and teams, and whether that still holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from ca.identity.github import GitHub
from ca.identity.provider import Attempt, Proven, Refused, Unreachable
from tests.ca.identity.hub import API, Hub, running_hub
from tests.ca.identity.provider import Reply, challenge

ATTEMPT = Attempt(
    redirect_uri="https://bartizan.example/sign-in/callback/github",
    state="the-state",
    nonce="the-nonce",
    verifier="a-verifier-of-at-least-forty-three-characters-x",
)
NOW = datetime(2026, 11, 28, tzinfo=UTC)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as running:
        yield running


@pytest.fixture
async def door(hub: Hub) -> AsyncIterator[GitHub]:
    made = GitHub(hub, hub.secret)
    yield made
    await made.close()


async def came_back(door: GitHub) -> dict[str, str]:
    async with httpx.AsyncClient(trust_env=False) as browser:
        answer = await browser.get(await door.address(ATTEMPT))
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


async def signed_in(door: GitHub) -> Proven:
    return await door.prove(ATTEMPT, await came_back(door), now=NOW)


async def test_a_sign_in_proves_the_numeric_id_with_organisations_and_teams(hub: Hub, door: GitHub) -> None:
    proven = await signed_in(door)
    assert (proven.issuer, proven.subject) == (hub.issuer, "583231")
    assert {proven.renewal} == hub.tokens
    assert proven.claims == {
        "id": "583231",
        "login": "octocat",
        "name": "The Octocat",
        "email": "octocat@example.com",
        "email_verified": True,
        "orgs": ["example"],
        "teams": ["example/sre"],
    }


async def test_the_browser_is_sent_with_state_and_s256(hub: Hub, door: GitHub) -> None:
    """OIDC-10"""
    address = urlsplit(await door.address(ATTEMPT))
    assert f"{address.scheme}://{address.netloc}{address.path}" == f"{hub.issuer}/login/oauth/authorize"
    query = {name: values[0] for name, values in parse_qs(address.query).items()}
    assert query["code_challenge"] == challenge(ATTEMPT.verifier)
    assert query["code_challenge_method"] == "S256"
    assert query["state"] == ATTEMPT.state
    assert query["scope"] == "read:user user:email read:org"


async def test_the_api_is_asked_as_documented(hub: Hub, door: GitHub) -> None:
    await signed_in(door)
    asked = [asked for asked in hub.diary if asked.path.startswith(API)]
    assert {one.headers["accept"] for one in asked} == {"application/vnd.github+json"}
    assert [one.path.removeprefix(API) for one in asked] == ["/user", "/user/emails", "/user/orgs", "/user/teams"]


async def test_only_what_the_file_reads_is_asked_for(hub: Hub, door: GitHub) -> None:
    hub.claims_used = frozenset({"login"})
    assert (await signed_in(door)).claims.keys() == {"id", "login", "name"}
    assert {asked.path for asked in hub.diary if asked.path.startswith(API)} == {f"{API}/user"}


def test_github_com_has_its_api_on_a_host_of_its_own() -> None:
    public = Hub(issuer="https://github.com")
    assert GitHub(public, "x")._api == "https://api.github.com"
    assert (
        GitHub(replace(public, issuer="https://github.example.com/"), "x")._api == "https://github.example.com/api/v3"
    )


@pytest.mark.parametrize("flaw", [{"primary": False}, {"verified": False}, {"verified": "true"}])
async def test_an_address_that_github_did_not_verify_is_no_address(
    hub: Hub, door: GitHub, flaw: dict[str, object]
) -> None:
    """OIDC-11"""
    hub.emails[1] |= flaw
    claims = (await signed_in(door)).claims
    assert "email" not in claims
    assert "email_verified" not in claims


async def test_long_lists_are_read_page_by_page(hub: Hub, door: GitHub) -> None:
    hub.page = 3
    hub.teams = [("example", f"team-{number}") for number in range(10)]
    claims = (await signed_in(door)).claims
    assert claims["teams"] == [f"example/team-{number}" for number in range(10)]


async def test_lists_without_end_are_not_read_to_the_end(hub: Hub, door: GitHub) -> None:
    again = f'<{hub.issuer}{API}/user/orgs?page=2>; rel="next"'
    hub.bent[f"{API}/user/orgs"] = Reply([{"login": "example"}], headers={"Link": again})
    with pytest.raises(Unreachable, match="more than 2000"):
        await signed_in(door)


async def test_a_next_page_elsewhere_is_not_read(hub: Hub, door: GitHub) -> None:
    """OIDC-14"""
    elsewhere = '<https://evil.example/user/orgs?page=2>; rel="next"'
    hub.bent[f"{API}/user/orgs"] = Reply([{"login": "example"}], headers={"Link": elsewhere})
    with pytest.raises(Unreachable) as caught:
        await signed_in(door)
    assert caught.value.code == "provider_origin"


async def test_a_code_works_once(door: GitHub) -> None:
    answer = await came_back(door)
    await door.prove(ATTEMPT, answer, now=NOW)
    with pytest.raises(Refused) as caught:
        await door.prove(ATTEMPT, answer, now=NOW)
    assert caught.value.code == "code_refused"


async def test_the_verifier_of_another_sign_in_is_refused(door: GitHub) -> None:
    """OIDC-10"""
    with pytest.raises(Refused) as caught:
        await door.prove(replace(ATTEMPT, verifier="v" * 43), await came_back(door), now=NOW)
    assert caught.value.code == "code_refused"


async def test_a_person_who_says_no_is_told_so(door: GitHub) -> None:
    answer = {"error": "access_denied", "error_description": "The user has denied your application access."}
    with pytest.raises(Refused) as caught:
        await door.prove(ATTEMPT, answer, now=NOW)
    assert caught.value.code == "provider_refused"


async def test_a_wrong_secret_is_our_trouble(hub: Hub, door: GitHub) -> None:
    answer = await came_back(door)
    hub.secret = "another"
    with pytest.raises(Unreachable, match="incorrect_client_credentials") as caught:
        await door.prove(ATTEMPT, answer, now=NOW)
    assert caught.value.code == "provider_client"


# --- asking again ---------------------------------------------------------------------------------------------


async def test_asking_again_gives_the_teams_of_now(hub: Hub, door: GitHub) -> None:
    proven = await signed_in(door)
    hub.teams = []
    hub.person["login"] = "renamed"
    again = await door.ask_again(str(proven.renewal), subject=proven.subject, now=NOW)
    assert (again.claims["teams"], again.claims["login"], again.renewal) == ([], "renamed", proven.renewal)


async def test_a_token_that_was_taken_back_is_refused(hub: Hub, door: GitHub) -> None:
    """OIDC-19"""
    proven = await signed_in(door)
    hub.tokens.clear()
    with pytest.raises(Refused) as caught:
        await door.ask_again(str(proven.renewal), subject=proven.subject, now=NOW)
    assert caught.value.code == "identity_refused"


async def test_a_suspended_person_is_refused(hub: Hub, door: GitHub) -> None:
    """OIDC-19"""
    proven = await signed_in(door)
    hub.bent[f"{API}/user"] = Reply({"message": "Sorry. Your account was suspended."}, 403)
    with pytest.raises(Refused) as caught:
        await door.ask_again(str(proven.renewal), subject=proven.subject, now=NOW)
    assert caught.value.code == "identity_refused"


async def test_another_person_behind_the_token_is_refused(hub: Hub, door: GitHub) -> None:
    proven = await signed_in(door)
    hub.person["id"] = 1
    with pytest.raises(Refused) as caught:
        await door.ask_again(str(proven.renewal), subject=proven.subject, now=NOW)
    assert caught.value.code == "token_subject"


@pytest.mark.parametrize("path", ["/user", "/user/emails", "/user/orgs", "/user/teams"])
@pytest.mark.parametrize(
    "reply",
    [
        Reply({"message": "API rate limit exceeded"}, 403),
        Reply({"message": "slow down"}, 429),
        Reply({}, 502),
        Reply(b"<html>"),
        Reply([7]),
        Reply([{"primary": True, "verified": True}]),
        Reply({"id": "583231", "login": "octocat"}),
        Reply({"id": True, "login": "octocat"}),
        Reply({"id": 583_231}),
    ],
    ids=repr,
)
async def test_a_github_in_trouble_says_nothing_about_the_person(
    hub: Hub, door: GitHub, path: str, reply: Reply
) -> None:
    proven = await signed_in(door)
    hub.bent[API + path] = reply
    with pytest.raises(Unreachable):
        await door.ask_again(str(proven.renewal), subject=proven.subject, now=NOW)


# --- trying it out --------------------------------------------------------------------------------------------


async def probed(door: GitHub) -> dict[str, Any]:
    return {probe.what: probe.ok for probe in await door.probe(now=datetime.now(UTC))}


async def test_a_right_github_passes_its_trial(door: GitHub) -> None:
    assert await probed(door) == {"discovery": True, "clock": True, "keys": None, "client": True}


async def test_a_trial_tells_what_is_wrong(hub: Hub, door: GitHub) -> None:
    hub.secret = "another"
    hub.ahead = -300
    hub.bent[f"{API}/meta"] = Reply({}, 404)
    assert await probed(door) == {"discovery": False, "clock": False, "keys": None, "client": False}


async def test_a_pasted_token_is_asked_for_its_owner_and_gives_no_renewal(hub: Hub, door: GitHub) -> None:
    token = str((await signed_in(door)).renewal)
    read = await door.read_token(token, now=NOW)
    assert (read.subject, read.renewal) == ("583231", None)
