"""``bartizan bastions``: letting another bastion in."""

from __future__ import annotations

import click

from cli import output
from cli.way_in import WayIn, pass_way


@click.group()
def bastions() -> None:
    """Enrol bastions on other machines."""


@bastions.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@pass_way
def token(way: WayIn, as_json: bool) -> None:
    """Make a token with which one bastion enrols, once."""
    with way.open() as authority:
        made = authority.bastion_token()
    if as_json:
        output.as_json(made)
        return
    output.note(f"good once, until {output.when(made.expires)}")
    output.data(made.token)
