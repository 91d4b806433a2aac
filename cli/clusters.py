"""``bart clusters``: the clusters that somebody is signed in at, side by side on one machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
from click.shell_completion import CompletionItem

from ca.errors import NotFound
from cli import output
from cli.logout import sign_out
from cli.profile import Home, home, homes


def names(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Names of clusters, for a shell's completion."""
    return [CompletionItem(name) for name in map(_name, homes()) if name.startswith(begun)]


@click.group()
def clusters() -> None:
    """List and remove clusters. Another one is added by signing in: bart --cluster NAME login --authority URL."""


@clusters.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def list_(as_json: bool) -> None:
    """List the clusters you signed in at; a star marks the one that commands mean."""
    current = home().folder
    rows = [_row(place, current=place.folder == current) for place in homes()]
    if as_json:
        output.as_json(rows)
        return
    output.table(
        ("", "cluster", "user", "authority", "left"),
        (
            ["*" if row["current"] else "", row["cluster"], row["user"], row["authority"], _left(row["expires"])]
            for row in rows
        ),
        empty="nobody is signed in here",
    )


@clusters.command()
@click.argument("name", shell_complete=names)
def remove(name: str) -> None:
    """Sign out at the cluster NAME and forget it."""
    for place in homes():
        if _name(place) == name:
            sign_out(place)
            output.note(f"signed out at {name}; it is forgotten here")
            return
    raise NotFound(f"nobody is signed in at a cluster named {name!r} here", hint="bart clusters list")


def _name(place: Home) -> str:
    return place.profile().cluster.cluster


def _row(place: Home, *, current: bool) -> dict[str, object]:
    profile = place.profile()
    return {
        "cluster": profile.cluster.cluster,
        "user": profile.user,
        "authority": profile.authority,
        "expires": profile.expires,
        "current": current,
        "ssh_config": place.ssh_config,
    }


def _left(expires: object) -> str:
    assert isinstance(expires, datetime)
    left = expires - datetime.now(UTC)
    return output.span(left) if left > timedelta(0) else "over"
