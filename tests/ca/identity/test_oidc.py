"""One provider, right and wrong: what a sign-in through it proves, and what a provider that misbehaves gets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ca.identity.fetch import WayOut
from ca.identity.oidc import Oidc
from ca.identity.provider import Attempt, Proven, Refused, Unreachable
from tests.ca.identity.provider import (
    DISCOVERY,
    EC_KEY,
    ED_KEY,
    OTHER_RSA_KEY,
    RSA_KEY,
    Asked,
    Key,
    Provider,
    Reply,
    challenge,
    running_provider,
)

ATTEMPT = Attempt(
    redirect_uri="https://bartizan.example/sign-in/callback/corp",
    state="the-state",
    nonce="the-nonce",
    verifier="a-verifier-of-at-least-forty-three-characters-x",
)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running_provider() as running:
        yield running


class Clock:
    """Seconds that only tests set."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@asynccontextmanager
async def oidc(
    provider: Provider, *, clock: Callable[[], float] = time.monotonic, seconds: float = 5
) -> AsyncIterator[Oidc]:
    way = WayOut([provider.issuer, *provider.also], seconds=seconds)
    made = Oidc(provider, provider.secret, clock=clock, way=way)
    try:
        yield made
    finally:
        await made.close()


def now() -> datetime:
    return datetime.now(UTC)


async def signed_in(door: Oidc, provider: Provider, **answer: str | None) -> Proven:
    """Go through the browser and come back, with this in the answer (None: without it)."""
    given = provider.authorize(await door.address(ATTEMPT)) | answer
    return await door.prove(ATTEMPT, {name: value for name, value in given.items() if value is not None}, now=now())


async def refusal(provider: Provider, **answer: str | None) -> str:
    async with oidc(provider) as door:
        with pytest.raises(Refused) as caught:
            await signed_in(door, provider, **answer)
    return caught.value.code


async def trouble(provider: Provider, *, seconds: float = 5) -> Unreachable:
    async with oidc(provider, seconds=seconds) as door:
        with pytest.raises(Unreachable) as caught:
            await signed_in(door, provider)
    return caught.value


# --- a right provider -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "alg"), [(RSA_KEY, "RS256"), (RSA_KEY, "PS256"), (EC_KEY, "ES256")])
async def test_a_sign_in_proves_issuer_subject_and_claims(provider: Provider, key: Key, alg: str) -> None:
    provider.sign_with, provider.alg = key, alg
    async with oidc(provider) as door:
        proven = await signed_in(door, provider)
    assert (proven.issuer, proven.subject) == (provider.issuer, provider.subject)
    assert proven.claims["preferred_username"] == "alice"
    assert {proven.renewal} == provider.refresh_tokens


async def test_the_browser_is_sent_with_state_nonce_and_s256(provider: Provider) -> None:
    """OIDC-10"""
    async with oidc(provider) as door:
        address = urlsplit(await door.address(ATTEMPT))
    assert f"{address.scheme}://{address.netloc}{address.path}" == f"{provider.issuer}/authorize"
    assert parse_qs(address.query, strict_parsing=True) == {
        "response_type": ["code"],
        "client_id": [provider.client],
        "redirect_uri": [ATTEMPT.redirect_uri],
        "scope": ["openid profile"],
        "state": [ATTEMPT.state],
        "nonce": [ATTEMPT.nonce],
        "code_challenge": [challenge(ATTEMPT.verifier)],
        "code_challenge_method": ["S256"],
    }
    assert ATTEMPT.verifier not in address.query


async def test_a_provider_that_knows_only_plain_is_sent_s256_all_the_same(provider: Provider) -> None:
    """OIDC-10"""
    provider.metadata["code_challenge_methods_supported"] = ["plain"]
    async with oidc(provider) as door:
        assert "code_challenge_method=S256" in await door.address(ATTEMPT)


async def test_offline_access_is_asked_for_when_the_file_lists_it_and_with_consent(provider: Provider) -> None:
    provider.scopes = ("openid", "offline_access")
    async with oidc(provider) as door:
        query = parse_qs(urlsplit(await door.address(ATTEMPT)).query)
    assert query["scope"] == ["openid offline_access"]
    assert query["prompt"] == ["consent"]


@pytest.mark.parametrize("methods", [["client_secret_basic"], ["client_secret_post"], None])
async def test_the_secret_is_shown_as_the_metadata_say(provider: Provider, methods: list[str] | None) -> None:
    provider.metadata["token_endpoint_auth_methods_supported"] = methods
    async with oidc(provider) as door:
        await signed_in(door, provider)
    asked = next(asked for asked in provider.diary if asked.path == "/token")
    assert ("client_secret" in asked.form) == (methods == ["client_secret_post"])


async def test_a_public_client_shows_no_secret(provider: Provider) -> None:
    provider.secret = None
    async with oidc(provider) as door:
        assert await signed_in(door, provider)


async def test_a_provider_that_takes_no_secret_of_ours_is_unreachable(provider: Provider) -> None:
    provider.metadata["token_endpoint_auth_methods_supported"] = ["private_key_jwt"]
    assert (await trouble(provider)).code == "provider_metadata"


# --- metadata -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("issuer", [None, "https://evil.example", "", 7])
async def test_metadata_of_another_issuer_let_nobody_in(provider: Provider, issuer: object) -> None:
    """OIDC-03"""
    provider.metadata["issuer"] = issuer
    assert (await trouble(provider)).code == "provider_issuer"


async def test_metadata_that_differ_by_a_slash_let_nobody_in(provider: Provider) -> None:
    """OIDC-03"""
    provider.metadata["issuer"] = provider.issuer + "/"
    assert (await trouble(provider)).code == "provider_issuer"


async def test_an_issuer_with_a_slash_is_found_under_its_own_name(provider: Provider) -> None:
    provider.issuer += "/"
    provider.metadata = {
        f"{name}": f"{provider.issuer}{path}"
        for name, path in {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "jwks"}.items()
    }
    async with oidc(provider) as door:
        assert (await signed_in(door, provider)).issuer == provider.issuer


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "jwks_uri"])
@pytest.mark.parametrize("value", [None, 7, ""])
async def test_metadata_without_a_door_let_nobody_in(provider: Provider, name: str, value: object) -> None:
    provider.metadata[name] = value
    assert (await trouble(provider)).code == "provider_metadata"


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"])
@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://id.example.com/x", "provider_address"),
        ("http://169.254.169.254/latest", "provider_address"),
        ("http://localhost:80@evil.example/x", "provider_address"),
        ("http://localhost/x", "provider_origin"),
        ("https://evil.example/x", "provider_origin"),
    ],
)
async def test_metadata_that_point_elsewhere_are_refused(provider: Provider, name: str, url: str, code: str) -> None:
    """OIDC-14"""
    provider.metadata[name] = url
    assert (await trouble(provider)).code == code


async def test_what_the_file_lists_beside_the_issuer_may_hold_the_keys(provider: Provider) -> None:
    with running_provider() as keys:
        provider.metadata["jwks_uri"] = f"{keys.issuer}/jwks"
        provider.also = (keys.issuer,)
        async with oidc(provider) as door:
            assert await signed_in(door, provider)
        assert keys.times_asked("/jwks") == 1


# --- the answer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("iss", [None, "https://other.example", ""])
async def test_the_answer_of_another_provider_is_refused_before_its_code_is_used(
    provider: Provider, iss: str | None
) -> None:
    """OIDC-09"""
    assert await refusal(provider, iss=iss) == "issuer_mismatch"
    assert provider.times_asked("/token") == 0


async def test_a_wrong_issuer_in_the_answer_counts_even_when_none_was_promised(provider: Provider) -> None:
    """OIDC-09"""
    provider.metadata["authorization_response_iss_parameter_supported"] = None
    assert await refusal(provider, iss="https://other.example") == "issuer_mismatch"
    async with oidc(provider) as door:
        assert await signed_in(door, provider, iss=None)


async def test_a_code_of_one_provider_opens_nothing_at_another(provider: Provider) -> None:
    """OIDC-09"""
    with running_provider() as other:
        async with oidc(provider) as door, oidc(other) as second:
            await door.address(ATTEMPT)
            foreign = other.authorize(await second.address(ATTEMPT))
            with pytest.raises(Refused) as caught:
                await door.prove(ATTEMPT, foreign, now=now())
            assert caught.value.code == "issuer_mismatch"
            with pytest.raises(Refused) as caught:
                await door.prove(ATTEMPT, {**foreign, "iss": provider.issuer}, now=now())
            assert caught.value.code == "code_refused"


async def test_a_refusal_is_told_in_a_plain_sentence(provider: Provider) -> None:
    words = "no\x1b[2J\u202eway" + "!" * 5_000
    async with oidc(provider) as door:
        with pytest.raises(Refused) as caught:
            await signed_in(door, provider, error="access_denied", error_description=words)
    assert caught.value.code == "provider_refused"
    assert str(caught.value).startswith(
        "the provider did not confirm this sign-in: access_denied (“no\\x1b[2J\\u202eway!"
    )
    assert len(str(caught.value)) < 320


async def test_a_provider_that_says_later_is_unreachable(provider: Provider) -> None:
    async with oidc(provider) as door:
        with pytest.raises(Unreachable, match="temporarily_unavailable"):
            await signed_in(door, provider, error="temporarily_unavailable")


@pytest.mark.parametrize("code", [None, "", "x" * 10_000])
async def test_an_answer_without_a_code_is_refused(provider: Provider, code: str | None) -> None:
    assert await refusal(provider, code=code) == "code_refused"


# --- the code -------------------------------------------------------------------------------------------------


async def test_a_code_works_once(provider: Provider) -> None:
    async with oidc(provider) as door:
        answer = provider.authorize(await door.address(ATTEMPT))
        await door.prove(ATTEMPT, answer, now=now())
        with pytest.raises(Refused) as caught:
            await door.prove(ATTEMPT, answer, now=now())
    assert caught.value.code == "code_refused"


async def test_the_verifier_of_another_sign_in_is_refused(provider: Provider) -> None:
    """OIDC-10"""
    async with oidc(provider) as door:
        answer = provider.authorize(await door.address(ATTEMPT))
        with pytest.raises(Refused, match="PKCE verification failed") as caught:
            await door.prove(replace(ATTEMPT, verifier="v" * 43), answer, now=now())
    assert caught.value.code == "code_refused"


async def test_a_token_for_another_sign_in_is_refused(provider: Provider) -> None:
    """OIDC-05"""
    async with oidc(provider) as door:
        answer = provider.authorize(await door.address(ATTEMPT))
        with pytest.raises(Refused) as caught:
            await door.prove(replace(ATTEMPT, nonce="another"), answer, now=now())
    assert caught.value.code == "token_nonce"


@pytest.mark.parametrize("nonce", [None, ""])
async def test_a_sign_in_without_a_nonce_is_a_mistake_of_ours_and_lets_nobody_in(
    provider: Provider, nonce: str | None
) -> None:
    """OIDC-05"""
    async with oidc(provider) as door:
        answer = provider.authorize(await door.address(ATTEMPT))
        with pytest.raises(ValueError, match="nonce"):
            await door.prove(replace(ATTEMPT, nonce=nonce), answer, now=now())


async def test_a_wrong_secret_is_our_trouble_and_says_so(provider: Provider) -> None:
    async with oidc(provider) as door:
        provider.secret = "another"
        with pytest.raises(Unreachable, match="invalid_client") as caught:
            await signed_in(door, provider)
    assert caught.value.code == "provider_client"
    assert "secret" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"iss": "https://evil.example"}, "token_issuer"),
        ({"aud": "other"}, "token_audience"),
        ({"nonce": None}, "token_nonce"),
        ({"exp": time.time() - 100}, "token_expired"),
        ({"iat": time.time() + 3_600}, "token_not_yet"),
        ({"at_hash": "wrong"}, "token_at_hash"),
        ({"sub": None}, "token_subject"),
    ],
)
async def test_a_token_that_does_not_hold_lets_nobody_in(provider: Provider, claims: dict[str, Any], code: str) -> None:
    """OIDC-03, OIDC-05, OIDC-06, OIDC-07"""
    provider.claims |= claims
    assert await refusal(provider) == code


async def test_a_header_that_brings_its_own_key_lets_nobody_in(provider: Provider) -> None:
    """OIDC-02"""
    provider.sign_with = OTHER_RSA_KEY
    provider.header = {"kid": "r1", "jwk": OTHER_RSA_KEY.as_dict(private=False)}
    assert await refusal(provider) == "token_header"


async def test_a_provider_whose_clock_is_five_minutes_ahead_lets_nobody_in(provider: Provider) -> None:
    provider.ahead = 300
    assert await refusal(provider) == "token_not_yet"


async def test_a_provider_whose_clock_is_behind_lets_people_in_while_its_tokens_live(provider: Provider) -> None:
    provider.ahead = -300  # its tokens live for as long
    async with oidc(provider) as door:
        assert await signed_in(door, provider)
    provider.ahead = -400
    assert await refusal(provider) == "token_expired"


# --- keys -----------------------------------------------------------------------------------------------------


async def test_a_provider_may_change_its_keys(provider: Provider) -> None:
    clock = Clock()
    async with oidc(provider, clock=clock) as door:
        await signed_in(door, provider)
        provider.keys, provider.sign_with = [OTHER_RSA_KEY], OTHER_RSA_KEY
        clock.seconds += 61
        assert await signed_in(door, provider)
    assert provider.times_asked("/jwks") == 2


async def test_a_thousand_unknown_keys_ask_for_the_keys_once_a_minute(provider: Provider) -> None:
    """OIDC-15"""
    clock = Clock()
    async with oidc(provider, clock=clock) as door:
        await signed_in(door, provider)
        for minute in range(2):
            clock.seconds += 61
            async with asyncio.TaskGroup() as group:
                for number in range(500):
                    provider.header = {"kid": f"unknown-{minute}-{number}"}
                    group.create_task(_refused(door, provider.token()))
            assert provider.times_asked("/jwks") == 2 + minute


async def _refused(door: Oidc, token: str) -> None:
    with pytest.raises(Refused) as caught:
        await door.read_token(token, now=now())
    assert caught.value.code == "token_key_unknown"


async def test_a_key_that_was_taken_back_is_not_believed_for_longer_than_an_hour(provider: Provider) -> None:
    clock = Clock()
    async with oidc(provider, clock=clock) as door:
        await signed_in(door, provider)
        provider.keys = [EC_KEY]
        clock.seconds += 3_601
        with pytest.raises(Refused) as caught:
            await signed_in(door, provider)
    assert caught.value.code == "token_key_unknown"


async def test_nobody_is_sent_off_to_a_provider_that_is_down(provider: Provider) -> None:
    """Its metadata is still believed for everything else."""
    clock = Clock()
    async with oidc(provider, clock=clock) as door:
        await signed_in(door, provider)
        provider.bent["/.well-known/openid-configuration"] = Reply({}, status=503)
        clock.seconds += 10
        with pytest.raises(Unreachable):
            await door.address(ATTEMPT)
        await door.read_token(provider.token(), now=now())


async def test_a_key_that_becomes_another_type_under_its_name_is_not_believed(provider: Provider) -> None:
    """OIDC-16"""
    clock = Clock()
    async with oidc(provider, clock=clock) as door:
        await signed_in(door, provider)
        provider.bent["/jwks"] = Reply({"keys": [{**ED_KEY.as_dict(private=False), "kid": "r1"}]})
        provider.sign_with, provider.alg, provider.header = ED_KEY, "EdDSA", {"kid": "r1"}
        with pytest.raises(Refused) as caught:
            await signed_in(door, provider)
        assert caught.value.code == "token_key"
        clock.seconds += 3_601
        with pytest.raises(Refused) as caught:
            await signed_in(door, provider)
    assert caught.value.code == "token_key_unknown"


async def test_a_key_for_encryption_lets_nobody_in(provider: Provider) -> None:
    """OIDC-16"""
    provider.bent["/jwks"] = Reply({"keys": [{**RSA_KEY.as_dict(private=False), "use": "enc"}]})
    assert await refusal(provider) == "token_key"


# --- trouble --------------------------------------------------------------------------------------------------

GARBAGE = [Reply(b"<html>"), Reply(b""), Reply([]), Reply({}), Reply({"keys": 7}), Reply({}, 404), Reply({}, 302)]


@pytest.mark.parametrize("path", [DISCOVERY, "/jwks", "/token"])
@pytest.mark.parametrize("reply", [*GARBAGE, Reply({}, 503), Reply({}, 429), Reply(b"{", megabytes=9)], ids=repr)
async def test_garbage_at_any_door_is_unreachable(provider: Provider, path: str, reply: Reply) -> None:
    provider.bent[path] = reply
    assert await trouble(provider)


@pytest.mark.parametrize("path", [DISCOVERY, "/jwks", "/token"])
async def test_a_slow_door_is_unreachable(provider: Provider, path: str) -> None:
    provider.bent[path] = Reply({}, pause=60)
    assert "did not answer" in str(await trouble(provider, seconds=0.5))


async def test_those_who_wait_for_a_provider_that_is_down_do_not_wait_one_after_the_other(provider: Provider) -> None:
    provider.bent[DISCOVERY] = Reply({}, pause=60)
    async with oidc(provider, seconds=1) as door:

        async def fails() -> None:
            with pytest.raises(Unreachable):
                await door.address(ATTEMPT)

        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(fails())
    assert provider.times_asked(DISCOVERY) == 1


async def test_a_provider_that_comes_back_is_asked_at_once(provider: Provider) -> None:
    provider.bent[DISCOVERY] = Reply({}, 503)
    async with oidc(provider) as door:
        with pytest.raises(Unreachable):
            await door.address(ATTEMPT)
        provider.bent.clear()
        assert await signed_in(door, provider)
        assert provider.times_asked(DISCOVERY) == 2


@pytest.mark.parametrize(
    "said",
    [
        {"token_type": "DPoP"},
        {"token_type": None},
        {"access_token": None},
        {"access_token": "a\nb"},
        {"id_token": 7},
        {"id_token": None},
        {"refresh_token": ["x"]},
    ],
)
async def test_tokens_that_are_none_are_unreachable(provider: Provider, said: dict[str, Any]) -> None:
    right = {"access_token": "a", "token_type": "Bearer", "id_token": "x.y.z"}
    provider.bent["/token"] = Reply(right | said)
    assert await trouble(provider)


# --- user information -----------------------------------------------------------------------------------------


async def test_what_the_token_lacks_comes_from_the_user_information_and_the_token_wins(provider: Provider) -> None:
    provider.claims_used = frozenset({"preferred_username", "groups"})
    provider.information = {"preferred_username": "mallory", "groups": ["sre"]}
    async with oidc(provider) as door:
        claims = (await signed_in(door, provider)).claims
    assert (claims["preferred_username"], claims["groups"]) == ("alice", ["sre"])


async def test_the_user_information_is_not_asked_when_the_token_says_all(provider: Provider) -> None:
    async with oidc(provider) as door:
        await signed_in(door, provider)
    assert provider.times_asked("/userinfo") == 0


@pytest.mark.parametrize(
    ("signed", "information", "expected"),
    [
        ({"email": "a@x"}, {"email": "b@x", "email_verified": True}, ("a@x", None)),
        ({"email": "a@x"}, {"email": "a@x", "email_verified": True}, ("a@x", True)),
        ({"email_verified": True}, {"email": "b@x"}, ("b@x", None)),
        ({"email_verified": True}, {"email": "b@x", "email_verified": False}, ("b@x", False)),
        ({"email": "a@x", "email_verified": False}, {"email": "b@x", "email_verified": True}, ("a@x", False)),
    ],
)
async def test_one_address_is_not_verified_by_a_word_about_another(
    provider: Provider, signed: dict[str, Any], information: dict[str, Any], expected: tuple[object, object]
) -> None:
    """OIDC-11"""
    provider.claims_used = frozenset({"groups"})
    provider.claims |= signed
    provider.information = information
    async with oidc(provider) as door:
        claims = (await signed_in(door, provider)).claims
    assert (claims["email"], claims.get("email_verified")) == expected


@pytest.mark.parametrize("subject", ["another", None, ["x"]])
async def test_user_information_of_another_person_is_refused(provider: Provider, subject: object) -> None:
    provider.claims_used = frozenset({"groups"})
    provider.information = {"sub": subject}
    assert await refusal(provider) == "token_subject"


# --- asking again ---------------------------------------------------------------------------------------------


async def test_asking_again_gives_new_claims_and_the_newest_renewal(provider: Provider) -> None:
    async with oidc(provider) as door:
        first = await signed_in(door, provider)
        provider.claims["preferred_username"] = "alice2"
        again = await door.ask_again(str(first.renewal), subject=first.subject, now=now())
    assert again.claims["preferred_username"] == "alice2"
    assert again.renewal != first.renewal
    assert {again.renewal} == provider.refresh_tokens


async def test_a_person_whom_the_provider_dropped_is_refused(provider: Provider) -> None:
    """OIDC-19"""
    async with oidc(provider) as door:
        proven = await signed_in(door, provider)
        provider.refresh_tokens.clear()
        with pytest.raises(Refused, match="does not renew") as caught:
            await door.ask_again(str(proven.renewal), subject=proven.subject, now=now())
    assert caught.value.code == "identity_refused"


async def test_another_person_in_a_refreshed_token_is_refused(provider: Provider) -> None:
    async with oidc(provider) as door:
        proven = await signed_in(door, provider)
        provider.subject = "another"
        with pytest.raises(Refused) as caught:
            await door.ask_again(str(proven.renewal), subject=proven.subject, now=now())
    assert caught.value.code == "token_subject"


@pytest.mark.parametrize(
    "reply",
    [
        *GARBAGE,
        Reply({"error": "invalid_grant"}, 500),
        Reply({"error": "invalid_client"}, 401),
        Reply({"error": "unauthorized_client"}, 400),
        Reply({"error": "server_error"}, 400),
        Reply({"error": 7}, 400),
        Reply({}, pause=60),
    ],
    ids=repr,
)
async def test_a_provider_in_trouble_says_nothing_about_the_person(provider: Provider, reply: Reply) -> None:
    async with oidc(provider, seconds=1) as door:
        proven = await signed_in(door, provider)
        provider.bent["/token"] = reply
        with pytest.raises(Unreachable):
            await door.ask_again(str(proven.renewal), subject=proven.subject, now=now())


@pytest.mark.parametrize("claims", [{"exp": 1}, {"iss": "https://evil.example"}, {"aud": "other"}, {"at_hash": "x"}])
async def test_a_refreshed_token_that_does_not_hold_says_nothing_about_the_person(
    provider: Provider, claims: dict[str, Any]
) -> None:
    async with oidc(provider) as door:
        proven = await signed_in(door, provider)
        provider.claims |= claims
        with pytest.raises(Unreachable):
            await door.ask_again(str(proven.renewal), subject=proven.subject, now=now())


async def test_a_renewal_that_was_rotated_before_something_failed_is_not_lost(provider: Provider) -> None:
    provider.claims_used = frozenset({"groups"})
    async with oidc(provider) as door:
        proven = await signed_in(door, provider)
        provider.bent["/userinfo"] = Reply({}, 503)
        for _ in range(2):
            with pytest.raises(Unreachable) as caught:
                await door.ask_again(str(proven.renewal), subject=proven.subject, now=now())
        assert {caught.value.renewal} == provider.refresh_tokens
        assert str(caught.value.renewal) not in f"{caught.value!r} {caught.value.hint}"
        provider.bent.clear()
        again = await door.ask_again(str(proven.renewal), subject=proven.subject, now=now())
    assert {again.renewal} == provider.refresh_tokens, "also for who could not keep it"


async def test_a_renewal_that_came_with_a_failure_is_good_after_a_restart(provider: Provider) -> None:
    provider.claims_used = frozenset({"groups"})
    async with oidc(provider) as door:
        proven = await signed_in(door, provider)
        provider.bent["/userinfo"] = Reply({}, 503)
        with pytest.raises(Unreachable) as caught:
            await door.ask_again(str(proven.renewal), subject=proven.subject, now=now())
    provider.bent.clear()
    async with oidc(provider) as door:
        again = await door.ask_again(str(caught.value.renewal), subject=proven.subject, now=now())
    assert again.subject == proven.subject


async def test_a_failure_before_the_renewal_was_used_brings_none(provider: Provider) -> None:
    async with oidc(provider) as door:
        proven = await signed_in(door, provider)
        provider.bent["/token"] = Reply({}, 503)
        with pytest.raises(Unreachable) as caught:
            await door.ask_again(str(proven.renewal), subject=proven.subject, now=now())
    assert caught.value.renewal is None


async def test_a_renewal_is_not_lost_when_nobody_waits_for_the_answer(provider: Provider) -> None:
    provider.claims_used = frozenset({"groups"})
    async with oidc(provider) as door:
        proven = await signed_in(door, provider)
        provider.bent["/userinfo"] = Reply({}, pause=3)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await door.ask_again(str(proven.renewal), subject=proven.subject, now=now())
        provider.bent.clear()
        again = await door.ask_again(str(proven.renewal), subject=proven.subject, now=now())
    assert {again.renewal} == provider.refresh_tokens


async def test_without_a_new_token_the_user_information_tells(provider: Provider) -> None:
    async with oidc(provider) as door:
        proven = await signed_in(door, provider)
        provider.bent["/token"] = Reply({"access_token": "a", "token_type": "bearer"})
        provider.information = {"preferred_username": "alice3"}
        again = await door.ask_again(str(proven.renewal), subject=proven.subject, now=now())
        assert (again.claims["preferred_username"], again.renewal) == ("alice3", proven.renewal)
        provider.information["sub"] = "another"
        with pytest.raises(Refused):
            await door.ask_again(str(proven.renewal), subject=proven.subject, now=now())


# --- trying it out --------------------------------------------------------------------------------------------


async def probed(provider: Provider) -> dict[str, tuple[bool | None, str]]:
    async with oidc(provider) as door:
        return {probe.what: (probe.ok, probe.detail) for probe in await door.probe(now=now())}


async def test_a_right_provider_passes_its_trial(provider: Provider) -> None:
    found = await probed(provider)
    assert {what: ok for what, (ok, _) in found.items()} == {
        "discovery": True,
        "clock": True,
        "keys": True,
        "client": True,
    }
    assert found["keys"][1].startswith("3 that can sign")


async def test_a_trial_tells_what_is_wrong(provider: Provider) -> None:
    provider.ahead = 300
    provider.bent["/jwks"] = Reply({"keys": []})
    provider.bent["/token"] = Reply({"error": "invalid_client"}, 401)
    found = await probed(provider)
    assert found["discovery"][0]
    assert found["clock"] == (False, found["clock"][1])
    assert "ahead" in found["clock"][1]
    assert found["keys"] == (False, "none that can sign")
    assert not found["client"][0]


@pytest.mark.parametrize("reply", GARBAGE, ids=repr)
async def test_a_trial_never_fails_itself(provider: Provider, reply: Reply) -> None:
    provider.bent[DISCOVERY] = reply
    found = await probed(provider)
    assert (found["discovery"][0], found["keys"][0], found["client"][0]) == (False, None, None)
    assert found["keys"][1] == "it needs what discovery finds"


async def test_a_pasted_token_is_read_by_the_same_rules(provider: Provider) -> None:
    async with oidc(provider) as door:
        assert (await door.read_token(provider.token(), now=now())).subject == provider.subject
        with pytest.raises(Refused):
            await door.read_token(provider.token() + "x", now=now())


# --- secrets --------------------------------------------------------------------------------------------------


async def test_no_message_holds_a_secret(provider: Provider) -> None:
    def echo(asked: Asked) -> Reply:
        return Reply(repr(asked).encode(), 400)

    provider.bent["/token"] = echo
    message = repr(await trouble(provider))
    for secret in (str(provider.secret), ATTEMPT.verifier, "code="):
        assert secret not in message
