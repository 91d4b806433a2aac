"""``bart ls``: the nodes that may be reached now. Refreshes what is written for ssh on the way."""

from __future__ import annotations

import click

from cli import output
from cli.client import signed_in
from cli.profile import Home, Profile, home


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def ls(as_json: bool) -> None:
    """List the nodes you may reach, with the logins and actions granted there."""
    profile = refresh(home())
    if as_json:
        output.as_json(list(profile.nodes))
        return
    output.table(
        ("node", "logins", "actions", "labels"),
        ([node.name, node.logins, node.actions, node.labels] for node in profile.nodes),
        empty="you may reach no node: there is none that your roles reach",
    )


def refresh(place: Home) -> Profile:
    """Ask the authority what may be reached now, and write ssh_config and known_hosts anew."""
    profile = place.profile()
    with place.changing(), signed_in(place) as authority:
        profile = profile.refreshed(authority.me())
        place.store(profile)
    return profile
