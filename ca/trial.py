"""
A provider tried out: what its answer would make of somebody, step by step, with the lines of the file. Signs nobody in.

An administrator pastes a token, or opens a link: whoever signs in at the provider by it stays who they are here, and
what would have come of it is kept with the link, for ten minutes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from ca import audit
from ca.app import Authority
from ca.errors import BartizanError, NotFound
from ca.identity.provider import Probe, Proven
from ca.identity.registry import Ready
from ca.provider_file import Person, person
from ca.sign_in import name_is_free
from ca.store import Db, identities, tokens
from ca.store import audit as log
from ca.wire import ProviderTested, TrialLink, TrialPerson, TrialStep

LIFE = timedelta(minutes=10)
KIND = "trial"


async def probed(authority: Authority, ready: Ready) -> list[TrialStep]:
    """What can be tried without a person."""
    return [_step(probe) for probe in await ready.client.probe(now=authority.clock())]


async def outcome(
    authority: Authority, ready: Ready, prove: Callable[[], Awaitable[Proven]], steps: list[TrialStep], *, actor: str
) -> ProviderTested:
    """Whom *prove* would sign in, after *steps*. Written into the audit log, whatever comes of it."""
    found = await _read(authority, ready, prove, steps)
    return await conclusion(authority, ready, steps, found, actor=actor)


async def conclusion(
    authority: Authority, ready: Ready, steps: list[TrialStep], found: Person | None, *, actor: str
) -> ProviderTested:
    """What came of all steps."""
    ok = all(step.ok is not False for step in steps)
    event = audit.ProviderTested(provider=ready.file.name, ok=ok)
    await authority.store.write(lambda db: log.append(db, event, actor=actor))
    return ProviderTested(ok=ok, steps=steps, person=None if found is None else _shown(found))


async def link(authority: Authority, ready: Ready, *, actor: str) -> TrialLink:
    """A link for a browser, and what its outcome is asked for with."""
    data: dict[str, object] = {"provider": ready.file.name, "by": actor}
    text, expires = await authority.store.write(lambda db: tokens.make(db, KIND, life=LIFE, data=data))
    return TrialLink(url=f"{authority.settings.web_url}/sign-in/trial/{text}", trial=text, expires=expires)


async def heard(authority: Authority, provider: str, text: str) -> ProviderTested | None:
    """What came of a link; None while nobody has come back by it. Raises NotFound when it is over."""
    data = await pending(authority, text)
    if data["provider"] != provider:
        raise NotFound("this trial is of another provider")
    return ProviderTested.model_validate(data["outcome"]) if "outcome" in data else None


async def pending(authority: Authority, text: str) -> dict[str, object]:
    """What is known of a link: provider, by whom it was made, perhaps what came of it. Raises NotFound."""
    token = await authority.store.read(lambda db: tokens.find(db, KIND, text))
    if token is None:
        raise NotFound("this trial is over", hint="bartizan idp test NAME --sign-in")
    return token.data


async def keep(authority: Authority, text: str, came: ProviderTested) -> None:
    """Let whoever waits for the link hear what came of it."""
    data = {**await pending(authority, text), "outcome": came.model_dump(mode="json")}
    await authority.store.write(lambda db: tokens.set_data(db, text, data))


async def _read(
    authority: Authority, ready: Ready, prove: Callable[[], Awaitable[Proven]], steps: list[TrialStep]
) -> Person | None:
    try:
        proven = await prove()
    except BartizanError as error:
        steps.append(TrialStep(what="token", ok=False, detail=f"{error} ({error.code})"))
        return None
    steps.append(TrialStep(what="token", ok=True, detail=f"proves {proven.subject!a} of {proven.issuer}"))
    try:
        found = person(ready.file, proven.claims)
    except BartizanError as error:
        steps.append(TrialStep(what="person", ok=False, detail=f"{error} ({error.code})"))
        return None
    steps.append(await authority.store.read(lambda db: _standing(db, ready.file.name, proven, found)))
    return found


def _standing(db: Db, provider: str, proven: Proven, found: Person) -> TrialStep:
    """Whether the name is theirs here. Who was here before keeps the name they had, whatever the claim says now."""
    known = identities.find(db, proven.issuer, proven.subject)
    if known is not None:
        return TrialStep(what="person", ok=True, detail=f"would sign in as {known.user}, who was here before")
    if name_is_free(db, provider, found.user):
        return TrialStep(what="person", ok=True, detail=f"would sign in as {found.user}, new here")
    detail = f"the name {found.user} belongs to another account here (principal_conflict)"
    return TrialStep(what="person", ok=False, detail=detail)


def _step(probe: Probe) -> TrialStep:
    return TrialStep(what=probe.what, ok=probe.ok, detail=probe.detail)


def _shown(found: Person) -> TrialPerson:
    return TrialPerson(
        user=found.user,
        roles=sorted(found.roles),
        traits={trait: list(values) for trait, values in found.traits.items()},
        lines=list(found.lines),
    )
