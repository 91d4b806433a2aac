"""``bart logout``: the token ends, and key and certificate are deleted: here, everywhere, or without a trace."""

from __future__ import annotations

import click

from ca.errors import BartizanError, Conflict, NotSignedIn
from cli import config, output
from cli.client import signed_in
from cli.profile import Home, first, home, homes


@click.command()
@click.option("--everywhere", is_flag=True, help="Sign out on all machines and in all browsers, and end live sessions.")
@click.option("--purge", is_flag=True, help="Remove all that bart ever wrote here, for every cluster, after asking.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def logout(everywhere: bool, purge: bool, yes: bool) -> None:
    """Sign out. Removes the key, the certificate and what was written for ssh."""
    if purge:
        _purge(everywhere=everywhere, yes=yes)
        return
    place = home()
    if place.stored_profile() is None and not place.key.exists():
        output.note("nobody is signed in here")
        return
    sign_out(place, everywhere=everywhere)
    output.note("signed out everywhere" if everywhere else "signed out; key and certificate are deleted")


def sign_out(place: Home, *, everywhere: bool = False) -> None:
    """End the token at the authority, then remove what lies here.

    An authority that cannot be told keeps nobody signed in here; but *everywhere* is its work alone, so then it fails.
    """
    with place.changing():
        try:
            with signed_in(place) as authority:
                authority.logout(everywhere=everywhere)
        except BartizanError as error:
            if everywhere:
                raise _not_told(error) from None
            if not isinstance(error, NotSignedIn):  # that one is over already
                output.warning(f"the authority could not be told: {error}")
        place.agent.remove(*place.public_lines())
        place.forget()
        place.agent.end()


def _not_told(error: BartizanError) -> BartizanError:
    return type(error)(
        f"not signed out anywhere: {output.lowered(str(error))}", hint="to sign out here alone: bart logout"
    )


def _purge(*, everywhere: bool, yes: bool) -> None:
    top = first()
    question = f"Sign out of every cluster and remove all that bart wrote in {top.folder} and ~/.ssh/config?"
    if not yes and not output.confirm(question):
        raise Conflict("nothing was removed", hint="bart logout --purge --yes")
    for place in homes():
        sign_out(place, everywhere=everywhere)
    if top.folder.exists():
        with top.changing():
            top.forget()  # what an unreadable sign-in left
            top.agent.end()
        top.purge()
    config.take_out(yes=True)
    output.note("signed out; nothing of bart is left here")
