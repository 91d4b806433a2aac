"""ca/web/signing_in.py and factor.py: passwords and codes in the browser, under the same rules as everywhere."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pyotp
import pytest

from tests.ca.house import PASSWORD, ROLES, House, house
from tests.ca.web.visiting import Visitor, somebody, visitor

STRICT = ROLES.replace(
    "  - name: auditor",
    """\
  - name: careful
    allow:
      - {nodes: {env: [prod]}, logins: [deploy], actions: [shell], options: {mfa: login}}
  - name: auditor""",
)


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        await made.roles()
        await made.user("alice", "developer")
        yield made


def secret(page: httpx.Response) -> pyotp.TOTP:
    """The app that has scanned the page."""
    found = re.search(r"<pre>([A-Z2-7]+)</pre>", page.text)
    assert found is not None, page.text
    return pyotp.TOTP(found[1])


def codes(page: httpx.Response) -> list[str]:
    listed = re.search(r'<ul class="codes">(.*?)</ul>', page.text, re.DOTALL)
    assert listed is not None, page.text
    return re.findall(r"<li>(.*?)</li>", listed[1])


async def set_up(home: House, person: Visitor) -> tuple[pyotp.TOTP, list[str]]:
    page = await person.get("/you/second-factor")
    app = secret(page)
    done = await person.send(page, "/you/second-factor", code=app.at(home.clock.now))
    return app, codes(done)


async def test_a_wrong_password_and_a_person_who_does_not_exist_sound_alike(home: House) -> None:
    for user in ("alice", "nobody", "x" * 65):
        answer = await visitor(home).sign_in(user, "a wrong password")
        assert answer.status_code == 401
        assert "User or password is wrong." in answer.text
        assert "a wrong password" not in answer.text
    assert "__Host-bartizan=" not in str(answer.headers)


async def test_the_door_closes_after_five_failures_and_says_until_when(home: House) -> None:
    eve = visitor(home)
    for _ in range(5):
        await eve.sign_in("alice", "a wrong password")
    answer = await eve.sign_in("alice")
    assert (answer.status_code, "Too many failed sign-ins: try again after 12:30 UTC" in answer.text) == (403, True)


async def test_a_closed_account_is_told_to_whoever_knows_the_password(home: House) -> None:
    await home.operator.patch("/v1/users/alice", json={"disabled": True})
    assert "This account is closed." in (await visitor(home).sign_in("alice")).text
    assert "closed" not in (await visitor(home).sign_in("alice", "a wrong password")).text


async def test_what_somebody_typed_cannot_act_on_the_page(home: House) -> None:
    answer = await visitor(home).sign_in('"><script>x</script>', "y")
    assert "<script>" not in answer.text
    assert html.escape('"><script>x</script>', quote=True).replace("&quot;", "&#34;") in answer.text


async def test_a_code_is_asked_for_after_the_password_and_taken_once(home: House) -> None:
    app, kept = await set_up(home, await somebody(home))
    first, second = visitor(home), visitor(home)
    home.clock.turn(seconds=30)
    code = app.at(home.clock.now)
    for person in (first, second):
        answer = await person.sign_in("alice", next="/device")
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in/code")
        assert (await person.get("/you")).status_code == 303, "half way is not in"
    page = await first.get("/sign-in/code")
    assert "code is wrong" in (await first.send(page, "/sign-in/code", code="000000")).text
    answer = await first.send(page, "/sign-in/code", code=code)
    assert answer.headers["location"] == "/device"
    replayed = await second.send(await second.get("/sign-in/code"), "/sign-in/code", code=code)
    assert replayed.status_code == 401
    with_recovery = await second.send(replayed, "/sign-in/code", code=kept[0])
    assert with_recovery.status_code == 303
    assert "9 recovery codes left" in (await second.get("/you")).text


async def test_half_a_sign_in_ends_after_five_minutes_and_belongs_to_one_browser(home: House) -> None:
    app, _ = await set_up(home, await somebody(home))
    alice, thief = visitor(home), visitor(home)
    await alice.sign_in("alice")
    await thief.get("/sign-in")
    stolen = f"__Host-bartizan-half={alice.cookies['__Host-bartizan-half']}"
    assert (await thief.get("/sign-in/code", cookie=stolen)).status_code != 200
    page = await alice.get("/sign-in/code")
    home.clock.turn(minutes=5)
    answer = await alice.send(page, "/sign-in/code", code=app.at(home.clock.now))
    assert answer.headers["location"] == "/sign-in"


async def test_a_password_that_waits_for_its_code_lies_nowhere_in_the_clear(home: House, tmp_path: Path) -> None:
    await set_up(home, await somebody(home))
    await visitor(home).sign_in("alice")
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("bartizan.db*"))
    assert PASSWORD.encode() not in written


async def test_a_role_may_want_a_second_factor_and_the_page_sets_it_up(home: House) -> None:
    await home.roles(STRICT)
    await home.user("carl", "careful")
    carl = visitor(home)
    answer = await carl.sign_in("carl")
    assert answer.headers["location"] == "/sign-in/second-factor"
    page = await carl.get("/sign-in/second-factor")
    assert "<svg" in page.text
    app = secret(page)
    wrong = await carl.send(page, "/sign-in/second-factor", code="000000")
    assert wrong.status_code == 401
    assert secret(wrong).secret == app.secret, "what was scanned stays good"
    done = await carl.send(page, "/sign-in/second-factor", code=app.at(home.clock.now))
    assert len(codes(done)) == 10
    onward = await carl.send(done, "/sign-in/kept", kept="yes")
    assert onward.headers["location"] == "/"
    assert 'id="heading">carl' in (await carl.get("/you")).text


async def test_a_browser_that_showed_no_code_lets_nothing_in_where_a_role_wants_one(home: House) -> None:
    await home.user("carl", "developer")
    carl = await somebody(home, "carl")
    await home.roles(STRICT)
    await home.operator.patch("/v1/users/carl", json={"roles": ["careful"]})
    asked = f"/sign-in/terminal?challenge={'c' * 43}&port=41234&state={'s' * 22}&host=laptop"
    for place in (asked, "/device"):
        page = await carl.get(place)
        assert (page.status_code, "This takes a second factor" in page.text) == (403, True)
    page = await carl.get(f"/sign-in?again=yes&next={quote(asked, safe='')}")
    half = await carl.send(page, "/sign-in", user="carl", password=PASSWORD)
    page = await carl.get(half.headers["location"])
    done = await carl.send(page, half.headers["location"], code=secret(page).at(home.clock.now))
    assert (await carl.send(done, "/sign-in/kept", kept="yes")).headers["location"] == asked
    page = await carl.get(asked)
    let_in = await carl.send(page, "/sign-in/terminal", answer="yes")
    assert "code=" in let_in.headers["location"]


async def test_new_recovery_codes_and_removing_the_factor_take_a_code(home: House) -> None:
    alice = await somebody(home)
    app, kept = await set_up(home, alice)
    page = await alice.get("/you/second-factor/recovery-codes")
    assert (await alice.send(page, "/you/second-factor/recovery-codes", code="000000")).status_code == 401
    fresh = codes(await alice.send(page, "/you/second-factor/recovery-codes", code=kept[0]))
    assert not set(fresh) & set(kept)
    page = await alice.get("/you/second-factor/remove")
    assert (await alice.send(page, "/you/second-factor/remove", code=kept[1])).status_code == 401
    home.clock.turn(seconds=30)
    answer = await alice.send(page, "/you/second-factor/remove", code=app.at(home.clock.now))
    assert answer.headers["location"] == "/you?done=factor"
    assert (await visitor(home).sign_in("alice")).headers["location"] == "/you"


async def test_signing_in_again_with_a_session_leads_on(home: House) -> None:
    alice = await somebody(home)
    assert (await alice.get("/sign-in?next=/device")).headers["location"] == "/device"
    assert (await alice.get("/")).headers["location"] == "/you"
    assert (await visitor(home).get("/")).headers["location"] == "/sign-in"


async def test_without_anybody_who_could_sign_in_the_page_says_what_to_do(tmp_path: Path) -> None:
    async with house(tmp_path) as empty:
        page = await empty.web.get("/sign-in")
        assert page.status_code == 200


async def test_ever_new_names_on_the_page_are_soon_no_longer_looked_at(home: House) -> None:
    eve = visitor(home)
    for number in range(60):
        assert (await eve.sign_in(f"nobody{number}", "a wrong password")).status_code == 401
    answer = await eve.sign_in("alice")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")
    assert "Too many tries: wait a minute." in answer.text
    assert len(await home.events("login.failed")) == 60
