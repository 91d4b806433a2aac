"""
Whether identity providers still vouch for people: asked again while somebody works, and before anything new is given.

What a provider says changes the account, and with it every live session at once. A provider that cannot be asked says
nothing about anybody: nothing changes, until the limit that the operator wrote into its file.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import structlog

from ca import audit, provider_file
from ca.errors import BartizanError, NotFound
from ca.identity.provider import Proven, Refused, Unreachable
from ca.provider_file import Person
from ca.sign_out import end_everything
from ca.store import Db, Store, identities, sessions, users
from ca.store import audit as log
from ca.store.identities import StoredIdentity

if TYPE_CHECKING:
    from ca.identity.registry import Providers, Ready
    from ca.live import Live
    from ca.metrics import Metrics
    from ca.sealing import Sealer

OLD = timedelta(minutes=5)
"""A yes that is older is asked for again before a session begins or a certificate is issued."""
DUE = timedelta(minutes=4)
"""While somebody has a live session, a yes of this age is asked for again: so none gets older than five minutes."""
LOOK_SECONDS = 10.0
ANSWER_SECONDS = 10.0
PAUSE = timedelta(seconds=60)
"""A provider that just failed to answer is not waited for again so soon."""

logger = structlog.get_logger()


class Outcome(StrEnum):
    """What came of asking about one person."""

    SAME = "same"
    """The provider says what it said before."""
    CHANGED = "changed"
    """Other roles or traits than before."""
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    NOTHING_TO_ASK_WITH = "nothing_to_ask_with"
    """The provider gave no refresh token: the next sign-in tells."""


class Recheck:
    """Asks, one question at a time for each person."""

    def __init__(self, store: Store, providers: Providers, sealer: Sealer, live: Live, metrics: Metrics) -> None:
        self._store = store
        self._providers = providers
        self._sealer = sealer
        self._live = live
        self._metrics = metrics
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._failed: dict[str, datetime] = {}

    async def fresh(self, user: str, *, older_than: timedelta = OLD) -> None:
        """See to it that the provider's last word on *user* is not old. What it says is then in the account."""
        async with self._turns.setdefault(user, asyncio.Lock()):
            identity, now = await self._store.read(lambda db: (identities.of_user(db, user), db.now))
            if identity is None or identity.renewal is None or now - identity.checked < older_than:
                return
            failed = self._failed.get(user)
            if failed is not None and timedelta() <= now - failed < PAUSE:
                return
            await self._ask(identity, identity.renewal, now)

    async def now(self, provider: str, user: str | None = None) -> dict[str, Outcome]:
        """Ask about everybody of *provider* (or *user* alone) at once, however young the last word is."""

        def work(db: Db) -> list[str]:
            return [account.name for account in users.of_provider(db, provider) if user in (None, account.name)]

        return {name: await self._now(name) for name in await self._store.read(work)}

    async def _now(self, user: str) -> Outcome:
        async with self._turns.setdefault(user, asyncio.Lock()):
            identity, now = await self._store.read(lambda db: (identities.of_user(db, user), db.now))
            if identity is None or identity.renewal is None:
                return Outcome.NOTHING_TO_ASK_WITH
            return await self._ask(identity, identity.renewal, now)

    async def keep(self, stopping: asyncio.Event) -> None:
        """Ask about everybody who has a live session, until told to stop."""
        while not stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await stopping.wait()
                    return
            try:
                await self.look()
            except BartizanError as error:
                self._metrics.alarm("recheck_failed")
                logger.error("identity providers cannot be asked again", error=str(error))

    async def look(self) -> None:
        """One look at everybody who has a live session."""
        for user in await self._store.read(_at_work):
            await self.fresh(user, older_than=DUE)

    async def _ask(self, identity: StoredIdentity, renewal: str, now: datetime) -> Outcome:
        try:
            ready = await self._providers.find(identity.provider)
        except NotFound:
            return await self._refused(identity, "your identity provider was removed here")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                secret = self._sealer.open(identity.about, renewal)
                proven = await ready.client.ask_again(secret, subject=identity.subject, now=now)
            person = provider_file.person(ready.file, proven.claims)
        except Refused as refused:
            return await self._refused(identity, f"{ready.file.title} no longer vouches for you: {refused}")
        except (Unreachable, TimeoutError) as error:
            return await self._unreachable(identity, ready, str(error) or "it did not answer in time", now)
        return await self._vouched(identity, proven, person)

    async def _vouched(self, identity: StoredIdentity, proven: Proven, person: Person) -> Outcome:
        self._failed.pop(identity.user, None)
        renewal = None if proven.renewal is None else self._sealer.seal(identity.about, proven.renewal)

        def work(db: Db) -> bool:
            if identity.unreachable_since is not None:
                seconds = int((db.now - identity.unreachable_since).total_seconds())
                returned = audit.ProviderReturned(provider=identity.provider, seconds=max(0, seconds))
                log.append(db, returned, actor="authority")
            return take_over(db, identity, person, renewal=renewal or identity.renewal, actor="authority")

        if not await self._store.write(work):
            return Outcome.SAME
        await self._live.reconsider()
        return Outcome.CHANGED

    async def _refused(self, identity: StoredIdentity, reason: str) -> Outcome:
        self._failed.pop(identity.user, None)
        self._metrics.logins.labels("refused").inc()
        await self._store.write(lambda db: _refuse(db, identity, reason))
        await self._live.reconsider()
        return Outcome.REFUSED

    async def _unreachable(self, identity: StoredIdentity, ready: Ready, problem: str, now: datetime) -> Outcome:
        self._failed[identity.user] = now
        logger.warning("identity provider unreachable", provider=identity.provider, problem=problem)
        limit = ready.file.unreachable_limit
        if limit is not None and now - identity.checked >= limit:
            reason = f"{ready.file.title} could not be asked since {identity.checked:%H:%M} UTC"
            return await self._refused(identity, reason)

        def work(db: Db) -> None:
            told = identity.provider in identities.silent_since(db)
            identities.silent(db, identity)
            if not told:
                event = audit.ProviderUnreachable(provider=identity.provider, problem=problem)
                log.append(db, event, actor="authority")

        await self._store.write(work)
        return Outcome.UNREACHABLE


def take_over(db: Db, identity: StoredIdentity, person: Person, *, renewal: str | None, actor: str) -> bool:
    """What the provider says of somebody now, stored; whether anything of it is other than before."""
    account = users.find(db, identity.user)
    if account is None:
        return False
    roles = tuple(sorted(person.roles))
    users.vouch(db, account.name, provider=identity.provider, roles=roles, traits=person.traits)
    identities.vouched(db, identity, provider=identity.provider, renewal=renewal)
    same_roles, same_traits = set(roles) == set(account.roles), dict(person.traits) == dict(account.traits)
    if not (same_roles and same_traits):
        event = audit.IdentityChanged(
            user=account.name, provider=identity.provider, roles=roles, before=tuple(sorted(account.roles))
        )
        log.append(db, event, actor=actor)
    return not (same_roles and same_traits and account.refused is None)


def abandon(db: Db, provider: str, *, reason: str) -> int:
    """Nobody of *provider* is vouched for any more: it is removed. How many people that ends."""
    people = [identities.of_user(db, account.name) for account in users.of_provider(db, provider)]
    ties = [tie for tie in people if tie is not None]
    for tie in ties:
        _refuse(db, tie, reason)
    return len(ties)


def _refuse(db: Db, identity: StoredIdentity, reason: str) -> None:
    """Nothing is open to them from now on; what they were given ends."""
    users.refuse(db, identity.user, reason)
    identities.forget_renewal(db, identity)
    ended, revoked = end_everything(db, identity.user, reason=reason, actor="authority")
    event = audit.IdentityRefused(
        user=identity.user, provider=identity.provider, reason=reason, tokens=ended, certificates=revoked
    )
    log.append(db, event, actor="authority")


def _at_work(db: Db) -> list[str]:
    """People with a live session."""
    return sorted({session.user for session in sessions.live(db)})
