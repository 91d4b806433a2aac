"""
HTTP for identity providers: apply a provider's file, list, try out, remove. For administrators.

The client secret comes beside the file and is sealed before it is stored; no answer and no event holds it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime

from fastapi import APIRouter

from ca import audit
from ca import trial as trials
from ca.api.callers import Administrator, Caller, Here
from ca.app import Authority
from ca.errors import Conflict, InvalidInput, NotFound
from ca.identity.provider import Proven
from ca.provider import GITHUB
from ca.provider_file import Provider, parse
from ca.recheck import abandon
from ca.store import Db, identities, providers
from ca.store import audit as log
from ca.store.providers import StoredProvider
from ca.wire import (
    ProviderApplied,
    ProviderFile,
    ProviderTested,
    ProviderTrial,
    ProviderView,
    Recheck,
    Rechecked,
    TrialLink,
    TrialStep,
)

router = APIRouter(prefix="/v1/idp", tags=["identity providers"])


@router.put("")
async def apply(file: ProviderFile, authority: Here, caller: Administrator) -> ProviderApplied:
    """Put a provider's file in force, under the name that it holds. The stored secret stays unless a new one comes."""
    provider = parse(file.text, file.file)
    _check_secret(file.secret)

    def work(db: Db) -> ProviderApplied:
        before = providers.find(db, provider.name)
        _refuse_another_issuer(db, provider, before, file)
        has_secret = file.secret is not None or (before is not None and before.secret is not None)
        if provider.kind == GITHUB and not has_secret:
            raise InvalidInput("GitHub wants a client secret", hint="--secret-file FILE", code="secret_missing")
        notes = [*provider.notes, *([] if has_secret else [_NO_SECRET]), *_effects(db, provider, before)]
        if not file.dry_run:
            _store(authority, db, provider, file, caller)
            if _another_client(provider, before):
                providers.forget_renewals(db, provider.name)
        return ProviderApplied(
            name=provider.name,
            created=before is None,
            callback_url=callback_url(authority, provider.name),
            notes=notes,
        )

    return await authority.store.write(work)


@router.get("")
async def listing(authority: Here, caller: Administrator) -> list[ProviderView]:
    """All providers by name, each with its file as it was written; never a secret."""

    def work(db: Db) -> list[ProviderView]:
        people, silent = identities.count(db), identities.silent_since(db)
        return [_view(authority, stored, people, silent) for stored in providers.every(db)]

    return await authority.store.read(work)


@router.delete("/{name}", status_code=204)
async def remove(name: str, authority: Here, caller: Administrator) -> None:
    """Take a provider out. Whoever signed in with it is signed out: tokens, certificates and live sessions end.

    Who they are stays known by issuer and subject, so that nobody else takes their names.
    """

    def work(db: Db) -> None:
        if not providers.remove(db, name):
            raise NotFound(f"there is no identity provider {name[:64]!a}", hint="bartizan idp list")
        people = abandon(db, name, reason=f"the identity provider {name} was removed here")
        log.append(db, audit.ProviderRemoved(provider=name, users=people), actor=caller.actor)

    await authority.change(work)


@router.post("/{name}/trial")
async def trial(name: str, trial: ProviderTrial, authority: Here, caller: Administrator) -> ProviderTested:
    """Try a provider out; with a pasted token, say whom it would sign in and by which lines. Signs nobody in."""
    ready = await authority.providers.find(name)
    if trial.trial is not None:
        waiting = TrialStep(what="sign-in", ok=None, detail="nobody has come back from the provider yet")
        return await trials.heard(authority, name, trial.trial) or ProviderTested(ok=False, steps=[waiting])
    steps, pasted = await trials.probed(authority, ready), trial.token
    if pasted is None:
        return await trials.conclusion(authority, ready, steps, None, actor=caller.actor)

    async def prove() -> Proven:
        return await ready.client.read_token(pasted, now=authority.clock())

    return await trials.outcome(authority, ready, prove, steps, actor=caller.actor)


@router.post("/{name}/trial-link", status_code=201)
async def trial_link(name: str, authority: Here, caller: Administrator) -> TrialLink:
    """A link on which somebody signs in at the provider, to see what would come of it. Signs nobody in."""
    return await trials.link(authority, await authority.providers.find(name), actor=caller.actor)


@router.post("/{name}/recheck")
async def recheck(name: str, whom: Recheck, authority: Here, caller: Administrator) -> Rechecked:
    """Ask the provider now whether it still vouches for people. What it says counts at once."""
    await authority.providers.find(name)
    outcomes = await authority.recheck.now(name, whom.user)
    if whom.user is not None and not outcomes:
        raise NotFound(f"{name} vouches for no {whom.user[:64]!a} here", hint="bartizan users list")
    return Rechecked(outcomes={user: outcome.value for user, outcome in outcomes.items()})


def callback_url(authority: Authority, name: str) -> str:
    """Where the provider sends people back to: one address for each provider, so that none answers for another."""
    return f"{authority.settings.web_url}/sign-in/callback/{name}"


# --- applying -------------------------------------------------------------------------------------------------

_NO_SECRET = "there is no client secret: the provider must know this client as a public one"


def _another_client(provider: Provider, before: StoredProvider | None) -> bool:
    """Whether what the provider gave us for asking again was given to another client, and is worth nothing."""
    was = None if before is None else _understood(before)
    return was is not None and was.client != provider.client


def _effects(db: Db, provider: Provider, before: StoredProvider | None) -> list[str]:
    """What the new file means for people who signed in under the one before."""
    if before is None or not identities.count(db).get(provider.name, 0):
        return []
    if _another_client(provider, before):
        return [
            "the client is another one, so nobody who is signed in can be asked about until they sign in again: "
            "to end what they have now: bartizan locks add --user NAME"
        ]
    return [
        "people already signed in are asked about within five minutes of work, "
        f"or now: bartizan idp recheck {provider.name}"
    ]


def _check_secret(secret: str | None) -> None:
    if secret is not None and not (secret.isascii() and secret.isprintable()):
        raise InvalidInput("secret: expected printable ASCII (RFC 6749, appendix A.2)")


def _refuse_another_issuer(db: Db, provider: Provider, before: StoredProvider | None, file: ProviderFile) -> None:
    """People are known by issuer and subject: under another issuer they would be nobody, or somebody else."""
    if before is None:
        return
    was = _understood(before)
    issuer = providers.issuer_of_people(db, provider.name) if was is None else was.issuer
    if issuer == provider.issuer and (was is None or was.kind == provider.kind):
        return
    if people := identities.count(db).get(provider.name, 0):
        raise Conflict(
            f"{provider.name} is {issuer}, and {people} signed in with it: another issuer is another provider",
            hint=f"give the new one a name of its own, or first: bartizan idp remove {provider.name}",
            code="issuer_changed",
        )
    if before.secret is not None and file.secret is None:
        raise InvalidInput(
            f"the stored secret is that of {issuer or 'an issuer that is no longer known'}, and goes to no other",
            hint="--secret-file FILE",
            code="secret_missing",
        )


def _understood(stored: StoredProvider) -> Provider | None:
    """What the stored file says. None: an earlier version took what this one does not, and the new file mends it."""
    try:
        return parse(stored.text)
    except InvalidInput:
        return None


def _store(authority: Authority, db: Db, provider: Provider, file: ProviderFile, caller: Caller) -> None:
    sealed = None if file.secret is None else authority.sealer.seal(f"client:{provider.name}", file.secret)
    stored = providers.apply(db, provider.name, file.text, secret=sealed, by=caller.actor)
    event = audit.ProviderApplied(
        provider=provider.name,
        issuer=provider.issuer,
        revision=stored.revision,
        sha256=hashlib.sha256(file.text.encode()).hexdigest(),
        new_secret=sealed is not None,
    )
    log.append(db, event, actor=caller.actor)


def _view(
    authority: Authority, stored: StoredProvider, people: Mapping[str, int], silent: Mapping[str, datetime]
) -> ProviderView:
    provider = _understood(stored)
    return ProviderView(
        name=stored.name,
        title=stored.name if provider is None else provider.title,
        kind="not understood" if provider is None else provider.kind,
        issuer="" if provider is None else provider.issuer,
        client="" if provider is None else provider.client,
        callback_url=callback_url(authority, stored.name),
        has_secret=stored.secret is not None,
        users=people.get(stored.name, 0),
        unreachable_since=silent.get(stored.name),
        revision=stored.revision,
        applied=stored.applied,
        applied_by=stored.applied_by,
        text=stored.text,
    )
