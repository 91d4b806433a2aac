"""``bartizan``: for people who run it. Each command is in a file of its own; this one only gathers them."""

from __future__ import annotations

from pathlib import Path

import click

from cli import (
    access,
    audit,
    bastions,
    ca,
    certificates,
    completion,
    demo,
    idp,
    locks,
    node,
    nodes,
    pin,
    roles,
    sessions,
    up,
    users,
)
from cli.output import Program
from cli.parameters import FOLDER
from cli.way_in import WayIn


@click.group(cls=Program, name="bartizan")
@click.version_option(package_name="bartizan", message="%(version)s")
@click.option(
    "--data",
    type=FOLDER,
    envvar="BARTIZAN_DATA",
    help="The authority's data folder, on its own machine. Default: /var/lib/bartizan where there is one.",
)
@click.option("--authority", help="An authority elsewhere, with your own sign-in as administrator (bart login).")
@click.pass_context
def bartizan(context: click.Context, data: Path | None, authority: str | None) -> None:
    """Run and administrate an SSH certificate authority and its recording bastion."""
    if data is not None and authority is not None:
        raise click.UsageError("--data and --authority exclude each other")
    context.obj = WayIn(data.absolute() if data else None, authority)


for command in (
    up.up,
    demo.demo,
    pin.pin,
    users.users,
    roles.roles,
    idp.idp,
    access.access,
    nodes.nodes,
    node.node,
    locks.locks,
    sessions.administered,
    ca.ca,
    certificates.certificates,
    audit.audit,
    bastions.bastions,
    completion.completion("bartizan"),
):
    bartizan.add_command(command)


def main() -> None:
    bartizan()


if __name__ == "__main__":
    main()
