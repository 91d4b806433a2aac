"""
The path of one sign-in, whichever way somebody proves who they are. The numbered plan:

1. Counted out: five failures of this person from this source in half an hour close the door between the two.
2. The proof. A password, checked in the same time whether the person exists or not, and a code where one is needed
   (``ca/second_factor.py``); a failure is counted and told in the log. Or a provider's word (``ca/identity/``), and
   what the provider's file makes of it: who may come in at all, the name, roles and traits, taken anew each time.
3. The account is open, and no lock keeps the person out.
4. What they get: a browser session, or a certificate for a key that we certify and that they have (a signature over our
   nonce, which is used up): decide, store, sign (``ca/issue.py``). The token is stored with it and ends with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from weakref import WeakValueDictionary

from ca import audit, policy, provider_file, second_factor
from ca.app import Authority
from ca.certificate import CA, DEFAULT_USER_LIFE, subject_key, user_plan
from ca.errors import AccessDenied, BartizanError, InvalidInput, NotSignedIn
from ca.identity.provider import Proven, Refused
from ca.issue import ENROL_NAMESPACE, Stored, possession, use_nonce, waiting_nonce
from ca.model import source_key
from ca.provider_file import Person, Provider
from ca.recheck import refuse, take_over
from ca.store import Db, factors, identities, logins, nodes, tokens, users
from ca.store import audit as log
from ca.store.identities import StoredIdentity
from ca.store.users import Account
from ca.wire import ExchangeRequest, LoginAnswer, LoginRequest, ReachableNode
from recordings.sshkey import PublicKey

LONGEST_ASKED = 10 * 365 * 86_400
PURPOSE = "login"
WEB_LIFE = timedelta(hours=8)

_turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
"""One attempt at a time for each source: fifty at once must not be fifty guesses, nor fill the queue for others."""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Somebody who has just proven who they are. ``recovery_codes``: new ones, to be shown this once."""

    account: Account
    method: str
    """As the audit log names it: ``password``, ``password+code``, or the provider's name."""
    with_code: bool = False
    """Whether a second factor of ours was shown. A provider sees to its own."""
    recovery_codes: tuple[str, ...] = ()


async def sign_in(authority: Authority, request: LoginRequest, *, source: str) -> LoginAnswer:
    """Sign a person in with a password; the answer holds the certificate."""

    async def key_first(account: Account) -> None:
        """Before a code is used up and recovery codes are made, which are told once: is the key one for us at all?"""
        async with _refusals(authority, account.name):
            checked_key(request)
            await authority.store.read(lambda db: waiting_nonce(db, PURPOSE, request.nonce))

    signed_in = await with_password(
        authority, request.user, request.password, request.code, source=source, before_code=key_first
    )
    answer = await certified(authority, signed_in, request, source=source)
    return answer.model_copy(update={"recovery_codes": list(signed_in.recovery_codes)})


async def with_password(
    authority: Authority,
    user: str,
    password: str,
    code: str | None,
    *,
    source: str,
    before_code: Callable[[Account], Awaitable[None]] | None = None,
) -> SignedIn:
    """Steps 1 to 3 with a local account. Raises NotSignedIn and AccessDenied."""
    async with _turns.setdefault(source_key(source), asyncio.Lock()):
        await _refuse_counted_out(authority, user, source)
        account = await _checked(authority, user, password, source)
        if before_code is not None:
            await before_code(account)
        recovery_codes = await second_factor.check(authority, account, code, source=source)

    def work(db: Db) -> bool:
        logins.succeeded(db, account.name, source)
        return factors.confirmed(db, account.name) is not None

    with_code = await authority.store.write(work)
    return SignedIn(account, "password+code" if with_code else "password", with_code, recovery_codes)


async def with_provider(authority: Authority, name: str, proven: Proven, *, source: str) -> SignedIn:
    """Steps 2 and 3 with the provider called *name*, which vouches for *proven*. Raises Refused and AccessDenied.

    The person is (issuer, subject). A name that somebody else has here is refused, never shared (CA-12, OIDC-12).
    """
    ready = await authority.providers.find(name)
    try:
        account, changed = await authority.store.write(lambda db: _vouched(authority, db, ready.file, proven))
    except AccessDenied as refused:
        await _note_refusal(authority, name, proven, refused, source)
        raise
    if changed:
        await authority.live.reconsider()
    return SignedIn(account, name)


def name_is_free(db: Db, provider: str, user: str) -> bool:
    """Whether a newcomer of *provider* may be called *user*: it is nobody's name, or was freed (CA-12)."""
    account = users.find(db, user)
    return account is None or (account.provider == provider and identities.of_user(db, user) is None)


async def refused_by_provider(authority: Authority, name: str, refused: BartizanError, *, source: str) -> None:
    """Write down that a sign-in with a provider came to nothing before anybody was proven."""
    await _note_refusal(authority, name, None, refused, source)


async def web_session(authority: Authority, signed_in: SignedIn, *, source: str, agent: str) -> tuple[str, datetime]:
    """Step 4 for a browser: the text of a new token of the kind ``web``, and its end."""

    def work(db: Db) -> tuple[str, datetime]:
        account = _open_account(authority, db, signed_in)
        data: dict[str, object] = {"method": signed_in.method, "source": source, "agent": agent[:200]}
        made = tokens.make(db, "web", life=WEB_LIFE, user=account.name, data=data)
        _welcome(db, account, signed_in.method, source)
        return made

    token = await authority.store.write(work)
    authority.metrics.logins.labels("succeeded").inc()
    return token


async def certified(
    authority: Authority,
    signed_in: SignedIn,
    request: LoginRequest | ExchangeRequest,
    *,
    source: str,
    admit: Callable[[Db], None] | None = None,
) -> LoginAnswer:
    """Step 4 for a terminal: the certificate and the token that ends with it.

    *admit* may refuse, and uses up what is good once, in the transaction that stores the certificate.
    """
    issuer, name = authority.issuer, signed_in.account.name

    def work(db: Db) -> tuple[Stored, str]:
        if admit is not None:
            admit(db)
        return _stored(authority, db, signed_in, key, ttl, request.nonce, source)

    async with _refusals(authority, name):
        key, ttl = checked_key(request)
        stored, token = await authority.store.write(work)
    (certificate,) = await issuer.sign([stored])
    authority.metrics.logins.labels("succeeded").inc()
    life = stored.plan.valid_before - authority.clock()
    short = ttl is None and life < DEFAULT_USER_LIFE - timedelta(minutes=1)
    account, reachable = await authority.store.read(lambda db: _reach(authority, db, name))
    return LoginAnswer(
        user=name,
        roles=sorted(account.roles),
        certificate=certificate.line(name),
        expires=stored.plan.valid_before,
        token=token,
        cluster=authority.cluster_info(),
        nodes=reachable,
        note="your roles allow no longer life for this certificate" if short else None,
    )


def checked_key(request: LoginRequest | ExchangeRequest) -> tuple[PublicKey, timedelta | None]:
    """The key that shall be certified and for how long, once possession is proven. The nonce is not used up yet."""
    key = subject_key(request.public_key)
    possession(key, request.nonce, request.possession, namespace=ENROL_NAMESPACE)
    return key, _life(request.ttl_seconds)


@asynccontextmanager
async def _refusals(authority: Authority, name: str) -> AsyncIterator[None]:
    """A certificate for *name* that is refused inside is told in the log and counted."""
    try:
        async with authority.issuer.refusals(CA.USER, actor=f"user:{name}", user=name):
            yield
    except (InvalidInput, AccessDenied):
        authority.metrics.logins.labels("refused").inc()
        raise


# --- passwords ------------------------------------------------------------------------------------------------


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


async def _checked(authority: Authority, user: str, password: str, source: str) -> Account:
    # 2.
    account = await authority.store.read(lambda db: users.find(db, user))
    right = await authority.passwords.matches(None if account is None else account.password_hash, password)
    # 3., told apart only to whoever knows the password
    if account is None or not right:
        await failed(authority, user, source, "login_failed")
        raise NotSignedIn("user or password is wrong", code="login_failed")
    if account.disabled:
        raise AccessDenied("this account is closed", hint="ask an administrator", code="user_disabled")
    return account


async def failed(authority: Authority, user: str, source: str, reason: str) -> None:
    """Count one failure of *user* from *source*; the fifth closes the door between the two."""
    authority.metrics.logins.labels("failed").inc()
    await authority.store.write(lambda db: logins.note_failure(db, user, source, reason))


# --- providers ------------------------------------------------------------------------------------------------


def _vouched(authority: Authority, db: Db, file: Provider, proven: Proven) -> tuple[Account, bool]:
    # 2.
    identity = identities.find(db, proven.issuer, proven.subject)
    new = identity is None
    person = provider_file.person(file, proven.claims, known_as=None if identity is None else identity.user)
    if identity is None:
        identity = _newcomer(db, file.name, proven, person)
    # 3., before anything is changed; what a provider once took back, its new yes gives again.
    before = users.find(db, identity.user)
    if before is None or before.disabled:
        raise AccessDenied("this account is closed", hint="ask an administrator", code="user_disabled")
    # What another provider of this issuer gave to ask again with, this one's client cannot use.
    renewal = identity.renewal if identity.provider == file.name else None
    if proven.renewal is not None:
        renewal = authority.sealer.seal(identity.about, proven.renewal)
    identities.answered(db, file.name)
    changed = take_over(
        db, replace(identity, provider=file.name), person, renewal=renewal, actor=f"user:{identity.user}"
    )
    account = users.find(db, identity.user)
    assert account is not None  # it was there before
    return _open_account(authority, db, SignedIn(account, file.name)), changed and not new


def _newcomer(db: Db, name: str, proven: Proven, person: Person) -> StoredIdentity:
    """Somebody who was never here: a new person, unless the name is somebody's."""
    before = users.find(db, person.user)
    if not name_is_free(db, name, person.user):
        local = before is not None and before.provider is None
        way = f"hand-over {person.user} --provider {name}" if local else f"unlink {person.user}"
        raise Refused(
            f"the name {person.user} belongs to another account here",
            hint=f"if that is you, an administrator types: bartizan users {way}",
            code="principal_conflict",
        )
    if before is None:
        users.add(db, Account(person.user, (), None, False, db.now, name))
    identity = StoredIdentity(proven.issuer, proven.subject, name, person.user, None, db.now, db.now)
    identities.add(db, identity)
    log.append(
        db,
        audit.IdentityAdded(user=person.user, provider=name, issuer=proven.issuer, subject=proven.subject),
        actor=f"user:{person.user}",
    )
    return identity


async def _note_refusal(
    authority: Authority, name: str, proven: Proven | None, refused: BartizanError, source: str
) -> None:
    """Write it down; and when it is the provider's no to somebody who is known here, act on it like on any other."""
    authority.metrics.logins.labels("refused").inc()
    subject = None if proven is None else proven.subject
    event = audit.LoginRefused(provider=name, source=source, reason=refused.code, detail=str(refused), subject=subject)

    def work(db: Db) -> bool:
        log.append(db, event, actor="stranger")
        tie = None if proven is None else identities.find(db, proven.issuer, proven.subject)
        ends = tie is not None and tie.provider == name and isinstance(refused, Refused)
        if ends and tie is not None:
            refuse(db, tie, str(refused))
        return ends

    if await authority.store.write(work):
        await authority.live.reconsider()


# --- what they get --------------------------------------------------------------------------------------------


def _open_account(authority: Authority, db: Db, signed_in: SignedIn) -> Account:
    """The account as it is now, if something is open to it (step 3), and its password is the one that was shown."""
    account = users.find(db, signed_in.account.name)
    if account is None or account.disabled:
        raise AccessDenied("this account is closed", hint="ask an administrator", code="user_disabled")
    if account.password_hash != signed_in.account.password_hash:
        raise AccessDenied("the password was changed meanwhile", hint="sign in again", code="login_failed")
    if account.refused is not None:
        raise AccessDenied(account.refused, hint="sign in again", code="identity_refused")
    lock = policy.barred(account.identity, locks=authority.rights.view(db).locks, now=db.now)
    if lock is not None:
        raise AccessDenied(f"access is locked by an administrator: {lock.reason}", code="locked")
    return account


def _welcome(db: Db, account: Account, method: str, source: str) -> None:
    event = audit.LoginSucceeded(user=account.name, source=source, method=method)
    log.append(db, event, actor=f"user:{account.name}")


def _stored(
    authority: Authority,
    db: Db,
    signed_in: SignedIn,
    key: PublicKey,
    ttl: timedelta | None,
    nonce: str,
    source: str,
) -> tuple[Stored, str]:
    use_nonce(db, PURPOSE, nonce)
    account = _open_account(authority, db, signed_in)
    authority.issuer.refuse_own_keys(db, key)
    if nodes.owner_of_key(db, key.fingerprint()) is not None:
        raise AccessDenied("this is a node's host key, not a person's", code="key_forbidden")
    held = authority.rights.view(db).roles
    lacks_code = account.provider is None and not signed_in.with_code
    if lacks_code and policy.needs_second_factor(account.identity, held):
        raise AccessDenied(
            "a role of yours wants a second factor, and this sign-in had none",
            hint="sign out in the browser, and in again",
            code="second_factor_required",
        )
    stored = authority.issuer.store(
        db,
        CA.USER,
        lambda serial: user_plan(account.identity, held, serial=serial, public_key=key, ttl=ttl, now=db.now),
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
    _welcome(db, account, signed_in.method, source)
    return stored, token


def _reach(authority: Authority, db: Db, name: str) -> tuple[Account, list[ReachableNode]]:
    account = users.find(db, name)
    assert account is not None  # nobody is ever deleted
    return account, authority.rights.reachable(db, account.identity)


def _life(seconds: int | None) -> timedelta | None:
    if seconds is None:
        return None
    if seconds <= 0:
        raise InvalidInput("ttl_seconds: expected a number above 0", code="ttl_invalid")
    if seconds > LONGEST_ASKED:
        raise InvalidInput("ttl_seconds: at most 24 h", code="ttl_too_long")
    return timedelta(seconds=seconds)
