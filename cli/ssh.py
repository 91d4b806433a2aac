"""``bart ssh``: the stock ssh with the written config. Nothing more: the words behind it are ssh's own."""

from __future__ import annotations

import os
import shutil

import click

from ca.errors import NotFound
from cli.profile import home


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("words", nargs=-1, type=click.UNPROCESSED, required=True)
def ssh(words: tuple[str, ...]) -> None:
    """Run `ssh -F $BART_HOME/ssh_config WORDS…`."""
    place = home()
    place.profile()
    program = shutil.which("ssh")
    if program is None:
        raise NotFound("there is no ssh here", hint="apt-get install openssh-client")
    os.execv(program, ["ssh", "-F", str(place.ssh_config), *words])
