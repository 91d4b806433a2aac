"""
The path of one password sign-in. The numbered plan:

1. Counted out: five failures of this person from this source in half an hour close the door between the two.
2. The password, checked in the same time whether the person exists or not. A failure is counted and told in the log.
3. The account is open, and no lock keeps the person out.
4. The key is one that we certify, and the person has it: a signature over our nonce, which is used up.
5. The certificate: decide, store, sign (``ca/issue.py``). The token is stored with it and ends with it.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from weakref import WeakValueDictionary

from ca import audit, policy
from ca.app import Authority
from ca.certificate import CA, DEFAULT_USER_LIFE, subject_key, user_plan
from ca.errors import AccessDenied, InvalidInput, NotSignedIn
from ca.issue import ENROL_NAMESPACE, Stored, possession, use_nonce
from ca.store import Db, logins, nodes, tokens, users
from ca.store import audit as log
from ca.store.users import Account
from ca.wire import LoginAnswer, LoginRequest
from recordings.sshkey import PublicKey

LONGEST_ASKED = 10 * 365 * 86_400
PURPOSE = "login"

_turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
"""One attempt at a time for each source: fifty at once must not be fifty guesses, nor fill the queue for others."""


async def sign_in(authority: Authority, request: LoginRequest, *, source: str) -> LoginAnswer:
    """Sign a person in; the plan is above."""
    async with _turns.setdefault(source, asyncio.Lock()):
        await _refuse_counted_out(authority, request.user, source)
        account = await _checked(authority, request, source)
    try:
        return await _certified(authority, account, request, source)
    except (InvalidInput, AccessDenied):
        authority.metrics.logins.labels("refused").inc()
        raise


async def _refuse_counted_out(authority: Authority, user: str, source: str) -> None:
    # 1.
    until = await authority.store.read(lambda db: logins.locked_until(db, user, source))
    if until is not None:
        authority.metrics.logins.labels("locked_out").inc()
        raise AccessDenied(
            f"too many failed sign-ins: try again after {until:%H:%M} UTC",
            hint="an administrator can set a new password, which opens the door at once",
            code="locked_out",
        )


async def _checked(authority: Authority, request: LoginRequest, source: str) -> Account:
    # 2.
    account = await authority.store.read(lambda db: users.find(db, request.user))
    right = await authority.passwords.matches(None if account is None else account.password_hash, request.password)
    # 3., told apart only to whoever knows the password
    if account is None or not right:
        await _failed(authority, request.user, source)
        raise NotSignedIn("user or password is wrong", code="login_failed")
    if account.disabled:
        raise AccessDenied("this account is closed", hint="ask an administrator", code="user_disabled")
    return account


async def _failed(authority: Authority, user: str, source: str) -> None:
    authority.metrics.logins.labels("failed").inc()

    def count(db: Db) -> None:
        found = logins.failed(db, user, source)
        failed = audit.LoginFailed(user=user, source=source, reason="login_failed")
        log.append(db, failed, actor="stranger")
        if found.locked_until is not None:
            until = audit.moment(found.locked_until)
            log.append(db, audit.LoginLockedOut(user=user, source=source, until=until), actor="authority")

    await authority.store.write(count)


async def _certified(authority: Authority, account: Account, request: LoginRequest, source: str) -> LoginAnswer:
    issuer, identity = authority.issuer, account.identity
    async with issuer.refusals(CA.USER, actor=f"user:{account.name}", user=account.name):
        # 4.
        key = subject_key(request.public_key)
        possession(key, request.nonce, request.possession, namespace=ENROL_NAMESPACE)
        ttl = _life(request.ttl_seconds)
        # 5.
        stored, token = await authority.store.write(
            lambda db: _stored(authority, db, account, key, ttl, request.nonce, source)
        )
    (certificate,) = await issuer.sign([stored])
    authority.metrics.logins.labels("succeeded").inc()
    life = stored.plan.valid_before - authority.clock()
    short = ttl is None and life < DEFAULT_USER_LIFE - timedelta(minutes=1)
    return LoginAnswer(
        user=account.name,
        roles=sorted(identity.roles),
        certificate=certificate.line(account.name),
        expires=stored.plan.valid_before,
        token=token,
        cluster=authority.cluster_info(),
        nodes=await authority.store.read(lambda db: authority.rights.reachable(db, identity)),
        note="your roles allow no longer life for this certificate" if short else None,
    )


def _stored(
    authority: Authority, db: Db, account: Account, key: PublicKey, ttl: timedelta | None, nonce: str, source: str
) -> tuple[Stored, str]:
    use_nonce(db, PURPOSE, nonce)
    view = authority.rights.view(db)
    lock = policy.barred(account.identity, locks=view.locks, now=db.now)
    if lock is not None:
        raise AccessDenied(f"access is locked by an administrator: {lock.reason}", code="locked")
    authority.issuer.refuse_own_keys(db, key)
    if nodes.owner_of_key(db, key.fingerprint()) is not None:
        raise AccessDenied("this is a node's host key, not a person's", code="key_forbidden")
    stored = authority.issuer.store(
        db,
        CA.USER,
        lambda serial: user_plan(account.identity, view.roles, serial=serial, public_key=key, ttl=ttl, now=db.now),
        actor=f"user:{account.name}",
        user=account.name,
    )
    token, _ = tokens.make(
        db,
        "login",
        life=stored.plan.valid_before - db.now,
        user=account.name,
        data={"serial": stored.plan.serial},
    )
    logins.succeeded(db, account.name, source)
    log.append(db, audit.LoginSucceeded(user=account.name, source=source), actor=f"user:{account.name}")
    return stored, token


def _life(seconds: int | None) -> timedelta | None:
    if seconds is None:
        return None
    if seconds <= 0:
        raise InvalidInput("ttl_seconds: expected a number above 0", code="ttl_invalid")
    if seconds > LONGEST_ASKED:
        raise InvalidInput("ttl_seconds: at most 24 h", code="ttl_too_long")
    return timedelta(seconds=seconds)
