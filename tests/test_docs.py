"""The documentation holds together: every page can be found, every id of a bad input has its test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ca import claims, provider_file
from ca.provider import GITHUB, OIDC

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


# --- identity providers ---------------------------------------------------------------------------------------

RECIPES = sorted((HOUSE / "docs" / "how-to" / "sign-in").glob("*.md"))
PROVIDER_FILE = (HOUSE / "docs" / "reference" / "provider-file.md").read_text()


def yaml_in(page: str) -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", RECIPES, ids=[page.stem for page in RECIPES])
def test_each_recipe_holds_one_file_that_is_understood_and_gives_roles(page: Path) -> None:
    [text] = yaml_in(page.read_text())
    provider = provider_file.parse(text)
    assert provider.notes == ()
    assert f"/sign-in/callback/{provider.name}" in page.read_text()
    assert f"idp apply {provider.name}.yaml" in page.read_text()
    assert f"idp test {provider.name}" in page.read_text()


def test_the_example_of_the_reference_shows_every_field() -> None:
    [text] = yaml_in(PROVIDER_FILE)
    provider_file.parse(text)
    assert set(yaml.safe_load(text)) == set(provider_file.FIELDS)


def test_the_reference_describes_every_field_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PROVIDER_FILE.partition("## Claims")[0], flags=re.MULTILINE))
    assert set(rows) == set(provider_file.FIELDS)
    for field, row in rows.items():
        required = {kind for kind in (OIDC, GITHUB) if field in provider_file.REQUIRED[kind]}
        assert ("required." in row) == (len(required) == 2), field
        assert ("required for `oidc`." in row) == (required == {OIDC}), field
    for kind, scopes in provider_file.DEFAULT_SCOPES.items():
        assert f"`{kind}`: `[{', '.join(scopes)}]`" in rows["scopes"]
    assert f"at most {provider_file.MOST_TRAITS}" in rows["traits"]
    assert f"At most {claims.MOST_VALUES} values each, of at most {claims.LONGEST_TRAIT} characters" in rows["traits"]


def test_the_reference_lists_every_refusal_and_every_claim_of_github() -> None:
    source = (HOUSE / "ca" / "claims.py").read_text()
    codes = set(re.findall(r'code="(\w+)"', source))
    assert set(re.findall(r"^\| `(\w+)` \|", PROVIDER_FILE.partition("## Refusals")[2], flags=re.MULTILINE)) == codes
    assert all(f"`{claim}`" in PROVIDER_FILE for claim in provider_file.GITHUB_CLAIMS)
