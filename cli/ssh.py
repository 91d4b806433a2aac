"""``bart ssh``: the stock ssh with the written config. Nothing more: the words behind it are ssh's own."""

from __future__ import annotations

import os
import shutil

import click

from ca.errors import NotFound
from cli.profile import home


def _nodes(context: click.Context, argument: click.Parameter, begun: str) -> list[str]:
    """The names that can follow, for a shell's completion: the nodes of the last sign-in."""
    profile = home().stored_profile()
    return [node.name for node in profile.nodes if node.name.startswith(begun)] if profile else []


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("words", nargs=-1, type=click.UNPROCESSED, required=True, shell_complete=_nodes)
def ssh(words: tuple[str, ...]) -> None:
    """Run `ssh -F $BART_HOME/ssh_config WORDS…`: `bart ssh web1`, `bart ssh root@web1 uptime`, …"""
    place = home()
    place.profile()
    program = shutil.which("ssh")
    if program is None:
        raise NotFound("there is no ssh here", hint="apt-get install openssh-client")
    os.execv(program, ["ssh", "-F", str(place.ssh_config), *words])
