"""
JSON as strangers send it: no name twice, no number that is not one, no half character. Pure; raises ValueError alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping


def read_object(data: bytes) -> dict[str, object]:
    """The one object in *data*. Anything else, or what two readers could read in two ways, is a ValueError."""
    value = _read(data)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def read_list(data: bytes) -> list[Mapping[str, object]]:
    """The one list in *data*, of objects alone."""
    value = _read(data)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ValueError("not a list of objects")
    return value


def _read(data: bytes) -> object:
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # json alone takes half a character for text
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return value


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice")
    return made


def _no_number(word: str) -> object:
    raise ValueError(f"{word} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number
