"""
Signing in with an identity provider: off to it, and back.

What is needed when somebody comes back lies sealed in the store under the attempt's ``state``, which is good once, for
ten minutes, for the browser and for the provider that it was made for.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from ca import sign_in, trial
from ca.app import Authority
from ca.errors import AccessDenied, BartizanError, NotFound
from ca.identity.provider import Attempt, Proven, Refused, Unreachable
from ca.identity.registry import Ready
from ca.provider import Provider
from ca.store import tokens
from ca.web import pages
from ca.web.pages import PageRoute, Refusal, local, see_other
from ca.web.signing_in import arrived, back_to, with_link
from ca.web.visitor import Anybody, Visitor

ATTEMPT_LIFE = timedelta(minutes=10)
AGAIN: Sequence[pages.Link] = [("Sign in again", "/sign-in")]

router = APIRouter(tags=["pages"], route_class=PageRoute)


@router.get("/sign-in/with/{name}")
async def with_provider(name: str, visitor: Anybody, next: str = "/") -> Response:
    """Off to the provider. What is needed when they come back is kept here, for ten minutes and for this browser."""
    again: list[pages.Link] = [("Try again", with_link(name, next)), ("Other ways to sign in", back_to(next))]
    return await _sent_off(visitor, await find(visitor.authority, name), again, next=local(next))


@router.get("/sign-in/trial/{link}")
async def try_out(link: str, visitor: Anybody) -> Response:
    """Off to the provider as an administrator asked, to see what would come of it. Signs nobody in."""
    try:
        made = await trial.pending(visitor.authority, link)
    except NotFound as error:
        raise Refusal(404, "This trial is over", "Its link is good for ten minutes.", hint=error.hint) from error
    again: list[pages.Link] = [("Try again", f"/sign-in/trial/{link}")]
    return await _sent_off(visitor, await find(visitor.authority, str(made["provider"])), again, trial=link)


@router.get("/sign-in/callback/{name}")
async def back(name: str, request: Request, visitor: Anybody) -> Response:
    """They come back. An attempt is good once, for the browser and the provider that it was made for (OIDC-08, -09)."""
    authority = visitor.authority
    answer = _once_each(request.query_params.multi_items())
    ready = await find(authority, name)
    provider = ready.file
    attempt, kept = await _attempt(visitor, provider, answer.get("state", ""))
    if kept["trial"]:
        return await _tried_out(visitor, ready, attempt, answer, kept["trial"])
    where = kept["next"]
    again: list[pages.Link] = [
        ("Try again", with_link(provider.name, where)),
        ("Other ways to sign in", back_to(where)),
    ]
    try:
        proven = await _proven(visitor, ready, attempt, answer)
        signed_in = await sign_in.with_provider(authority, name, proven, source=visitor.source)
    except (AccessDenied, Unreachable) as error:
        return visitor.remembered(_said(authority, provider, error, again))
    return await arrived(visitor, signed_in, where)


async def _sent_off(
    visitor: Visitor, ready: Ready, again: Sequence[pages.Link], *, next: str = "", trial: str = ""
) -> Response:
    """Off to the provider, with an attempt that only this browser can finish."""
    authority, provider = visitor.authority, ready.file
    authority.doors.beginning.use(visitor.source, now=authority.clock())
    kept = {"nonce": secrets.token_urlsafe(32), "verifier": secrets.token_urlsafe(48), "next": next, "trial": trial}
    sealed = authority.sealer.seal(_about(visitor, provider.name), json.dumps(kept))
    data: dict[str, object] = {"provider": provider.name, "sealed": sealed}
    state, _ = await authority.store.write(lambda db: tokens.make(db, "attempt", life=ATTEMPT_LIFE, data=data))
    attempt = Attempt(_callback(authority, provider.name), state, kept["nonce"], kept["verifier"])
    try:
        where = await ready.client.address(attempt)
    except Unreachable as error:
        return visitor.remembered(_said(authority, provider, error, again))
    return visitor.remembered(see_other(where))


async def _tried_out(
    visitor: Visitor, ready: Ready, attempt: Attempt, answer: Mapping[str, str], link: str
) -> Response:
    """What would have come of it, for whoever asked and for whoever came."""
    authority = visitor.authority
    by = str((await trial.pending(authority, link))["by"])
    came = await trial.outcome(
        authority,
        ready,
        lambda: _answered(authority, ready, attempt, answer),
        await trial.probed(authority, ready),
        actor=by,
    )
    await trial.keep(authority, link, came)
    last = came.steps[-1]
    return visitor.remembered(
        pages.message(
            authority,
            "That would have worked" if came.ok else "That would not have worked",
            pages.sentence(last.detail),
            kind="good" if came.ok else "bad",
            hint="This was a trial: nobody was signed in. The terminal that began it says more.",
        )
    )


async def _proven(visitor: Visitor, ready: Ready, attempt: Attempt, answer: Mapping[str, str]) -> Proven:
    """Whom the provider's answer proves. That it proves nobody is written down."""
    authority = visitor.authority
    try:
        return await _answered(authority, ready, attempt, answer)
    except (AccessDenied, Unreachable) as error:
        await sign_in.refused_by_provider(authority, ready.file.name, error, source=visitor.source)
        raise


async def _answered(authority: Authority, ready: Ready, attempt: Attempt, answer: Mapping[str, str]) -> Proven:
    if answer.get("error") == "access_denied":
        raise Refused(
            f"{ready.file.title} says that you, or its rules, said no", hint="nothing was changed", code="said_no"
        )
    return await ready.client.prove(attempt, answer, now=authority.clock())


async def find(authority: Authority, name: str) -> Ready:
    """The provider of this name, or a page that says there is none."""
    try:
        return await authority.providers.find(name)
    except NotFound as error:
        raise Refusal(
            404, "There is no such way to sign in", "An administrator may have taken it away.", links=AGAIN
        ) from error


def _callback(authority: Authority, provider: str) -> str:
    return f"{authority.settings.web_url}/sign-in/callback/{provider}"


def _once_each(pairs: Sequence[tuple[str, str]]) -> Mapping[str, str]:
    answer = dict(pairs)
    if len(answer) != len(pairs):
        raise Refusal(400, "That answer is not right", "The provider's answer says a thing twice.", links=AGAIN)
    return answer


async def _attempt(visitor: Visitor, provider: Provider, state: str) -> tuple[Attempt, dict[str, str]]:
    """The attempt that *state* stands for, which ends with this, whoever brought it; and what was kept with it."""
    authority = visitor.authority
    known = await authority.store.read(lambda db: tokens.find(db, "attempt", state)) if state else None
    token = await authority.store.write(lambda db: tokens.use(db, "attempt", state)) if known else None
    if token is not None and token.data.get("provider") != provider.name:
        raise Refusal(
            400,
            "That answer is not right",
            f"It came to {provider.title}, but the sign-in was begun with another provider.",
            hint="You are not signed in by it. If this comes again, tell an administrator.",
            links=AGAIN,
        )
    try:
        if token is None or not visitor.known:
            raise BartizanError("unknown")
        opened = authority.sealer.open(_about(visitor, provider.name), str(token.data["sealed"]))
    except BartizanError as error:
        raise Refusal(
            400,
            "This sign-in is over",
            "It was begun more than ten minutes ago, in another browser, or has been used already; "
            "or this browser keeps no cookies.",
            hint="Nothing has changed: whoever was signed in here still is.",
            links=AGAIN,
        ) from error
    kept: dict[str, str] = json.loads(opened)
    return Attempt(_callback(authority, provider.name), state, kept["nonce"], kept["verifier"]), kept


def _about(visitor: Visitor, provider: str) -> str:
    """What a sealed attempt is bound to: another browser, or another provider, does not open it."""
    return f"attempt:{provider}:{visitor.browser}"


def _said(authority: Authority, provider: Provider, error: BartizanError, links: Sequence[pages.Link]) -> HTMLResponse:
    """Why *provider* did not let somebody in, in plain words, and what to do next."""
    heading, hint = HEADINGS.get(error.code, f"{provider.title} did not let you in"), error.hint
    if isinstance(error, Unreachable):
        heading = f"{provider.title} does not answer"
        hint = hint or "try again in a minute; sessions that are open go on"
    return pages.message(
        authority,
        heading,
        pages.sentence(str(error)),
        status=503 if isinstance(error, Unreachable) else 403,
        kind="bad",
        hint=None if hint is None else pages.sentence(hint),
        links=links,
        incident=f"{provider.name}: {error.code}",
    )


HEADINGS = {
    "domain_mismatch": "Your name is of another domain",
    "email_unverified": "Your e-mail address is not verified",
    "locked": "Your access is locked",
    "name_invalid": "Your name does not fit here",
    "name_missing": "We did not hear your name",
    "not_allowed": "You may not sign in here",
    "principal_conflict": "Somebody else has that name here",
    "privileged_principal": "Your name does not fit here",
    "said_no": "You were not let in",
    "user_disabled": "This account is closed",
}
