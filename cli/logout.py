"""``bart logout``: the token ends, and key and certificate are deleted."""

from __future__ import annotations

import click

from ca.errors import BartizanError, NotSignedIn
from cli import output
from cli.client import signed_in
from cli.profile import home


@click.command()
def logout() -> None:
    """Sign out. Removes the key, the certificate and what was written for ssh."""
    place = home()
    if place.stored_profile() is None and not place.key.exists():
        output.note("nobody is signed in here")
        return
    with place.changing():
        try:
            with signed_in(place) as authority:
                authority.logout()
        except NotSignedIn:
            pass  # over already
        except BartizanError as error:
            output.warning(f"the authority could not be told: {error}")
        place.forget()
    output.note("signed out; key and certificate are deleted")
