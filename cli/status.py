"""``bart status``: who is signed in where, until when, and whether the authority still says so."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import click

from ca.errors import BartizanError, NotSignedIn
from cli import clock, output
from cli.client import signed_in
from cli.profile import Home, Profile, home, homes


@dataclass(frozen=True, slots=True)
class Standing:
    """One sign-in as it is now. ``problem`` is why the authority could not be asked, or said no."""

    place: Home
    profile: Profile
    problem: BartizanError | None
    ahead: timedelta | None = None

    @property
    def current(self) -> bool:
        """Whether ssh would work: the certificate lives, the key is there, and the authority did not say no."""
        return self.left > timedelta(0) and not isinstance(self.problem, NotSignedIn) and self.has_key

    @property
    def left(self) -> timedelta:
        return self.profile.expires - datetime.now(UTC)

    @property
    def has_key(self) -> bool:
        if not self.profile.in_agent:
            return self.place.key.exists()
        return any(self.place.agent.holds(line) for line in self.place.public_lines())

    def error(self) -> BartizanError | None:
        """What a person should know, if it is not all well."""
        if self.problem is not None:
            return self.problem
        if self.left <= timedelta(0):
            return NotSignedIn(f"the certificate expired at {output.when(self.profile.expires)}", hint="bart login")
        if not self.has_key:
            return NotSignedIn("the key is gone with the agent that held it", hint="bart login")
        return None


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(as_json: bool) -> None:
    """Say who you are here and how long that lasts. Exit status 1 when nobody is signed in."""
    place = home()
    profile = place.profile()
    here = _asked(place, profile)
    others = [Standing(other, other.profile(), None) for other in homes() if other.folder != place.folder]
    if as_json:
        output.as_json(_about(here) | {"problem": _said(here), "clusters": [_brief(one) for one in (here, *others)]})
    else:
        output.fields({name.replace("_", " "): value for name, value in _about(here).items()})
        _noted(here, others)
    sys.exit(0 if here.current else 1)


def _asked(place: Home, profile: Profile) -> Standing:
    try:
        with signed_in(place) as authority:
            profile = profile.refreshed(authority.me())
            return Standing(place, profile, None, authority.ahead)
    except BartizanError as error:
        return Standing(place, profile, error)


def _about(here: Standing) -> dict[str, object]:
    profile = here.profile
    return {
        "user": profile.user,
        "roles": list(profile.roles),
        "authority": profile.authority,
        "pin": profile.pin,
        "cluster": profile.cluster.cluster,
        "bastion": f"{profile.cluster.ssh_host}:{profile.cluster.ssh_port}",
        "signed_in": here.current,
        "signed_in_by": profile.way,
        "provider": profile.provider,
        "expires": profile.expires,
        "keys": "agent" if profile.in_agent else "files",
        "nodes": [node.name for node in profile.nodes],
        "ssh_config": here.place.ssh_config,
    }


def _brief(one: Standing) -> dict[str, object]:
    return {
        "cluster": one.profile.cluster.cluster,
        "user": one.profile.user,
        "authority": one.profile.authority,
        "signed_in": one.current,
        "expires": one.profile.expires,
    }


def _said(here: Standing) -> str | None:
    return str(here.problem) if here.problem else None


def _noted(here: Standing, others: list[Standing]) -> None:
    if wrong := clock.warning(here.ahead, datetime.now(UTC)):
        output.warning(wrong)
    if failed := here.error():
        output.error(failed)
    else:
        output.note(f"good for {output.span(here.left)} more")
    for other in others:
        left = f"for {output.span(other.left)} more" if other.current else "no longer"
        output.note(f"also at {other.profile.cluster.cluster} as {other.profile.user}, {left}")
