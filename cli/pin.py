"""``bartizan pin``: what people compare before they type a password."""

from __future__ import annotations

import click

from cli import output
from cli.client import pin_of
from cli.way_in import WayIn, pass_way


@click.command()
@pass_way
def pin(way: WayIn) -> None:
    """Print the pin of the authority's TLS root: sha256:…"""
    with way.open() as authority:
        output.data(pin_of(authority.tls_root()))
