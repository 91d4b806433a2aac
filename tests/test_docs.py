"""The documentation holds together: every page can be found, every id of a bad input has its test."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

HOUSE = Path(__file__).parents[1]


def pages(nav: object) -> list[str]:
    match nav:
        case str():
            return [nav]
        case dict():
            return [page for entry in nav.values() for page in pages(entry)]
        case list():
            return [page for entry in nav for page in pages(entry)]
    raise TypeError(nav)


def test_every_page_is_in_the_navigation_once() -> None:
    listed = pages(yaml.safe_load((HOUSE / "mkdocs.yml").read_text())["nav"])
    there = [str(path.relative_to(HOUSE / "docs")) for path in (HOUSE / "docs").rglob("*.md")]
    assert sorted(listed) == sorted(there)


def test_decisions_are_numbered_without_gaps_and_listed() -> None:
    decisions = sorted(path.name for path in (HOUSE / "docs" / "decisions").glob("0*.md"))
    assert [int(name[:4]) for name in decisions] == list(range(1, len(decisions) + 1))
    index = (HOUSE / "docs" / "decisions" / "index.md").read_text()
    assert [name for name in decisions if f"({name})" not in index] == []


def test_each_decision_has_its_three_parts() -> None:
    for path in (HOUSE / "docs" / "decisions").glob("0*.md"):
        headings = re.findall(r"^## (.+)$", path.read_text(), flags=re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences"], path.name


def test_no_page_or_lock_names_a_place_on_one_machine() -> None:
    places = re.compile(r"/root/|/home/(?!somebody|git)\w|--index-url|--find-links|file:///(?!opt/bartizan)")
    texts = [*(HOUSE / "docs").rglob("*.md"), *HOUSE.glob("*.md"), *HOUSE.glob("requirements*.txt")]
    found = {path.name: match[0] for path in texts if (match := places.search(path.read_text()))}
    assert not found
