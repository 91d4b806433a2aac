"""
A browser that is signed in lets a terminal in: by a code that comes to a loopback address (RFC 8252), or by a device
code that a person approves (RFC 8628). The numbered plan of ``exchange``:

1. The key is one that we could certify, and the asker has it: checked first, so that a slip uses nothing up.
2. PKCE (RFC 7636): whoever brings the grant is whoever began. A wrong verifier ends the grant.
3. The identity provider, where there is one, said yes within the last five minutes, or is asked again now.
4. The certificate (``ca/sign_in.py``). The grant is used up with it: of many who bring it, one goes on, and what ended
   the grant while the provider was asked has ended it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import timedelta

from ca import audit, login
from ca.allowance import too_many
from ca.app import Authority
from ca.errors import AccessDenied, NotFound
from ca.login import DeviceLogin, State
from ca.recheck import OLD, Outcome
from ca.sign_in import SignedIn, certified, checked_key
from ca.store import Db, device_logins, tokens, users
from ca.store import audit as log
from ca.store.users import Account
from ca.wire import DeviceRequest, DeviceStarted, DeviceState, ExchangeRequest, LoginAnswer

GRANT_LIFE = timedelta(seconds=60)
MOST_PENDING = 1_000


@dataclass(frozen=True, slots=True)
class _Granted:
    account: Account
    challenge: str
    method: str
    with_code: bool


async def grant(authority: Authority, user: str, challenge: str, *, source: str, with_code: bool = False) -> str:
    """A code for the loopback address of a terminal on the same machine: good once, for a minute.

    ``with_code``: the browser's own sign-in showed a second factor.
    """

    def work(db: Db) -> str:
        text, _ = tokens.make(
            db,
            "code",
            life=GRANT_LIFE,
            user=user,
            data={"challenge": challenge, "source": source, "with_code": with_code},
        )
        return text

    return await authority.store.write(work)


async def device_ask(authority: Authority, request: DeviceRequest, *, source: str) -> DeviceStarted:
    """Begin a login that is approved in a browser elsewhere."""
    authority.doors.asking.use(source, now=authority.clock())
    code = f"bzd_{secrets.token_urlsafe(32)}"

    def work(db: Db) -> DeviceLogin:
        if device_logins.pending(db) >= MOST_PENDING:
            raise too_many()
        host = audit.visible(request.host)
        asked = login.asked(request.challenge, host=host, source=source, user_code=login.new_user_code(), now=db.now)
        device_logins.add(db, asked, code)
        log.append(db, audit.DeviceAsked(host=host, source=source), actor="stranger")
        return asked

    asked = await authority.store.write(work)
    page = f"{authority.settings.web_url}/device"
    return DeviceStarted(
        grant=code,
        user_code=asked.user_code,
        url=page,
        url_with_code=f"{page}?code={asked.user_code}",
        expires=asked.expires,
        interval_seconds=int(login.INTERVAL.total_seconds()),
    )


async def device_find(authority: Authority, user_code: str, *, source: str) -> DeviceLogin:
    """The login that shows this code. Guessing is counted: ten wrong ones a minute, then nobody from there is heard."""
    now, doors = authority.clock(), authority.doors
    if doors.guessing.spent(source, now=now) or doors.guessing_anywhere.spent("", now=now):
        raise too_many()
    typed = login.typed_user_code(user_code)
    found = None if typed is None else await authority.store.read(lambda db: device_logins.by_user_code(db, typed))
    if found is None or found.state is not State.PENDING or login.over(found, now=now):
        doors.guessing.take(source, now=now)
        doors.guessing_anywhere.take("", now=now)
        raise NotFound(
            "no machine shows this code now",
            hint="codes end after ten minutes: bart login --no-browser",
            code="no_code",
        )
    return found


async def device_decide(
    authority: Authority, user_code: str, *, user: str, approve: bool, source: str, with_code: bool = False
) -> DeviceLogin:
    """*user*, who is signed in here, lets the machine in as themselves, or refuses. Raises NotFound, Conflict."""
    await device_find(authority, user_code, source=source)
    typed = login.typed_user_code(user_code) or ""

    def work(db: Db) -> DeviceLogin:
        found = device_logins.by_user_code(db, typed)
        if found is None:
            raise NotFound("no machine shows this code now", hint="bart login --no-browser", code="no_code")
        decided = login.decided(found, user=user, approve=approve, now=db.now, with_code=with_code)
        device_logins.save(db, decided)
        event = audit.DeviceDecided(
            user=user, host=decided.host, asked_from=decided.source, source=source, approved=approve
        )
        log.append(db, event, actor=f"user:{user}")
        return decided

    return await authority.store.write(work)


async def device_poll(authority: Authority, code: str) -> DeviceState:
    """How it stands with a login that was begun. An unknown code is answered like one that is over."""

    def work(db: Db) -> DeviceState:
        found = device_logins.by_code(db, code)
        if found is None:
            return DeviceState(state="over")
        told = login.heard(found, now=db.now)
        if found.state is State.PENDING:
            device_logins.save(db, replace(found, polled=db.now))
        return DeviceState.model_validate({"state": told})

    return await authority.store.write(work)


async def exchange(authority: Authority, request: ExchangeRequest, *, source: str) -> LoginAnswer:
    """The certificate for a grant; the plan is above."""
    # 1.
    checked_key(request)
    # 2.
    granted = await authority.store.read(lambda db: _granted(db, request.grant))
    if granted is None or not login.proves(request.verifier, granted.challenge):
        if granted is not None:
            await authority.store.write(lambda db: _use_up(db, request.grant))
        authority.metrics.logins.labels("refused").inc()
        raise _over()
    # 3.
    await _vouched_for(authority, granted.account.name)

    # 4.
    def admit(db: Db) -> None:
        if not _use_up(db, request.grant):
            raise _over()

    signed_in = SignedIn(granted.account, granted.method, granted.with_code)
    return await certified(authority, signed_in, request, source=source, admit=admit)


async def _vouched_for(authority: Authority, name: str) -> None:
    """Refuse unless the provider, where there is one, said yes of late. A device code may have waited ten minutes."""
    outcome = await authority.recheck.fresh(name)
    if outcome is Outcome.REFUSED:
        raise await authority.recheck.refusal(name)
    if outcome is Outcome.NOTHING_TO_ASK_WITH:
        outcome = await authority.recheck.fresh(name, older_than=OLD + login.LIFE)
    if outcome is Outcome.NOTHING_TO_ASK_WITH:
        raise AccessDenied(
            "what your identity provider last said of you is too old",
            hint="sign in again: bart login",
            code="grant_invalid",
        )


def _over() -> AccessDenied:
    return AccessDenied(
        "this sign-in is over, was used before, or was begun elsewhere", hint="bart login", code="grant_invalid"
    )


def _granted(db: Db, code: str) -> _Granted | None:
    """What a grant stands for. It stays good."""
    token = tokens.find(db, "code", code)
    if token is not None and token.user is not None:
        challenge, with_code = str(token.data.get("challenge")), token.data.get("with_code") is True
        return _for(db, token.user, challenge, "browser", with_code)
    asked = device_logins.by_code(db, code)
    if asked is None or asked.user is None or login.heard(asked, now=db.now) != "approved":
        return None
    return _for(db, asked.user, asked.challenge, "device", asked.with_code)


def _use_up(db: Db, code: str) -> bool:
    """Of many who bring a grant, one hears True."""
    return tokens.use(db, "code", code) is not None or device_logins.use(db, code)


def _for(db: Db, user: str, challenge: str, method: str, with_code: bool) -> _Granted | None:
    account = users.find(db, user)
    return None if account is None else _Granted(account, challenge, method, with_code)
