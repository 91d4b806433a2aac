"""
YAML as our files use it: plain lists, fields and words, each with its line. Pure.

No anchors, no tags, no second document, no field twice. A word is taken as it is written: ``no``, ``08`` and ``1.0``
are text where text is expected, so nobody is surprised by what YAML makes of them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

import yaml

from ca.errors import InvalidInput

MOST_CHARACTERS = 1_000_000
MOST_DEPTH = 16

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DURATION = re.compile(r"(?=\d)(?:(\d{1,4})d)?(?:(\d{1,6})h)?(?:(\d{1,7})m)?(?:(\d{1,9})s)?\Z")
_SIZE = re.compile(r"(\d{1,15})(KiB|MiB|GiB)?\Z")
_SIZE_UNITS = {None: 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a file, on this line (counted from 1)."""

    line: int
    text: str


class Refused(Exception):
    """What stands at one place of the file is not what must stand there."""

    def __init__(self, at: yaml.Node | int, text: str) -> None:
        super().__init__(text)
        self.problem = Problem(at if isinstance(at, int) else line(at), text)


class FileError(InvalidInput):
    """A file cannot be taken. The message is the first of ``problems``, with file and line; the hint has the next."""

    file_code: ClassVar[str]

    def __init__(self, file: str, problems: Iterable[Problem]) -> None:
        self.file = file
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        first, *rest = self.lines()
        also = f"also {'; '.join(rest[:3])}" + (f"; and {len(rest) - 3} more" if len(rest) > 3 else "")
        super().__init__(first, hint=also if rest else None, code=self.file_code)

    def lines(self) -> list[str]:
        """Every problem as a compiler would print it: ``roles.yaml:12: …``."""
        return [f"{self.file}:{problem.line}: {problem.text}" for problem in self.problems]


def compose(text: str) -> yaml.Node:
    """The one document in *text*, as nodes that know their lines."""
    if len(text) > MOST_CHARACTERS:
        raise Refused(1, f"the file is longer than {MOST_CHARACTERS} characters")
    if found := _UNPRINTABLE.search(text):
        raise Refused(text.count("\n", 0, found.start()) + 1, f"the character U+{ord(found[0]):04X} may not stand here")
    try:
        _check_events(text)
        root: yaml.Node | None = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(error, text) from error
    if root is None:
        raise Refused(1, "the file is empty")
    return root


def fields(
    node: yaml.Node, what: str, *, required: Sequence[str] = (), optional: Sequence[str] = ()
) -> dict[str, yaml.Node]:
    """The fields of *node* by name: all that are required, none but these, none twice."""
    known = (*required, *optional)
    found: dict[str, yaml.Node] = {}
    for name, key, value in entries(node, what):
        if name not in known:
            raise Refused(key, f"unknown field {shown(name)} in {what}, expected {one_of(known)}{close(name, known)}")
        found[name] = value
    for name in required:
        if name not in found:
            raise Refused(node, f"{what} has no field {name!r}, expected {', '.join(required)}")
    return found


def entries(node: yaml.Node, what: str) -> list[tuple[str, yaml.Node, yaml.Node]]:
    """Key, the key's node, and the value of each entry of a mapping; a key that stands twice is refused."""
    if not isinstance(node, yaml.MappingNode):
        raise Refused(node, f"{what} is {_kind(node)}, expected fields such as `key: value`")
    first: dict[str, int] = {}
    found = []
    for key, value in node.value:
        name = word(key, f"a key of {what}")
        if name in first:
            raise Refused(key, f"{shown(name)} stands twice in {what}, first on line {first[name]}")
        first[name] = line(key)
        found.append((name, key, value))
    return found


def items(node: yaml.Node, what: str, *, may_be_empty: bool = False) -> list[yaml.Node]:
    """The items of a list."""
    if not isinstance(node, yaml.SequenceNode):
        raise Refused(node, f"{what} is {_kind(node)}, expected a list")
    if not node.value and not may_be_empty:
        raise Refused(node, f"{what} is an empty list, and empty never means all: write what is meant or leave it out")
    return list(node.value)


def words(node: yaml.Node, what: str) -> list[tuple[str, yaml.Node]]:
    """One word or a list of them, none twice, each with its node."""
    nodes = items(node, what) if isinstance(node, yaml.SequenceNode) else [node]
    found: dict[str, yaml.Node] = {}
    for one in nodes:
        text = word(one, what)
        if text in found:
            raise Refused(one, f"{shown(text)} stands twice in {what}")
        found[text] = one
    return list(found.items())


def word(node: yaml.Node, what: str) -> str:
    """A text that is not empty, exactly as it is written."""
    if not isinstance(node, yaml.ScalarNode):
        quote = ' (a template must stand in quotes: "{{user.name}}")' if isinstance(node, yaml.MappingNode) else ""
        raise Refused(node, f"{what} is {_kind(node)}, expected a word{quote}")
    text = str(node.value)
    if node.tag == "tag:yaml.org,2002:null" or not text:
        raise Refused(node, f"{what} has no value")
    if not text.isprintable():
        raise Refused(node, f"{what} is {shown(text)}, expected printable characters")
    return text


def choice(node: yaml.Node, what: str, choices: Sequence[str], *, why: str = "") -> str:
    """One of *choices*."""
    text = word(node, what)
    if text not in choices:
        raise Refused(node, f"{what} is {shown(text)}, expected {one_of(choices)}{close(text, choices)}{why}")
    return text


def boolean(node: yaml.Node, what: str) -> bool:
    return choice(node, what, ("true", "false")) == "true"


def number(node: yaml.Node, what: str, *, least: int, most: int) -> int:
    text = word(node, what)
    if not re.fullmatch(r"[0-9]{1,15}", text) or not least <= int(text) <= most:
        raise Refused(node, f"{what} is {shown(text)}, expected a whole number from {least} to {most}")
    return int(text)


def duration(node: yaml.Node, what: str, *, least: timedelta, most: timedelta) -> timedelta:
    """A span such as ``8h``, ``30m``, ``90s`` or ``1h30m``. A bare number has no unit and is refused."""
    text = word(node, what)
    found = _DURATION.match(text)
    if found is None or not any(found.groups()):
        raise Refused(node, f"{what} is {shown(text)}, expected a duration such as 8h, 30m or 90s")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    span = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    if not least <= span <= most:
        raise Refused(node, f"{what} is {shown(text)}, expected {span_text(least)} to {span_text(most)}")
    return span


def size(node: yaml.Node, what: str, *, most: int) -> int:
    """A number of bytes, alone or with ``KiB``, ``MiB`` or ``GiB``."""
    text = word(node, what)
    found = _SIZE.match(text)
    bytes_ = int(found[1]) * _SIZE_UNITS[found[2]] if found else 0
    if not 1 <= bytes_ <= most:
        raise Refused(node, f"{what} is {shown(text)}, expected bytes such as 1048576, 64MiB or 1GiB, at most {most}")
    return bytes_


def line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def shown(text: str) -> str:
    """What stands in the file, in a message: quoted, ASCII, short."""
    return ascii(text if len(text) <= 60 else text[:57] + "...")


def one_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def close(text: str, known: Iterable[str]) -> str:
    """`` (did you mean …?)`` when a known name is near. A name that could not be typed is not proposed."""
    lower = {name.lower(): name for name in known if name.isascii() and name.isprintable()}
    near = difflib.get_close_matches(text[:80].lower(), lower, n=1, cutoff=0.7)
    return f" (did you mean {lower[near[0]]}?)" if near else ""


def span_text(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _check_events(text: str) -> None:
    """Refuse what makes YAML dangerous or surprising, before anything is built from it."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=_LOADER):
        at = 1 if event.start_mark is None else int(event.start_mark.line) + 1
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if anchor:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            raise Refused(at, f'a word that begins with {sign} must stand in quotes: "{sign}{anchor}"')
        if tag:
            raise Refused(at, f"the tag {shown(tag)} may not stand here")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise Refused(at, "a second document begins here, expected one")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise Refused(at, f"this is nested deeper than {MOST_DEPTH} levels")


def _not_yaml(error: yaml.MarkedYAMLError, text: str) -> Refused:
    mark = error.problem_mark or error.context_mark
    at = min(int(mark.line) + 1, max(text.count("\n") + (not text.endswith("\n")), 1)) if mark else 1
    said = f"{error.context or ''} {error.problem or ''}"
    content = (text.split("\n")[at - 1 : at] or [""])[0]
    if "alias" in said or re.search(r"(?:^|[\s\[,:-])\*(?:$|[\s\],}])", content):
        return Refused(at, 'not YAML: a word that begins with * must stand in quotes: "*"')
    if "{{" in content:
        return Refused(at, 'not YAML: a template must stand in quotes: "{{user.name}}"')
    if re.match(r"[ -]*\t", content):
        return Refused(at, "not YAML: lines are indented with spaces, not tabs")
    return Refused(at, f"not YAML: {error.problem or error.context or 'unreadable'}")


def _kind(node: yaml.Node) -> str:
    match node:
        case yaml.MappingNode():
            return "a set of fields"
        case yaml.SequenceNode():
            return "a list"
        case yaml.ScalarNode(value=str(text)) if text:
            return shown(text)
        case _:
            return "empty"
