"""``bartizan certificates``: what was signed, and taking it back."""

from __future__ import annotations

import click

from cli import output
from cli.way_in import WayIn, pass_way


@click.group()
def certificates() -> None:
    """List and revoke certificates."""


@certificates.command("list")
@click.option("--ca", type=click.Choice(["user", "target", "host", "bastion"]), help="Only those of this CA.")
@click.option("--user", help="Only this person's.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@pass_way
def list_(way: WayIn, ca: str | None, user: str | None, as_json: bool) -> None:
    """List issued certificates, newest first."""
    with way.open() as authority:
        found = [
            one
            for one in authority.certificates()
            if (ca is None or one.ca == ca) and (user is None or one.user == user)
        ]
    if as_json:
        output.as_json(found)
        return
    output.table(
        ("ca", "serial", "key id", "principals", "from", "until", "state"),
        (
            [one.ca, one.serial, one.key_id, one.principals, one.valid_after, one.valid_before, one.state]
            for one in found
        ),
        empty="no certificate",
    )


@certificates.command()
@click.argument("ca", type=click.Choice(["user", "target", "host", "bastion"]))
@click.argument("serial", type=click.IntRange(min=1))
@pass_way
def revoke(way: WayIn, ca: str, serial: int) -> None:
    """Revoke certificate SERIAL of CA. Live sessions that stand on it end at once."""
    with way.open() as authority:
        authority.revoke(ca, serial)
    output.note(f"certificate {serial} of the {ca} CA is revoked")
