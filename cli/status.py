"""``bart status``: who is signed in, until when, and whether the authority still says so."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click

from ca.errors import BartizanError, NotSignedIn
from cli import output
from cli.client import signed_in
from cli.profile import home


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(as_json: bool) -> None:
    """Say who you are here and how long that lasts. Exit status 1 when nobody is signed in."""
    place = home()
    profile = place.profile()
    left = profile.expires - datetime.now(UTC)
    problem = None
    try:
        with signed_in(place) as authority:
            profile = profile.refreshed(authority.me())
    except BartizanError as error:
        problem = error
    current = left.total_seconds() > 0 and not isinstance(problem, NotSignedIn)
    about = {
        "user": profile.user,
        "roles": list(profile.roles),
        "authority": profile.authority,
        "pin": profile.pin,
        "cluster": profile.cluster.cluster,
        "bastion": f"{profile.cluster.ssh_host}:{profile.cluster.ssh_port}",
        "signed_in": current,
        "expires": profile.expires,
        "nodes": [node.name for node in profile.nodes],
        "ssh_config": place.ssh_config,
        "problem": str(problem) if problem else None,
    }
    if as_json:
        output.as_json(about)
    else:
        output.fields({name.replace("_", " "): value for name, value in about.items() if name != "problem"})
    if problem is not None and not as_json:
        output.error(problem)
    elif not current and not as_json:
        output.error(NotSignedIn(f"the certificate expired at {output.when(profile.expires)}", hint="bart login"))
    elif current and not as_json:
        output.note(f"good for {output.span(left)} more")
    sys.exit(0 if current else 1)
