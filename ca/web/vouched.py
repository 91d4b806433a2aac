"""
Whether the person at the browser is vouched for well enough to let a machine in, and by whom.

A certificate is worth more than a page. So a provider's yes must be fresh, and where a role wants a second factor the
browser must have shown one; ``ca/handover.py`` checks both again when the certificate is asked for.
"""

from __future__ import annotations

from urllib.parse import quote

from fastapi.responses import HTMLResponse

from ca import policy
from ca.errors import AccessDenied
from ca.provider import Provider
from ca.recheck import OLD
from ca.store import Db, identities, users
from ca.web import pages
from ca.web.pages import Refusal
from ca.web.signing_in import with_link
from ca.web.visitor import Visitor
from ca.web.with_provider import find


async def check_code(visitor: Visitor) -> None:
    """Refuse a browser that showed no second factor where a role wants one. A provider sees to its own."""
    user = visitor.who.user

    def wanted(db: Db) -> bool:
        account = users.find(db, user)
        local = account is not None and account.provider is None
        return local and policy.needs_second_factor(visitor.who, visitor.authority.rights.view(db).roles)

    if not visitor.with_code and await visitor.authority.store.read(wanted):
        again = f"/sign-in?again=yes&next={quote(visitor.here, safe='')}"
        raise Refusal(
            403,
            "This takes a second factor",
            "A role of yours wants one, and you signed in here without.",
            hint="Sign in again; the code is asked for then, or the second factor set up.",
            links=[("Sign in again", again)],
        )


async def to_ask_again(visitor: Visitor) -> Provider | None:
    """The provider that a person has to go through once more before a machine gets anything: its yes is too old."""
    authority, user = visitor.authority, visitor.who.user
    if await authority.store.read(lambda db: identities.of_user(db, user)) is None:
        return None
    await authority.recheck.fresh(user)
    account, identity, now = await authority.store.read(
        lambda db: (users.find(db, user), identities.of_user(db, user), db.now)
    )
    if account is None or identity is None or account.shut:
        raise AccessDenied(
            "your provider no longer vouches for you"
            if account is None
            else account.refused or "your account is closed",
            hint="sign in again",
            code="identity_refused",
        )
    return None if now - identity.checked < OLD else (await find(authority, identity.provider)).file


def once_more(visitor: Visitor, provider: Provider, where: str) -> HTMLResponse:
    """A page that leads to the provider: a form's answer may not go there by itself."""
    return visitor.remembered(
        pages.message(
            visitor.authority,
            f"{provider.title} has to confirm it",
            f"It is more than five minutes since {provider.title} last vouched for you.",
            kind="ask",
            hint="Mostly this takes one click; you come back here by yourself.",
            links=[(f"Continue with {provider.title}", with_link(provider.name, where))],
        )
    )


async def vouching(visitor: Visitor) -> str:
    """Who says that the visitor is who they are, as pages show it."""
    authority, user = visitor.authority, visitor.who.user
    account = await authority.store.read(lambda db: users.find(db, user))
    if account is None or account.provider is None:
        return "a password"
    return next((one.title for one in await authority.providers.all() if one.name == account.provider), "a provider")
