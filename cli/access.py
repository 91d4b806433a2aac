"""``bartizan access explain``: why somebody may or may not, by the same rule that decides."""

from __future__ import annotations

import sys

import click

from ca import wire
from cli import output
from cli.way_in import WayIn, pass_way


@click.group()
def access() -> None:
    """Ask what the roles in force would decide."""


@access.command()
@click.argument("user")
@click.argument("node")
@click.option("--login", help="The account on the node. Default: any.")
@click.option("--action", help="shell, exec, sftp.read, … Default: any.")
@click.option("--json", "as_json", is_flag=True, help="Print the explanation as JSON.")
@pass_way
def explain(way: WayIn, user: str, node: str, login: str | None, action: str | None, as_json: bool) -> None:
    """Say whether USER may reach NODE, and which role says so. Exit status 1 when not."""
    with way.open() as authority:
        found = authority.explain(wire.ExplainRequest(user=user, node=node, login=login, action=action))
    if as_json:
        output.as_json(found)
    else:
        for line in found.lines:
            output.data(output.plain(line))
        verdict = "allowed" if found.allowed else f"denied ({found.code})"
        output.data(f"{verdict}: {output.plain(found.reason)}")
        if found.hint:
            output.hint(found.hint)
    sys.exit(0 if found.allowed else 1)
