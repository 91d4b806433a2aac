"""``bartizan roles``: who may do what, as a file that is tested before it counts."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ca import wire
from ca.errors import InvalidInput
from ca.policy import ADMIN
from ca.roles import parse
from cli import output
from cli.client import Authority
from cli.way_in import WayIn, pass_way


@click.group()
def roles() -> None:
    """Apply and show the roles file."""


@roles.command("apply")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True))
@click.option("--dry-run", is_flag=True, help="Parse and test the file, say what would change, change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@pass_way
def apply_(way: WayIn, file: Path, dry_run: bool, as_json: bool) -> None:
    """Make FILE the roles in force. A failing test in it refuses it as a whole."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(f"{file} is not UTF-8 text") from None
    with way.open() as authority:
        applied = authority.apply_roles(wire.RolesFile(text=text, file=file.name, dry_run=dry_run))
    for remark in parse(text, file.name).notes:
        output.warning(remark)
    if as_json:
        output.as_json(applied)
        return
    would = "would be " if dry_run else ""
    for verb, names in (("added", applied.added), ("changed", applied.changed), ("removed", applied.removed)):
        if names:
            output.note(f"{would}{verb}: {', '.join(names)}")
    if not (applied.added or applied.changed or applied.removed):
        output.note("nothing differs from the roles in force")
    tests = "1 test passed" if applied.tests_passed == 1 else f"{applied.tests_passed} tests passed"
    output.note(f"{tests}; live sessions {'that would end' if dry_run else 'ended'}: {applied.ended_sessions}")


def names_in_force(authority: Authority) -> list[str]:
    """The roles that there are: the file's, and the built-in ones."""
    text = authority.roles()
    return sorted({ADMIN} | ({role.name for role in parse(text).roles} if text.strip() else set()))


@roles.command()
@pass_way
def show(way: WayIn) -> None:
    """Print the roles in force, as the file was written."""
    with way.open() as authority:
        output.block(authority.roles())
