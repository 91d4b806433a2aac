"""``bart play``: a recording on one's own terminal, at its own pace. What reaches the terminal is filtered first."""

from __future__ import annotations

import os
import re
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ca.errors import InvalidInput, Unavailable
from cli import output
from cli.recordings import ids, located
from recordings import reader
from recordings.format import Digest, Event, Header, Input, Output, Stderr
from recordings.player import Player, TerminalSafe

SEEK_SECONDS = 5.0
CLEAR = "\x1b[!p\x1b[0m\x1b[2J\x1b[H"
MAIN_SCREEN = "\x1b[?1049l"
LEAVE = "\x1b[!p\x1b[0m\x1b[?25h"
_SCREENS = re.compile(r"\x1b\[\?(?:47|1047|1049)([hl])")
KEYS = "space pause, . step, arrows or [ ] seek, q quit"
ARROWS = {"\x1b[C": "]", "\x1b[D": "[", "\x1bOC": "]", "\x1bOD": "["}


@click.command()
@click.argument("what", metavar="ID|DIR", shell_complete=ids)
@click.option("--speed", type=click.FloatRange(0.01, 1000), default=1.0, show_default=True, help="How much faster.")
@click.option("--idle-limit", type=click.FloatRange(0, min_open=True), help="Cut pauses to so many seconds.")
@click.option("--channel", type=click.IntRange(min=0), help="Which channel. Default: the first with a terminal.")
@click.option("--at", type=click.FloatRange(min=0), default=0.0, help="Begin so many seconds in.")
@click.option("--input", "with_input", is_flag=True, help="Show what a program was sent, too (never keystrokes).")
def play(what: str, speed: float, idle_limit: float | None, channel: int | None, at: float, with_input: bool) -> None:
    """Play a recording. Keys: space pause, . step, arrows or [ ] seek, q quit. Without a terminal: all at once."""
    with located(what, purpose="play") as folder:
        try:
            number = _chosen(folder, channel)
            header = reader.header(folder, number)
            player = Player(lambda: reader.events(folder, number), speed=speed, idle_limit=idle_limit)
            stage = Stage(with_input=with_input)
            if sys.stdout.isatty():
                _introduced(header)
                with _terminal(stage, pty=header.pty) as keyboard:
                    _played(player, stage, keyboard, at=at)
            else:
                stage.show(event for event in reader.events(folder, number) if event.at >= at)
        except reader.ReadError as error:
            raise Unavailable(
                f"the recording cannot be played on: {error}", hint=f"bart recordings verify {what}"
            ) from None


class Stage:
    """Standard output, seen through the filter."""

    def __init__(self, *, with_input: bool) -> None:
        self._with_input = with_input
        self._safe = TerminalSafe()
        self._elsewhere = False
        """Whether the screen that editors use is shown."""

    def show(self, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case Output(data=data) | Stderr(data=data):
                    self.write(self._safe.feed(data))
                case Input(data=data) if self._with_input:
                    self.write(self._safe.feed(data))
                case Digest():
                    self.write(f"[{event.length} bytes were not kept; SHA-256 {output.plain(event.sha256)}]\r\n")
        sys.stdout.flush()

    def reset(self) -> None:
        """An empty screen, as before the first byte."""
        self._safe = TerminalSafe()
        self.leave_other_screen()
        self.write(CLEAR)

    def leave_other_screen(self) -> None:
        """Back from an editor's screen, if we are on it: to a terminal that is not, this would move the cursor."""
        if self._elsewhere:
            self.write(MAIN_SCREEN)

    def write(self, text: str) -> None:
        for switch in _SCREENS.findall(text):
            self._elsewhere = switch == "h"
        output.raw(text.encode("utf-8", errors="replace"))


def _played(player: Player, stage: Stage, keyboard: int | None, *, at: float) -> None:
    """Show events as they are due, and obey keys, until the end."""
    if at:
        _sought(player, stage, at)
    while not player.ended:
        stage.show(player.due(time.monotonic()))
        wait = player.wait(time.monotonic())
        for key in _keys(keyboard, wait if wait is not None or player.paused else 0):
            if key == "q":
                return
            _obeyed(key, player, stage)


def _obeyed(key: str, player: Player, stage: Stage) -> None:
    match key:
        case " " if player.paused:
            player.resume(time.monotonic())
        case " ":
            player.pause(time.monotonic())
        case ".":
            stage.show(player.step(time.monotonic()))
        case "]":
            _sought(player, stage, player.position + SEEK_SECONDS)
        case "[":
            _sought(player, stage, player.position - SEEK_SECONDS)


def _sought(player: Player, stage: Stage, at: float) -> None:
    back, passed = player.seek(at, time.monotonic())
    if back:
        stage.reset()
    stage.show(passed)


def _keys(keyboard: int | None, wait: float | None) -> list[str]:
    """The keys that were pressed within *wait* seconds (for ever when None). A terminal that is gone is a "q"."""
    if keyboard is None:
        time.sleep(wait or 0)
        return []
    if not select.select([keyboard], [], [], wait)[0]:
        return []
    pressed = os.read(keyboard, 64).decode("latin-1")
    for arrow, key in ARROWS.items():
        pressed = pressed.replace(arrow, key)
    return [key for key in pressed if key in " .[]q"] if pressed else ["q"]


@contextmanager
def _terminal(stage: Stage, *, pty: bool) -> Iterator[int | None]:
    """Keys one by one, unseen; gives the keyboard, if there is one. The terminal is as it was afterwards.

    What a *pty* gave has its line ends already: the terminal must not add to them.
    """
    screen = sys.stdout.fileno()
    keyboard = sys.stdin.fileno() if sys.stdin.isatty() else None
    before = {number: termios.tcgetattr(number) for number in (screen, keyboard) if number is not None}
    try:
        if keyboard is not None:
            tty.setcbreak(keyboard)
        if pty:
            modes = termios.tcgetattr(screen)
            modes[1] &= ~termios.OPOST
            termios.tcsetattr(screen, termios.TCSADRAIN, modes)
        yield keyboard
    finally:
        stage.leave_other_screen()
        output.raw(LEAVE.encode())
        for number, modes in before.items():
            termios.tcsetattr(number, termios.TCSADRAIN, modes)
        output.raw(b"\n")


def _introduced(header: Header) -> None:
    columns, rows = shutil.get_terminal_size()
    if header.pty and (columns < header.width or rows < header.height):
        output.warning(f"recorded on {header.width}×{header.height}; this terminal has {columns}×{rows}")
    output.note(KEYS)


def _chosen(folder: Path, wanted: int | None) -> int:
    there = reader.channels(folder)
    if not there:
        raise Unavailable("nothing to play: no channel is recorded there")
    if wanted is None:
        return next((number for number in there if reader.header(folder, number).pty), there[0])
    if wanted not in there:
        raise InvalidInput(f"there is no channel {wanted}", hint=f"--channel {'|'.join(map(str, there))}")
    return wanted
