"""``bartizan bastions``: letting another bastion in."""

from __future__ import annotations

import click

from ca import wire
from cli import output
from cli.way_in import WayIn, pass_way


@click.group()
def bastions() -> None:
    """Enrol bastions on other machines."""


@bastions.command()
@click.option("--name", help="The one bastion it is for; needed to give a bastion that exists new keys.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@pass_way
def token(way: WayIn, name: str | None, as_json: bool) -> None:
    """Make a token with which one bastion enrols, once."""
    with way.open() as authority:
        made = authority.bastion_token(wire.NewBastionToken(name=name))
    if as_json:
        output.as_json(made)
        return
    output.note(f"good once, until {output.when(made.expires)}")
    output.data(made.token)
