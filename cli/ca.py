"""``bartizan ca``: the public halves of what signs."""

from __future__ import annotations

import click

from cli import output
from cli.way_in import WayIn, pass_way


@click.group()
def ca() -> None:
    """Export public keys of the certificate authorities."""


@ca.command()
@click.argument("name", type=click.Choice(["user", "target", "host", "bastion", "recorders"]))
@pass_way
def export(way: WayIn, name: str) -> None:
    """Print a CA's public key as one line; `recorders` is the allowed_signers file for recordings."""
    with way.open() as authority:
        output.block(authority.ca(name))
