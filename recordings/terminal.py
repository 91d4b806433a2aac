"""
What of a recording may reach an auditor's terminal: text, colours, cursor movement. An allow-list; pure.

A terminal answers some sequences as if its user had typed (DA, DSR, DECRQSS, title reports, ENQ), obeys others beyond
its window (OSC 52: clipboard; media copy: printer) and keeps some after playback (mouse reports). None of these pass.
"""

from __future__ import annotations

import codecs
import re

MAX_SEQUENCE = 64 << 10
"""A sequence that has not ended by then is given up; what follows is shown as text."""

_TEXT = re.compile(r"[^\x00-\x1f\x7f-\x9f]+")
_CSI_END = re.compile(r"[\x00-\x1f\x40-\x7e\x80-\x9f]")
_STRING_END = re.compile(r"[\x07\x18\x1a\x1b\x9c]")

_CONTROLS = frozenset("\b\t\n\v\f\r\x0e\x0f")
"""Moves and character sets. BEL is left out: playback is silent. ENQ would be answered."""

_ESCAPES = frozenset("78=>DEHMc")
"""Save, restore, keypad, index, next line, tab stop, reverse index, reset. Not Z, which is answered."""

_CSI = re.compile(
    r"[0-9:;]*[@A-HJKLMPSTXZ`abdefgmrsu]"  # editing, movement, colours, margins
    r"|[0-9;]* q"  # the cursor's shape
    r"|!p"  # soft reset
    r"|[0-9;]*[Ig]"
    r"|(?:4|20)[hl]"  # insert, new line
    r"|\?[0-9;]*[JK]"
    r"|\?(?P<modes>[0-9;]+)[hl]"
)
_MODES = frozenset({"3", "5", "6", "7", "12", "25", "45", "47", "69", "1045", "1047", "1048", "1049", "2026"})
"""Private modes that change what is shown. No mouse, focus or paste reports, no keyboard modes."""

_C1 = {"\x84": "D", "\x85": "E", "\x88": "H", "\x8d": "M", "\x90": "P", "\x98": "X", "\x9b": "[", "\x9d": "]"}
_C1 |= {"\x9e": "^", "\x9f": "_"}
"""Controls of eight bits and the letter that means the same after ESC; some terminals obey them in UTF-8 too."""

_STRINGS = frozenset("PX]^_")
"""DCS, SOS, OSC, PM, APC: titles, clipboard, colours, questions, pictures. Nothing of them passes."""


class TerminalSafe:
    """A filter for one stream. What a chunk only begins waits for the next one."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._state = ""
        """The kind of sequence that is open: "" none, "ESC", "CSI", "STRING", "STRING ESC" (perhaps its end)."""
        self._held = ""
        """What of an open escape or CSI sequence has come."""
        self._swallowed = 0
        self.dropped = 0
        """Sequences and controls that were left out so far."""

    def feed(self, data: bytes) -> str:
        """The part of *data* that may be shown."""
        text = self._decoder.decode(data)
        shown: list[str] = []
        at = 0
        while at < len(text):
            match self._state:
                case "":
                    at = self._ground(text, at, shown)
                case "ESC":
                    at = self._escape(text, at, shown)
                case "CSI":
                    at = self._csi(text, at, shown)
                case _:
                    at = self._string(text, at)
        return "".join(shown)

    def _ground(self, text: str, at: int, shown: list[str]) -> int:
        run = _TEXT.match(text, at)
        if run is not None:
            shown.append(run[0])
            return run.end()
        control = text[at]
        if control == "\x1b":
            self._enter("ESC")
        elif control in _C1:
            self._introduce(_C1[control], shown)
        elif control in _CONTROLS:
            shown.append(control)
        else:
            self.dropped += 1
        return at + 1

    def _escape(self, text: str, at: int, shown: list[str]) -> int:
        final = text[at]
        if final == "\x1b":
            self.dropped += 1
        elif self._held or final in "()*+-./ #%":  # nF: character sets, and others that are dropped
            self._held += final
            if not "\x20" <= final <= "\x2f" or len(self._held) > 4:
                self._finish(re.fullmatch(r"[()*+][0AB12]|#8", self._held), f"\x1b{self._held}", shown)
        else:
            self._state = ""
            self._introduce(final, shown)
        return at + 1

    def _introduce(self, final: str, shown: list[str]) -> None:
        """What follows ESC, or its one-character form, begins or is."""
        if final == "[":
            self._enter("CSI")
        elif final in _STRINGS:
            self._enter("STRING")
        else:
            self._finish(final in _ESCAPES, f"\x1b{final}", shown)

    def _csi(self, text: str, at: int, shown: list[str]) -> int:
        end = _CSI_END.search(text, at)
        self._held += text[at : end.start() if end else len(text)]
        if end is None:
            if len(self._held) > MAX_SEQUENCE:
                self._finish(None, "", shown)
            return len(text)
        final = end[0]
        if "\x40" <= final <= "\x7e":
            sequence = self._held + final
            self._finish(_is_harmless(sequence), f"\x1b[{sequence}", shown)
            return end.end()
        self._finish(None, "", shown)  # a control within: the sequence is given up, the control looked at anew
        return end.start()

    def _string(self, text: str, at: int) -> int:
        if self._state == "STRING ESC":
            self._state = ""
            self.dropped += 1
            if text[at] == "\\":
                return at + 1
            self._enter("ESC")  # ESC ends a string whatever comes after it
            return at
        end = _STRING_END.search(text, at)
        self._swallowed += (end.end() if end else len(text)) - at
        if end is None:
            if self._swallowed > MAX_SEQUENCE:
                self._state = ""
                self.dropped += 1
            return len(text)
        if end[0] == "\x1b":
            self._state = "STRING ESC"
        else:
            self._state = ""
            self.dropped += 1
        return end.end()

    def _enter(self, state: str) -> None:
        self._state, self._held, self._swallowed = state, "", 0

    def _finish(self, passes: object, sequence: str, shown: list[str]) -> None:
        self._state = ""
        if passes:
            shown.append(sequence)
        else:
            self.dropped += 1


def _is_harmless(sequence: str) -> bool:
    match = _CSI.fullmatch(sequence)
    if match is None:
        return False
    modes = match["modes"]
    return modes is None or set(modes.split(";")) <= _MODES


def plain(text: str) -> str:
    """One line of *text* from elsewhere (a command, a title) as it may be printed: controls are shown, not obeyed."""
    return "".join(char if _TEXT.fullmatch(char) else f"\\x{ord(char):02x}" for char in text)
