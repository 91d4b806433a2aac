"""ca/web/static/bartizan.css: what is written can be read, in light and in dark (WCAG 2.2, 1.4.3 and 1.4.11)."""

from __future__ import annotations

import re

import pytest

from ca.web.static import FILES

STYLE = FILES["bartizan.css"][0].decode()
TEXT = [
    ("ink", "ground"), ("ink", "sheet"), ("ink", "well"), ("quiet", "ground"), ("quiet", "sheet"), ("quiet", "well"),
    ("accent", "sheet"), ("accent-deep", "accent-ground"), ("on-accent", "accent"), ("on-accent", "accent-deep"),
    ("alarm", "alarm-ground"), ("ink", "alarm-ground"), ("sheet", "alarm"), ("good", "good-ground"),
    ("care", "care-ground"), ("ink", "care-ground"),
]  # fmt: skip
EDGES = [("edge", "sheet"), ("edge", "well"), ("accent", "sheet"), ("accent", "ground"), ("alarm", "well")]


def colours(scheme: str) -> dict[str, tuple[int, ...]]:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    written = light if scheme == "light" else light + dark
    found = re.findall(r"--([a-z-]+): #([0-9a-f]{6});", written)
    return {name: tuple(bytes.fromhex(value)) for name, value in found}


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    def luminance(colour: tuple[int, ...]) -> float:
        parts = [value / 255 for value in colour]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_written_stands_out(scheme: str) -> None:
    have = colours(scheme)
    poor = {pair: contrast(have[pair[0]], have[pair[1]]) for pair in TEXT}
    assert {pair: ratio for pair, ratio in poor.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_can_be_used_has_an_edge_that_stands_out(scheme: str) -> None:
    have = colours(scheme)
    poor = {pair: contrast(have[pair[0]], have[pair[1]]) for pair in EDGES}
    assert {pair: ratio for pair, ratio in poor.items() if ratio < 3} == {}


def test_the_style_sheet_loads_nothing() -> None:
    assert not re.search(r"url\(|@import|expression", STYLE)
