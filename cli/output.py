"""
All words that a user sees. The rules:

  - standard output is data: the one thing that a script would want.
  - standard error is everything else: lower case, the program's name and a colon in front, no full stop.
  - an error is one line, and a "hint:" line if there is something to do next.
  - text that came from elsewhere is shown with its control characters made visible, never raw.
  - colour only on a terminal, and not when NO_COLOR is set or the terminal is dumb.

Exit status: 0 done, 1 refused or failed, 2 usage.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import gettempdir
from typing import IO, TYPE_CHECKING, Any, NoReturn

import click
from pydantic import BaseModel

from ca.errors import BartizanError

if TYPE_CHECKING:
    from rich.progress import Progress

CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
"""C0, DEL and C1 become visible; so do the characters that turn the direction of a line round."""
CONTROL |= {code: f"\\u{code:04x}" for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}


NOT_OURS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EISDIR, errno.ENOTDIR}
"""What the system refuses for reasons that a person can see to: no fault of ours, so no incident."""


class Program(click.Group):
    """The outermost group of a program: what escapes a command becomes one line and an exit status."""

    def main(  # type: ignore[override]  # click's, without its overloads
        self, args: Any = None, prog_name: Any = None, complete_var: Any = None, **extra: Any
    ) -> Any:
        if not extra.pop("standalone_mode", True):
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            status = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.UsageError as usage:
            _usage(self.name or "", usage)
        except click.Abort:
            _line(self.name or "", "stopped")
            sys.exit(1)
        except click.ClickException as failed:
            _line(self.name or "", f"error: {lowered(failed.format_message())}", "red")
            sys.exit(1)
        except BartizanError as expected:
            error(expected, program=self.name)
            sys.exit(1)
        except OSError as failed:
            if failed.errno not in NOT_OURS:
                _incident(self.name or "", failed)
            _line(self.name or "", f"error: {system_said(failed)}", "red")
            sys.exit(1)
        except Exception as bug:  # noqa: BLE001 -- the edge of the program
            _incident(self.name or "", bug)
        sys.exit(status if isinstance(status, int) else 0)


def plain(text: object) -> str:
    """*text* on one line, with every control character made visible."""
    return str(text).translate(CONTROL)


def data(text: str) -> None:
    """The one thing a script would want, on standard output."""
    click.echo(text)


def block(text: str) -> None:
    """Several lines of our own making, on standard output."""
    click.echo(text.rstrip("\n"))


def as_json(value: object) -> None:
    """*value* as JSON on standard output."""
    click.echo(json.dumps(_jsonable(value), indent=2, ensure_ascii=True))


def json_line(value: object) -> None:
    """*value* as one line of JSON on standard output."""
    click.echo(json.dumps(_jsonable(value), ensure_ascii=True))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Rows under their headings; *empty* is said (as a note) when there are none."""
    cells = [[plain(_cell(cell)) for cell in row] for row in rows]
    if not cells:
        note(empty)
        return
    widths = [max(len(heading), *(len(row[at]) for row in cells)) for at, heading in enumerate(columns)]
    click.secho(_padded([heading.upper() for heading in columns], widths), **_style(sys.stdout, bold=True))
    for row in cells:
        click.echo(_padded(row, widths))


def fields(values: Mapping[str, object]) -> None:
    """One thing, a line for each of its properties."""
    width = max(len(name) for name in values)
    for name, value in values.items():
        click.echo(f"{name:<{width}}  {plain(_cell(value))}")


def note(text: str) -> None:
    """What was done, or what a person may want to know."""
    _line(_program(), text)


def raw(text: bytes) -> None:
    """Bytes for the terminal as they are. The caller has filtered them, or made them itself."""
    sys.stdout.buffer.write(text)
    sys.stdout.flush()


def narrate(text: str) -> None:
    """A story told to a person, on standard output: the demo."""
    click.secho(f"\n{text}", **_style(sys.stdout, bold=True))


def typed(command: str) -> None:
    """A command as a person would type it."""
    click.secho(f"$ {plain(command)}", **_style(sys.stdout, fg="cyan"))
    sys.stdout.flush()


def hint(text: str) -> None:
    """What to do next: a command that can be typed."""
    click.secho(f"hint: {plain(text)}", err=True, **_style(sys.stderr, fg="cyan"))


def address(url: str) -> None:
    """A link, on a line of its own so that it can be copied or clicked."""
    click.secho(plain(url), err=True, **_style(sys.stderr, underline=True))


def warning(text: str) -> None:
    """Something is not as it should be, and the work goes on."""
    _line(_program(), f"warning: {text}", "yellow")


def error(failed: BartizanError, *, program: str | None = None) -> None:
    """One line, and a hint if there is one."""
    _line(program or _program(), f"error: {lowered(str(failed))}", "red")
    if failed.hint:
        hint(failed.hint)


def confirm(question: str) -> bool:
    """Ask a person; without a terminal the answer is no."""
    if not sys.stdin.isatty():
        return False
    return click.confirm(question, err=True)


def lowered(text: str) -> str:
    """*text* as a message is written here: no full stop; lower case unless the first word is a name."""
    text = text.rstrip().removesuffix(".")
    first, _, _ = text.partition(" ")
    return text[:1].lower() + text[1:] if first[1:].islower() or len(first) == 1 else text


def system_said(failed: OSError) -> str:
    """*failed* as one sentence: which file, and why, in the words of the system without their numbers."""
    why = (os.strerror(failed.errno) if failed.errno else str(failed)).lower()
    return f"{failed.filename}: {why}" if failed.filename else why


def word(text: object) -> str:
    """*text* as one word of a command that is printed to be typed."""
    return shlex.quote(str(text))


def when(moment: datetime | None) -> str:
    """A time as people here read it."""
    return "-" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def span(length: timedelta) -> str:
    """``12 h``, ``7 h 59 min``, ``12 min``, ``40 s``, ``3 d``; to the nearest minute, when it is minutes."""
    seconds = max(0, round(length.total_seconds()))
    if seconds >= 60:
        seconds = (seconds + 30) // 60 * 60
    if seconds >= 2 * 86_400:
        return f"{seconds // 86_400} d"
    if seconds >= 3600:
        hours, minutes = seconds // 3600, seconds % 3600 // 60
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{seconds // 60} min" if seconds >= 60 else f"{seconds} s"


@contextmanager
def waiting(text: str) -> Iterator[Callable[[timedelta], None]]:
    """What is waited for, and how long still: one line that is written over. Said once where that cannot be."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        note(text)
        yield lambda _left: None
        return

    def tick(left: timedelta) -> None:
        seconds = max(0, int(left.total_seconds()))
        line = f"{_program()}: {text} ({seconds // 60}:{seconds % 60:02})"
        click.echo(f"\r\x1b[K{line[: _columns() - 1]}", err=True, nl=False)

    try:
        yield tick
    finally:
        click.echo("\r\x1b[K", err=True, nl=False)


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Progress | None]:
    """A bar on standard error when it is a terminal; ``advance(0, n)`` moves it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # half of what a short command would otherwise take to start
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task(title, total=total)
        yield bar


def _columns() -> int:
    """Of standard error: what is longer would go on in a line that is never written over."""
    return os.get_terminal_size(sys.stderr.fileno()).columns or 80


def _program() -> str:
    context = click.get_current_context(silent=True)
    return (context.find_root().command.name if context else None) or "bartizan"


def _line(program: str, text: str, colour: str | None = None) -> None:
    click.secho(f"{program}: {plain(text)}", err=True, **_style(sys.stderr, fg=colour))


def _style(stream: IO[str], **style: Any) -> dict[str, Any]:
    """*style* where colour is wanted; else nothing, not even click's reset at the end of the line."""
    plain_wanted = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if plain_wanted or not stream.isatty() or not any(style.values()):
        return {"reset": False}
    return style


def _usage(program: str, usage: click.UsageError) -> NoReturn:
    if isinstance(usage, click.exceptions.NoArgsIsHelpError):
        click.echo(usage.format_message(), err=True)
        sys.exit(2)
    _line(program, f"error: {lowered(usage.format_message())}", "red")
    path = usage.ctx.command_path if usage.ctx else program
    hint(f"{path} --help")
    sys.exit(2)


def _incident(program: str, bug: Exception) -> NoReturn:
    """A fault of ours: one line with an id; the traceback goes to a file only."""
    incident = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    place = Path(gettempdir()) / f"{program}-{incident}.log"
    try:
        with place.open("x") as file:
            place.chmod(0o600)
            traceback.print_exception(bug, file=file)
        where = f"details are in {place}"
    except OSError:
        where = "details could not be written"
    _line(program, f"error: something went wrong inside {program} (incident {incident}); {where}", "red")
    sys.exit(1)


def _jsonable(value: object) -> object:
    match value:
        case BaseModel():
            return value.model_dump(mode="json")
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case dict():
            return {str(name): _jsonable(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_jsonable(inner) for inner in value]
        case Path():
            return str(value)
        case _:
            return value


def _cell(value: object) -> object:
    match value:
        case None:
            return "-"
        case datetime():
            return when(value)
        case bool():
            return "yes" if value else "no"
        case dict():
            return ",".join(f"{name}={inner}" for name, inner in sorted(value.items())) or "-"
        case list() | tuple():
            return ",".join(map(str, value)) or "-"
        case _:
            return value


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
