"""ca/second_factor.py: a code beside the password, each good once; and the ways in when the telephone is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pyotp
import pytest
from sqlalchemy import update

from ca import second_factor
from ca.errors import AccessDenied, BartizanError, Conflict, NotSignedIn, Unavailable
from ca.store import Db, factors, users
from ca.store.users import Account
from tests.ca.house import House, house

ROLES = """
roles:
  - name: developer
    allow: [{nodes: {env: [dev]}, logins: [deploy], actions: [shell]}]
  - name: careful
    mfa: login
    allow: [{nodes: {env: [prod]}, logins: [deploy], actions: [shell]}]
"""
SOURCE = "192.0.2.7"


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        await made.roles(ROLES)
        await made.user("alice", "developer")
        await made.user("carol", "developer", "careful")
        yield made


async def account(home: House, name: str) -> Account:
    found = await home.authority.store.read(lambda db: users.find(db, name))
    assert found is not None
    return found


async def check(home: House, name: str, code: str | None, source: str = SOURCE) -> tuple[str, ...]:
    return await second_factor.check(home.authority, await account(home, name), code, source=source)


async def refused(attempt: Awaitable[object], kind: type[BartizanError], code: str) -> None:
    with pytest.raises(kind) as caught:
        await attempt
    assert caught.value.code == code


def shown(home: House, secret: str, steps: int = 0) -> str:
    """What the app shows now, or some steps away."""
    return pyotp.TOTP(secret).at(home.clock.now + timedelta(seconds=30 * steps))


async def begun(home: House, name: str) -> str:
    return (await second_factor.begin(home.authority, await account(home, name))).secret


async def added(home: House, name: str) -> tuple[str, tuple[str, ...]]:
    """Somebody's confirmed factor, one step ago: secret and recovery codes."""
    secret = await begun(home, name)
    person = await account(home, name)
    codes = await second_factor.confirm(home.authority, person, shown(home, secret), source=SOURCE)
    home.clock.turn(seconds=30)
    return secret, codes


async def test_who_needs_none_is_asked_for_none(home: House) -> None:
    assert await check(home, "alice", None) == ()
    assert await check(home, "alice", "whatever") == ()
    await begun(home, "alice")
    assert await check(home, "alice", None) == (), "what was only begun does not count"


async def test_who_has_one_is_asked_for_a_code(home: House) -> None:
    secret, _ = await added(home, "alice")
    await refused(check(home, "alice", None), AccessDenied, "second_factor_required")
    await refused(check(home, "alice", ""), AccessDenied, "second_factor_required")
    assert not await home.events("login.failed"), "to be asked is no failure"
    assert await check(home, "alice", shown(home, secret)) == ()


async def test_a_code_is_good_once_and_so_is_none_before_it(home: House) -> None:
    secret, _ = await added(home, "alice")
    home.clock.turn(minutes=5)
    assert await check(home, "alice", shown(home, secret)) == ()
    for steps in (0, -1):
        await refused(check(home, "alice", shown(home, secret, steps)), NotSignedIn, "second_factor_failed")
    home.clock.turn(seconds=30)
    assert await check(home, "alice", shown(home, secret)) == ()


async def test_the_code_that_confirmed_does_not_sign_in(home: House) -> None:
    secret = await begun(home, "alice")
    code = shown(home, secret)
    await second_factor.confirm(home.authority, await account(home, "alice"), code, source=SOURCE)
    await refused(check(home, "alice", code), NotSignedIn, "second_factor_failed")


@pytest.mark.parametrize(("minutes", "good"), [(-5, False), (-1, False), (0, True), (1, False), (5, False)])
async def test_a_telephone_may_be_half_a_minute_off_and_not_more(home: House, minutes: int, good: bool) -> None:
    secret, _ = await added(home, "alice")
    home.clock.turn(hours=1)
    attempt = check(home, "alice", shown(home, secret, 2 * minutes))
    if good:
        assert await attempt == ()
    else:
        await refused(attempt, NotSignedIn, "second_factor_failed")


async def test_wrong_codes_lock_out_as_wrong_passwords_do(home: House) -> None:
    secret, _ = await added(home, "alice")
    for _ in range(5):
        await refused(check(home, "alice", "000000"), NotSignedIn, "second_factor_failed")
    await refused(check(home, "alice", shown(home, secret)), AccessDenied, "locked_out")
    failed = await home.events("login.failed")
    assert [dict(one.fields)["reason"] for one in failed] == ["second_factor_failed"] * 5
    (locked,) = await home.events("login.locked_out")
    assert dict(locked.fields)["source"] == SOURCE
    assert (await home.login("alice")).json()["error"] == "locked_out", "the password waits too"
    assert await check(home, "alice", shown(home, secret), source="198.51.100.1") == (), "elsewhere is elsewhere"
    home.clock.turn(minutes=31)
    assert await check(home, "alice", shown(home, secret)) == ()


async def test_guesses_from_many_places_add_up(home: House) -> None:
    """Whoever guesses codes has the password: a thousand addresses must not be five thousand guesses."""
    secret, _ = await added(home, "alice")
    for number in range(20):
        await refused(check(home, "alice", "000000", f"203.0.113.{number}"), NotSignedIn, "second_factor_failed")
    await refused(check(home, "alice", shown(home, secret), "203.0.113.99"), AccessDenied, "locked_out")
    home.clock.turn(minutes=31)
    assert await check(home, "alice", shown(home, secret)) == ()


async def test_of_fifty_uses_of_one_code_exactly_one_succeeds(home: House) -> None:
    secret, _ = await added(home, "alice")
    assert await _at_once(lambda n: check(home, "alice", shown(home, secret), f"198.51.100.{n}")) == 1


async def test_of_fifty_uses_of_one_recovery_code_exactly_one_succeeds(home: House) -> None:
    _, codes = await added(home, "alice")
    assert await _at_once(lambda n: check(home, "alice", codes[3], f"198.51.100.{n}")) == 1
    assert len(await home.events("factor.recovery_code_used")) == 1


async def _at_once(attempt: Callable[[int], Awaitable[object]]) -> int:
    """How many of fifty get in."""
    inside = 0

    async def use(number: int) -> None:
        nonlocal inside
        try:
            await attempt(number)
        except (NotSignedIn, AccessDenied):
            return
        inside += 1

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(use(number))
    return inside


async def test_a_recovery_code_is_good_once_and_says_how_many_are_left(home: House) -> None:
    _, codes = await added(home, "alice")
    assert await check(home, "alice", codes[0].upper().replace("-", " ")) == ()
    await refused(check(home, "alice", codes[0]), NotSignedIn, "second_factor_failed")
    (used,) = await home.events("factor.recovery_code_used")
    assert dict(used.fields) == {"user": "alice", "source": SOURCE, "left": 9}
    assert (await second_factor.view(home.authority, await account(home, "alice"))).recovery_codes_left == 9


async def test_a_recovery_code_is_good_for_its_person_alone(home: House) -> None:
    _, codes = await added(home, "alice")
    await added(home, "carol")
    await refused(check(home, "carol", codes[0]), NotSignedIn, "second_factor_failed")
    assert await check(home, "alice", codes[0]) == ()


async def test_a_role_that_wants_one_lets_nobody_in_without(home: House) -> None:
    await refused(check(home, "carol", None), AccessDenied, "second_factor_setup")
    await refused(check(home, "carol", "123456"), AccessDenied, "second_factor_setup")
    secret = await begun(home, "carol")
    await refused(check(home, "carol", None), AccessDenied, "second_factor_setup")
    await refused(check(home, "carol", "000000"), NotSignedIn, "second_factor_failed")
    codes = await check(home, "carol", shown(home, secret))
    assert len(codes) == 10
    await refused(check(home, "carol", None), AccessDenied, "second_factor_required")
    assert await check(home, "carol", codes[9]) == ()
    assert [one.code for one in await home.events() if one.code.startswith("factor.")] == [
        "factor.added",
        "factor.recovery_codes_made",
        "factor.recovery_code_used",
    ]


async def test_one_that_is_confirmed_is_not_begun_again(home: House) -> None:
    """Or whoever has the password would put their own telephone in its place."""
    await added(home, "alice")
    await refused(begun(home, "alice"), Conflict, "conflict")
    attempt = second_factor.confirm(home.authority, await account(home, "alice"), "000000", source=SOURCE)
    await refused(attempt, Conflict, "conflict")


async def test_a_secret_that_was_begun_again_is_another(home: House) -> None:
    first, second = await begun(home, "carol"), await begun(home, "carol")
    await refused(check(home, "carol", shown(home, first)), NotSignedIn, "second_factor_failed")
    assert len(await check(home, "carol", shown(home, second))) == 10


async def test_nothing_begun_is_nothing_to_confirm(home: House) -> None:
    attempt = second_factor.confirm(home.authority, await account(home, "alice"), "000000", source=SOURCE)
    await refused(attempt, Conflict, "conflict")


async def test_new_recovery_codes_end_the_old_ones(home: House) -> None:
    secret, old = await added(home, "alice")
    person = await account(home, "alice")
    wrong = second_factor.new_recovery_codes(home.authority, person, "000000", source=SOURCE)
    await refused(wrong, NotSignedIn, "second_factor_failed")
    new = await second_factor.new_recovery_codes(home.authority, person, shown(home, secret), source=SOURCE)
    assert not set(new) & set(old)
    await refused(check(home, "alice", old[0]), NotSignedIn, "second_factor_failed")
    assert await check(home, "alice", new[0]) == ()


async def test_it_is_taken_away_for_a_code_alone(home: House) -> None:
    secret, codes = await added(home, "alice")
    person = await account(home, "alice")
    wrong = second_factor.remove(home.authority, person, "000000", source=SOURCE)
    await refused(wrong, NotSignedIn, "second_factor_failed")
    await second_factor.remove(home.authority, person, shown(home, secret), source=SOURCE)
    assert await check(home, "alice", None) == ()
    (removed,) = await home.events("factor.removed")
    assert dict(removed.fields) == {"user": "alice", "reset": False}
    again = second_factor.remove(home.authority, person, codes[0], source=SOURCE)
    await refused(again, Conflict, "conflict")


async def test_where_a_role_wants_one_the_next_sign_in_sets_up_another(home: House) -> None:
    secret, _ = await added(home, "carol")
    await second_factor.remove(home.authority, await account(home, "carol"), shown(home, secret), source=SOURCE)
    await refused(check(home, "carol", None), AccessDenied, "second_factor_setup")


async def test_a_reset_opens_the_door_and_ends_sign_ins(home: House) -> None:
    alice = await home.person("alice")
    _, codes = await added(home, "alice")
    for _ in range(5):
        await refused(check(home, "alice", "000000"), NotSignedIn, "second_factor_failed")
    await second_factor.reset(home.authority, await account(home, "alice"), actor="local")
    assert (await alice.get("/v1/me")).status_code == 401
    assert await check(home, "alice", None) == ()
    (removed,) = await home.events("factor.removed")
    assert (removed.actor, dict(removed.fields)) == ("local", {"user": "alice", "reset": True})
    await begun(home, "alice")
    old = second_factor.confirm(home.authority, await account(home, "alice"), codes[0], source=SOURCE)
    await refused(old, NotSignedIn, "second_factor_failed")


async def test_whom_a_provider_vouches_for_has_none_here(home: House) -> None:
    await home.authority.store.write(lambda db: db.run(update(users.users).values(provider="corp")))
    await refused(begun(home, "alice"), Conflict, "provider_decides")


async def test_a_secret_lies_sealed_and_opens_for_its_person_alone(home: House) -> None:
    secret, _ = await added(home, "alice")
    await added(home, "carol")

    def swap(db: Db) -> str:
        hers, his = factors.find(db, "carol"), factors.find(db, "alice")
        assert hers is not None
        assert his is not None
        db.run(update(factors.factors).where(factors.factors.c.user == "alice").values(secret=hers.secret))
        return his.secret

    assert secret not in await home.authority.store.write(swap)
    with pytest.raises(Unavailable):
        await check(home, "alice", "123456")


async def test_no_secret_stands_in_log_or_audit(home: House, capfd: pytest.CaptureFixture[str]) -> None:
    """LOG-02"""
    secret, codes = await added(home, "alice")
    await check(home, "alice", shown(home, secret))
    await check(home, "alice", codes[0])
    told = capfd.readouterr()
    everything = told.out + told.err + "".join(str(dict(one.fields)) for one in await home.events())
    for one in (secret, *codes):
        assert one not in everything
