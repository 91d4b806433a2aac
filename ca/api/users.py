"""HTTP for people with a local account. For administrators."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter

from ca import audit
from ca.api.callers import Administrator, Here
from ca.app import Authority
from ca.certificate import ROOT_LIKE
from ca.errors import Conflict, InvalidInput, NotFound
from ca.model import USER
from ca.policy import ADMIN
from ca.roles import ROLE
from ca.sign_out import end_everything
from ca.store import Db, device_logins, factors, identities, logins, tokens, users
from ca.store import audit as log
from ca.store.users import Account
from ca.wire import AddedUser, HandingOver, NewPassword, NewUser, User, UserChange

INVITATION_LIFE = timedelta(hours=24)
router = APIRouter(prefix="/v1/users", tags=["users"])


@router.post("", status_code=201)
async def add(new: NewUser, authority: Here, caller: Administrator) -> AddedUser:
    """Add a person: with a password, or with a link by which they set one themselves."""
    if not USER.match(new.name):
        raise InvalidInput("name: expected a-z, 0-9, _ . @ -, beginning with a letter", code="principal_invalid")
    if new.name in ROOT_LIKE:
        raise InvalidInput(
            f"name: nobody is called {new.name} here: people have names of their own, and roles give them that login",
            hint=f"bartizan users add NAME --role ROLE, where the role's grant has logins: [{new.name}]",
            code="privileged_principal",
        )
    _check_roles(new.roles)
    password_hash = None if new.password is None else await authority.passwords.hashed(new.password)

    def work(db: Db) -> AddedUser:
        if users.find(db, new.name) is not None:
            raise Conflict(
                f"there is already a user {new.name}",
                hint=f"bartizan users set-roles {new.name} --role ROLE, or: bartizan users passwd {new.name}",
                code="principal_conflict",
            )
        account = Account(new.name, tuple(dict.fromkeys(new.roles)), password_hash, False, db.now)
        users.add(db, account)
        log.append(db, audit.UserAdded(user=new.name, roles=account.roles), actor=caller.actor)
        link = None if password_hash else _invite(authority, db, new.name, caller.actor)
        return AddedUser(user=view(account), invitation_url=link)

    return await authority.change(work)


@router.get("")
async def listing(authority: Here, caller: Administrator) -> list[User]:
    """All people, by name."""

    def work(db: Db) -> list[User]:
        holders = factors.holders(db)
        return [view(account, has_factor=account.name in holders) for account in users.every(db)]

    return await authority.store.read(work)


@router.patch("/{name}")
async def change(name: str, change: UserChange, authority: Here, caller: Administrator) -> User:
    """Change roles, or close and open the account. Live sessions feel it at once."""
    _check_roles(change.roles or [])

    def work(db: Db) -> User:
        before = find(db, name)
        if before.provider is not None and change.roles is not None:
            raise Conflict(
                f"the roles of {name} come from the identity provider {before.provider}",
                hint=f"change its file: bartizan idp show {before.provider}",
                code="roles_from_provider",
            )
        roles = before.roles if change.roles is None else tuple(dict.fromkeys(change.roles))
        disabled = before.disabled if change.disabled is None else change.disabled
        users.change(db, name, roles=roles, disabled=disabled)
        if set(roles) != set(before.roles):
            log.append(db, audit.UserChanged(user=name, roles=roles, before=before.roles), actor=caller.actor)
        if disabled and not before.disabled:
            end_everything(db, name, reason="the account was closed", actor=caller.actor)
            log.append(db, audit.UserDisabled(user=name), actor=caller.actor)
        if before.disabled and not disabled:
            log.append(db, audit.UserEnabled(user=name), actor=caller.actor)
        return _shown(db, name)

    return await authority.change(work)


@router.post("/{name}/password")
async def set_password(name: str, new: NewPassword, authority: Here, caller: Administrator) -> AddedUser:
    """Set a password, or make an invitation link. Either ends the person's sign-ins and counted failures."""
    password_hash = None if new.password is None else await authority.passwords.hashed(new.password)

    def work(db: Db) -> AddedUser:
        provider = find(db, name).provider
        if provider is not None:
            raise Conflict(f"{name} signs in with the identity provider {provider}, not with a password of ours")
        tokens.end_all_of(db, name)
        device_logins.end_all_of(db, name)
        logins.forget(db, name)
        users.set_password(db, name, password_hash)
        link = None
        if password_hash is None:
            link = _invite(authority, db, name, caller.actor)
        else:
            log.append(db, audit.UserPasswordSet(user=name, reset=True), actor=caller.actor)
        return AddedUser(user=_shown(db, name), invitation_url=link)

    return await authority.store.write(work)


@router.post("/{name}/unlinking", status_code=204)
async def unlink(name: str, authority: Here, caller: Administrator) -> None:
    """Cut the tie to an account at a provider. What was issued ends; the provider's next one of that name gets it."""

    def work(db: Db) -> None:
        account, identity = find(db, name), identities.of_user(db, name)
        if identity is None:
            raise Conflict(f"{name} is tied to no account at an identity provider")
        end_everything(db, name, reason="the tie to the identity provider was cut", actor=caller.actor)
        identities.remove(db, identity)
        users.refuse(db, account.name, "the tie to the identity provider was cut")
        event = audit.IdentityRemoved(
            user=name, provider=identity.provider, issuer=identity.issuer, subject=identity.subject
        )
        log.append(db, event, actor=caller.actor)

    await authority.change(work)


@router.post("/{name}/handing-over", status_code=204)
async def hand_over(name: str, to: HandingOver, authority: Here, caller: Administrator) -> None:
    """Let an identity provider vouch for somebody who had a local account: whoever it next calls by the name is them.

    Password and second factor are gone, and what was issued ends.
    """
    await authority.providers.find(to.provider)

    def work(db: Db) -> None:
        account = find(db, name)
        if account.provider is not None:
            raise Conflict(f"{name} signs in with {account.provider} already", hint=f"bartizan users unlink {name}")
        end_everything(db, name, reason=f"the account was handed over to {to.provider}", actor=caller.actor)
        users.set_password(db, name, None)
        factors.remove(db, name)
        users.vouch(db, name, provider=to.provider, roles=(), traits={})
        users.refuse(db, name, f"nobody has signed in with {to.provider} by this name yet")
        event = audit.UserHandedOver(user=name, provider=to.provider, before=account.roles)
        log.append(db, event, actor=caller.actor)

    await authority.change(work)


def view(account: Account, *, has_factor: bool = False) -> User:
    return User(
        name=account.name,
        roles=sorted(account.roles),
        disabled=account.disabled,
        has_password=account.password_hash is not None,
        created=account.created,
        provider=account.provider,
        traits={name: list(values) for name, values in account.traits.items()},
        refused=account.refused,
        has_factor=has_factor,
    )


def find(db: Db, name: str) -> Account:
    account = users.find(db, name)
    if account is None:
        raise NotFound(f"there is no user {name[:64]!r}", hint="bartizan users list")
    return account


def _shown(db: Db, name: str) -> User:
    return view(find(db, name), has_factor=factors.confirmed(db, name) is not None)


def _invite(authority: Authority, db: Db, name: str, actor: str) -> str:
    """A one-time link. Earlier ones of the same person end."""
    tokens.end_all_of(db, name, "invitation")
    text, expires = tokens.make(db, "invitation", life=INVITATION_LIFE, user=name)
    log.append(db, audit.UserInvited(user=name, expires=audit.moment(expires)), actor=actor)
    return f"{authority.settings.web_url}/invitation/{text}"


def _check_roles(names: list[str]) -> None:
    for name in names:
        if name != ADMIN and not ROLE.match(name):
            raise InvalidInput(f"roles: {name[:64]!r} is not a role's name")
