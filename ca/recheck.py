"""
Whether identity providers still vouch for people: asked again while somebody works, and before anything new is given.

What a provider says changes the account, and with it every live session at once. A provider that cannot be asked says
nothing about anybody: nothing changes, until the limit that the operator wrote into its file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import structlog

from ca import audit, provider_file
from ca.errors import AccessDenied, BartizanError, NotFound, Unavailable
from ca.identity.provider import Proven, Refused
from ca.provider_file import Person
from ca.sign_out import end_everything
from ca.store import Db, Store, identities, sessions, users
from ca.store import audit as log
from ca.store.identities import StoredIdentity

if TYPE_CHECKING:
    from ca.identity.registry import Providers
    from ca.live import Live
    from ca.metrics import Metrics
    from ca.sealing import Sealer

OLD = timedelta(minutes=5)
"""A yes that is older is asked for again before a session begins or a certificate is issued."""
DUE = timedelta(minutes=4)
"""While somebody has a live session, a yes of this age is asked for again: so none gets older than five minutes."""
LOOK_SECONDS = 10.0
ANSWER_SECONDS = 6.0
"""A bastion waits ten for the decision on a session, which may have to wait for this."""
AT_ONCE = 8
"""People of one provider who are asked about side by side."""
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
    """Asks, one question at a time for each person, and some people of a provider side by side."""

    def __init__(self, store: Store, providers: Providers, sealer: Sealer, live: Live, metrics: Metrics) -> None:
        self._store = store
        self._providers = providers
        self._sealer = sealer
        self._live = live
        self._metrics = metrics
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._failed: dict[str, datetime] = {}

    async def fresh(self, user: str, *, older_than: timedelta = OLD) -> Outcome | None:
        """See to it that the provider's last word on *user* is not old. What it says is then in the account.

        None: there was nothing to ask. Nothing to ask *with* is told only when the last word is old.
        """
        async with self._turns.setdefault(user, asyncio.Lock()):
            identity, now = await self._store.read(lambda db: (identities.of_user(db, user), db.now))
            if identity is None or -OLD <= now - identity.checked < older_than:
                return None
            if identity.renewal is None:
                return Outcome.NOTHING_TO_ASK_WITH
            failed = self._failed.get(user)
            if failed is not None and timedelta() <= now - failed < PAUSE:
                return Outcome.UNREACHABLE
            return await self._ask(identity, identity.renewal, now)

    async def refusal(self, user: str) -> AccessDenied:
        """Why nothing is open to *user* any more, to be raised."""
        account = await self._store.read(lambda db: users.find(db, user))
        reason = None if account is None else account.refused
        return AccessDenied(reason or "your account is closed", hint="sign in again", code="identity_refused")

    async def now(self, provider: str, user: str | None = None) -> dict[str, Outcome]:
        """Ask about everybody of *provider* (or *user* alone) at once, however young the last word is."""

        def work(db: Db) -> list[str]:
            return [account.name for account in users.of_provider(db, provider) if user in (None, account.name)]

        outcomes: dict[str, Outcome] = {}

        async def ask(name: str) -> None:
            outcomes[name] = await self._now(name)

        await _side_by_side(ask, await self._store.read(work))
        return dict(sorted(outcomes.items()))

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
        """One look at everybody who has a live session; a provider that hangs holds up its own people alone."""
        async with asyncio.TaskGroup() as group:
            for people in (await self._store.read(_at_work)).values():
                group.create_task(_side_by_side(self._looked_at, people))

    async def _looked_at(self, user: str) -> None:
        try:
            await self.fresh(user, older_than=DUE)
        except Exception as error:  # noqa: BLE001 -- what goes wrong with one person must not keep others unasked
            self._metrics.alarm("recheck_failed")
            logger.error("a person cannot be asked about", user=user, error=repr(error))

    async def _ask(self, identity: StoredIdentity, renewal: str, now: datetime) -> Outcome:
        try:
            ready = await self._providers.find(identity.provider)
        except NotFound:
            return await self._refused(identity, "your identity provider was removed here")
        except BartizanError as error:
            return await self._unreachable(identity, identity.provider, None, error, now)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                secret = self._sealer.open(identity.about, renewal)
                proven = await ready.client.ask_again(secret, subject=identity.subject, now=now)
            person = provider_file.person(ready.file, proven.claims, known_as=identity.user)
        except Refused as refused:
            return await self._refused(identity, f"{ready.file.title} no longer vouches for you: {refused}")
        except (Unavailable, TimeoutError) as error:
            limit = ready.file.unreachable_limit
            return await self._unreachable(identity, ready.file.title, limit, error, now)
        return await self._vouched(identity, proven, person)

    async def _vouched(self, identity: StoredIdentity, proven: Proven, person: Person) -> Outcome:
        self._failed.pop(identity.user, None)
        renewal = None if proven.renewal is None else self._sealer.seal(identity.about, proven.renewal)

        def work(db: Db) -> bool:
            if not _still(db, identity):
                return False
            since = identities.answered(db, identity.provider)
            if since is not None:
                returned = audit.ProviderReturned(
                    provider=identity.provider, seconds=max(0, int((db.now - since).total_seconds()))
                )
                log.append(db, returned, actor="authority")
            return take_over(db, identity, person, renewal=renewal or identity.renewal, actor="authority")

        if not await self._store.write(work):
            return Outcome.SAME
        await self._live.reconsider()
        return Outcome.CHANGED

    async def _refused(self, identity: StoredIdentity, reason: str) -> Outcome:
        self._failed.pop(identity.user, None)
        self._metrics.logins.labels("refused").inc()

        def work(db: Db) -> None:
            if _still(db, identity):
                refuse(db, identity, reason)

        await self._store.write(work)
        await self._live.reconsider()
        return Outcome.REFUSED

    async def _unreachable(
        self, identity: StoredIdentity, title: str, limit: timedelta | None, error: Exception, now: datetime
    ) -> Outcome:
        problem = str(error) or "it did not answer in time"
        self._failed[identity.user] = now
        refuses_us = getattr(error, "code", None) == "provider_client"
        self._metrics.alarm("provider_client" if refuses_us else "provider_unreachable")
        logger.warning("identity provider unreachable", provider=identity.provider, problem=problem)
        since = identity.unreachable_since or now
        if limit is not None and now - since >= limit:
            return await self._refused(identity, f"{title} could not be asked since {since:%H:%M} UTC")
        newest = getattr(error, "renewal", None)
        renewal = identity.renewal if newest is None else self._sealer.seal(identity.about, newest)

        def work(db: Db) -> None:
            if not _still(db, identity):
                return
            told = identity.provider in identities.silent_since(db)
            identities.silent(db, identity, renewal=renewal)
            if not told:
                event = audit.ProviderUnreachable(provider=identity.provider, problem=problem)
                log.append(db, event, actor="authority")

        await self._store.write(work)
        return Outcome.UNREACHABLE


async def _side_by_side(ask: Callable[[str], Awaitable[None]], people: Iterable[str]) -> None:
    """*ask* about each of *people*, a few at a time."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def in_turn(name: str) -> None:
        async with turns:
            await ask(name)

    async with asyncio.TaskGroup() as group:
        for name in people:
            group.create_task(in_turn(name))


def _still(db: Db, asked: StoredIdentity) -> bool:
    """Whether all is as it was when the question was asked. If not, somebody else was faster, and the answer is old."""
    now = identities.find(db, asked.issuer, asked.subject)
    return now is not None and (now.user, now.provider, now.renewal, now.checked) == (
        asked.user,
        asked.provider,
        asked.renewal,
        asked.checked,
    )


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
            user=account.name,
            provider=identity.provider,
            roles=roles,
            before=tuple(sorted(account.roles)),
            traits=None if same_traits else dict(person.traits),
        )
        log.append(db, event, actor=actor)
    return not (same_roles and same_traits and account.refused is None)


def abandon(db: Db, provider: str, *, reason: str) -> int:
    """Nobody of *provider* is vouched for any more: it is removed. How many people that ends."""
    people = [identities.of_user(db, account.name) for account in users.of_provider(db, provider)]
    ties = [tie for tie in people if tie is not None]
    for tie in ties:
        refuse(db, tie, reason)
    return len(ties)


def refuse(db: Db, identity: StoredIdentity, reason: str) -> None:
    """Nothing is open to them from now on; what they were given ends."""
    users.refuse(db, identity.user, reason)
    identities.forget_renewal(db, identity)
    ended, revoked = end_everything(db, identity.user, reason=reason, actor="authority")
    event = audit.IdentityRefused(
        user=identity.user, provider=identity.provider, reason=reason, tokens=ended, certificates=revoked
    )
    log.append(db, event, actor="authority")


def _at_work(db: Db) -> dict[str, list[str]]:
    """People with a live session, by provider."""
    found: dict[str, list[str]] = {}
    for name in sorted({session.user for session in sessions.live(db)}):
        account = users.find(db, name)
        if account is not None and account.provider is not None:
            found.setdefault(account.provider, []).append(name)
    return found
