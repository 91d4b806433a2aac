"""Bad input and what it must get: each row of the list is a test with its id, or says why not yet."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
LIST = TESTS / "negative_ids.toml"
ID = re.compile(r"\b(?:CA|CLI|CV|DOS|FS|KEY|LOG|OIDC|REC|SSH|WEB)-[0-9]{2}\b")
COVERED = "covered"
OUT = re.compile(r"out: \S.+")


def listed() -> dict[str, str]:
    found: dict[str, str] = {}
    for rows in tomllib.loads(LIST.read_text()).values():
        assert not set(rows) & set(found)
        found |= rows
    return found


def docstrings() -> Iterator[tuple[Path, str]]:
    """What each test promises."""
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield path, ast.get_docstring(node) or ""


def promised() -> set[str]:
    return {id for path, text in docstrings() if path != Path(__file__) for id in ID.findall(text)}


def test_a_row_is_covered_or_says_why_not() -> None:
    assert {id: said for id, said in listed().items() if said != COVERED and not OUT.fullmatch(said)} == {}
    assert [id for id in listed() if not ID.fullmatch(id)] == []


def test_what_is_called_covered_stands_in_the_docstring_of_a_test() -> None:
    assert sorted({id for id, said in listed().items() if said == COVERED} - promised()) == []


def test_what_a_test_promises_is_listed_as_covered() -> None:
    assert sorted(promised() - {id for id, said in listed().items() if said == COVERED}) == []
