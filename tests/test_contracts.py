"""
The walls of the house that import-linter cannot express: allow-lists, read from the source itself.

import-linter (``make lint``) holds the direction ``cli → bastion → ca → recordings`` and the list of what is forbidden.
A list of what is *allowed* also holds for modules that nobody has thought of yet.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
ROOMS = ("cli", "bastion", "ca", "recordings")
WORDS = frozenset({"ca.model", "ca.errors", "ca.wire", "ca.sshcert", "ca.audit"})
"""All that the bastion may know of the authority: words and shapes, no decisions and no keys."""


def modules(room: str) -> Iterator[Path]:
    yield from sorted((HOUSE / room).rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(HOUSE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Every name that the module at *path* imports, wherever in the file, as ``package.module[.name]``."""
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    for part in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match part:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                parent = package.split(".")[: len(package.split(".")) - (level - 1)] if level else []
                origin = ".".join([*parent, *([module] if module else [])])
                yield from (f"{origin}.{alias.name}" for alias in names)


def within(name: str, allowed: frozenset[str]) -> bool:
    return any(name == word or name.startswith(f"{word}.") for word in allowed)


def test_the_bastion_knows_the_words_of_the_authority_and_nothing_else() -> None:
    stray = [
        f"{name_of(path)} imports {name}"
        for path in modules("bastion")
        for name in imports(path)
        if name.partition(".")[0] == "ca" and not within(name, WORDS)
    ]
    assert not stray


def test_the_allow_list_would_notice() -> None:
    assert within("ca.wire.SessionRequest", WORDS)
    assert not within("ca.wired", WORDS)
    assert not within("ca.keys.UserCA", WORDS)
    assert not within("ca", WORDS)


@pytest.mark.parametrize("room", ROOMS)
def test_each_module_opens_with_its_law(room: str) -> None:
    """STYLE 5: one or two sentences on what the module owns."""
    silent = [
        name_of(path)
        for path in modules(room)
        if "versions" not in path.parts and ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) is None
    ]
    assert not silent


@pytest.mark.parametrize("room", ROOMS)
def test_modules_are_named_by_what_they_own(room: str) -> None:
    """STYLE 4: a name that fits everything owns nothing."""
    vague = {"utils", "util", "helpers", "common", "base", "core", "manager", "service", "misc"}
    assert not [name_of(path) for path in modules(room) if path.stem in vague]


def test_pure_modules_read_no_clock_and_throw_no_dice() -> None:
    """STYLE 3: time comes in as ``now``, ids as arguments. The list is import-linter's own."""
    contracts = tomllib.loads((HOUSE / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    pure = next(contract["source_modules"] for contract in contracts if contract["id"] == "pure")
    unsteady = {"time", "random", "secrets", "uuid", "pathlib", "subprocess", "threading"}
    stray = [
        f"{module} imports {name}"
        for module in pure
        for name in imports(HOUSE / f"{module.replace('.', '/')}.py")
        if name.partition(".")[0] in unsteady
    ]
    assert not stray
