"""``bart config``: what is written for ssh, and one marked block in ``~/.ssh/config`` that includes it."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import click

from ca.errors import Conflict, InvalidInput, Unavailable
from cli import output
from cli.ls import refresh
from cli.profile import Home, beside, home, write_new

BEGIN = "# --- bart: begin (bart config --remove takes this block out again) ---"
END = "# --- bart: end ---"
_BLOCK = re.compile(rf"{re.escape(BEGIN)}\n.*?{re.escape(END)}\n(?:\n)?", re.DOTALL)


@click.command()
@click.option("--install", is_flag=True, help="Include the written config in ~/.ssh/config, after asking.")
@click.option("--remove", is_flag=True, help="Take that block out of ~/.ssh/config again.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def config(install: bool, remove: bool, yes: bool) -> None:
    """Write ssh_config and known_hosts anew and print where they are."""
    if install and remove:
        raise click.UsageError("--install and --remove exclude each other")
    place = home()
    if remove:
        take_out(yes=yes)
        return
    refresh(place)
    if install:
        put_in(place, yes=yes)
    output.data(str(place.ssh_config))


def put_in(place: Home, *, yes: bool) -> None:
    """Include the first ssh_config, which leads to those of all clusters, in the person's own."""
    _change(Path.home() / ".ssh" / "config", Home(place.top).ssh_config, yes=yes)


def take_out(*, yes: bool) -> None:
    """Leave the person's own config as it was before us."""
    _change(Path.home() / ".ssh" / "config", None, yes=yes)


def with_block(text: str, included: Path | None) -> str:
    """*text* of an ssh config with our block first (so that it wins), or without it."""
    if text.count(BEGIN) != len(_BLOCK.findall(text)):
        raise Conflict("the block of bart in ~/.ssh/config is damaged: its end is missing", hint="remove it by hand")
    rest = _BLOCK.sub("", text)
    if included is None:
        return rest
    return f'{BEGIN}\nInclude "{included}"\n{END}\n\n{rest}'


def _change(path: Path, included: Path | None, *, yes: bool) -> None:
    target = Path(os.path.realpath(path))  # a link into somebody's dotfiles stays a link
    try:
        before = target.read_text(encoding="utf-8")
    except FileNotFoundError:
        before = ""
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is not UTF-8 text; it was left alone") from None
    after = with_block(before, included)
    if after == before:
        output.note(f"nothing to change in {path}")
        return
    question = f"Add `Include {included}` to {path}?" if included else f"Take the block of bart out of {path}?"
    if not yes and not output.confirm(question):
        raise Conflict(f"{path} was left alone", hint="bart config --yes …")
    try:
        _replaced(target, after)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        by_hand = f'put this line first in it yourself: Include "{included}"' if included else "take it out by hand"
        raise Unavailable(f"{path} cannot be written; it was left alone", hint=by_hand) from None
    output.note(f"{'included in' if included else 'removed from'} {path}")


def _replaced(target: Path, text: str) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))  # read-only is a wish, too
    new = beside(target)
    try:
        write_new(new, text, mode=mode)
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
