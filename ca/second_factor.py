"""
The second factor of people with a local account: set up, asked for at sign-in, taken away. The path of one check:

1. What is asked for: a code when the person has confirmed a factor; a factor when a role of theirs wants one.
2. Counted out: wrong codes count like wrong passwords, from this source, and for this person from anywhere. At sign-in
   whoever gets here knows the password, so strangers cannot lock anybody out. Whoever is signed in already may hold no
   more than a stolen token: what they try from anywhere is counted apart, and keeps nobody from signing in.
3. The code: of the app, from a later step than the last one taken; or a recovery code. Either is used up.
4. A code that is right confirms a factor that was begun; the recovery codes are told this once.

Each check is one write transaction: of many who come with the same code, one gets in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ca import audit, policy
from ca.app import Authority
from ca.errors import AccessDenied, BartizanError, Conflict, NotSignedIn
from ca.identity import totp
from ca.store import Db, device_logins, factors, logins, tokens
from ca.store import audit as log
from ca.store.factors import Factor
from ca.store.users import Account
from ca.wire import FactorBegun, FactorView

T = TypeVar("T")

ANYWHERE = "*"
"""The source under which the failures of a person at sign-in from all sources are counted."""
SIGNED_IN = "*signed-in"
"""The same for whoever is signed in as that person already."""
ALLOWED_ANYWHERE = 20


async def check(authority: Authority, account: Account, code: str | None, *, source: str) -> tuple[str, ...]:
    """Ask for what is needed beside the password, which was right. Gives recovery codes when they were just made."""

    def work(db: Db) -> tuple[str, ...] | BartizanError:
        # 1.
        factor = factors.find(db, account.name)
        has = factor is not None and factor.confirmed
        if not has and not policy.needs_second_factor(account.identity, authority.rights.view(db).roles):
            return ()
        if factor is None or not (code or has):
            raise AccessDenied(
                "a role of yours wants a second factor, and you have none yet",
                hint="set one up: bart login does it on the way",
                code="second_factor_setup",
            )
        if not code:
            raise AccessDenied("a code of your authenticator app is needed", code="second_factor_required")
        # 2., 3.
        refused = _refused(authority, db, factor, code, source, anywhere=ANYWHERE)
        if refused is not None:
            return refused
        # 4.
        return () if has else _confirmed(db, account)

    return await _kept(authority, work)


async def view(authority: Authority, account: Account) -> FactorView:
    """How it stands."""

    def work(db: Db) -> FactorView:
        factor = factors.confirmed(db, account.name)
        return FactorView(
            confirmed=factor is not None,
            created=None if factor is None else factor.created,
            recovery_codes_left=factors.recovery_codes_left(db, account.name),
        )

    return await authority.store.read(work)


async def begin(authority: Authority, account: Account) -> FactorBegun:
    """A new secret. It counts once a code has confirmed it; one that was begun earlier is forgotten."""
    refuse_provided(account)
    secret = totp.new_secret()

    def work(db: Db) -> None:
        if factors.confirmed(db, account.name) is not None:
            raise _there_already()
        factors.begin(db, account.name, authority.sealer.seal(factors.about(account.name), secret))

    await authority.store.write(work)
    return FactorBegun(secret=secret, uri=totp.uri(secret, user=account.name, cluster=authority.settings.cluster))


async def confirm(authority: Authority, account: Account, code: str, *, source: str) -> tuple[str, ...]:
    """From now on the factor counts. Gives the recovery codes, this once."""

    def work(db: Db) -> tuple[str, ...] | BartizanError:
        factor = factors.find(db, account.name)
        if factor is None:
            raise Conflict("there is nothing to confirm", hint="bart second-factor add")
        if factor.confirmed:
            raise _there_already()
        return _refused(authority, db, factor, code, source) or _confirmed(db, account)

    return await _kept(authority, work)


async def new_recovery_codes(authority: Authority, account: Account, code: str, *, source: str) -> tuple[str, ...]:
    """New recovery codes, for a code. Earlier ones are worth nothing."""

    def work(db: Db) -> tuple[str, ...] | BartizanError:
        factor = _present(db, account.name)
        return _refused(authority, db, factor, code, source) or _recovery_codes(db, account)

    return await _kept(authority, work)


async def remove(authority: Authority, account: Account, code: str, *, source: str) -> None:
    """Take the factor away, for a code. Where a role wants one, the next sign-in sets up another."""

    def work(db: Db) -> BartizanError | None:
        refused = _refused(authority, db, _present(db, account.name), code, source)
        if refused is None:
            factors.remove(db, account.name)
            log.append(db, audit.FactorRemoved(user=account.name), actor=_actor(account))
        return refused

    await _kept(authority, work)


async def reset(authority: Authority, account: Account, *, actor: str) -> None:
    """Take somebody's factor away without a code. Ends their sign-ins and counted failures, like a new password."""
    refuse_provided(account)

    def work(db: Db) -> None:
        if not factors.remove(db, account.name):
            raise Conflict(f"{account.name} has no second factor")
        tokens.end_all_of(db, account.name)
        device_logins.end_all_of(db, account.name)
        logins.forget(db, account.name)
        log.append(db, audit.FactorRemoved(user=account.name, reset=True), actor=actor)

    await authority.store.write(work)


def refuse_provided(account: Account) -> None:
    """Whoever signs in with an identity provider proves everything there."""
    if account.provider is not None:
        raise Conflict(
            f"{account.name} signs in with an identity provider: your identity provider does this",
            hint="set the second factor up there",
            code="provider_decides",
        )


async def _kept(authority: Authority, work: Callable[[Db], T | BartizanError]) -> T:
    """What *work* gives. A refusal comes out of it as a value: raised within, it would undo its own counting."""
    result = await authority.store.write(work)
    if isinstance(result, BartizanError):
        authority.metrics.logins.labels("locked_out" if result.code == "locked_out" else "failed").inc()
        raise result
    return result


def _refused(
    authority: Authority, db: Db, factor: Factor, code: str, source: str, *, anywhere: str = SIGNED_IN
) -> BartizanError | None:
    """Why *code* is not taken; None when it is, and used up with that. *anywhere*: under what all sources count."""
    # 2.
    until = logins.locked_until(db, factor.user, source) or logins.locked_until(db, factor.user, anywhere)
    if until is not None:
        return AccessDenied(
            f"too many failed sign-ins: try again after {until:%H:%M} UTC",
            hint="an administrator can set a new password, which opens the door at once",
            code="locked_out",
        )
    # 3.
    if _taken(authority, db, factor, code, source):
        logins.succeeded(db, factor.user, anywhere)
        return None
    _count(db, factor.user, source, anywhere)
    return NotSignedIn(
        "the code is wrong, or was used before",
        hint="wait for the next code; if it fails too, set the clock of the telephone",
        code="second_factor_failed",
    )


def _taken(authority: Authority, db: Db, factor: Factor, code: str, source: str) -> bool:
    secret = authority.sealer.open(factors.about(factor.user), factor.secret)
    step = totp.step_of(secret, code, now=db.now, after=factor.last_step)
    if step is not None:
        factors.take(db, factor.user, step)
        return True
    if not factors.use_recovery_code(db, factor.user, code):
        return False
    left = factors.recovery_codes_left(db, factor.user)
    used = audit.FactorRecoveryCodeUsed(user=factor.user, source=source, left=left)
    log.append(db, used, actor=f"user:{factor.user}")
    return True


def _count(db: Db, user: str, source: str, anywhere: str) -> None:
    logins.note_failure(db, user, source, "second_factor_failed")
    until = logins.failed(db, user, anywhere, allowed=ALLOWED_ANYWHERE).locked_until
    if until is not None:
        locked = audit.LoginLockedOut(user=user, source=anywhere, until=audit.moment(until))
        log.append(db, locked, actor="authority")


def _confirmed(db: Db, account: Account) -> tuple[str, ...]:
    factors.confirm(db, account.name)
    log.append(db, audit.FactorAdded(user=account.name), actor=_actor(account))
    return _recovery_codes(db, account)


def _recovery_codes(db: Db, account: Account) -> tuple[str, ...]:
    codes = totp.new_recovery_codes()
    factors.set_recovery_codes(db, account.name, codes)
    made = audit.FactorRecoveryCodesMade(user=account.name, count=len(codes))
    log.append(db, made, actor=_actor(account))
    return codes


def _present(db: Db, user: str) -> Factor:
    factor = factors.confirmed(db, user)
    if factor is None:
        raise Conflict("there is no second factor", hint="bart second-factor add")
    return factor


def _there_already() -> Conflict:
    return Conflict("there is a second factor already", hint="to change it: bart second-factor remove, then add")


def _actor(account: Account) -> str:
    return f"user:{account.name}"
