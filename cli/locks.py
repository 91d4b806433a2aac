"""``bartizan locks``: an immediate no, which also ends what is live."""

from __future__ import annotations

from datetime import timedelta

import click

from ca import wire
from cli import output
from cli.client import Authority
from cli.parameters import DURATION
from cli.roles import names_in_force
from cli.way_in import WayIn, pass_way


@click.group()
def locks() -> None:
    """Lock people, nodes, roles or logins out, and let them in again."""


@locks.command()
@click.option("--user", help="This person.")
@click.option("--node", help="This node.")
@click.option("--role", help="Whoever holds this role.")
@click.option("--login", help="This account, on every node that matches.")
@click.option("--reason", required=True, help="Why. The person sees it, and the audit log keeps it.")
@click.option("--for", "ttl", type=DURATION, help="How long, for example 8h. Default: until it is removed.")
@click.option("--json", "as_json", is_flag=True, help="Print the lock as JSON.")
@pass_way
def add(
    way: WayIn,
    user: str | None,
    node: str | None,
    role: str | None,
    login: str | None,
    reason: str,
    ttl: timedelta | None,
    as_json: bool,
) -> None:
    """Lock what matches all that is given. Live sessions it matches end within a second. Prints the lock's id."""
    if not (user or node or role or login):
        raise click.UsageError("a lock needs --user, --node, --role or --login")
    wanted = wire.NewLock(
        reason=reason,
        user=user,
        node=node,
        role=role,
        login=login,
        ttl_seconds=None if ttl is None else int(ttl.total_seconds()),
    )
    with way.open() as authority:
        made = authority.add_lock(wanted)
        unknown = [] if as_json else _unknown(authority, made)
    if as_json:
        output.as_json(made)
        return
    for one in unknown:
        output.warning(f"there is no {one} (yet); is it written right?")
    output.note(f"locked {_matched(made)}")
    output.data(made.id)


@locks.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@pass_way
def list_(way: WayIn, as_json: bool) -> None:
    """List the locks in force."""
    with way.open() as authority:
        held = authority.locks()
    if as_json:
        output.as_json(held)
        return
    output.table(
        ("id", "locks", "reason", "since", "until"),
        ([lock.id, _matched(lock), lock.reason, lock.created, lock.expires] for lock in held),
        empty="nothing is locked",
    )


@locks.command()
@click.argument("id")
@pass_way
def remove(way: WayIn, id: str) -> None:
    """Remove the lock with this ID."""
    with way.open() as authority:
        authority.remove_lock(id)
    output.note(f"lock {id} is removed")


def _unknown(authority: Authority, lock: wire.NewLock) -> list[str]:
    """What the lock names and nobody here knows. A lock may come before its person; more often it is a slip."""
    unknown = []
    if lock.user is not None and lock.user not in {user.name for user in authority.users()}:
        unknown.append(f"user {lock.user}")
    if lock.node is not None and lock.node not in {node.name for node in authority.nodes()}:
        unknown.append(f"node {lock.node}")
    if lock.role is not None and lock.role not in names_in_force(authority):
        unknown.append(f"role {lock.role}")
    return unknown


def _matched(lock: wire.NewLock) -> str:
    parts = {"user": lock.user, "node": lock.node, "role": lock.role, "login": lock.login}
    return " and ".join(f"{kind} {name}" for kind, name in parts.items() if name)
