"""ca/web/with_provider.py: whoever comes back from a provider is who went there, once, in time, to the same one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from ca.errors import AccessDenied, BartizanError
from ca.identity.provider import Refused, Unreachable
from tests.ca.house import House, house
from tests.ca.web.provider import Stand, provided, sent_off
from tests.ca.web.visiting import forms, somebody, visitor

TERMINAL = f"/sign-in/terminal?challenge={'c' * 43}&port=41234&state={'s' * 22}&host=laptop"


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        await made.roles()
        await made.user("alice", "developer")
        yield made


@pytest.fixture
async def stands(home: House, monkeypatch: pytest.MonkeyPatch) -> dict[str, Stand]:
    return await provided(home, monkeypatch, "corp", "partners")


async def test_somebody_goes_off_and_comes_back_signed_in(home: House, stands: dict[str, Stand]) -> None:
    erin = visitor(home)
    state = await sent_off(erin, "corp", "/device?code=BCDF-GHJK")
    answer = await erin.get(f"/sign-in/callback/corp?state={state}&code=c&iss=https://corp.example")
    assert (answer.status_code, answer.headers["location"]) == (303, "/device?code=BCDF-GHJK")
    ((attempt, told),) = stands["corp"].proved
    assert attempt.redirect_uri == "https://127.0.0.1:8443/sign-in/callback/corp"
    assert (told["code"], told["iss"]) == ("c", "https://corp.example")
    assert len(attempt.verifier) >= 43, "OIDC-10"
    assert attempt.nonce, "OIDC-05"
    assert "with Corp" in (await erin.get("/you")).text


async def test_each_attempt_has_words_of_its_own(home: House, stands: dict[str, Stand]) -> None:
    """OIDC-05, OIDC-10"""
    erin = visitor(home)
    for _ in range(2):
        await erin.get(f"/sign-in/callback/corp?state={await sent_off(erin, 'corp')}&code=c")
    first, second = (attempt for attempt, _ in stands["corp"].proved)
    assert len({first.state, second.state, first.nonce, second.nonce, first.verifier, second.verifier}) == 6


async def test_a_state_that_is_not_ours_is_refused_and_changes_nothing(home: House, stands: dict[str, Stand]) -> None:
    """OIDC-08: missing, made up, another browser's, used twice, too late"""
    alice, mallory = await somebody(home), visitor(home)
    used = await sent_off(alice, "corp")
    stands["corp"].error = Refused("no", code="not_allowed")
    await alice.get(f"/sign-in/callback/corp?state={used}&code=c")
    stands["corp"].error = None
    late = await sent_off(alice, "corp")
    home.clock.turn(minutes=10)
    for state in ("", "bza_made-up", await sent_off(mallory, "corp"), used, late):
        stands["corp"].proved.clear()
        answer = await alice.get(f"/sign-in/callback/corp?state={state}&code=c")
        assert (answer.status_code, stands["corp"].proved) == (400, []), state
        assert "This sign-in is over" in answer.text
        page = await alice.get("/you")
        assert 'id="heading">alice' in page.text, "whoever was signed in still is"


async def test_a_state_that_came_to_another_browser_is_used_up(home: House, stands: dict[str, Stand]) -> None:
    """OIDC-08"""
    erin, mallory = visitor(home), visitor(home)
    await mallory.get("/sign-in")
    state = await sent_off(erin, "corp")
    assert (await mallory.get(f"/sign-in/callback/corp?state={state}&code=c")).status_code == 400
    assert (await erin.get(f"/sign-in/callback/corp?state={state}&code=c")).status_code == 400


async def test_of_fifty_who_bring_one_state_exactly_one_comes_in(home: House, stands: dict[str, Stand]) -> None:
    """OIDC-08"""
    erin = visitor(home)
    state = await sent_off(erin, "corp")
    statuses: list[int] = []

    async def come_back() -> None:
        statuses.append((await erin.get(f"/sign-in/callback/corp?state={state}&code=c")).status_code)

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(come_back())
    assert sorted(statuses) == [303] + [400] * 49


async def test_an_answer_to_one_provider_is_not_taken_by_another(home: House, stands: dict[str, Stand]) -> None:
    """OIDC-09"""
    erin = visitor(home)
    state = await sent_off(erin, "partners")
    answer = await erin.get(f"/sign-in/callback/corp?state={state}&code=c")
    assert (answer.status_code, stands["corp"].proved) == (400, [])
    assert "begun with another provider" in answer.text


async def test_an_answer_that_says_a_thing_twice_is_refused(home: House, stands: dict[str, Stand]) -> None:
    erin = visitor(home)
    state = await sent_off(erin, "corp")
    answer = await erin.get(f"/sign-in/callback/corp?state={state}&state=other&code=c")
    assert (answer.status_code, stands["corp"].proved) == (400, [])


@pytest.mark.parametrize(
    ("error", "status", "heading"),
    [
        (Unreachable("corp.example did not answer in 5 s"), 503, "Corp does not answer"),
        (Refused("not among them", code="not_allowed"), 403, "You may not sign in here"),
        (Refused("not verified", code="email_unverified"), 403, "Your e-mail address is not verified"),
        (Refused("the signature does not hold", code="token_signature"), 403, "Corp did not let you in"),
        (AccessDenied("this account is closed", code="user_disabled"), 403, "This account is closed"),
    ],
    ids=lambda value: getattr(value, "code", None),
)
async def test_a_refusal_is_told_in_plain_words_with_what_to_do_next(
    home: House, stands: dict[str, Stand], error: BartizanError, status: int, heading: str
) -> None:
    erin = visitor(home)
    state = await sent_off(erin, "corp")
    stands["corp"].error = error
    answer = await erin.get(f"/sign-in/callback/corp?state={state}&code=c")
    assert answer.status_code == status
    assert heading in answer.text
    assert "Try again" in answer.text
    assert (await erin.get("/you")).status_code == 303
    assert (await home.events("login.refused"))[-1].fields["reason"] == error.code


async def test_what_the_provider_wrote_cannot_act_on_the_page(home: House, stands: dict[str, Stand]) -> None:
    erin = visitor(home)
    state = await sent_off(erin, "corp")
    stands["corp"].error = Refused("<script>alert(1)</script>", code="provider_refused")
    answer = await erin.get(f"/sign-in/callback/corp?state={state}&error=x&error_description=<b>")
    assert "<script>" not in answer.text


async def test_a_provider_that_is_down_is_said_before_anybody_is_sent_there(
    home: House, stands: dict[str, Stand]
) -> None:
    stands["corp"].error = Unreachable("it does not answer")
    answer = await visitor(home).get("/sign-in/with/corp?next=/device")
    assert answer.status_code == 503
    assert "Corp does not answer" in answer.text
    assert "/sign-in?next=%2Fdevice" in answer.text, "another way leads on as well"


async def test_a_name_that_somebody_has_is_not_given_to_another(home: House, stands: dict[str, Stand]) -> None:
    """OIDC-12, CA-12"""
    stands["corp"].user = "alice"
    thief = visitor(home)
    answer = await thief.get(f"/sign-in/callback/corp?state={await sent_off(thief, 'corp')}&code=c")
    assert (answer.status_code, "Somebody else has that name here" in answer.text) == (403, True)


async def test_sign_ins_are_not_begun_by_the_thousand(home: House, stands: dict[str, Stand]) -> None:
    flood = visitor(home)
    statuses = [(await flood.get("/sign-in/with/corp")).status_code for _ in range(40)]
    assert (statuses[0], statuses[-1]) == (303, 429)
    home.clock.turn(minutes=2)
    assert (await flood.get("/sign-in/with/corp")).status_code == 303


# --- once more ----------------------------------------------------------------------------------------------------


async def test_an_old_yes_sends_people_through_the_provider_before_a_terminal_is_let_in(
    home: House, stands: dict[str, Stand]
) -> None:
    erin = visitor(home)
    await erin.get(f"/sign-in/callback/corp?state={await sent_off(erin, 'corp')}&code=c")
    page = await erin.get(TERMINAL)
    assert page.status_code == 200
    home.clock.turn(minutes=6)
    late = await erin.send(page, "/sign-in/terminal", answer="yes")
    assert "Corp has to confirm it" in late.text
    again = await erin.get(TERMINAL)
    assert again.headers["location"].startswith("/sign-in/with/corp?next=%2Fsign-in%2Fterminal")
    assert "Corp has to confirm it" in (await erin.get("/device?code=BCDF-GHJK")).text
    await erin.get(f"/sign-in/callback/corp?state={await sent_off(erin, 'corp')}&code=c")
    assert (await erin.get(TERMINAL)).status_code == 200


async def test_a_provider_that_can_be_asked_again_is_asked_without_the_person(
    home: House, stands: dict[str, Stand]
) -> None:
    stands["corp"].renewal = "a refresh token"
    erin = visitor(home)
    await erin.get(f"/sign-in/callback/corp?state={await sent_off(erin, 'corp')}&code=c")
    home.clock.turn(minutes=6)
    page = await erin.get(TERMINAL)
    assert (page.status_code, stands["corp"].asked_again) == (200, 1)
    assert "/sign-in/terminal" in forms(page)


async def test_somebody_whom_the_provider_took_back_lets_no_terminal_in(home: House, stands: dict[str, Stand]) -> None:
    """OIDC-19"""
    stands["corp"].renewal = "a refresh token"
    erin = visitor(home)
    await erin.get(f"/sign-in/callback/corp?state={await sent_off(erin, 'corp')}&code=c")
    page = await erin.get(TERMINAL)
    home.clock.turn(minutes=6)
    stands["corp"].error = Refused("gone", code="identity_refused")
    answer = await erin.send(page, "/sign-in/terminal", answer="yes")
    assert (answer.status_code, "no longer vouches" in answer.text) == (403, True)
    assert (await erin.get("/you")).status_code == 303


async def test_a_trial_signs_nobody_in_and_says_what_would_have_come_of_it(
    home: House, stands: dict[str, Stand]
) -> None:
    made = (await home.operator.post("/v1/idp/corp/trial-link")).json()
    waiting = (await home.operator.post("/v1/idp/corp/trial", json={"trial": made["trial"]})).json()
    assert waiting["steps"][-1]["ok"] is None
    erin = visitor(home)
    away = await erin.get(urlsplit(made["url"]).path)
    assert away.status_code == 303
    state = dict(parse_qsl(urlsplit(away.headers["location"]).query))["state"]
    page = await erin.get(f"/sign-in/callback/corp?state={state}&code=c")
    assert (page.status_code, "nobody was signed in" in page.text) == (200, True)
    assert (await erin.get("/you")).status_code == 303, "nobody is signed in"
    came = (await home.operator.post("/v1/idp/corp/trial", json={"trial": made["trial"]})).json()
    assert (came["ok"], came["person"]["user"]) == (True, "erin")
    assert await home.events("identity.added") == []
    other = await home.operator.post("/v1/idp/partners/trial", json={"trial": made["trial"]})
    assert other.status_code == 404
    home.clock.turn(minutes=10)
    assert (await erin.get(urlsplit(made["url"]).path)).status_code == 404


async def test_a_trial_of_somebody_who_may_not_come_in_says_so_and_changes_nothing(
    home: House, stands: dict[str, Stand]
) -> None:
    made = (await home.operator.post("/v1/idp/corp/trial-link")).json()
    erin = visitor(home)
    away = await erin.get(urlsplit(made["url"]).path)
    state = dict(parse_qsl(urlsplit(away.headers["location"]).query))["state"]
    page = await erin.get(f"/sign-in/callback/corp?state={state}&error=access_denied")
    assert "would not have worked" in page.text
    came = (await home.operator.post("/v1/idp/corp/trial", json={"trial": made["trial"]})).json()
    assert (came["ok"], came["person"]) == (False, None)
    assert await home.events("login.refused") == []
