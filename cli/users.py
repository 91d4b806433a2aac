"""``bartizan users``: the people who may sign in with a password of their own."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ca import wire
from ca.errors import Conflict, InvalidInput
from cli import output, secret
from cli.client import Authority
from cli.roles import names_in_force
from cli.way_in import WayIn, pass_way


@click.group()
def users() -> None:
    """Add, list and disable people."""


@users.command()
@click.argument("name")
@click.option("--role", "roles", multiple=True, help="A role to hold. May be given several times.")
@click.option("--password-stdin", is_flag=True, help="Read a password from standard input instead of inviting.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@pass_way
def add(way: WayIn, name: str, roles: tuple[str, ...], password_stdin: bool, as_json: bool) -> None:
    """Add NAME. Without --password-stdin, prints a link with which the person sets a password, once."""
    password = secret.password(f"password for {name}", from_stdin=True) if password_stdin else None
    with way.open() as authority:
        added = authority.add_user(wire.NewUser(name=name, roles=list(roles), password=password))
        _warned(authority, roles)
    _told(added, f"added {added.user.name}", as_json=as_json)


@users.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@pass_way
def list_(way: WayIn, as_json: bool) -> None:
    """List people with the roles they hold."""
    with way.open() as authority:
        known = authority.users()
    if as_json:
        output.as_json(known)
        return
    output.table(
        ("user", "roles", "signs in with", "state", "since"),
        ([user.name, user.roles, _signs_in_with(user), _state(user), user.created] for user in known),
        empty=f"nobody yet: {way.program} users add NAME --role ROLE",
    )


@users.command()
@click.argument("name")
@pass_way
def disable(way: WayIn, name: str) -> None:
    """Stop NAME from signing in, and end every live session of theirs."""
    with way.open() as authority:
        authority.change_user(name, wire.UserChange(disabled=True))
    output.note(f"{name} is disabled")


@users.command()
@click.argument("name")
@pass_way
def enable(way: WayIn, name: str) -> None:
    """Let NAME sign in again."""
    with way.open() as authority:
        authority.change_user(name, wire.UserChange(disabled=False))
    output.note(f"{name} is enabled")


@users.command("set-roles")
@click.argument("name")
@click.option("--role", "roles", multiple=True, help="A role to hold from now on, instead of the present ones.")
@click.option("--none", is_flag=True, help="Hold no role at all.")
@pass_way
def set_roles(way: WayIn, name: str, roles: tuple[str, ...], none: bool) -> None:
    """Replace the roles of NAME. Live sessions that they no longer allow end at once."""
    if bool(roles) == none:
        raise InvalidInput(
            "give the roles to hold, or --none", hint=f"{way.program} users set-roles {name} --role ROLE"
        )
    with way.open() as authority:
        changed = authority.change_user(name, wire.UserChange(roles=list(roles)))
        _warned(authority, roles)
    output.note(f"{name} holds {', '.join(changed.roles) or 'no role'}")


@users.command()
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the new password from standard input instead of inviting.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@pass_way
def passwd(way: WayIn, name: str, password_stdin: bool, as_json: bool) -> None:
    """Reset the password of NAME. Without --password-stdin, prints a link with which the person sets one, once."""
    password = secret.password(f"password for {name}", from_stdin=True) if password_stdin else None
    with way.open() as authority:
        reset = authority.set_password(name, wire.NewPassword(password=password))
    _told(reset, f"the password of {name} is {'changed' if password else 'taken away'}", as_json=as_json)


@users.command("reset-factor")
@click.argument("name")
@pass_way
def reset_factor(way: WayIn, name: str) -> None:
    """Take the second factor of NAME away, who has lost it. Ends NAME's sign-ins, as a new password does."""
    with way.open() as authority:
        authority.reset_factor(name)
    output.note(f"{name} has no second factor any more, and signs in anew")


@users.command("hand-over")
@click.argument("name")
@click.option("--provider", required=True, help="The identity provider that vouches for NAME from now on.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_way
def hand_over(way: WayIn, name: str, provider: str, yes: bool) -> None:
    """Let an identity provider vouch for NAME, who has a local account: for a team that moves to single sign-on.

    NAME's password and second factor are taken away, and what NAME was given ends.
    """
    if not yes and not output.confirm(f"Whoever {provider} next calls {name} becomes {name} here. Hand it over?"):
        raise Conflict("nothing was changed", hint=f"{way.program} users hand-over {name} --provider {provider} --yes")
    with way.open() as authority:
        authority.hand_over_user(name, wire.HandingOver(provider=provider))
    output.note(f"{name} signs in with {provider} from now on")


@users.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_way
def unlink(way: WayIn, name: str, yes: bool) -> None:
    """Cut the tie between NAME and an account at an identity provider, so that another account may take the name.

    For somebody whose account there was made anew. Ends all that NAME was given.
    """
    if not yes and not output.confirm(f"Whoever the provider next calls {name} becomes {name} here. Cut the tie?"):
        raise Conflict("nothing was changed", hint=f"{way.program} users unlink {name} --yes")
    with way.open() as authority:
        authority.unlink_user(name)
    output.note(f"{name} is tied to no account any more; the next one that the provider calls so becomes {name}")


def _told(result: wire.AddedUser, done: str, *, as_json: bool) -> None:
    if as_json:
        output.as_json(result)
        return
    output.note(done)
    if result.invitation_url:
        output.note("give the person this link; it works once:")
        output.data(result.invitation_url)


def _warned(authority: Authority, held: Sequence[str]) -> None:
    """A role may be given before the file that says what it allows is applied. More often it is a slip."""
    if not held:
        return
    known = names_in_force(authority)
    for role in held:
        if role not in known:
            output.warning(f"no role is named {role} (yet); there are: {', '.join(known)}")


def _state(user: wire.User) -> str:
    if user.disabled:
        return "disabled"
    if user.provider is not None:
        return "refused" if user.refused else "active"
    return "active" if user.has_password else "invited"


def _signs_in_with(user: wire.User) -> str:
    if user.provider is not None:
        return user.provider
    return "password+code" if user.has_factor else "password"
