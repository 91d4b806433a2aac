"""``bart sessions`` and ``bartizan sessions``: who is, or was, on which node; and ending it."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ca import wire
from cli import output
from cli.client import signed_in
from cli.profile import home
from cli.way_in import WayIn, pass_way


@click.command("sessions")
@click.option("--live", is_flag=True, help="Only those that are going on.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def own(live: bool, as_json: bool) -> None:
    """List your sessions, newest first."""
    place = home()
    narrow = {"user": place.profile().user} | ({"live": "true"} if live else {})
    with signed_in(place) as authority:
        _shown(authority.sessions(**narrow), as_json=as_json)


@click.group("sessions")
def administered() -> None:
    """List everybody's sessions, and end them."""


@administered.command("list")
@click.option("--live", is_flag=True, help="Only those that are going on.")
@click.option("--user", help="Only this person's.")
@click.option("--node", help="Only those on this node.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@pass_way
def list_(way: WayIn, live: bool, user: str | None, node: str | None, as_json: bool) -> None:
    """List sessions, newest first."""
    narrow = {name: value for name, value in (("user", user), ("node", node)) if value}
    with way.open() as authority:
        _shown(authority.sessions(**narrow, **({"live": "true"} if live else {})), as_json=as_json)


@administered.command()
@click.argument("id")
@click.option("--reason", required=True, help="Why. The person sees it, and the audit log keeps it.")
@pass_way
def terminate(way: WayIn, id: str, reason: str) -> None:
    """End the live session ID within a second, and tell the person why."""
    with way.open() as authority:
        authority.terminate(id, wire.Termination(reason=reason))
    output.note(f"session {id} is being ended")


def _shown(found: Sequence[wire.SessionView], *, as_json: bool) -> None:
    if as_json:
        output.as_json(list(found))
        return
    output.table(
        ("id", "user", "node", "login", "from", "started", "ended", "how"),
        (
            [one.id, one.user, one.node, one.login, one.source, one.started, one.ended, one.how or "live"]
            for one in found
        ),
        empty="no session",
    )
