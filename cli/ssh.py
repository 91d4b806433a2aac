"""``bart ssh``: the stock ssh with the written config. Nothing more: the words behind it are ssh's own."""

from __future__ import annotations

import os
import shutil

import click

from ca.errors import NotFound
from cli.profile import Home, home, homes


def _nodes(context: click.Context, _argument: click.Parameter, begun: str) -> list[str]:
    """The names that can follow, for a shell's completion: the nodes of the last sign-ins."""
    login, at, rest = begun.rpartition("@")
    with context.scope(cleanup=False):
        meant = home()
    names = [name for place in homes() for name in _names(place, long="." in rest or place.folder != meant.folder)]
    return [f"{login}{at}{name}" for name in names if name.startswith(rest)]


def _names(place: Home, *, long: bool) -> list[str]:
    """The names that lead to the nodes of one cluster."""
    profile = place.profile()
    suffix = f".{profile.cluster.cluster}" if long else ""
    return [f"{node.name}{suffix}" for node in profile.nodes]


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
