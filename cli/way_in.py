"""Which way an administrator's command takes: the socket in the data folder, or HTTPS with one's own sign-in."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import click

from ca.errors import InvalidInput
from cli import output
from cli.client import Authority, checked_url, signed_in
from cli.profile import home, home_at

SYSTEM_DATA = Path("/var/lib/bartizan")


@dataclass(frozen=True, slots=True)
class WayIn:
    """What stood before the subcommand: ``--data D``, ``--authority URL`` or neither."""

    data: Path | None = None
    authority: str | None = None

    @property
    def program(self) -> str:
        """How the program was called, for hints that can be typed."""
        if self.data is not None:
            return f"bartizan --data {shlex.quote(str(self.data))}"
        return f"bartizan --authority {self.authority}" if self.authority else "bartizan"

    def open(self) -> Authority:
        """Connect. Without an option: the system's data folder if it is there, else one's own sign-in."""
        if self.data is not None:
            return Authority.over_socket(self.data)
        place = home() if self.authority is None else home_at(checked_url(self.authority))
        if self.authority is None and (SYSTEM_DATA / "admin.token").exists():
            return Authority.over_socket(SYSTEM_DATA)
        if self.authority is None and place.stored_profile() is None:
            raise InvalidInput(
                "which authority? this machine holds none in /var/lib/bartizan, and nobody is signed in",
                hint="bartizan --data FOLDER …, or sign in as an administrator: bart login",
            )
        if self.authority is not None and place.profile().authority != checked_url(self.authority):
            raise InvalidInput(
                f"you are signed in at {place.profile().authority}, not at {self.authority}",
                hint=f"bart login --authority {output.word(self.authority)}",
            )
        return signed_in(place)


pass_way = click.make_pass_decorator(WayIn)
