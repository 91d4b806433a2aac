"""A stand-in for the authority, and the folder in which ``bart`` writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.authority import Stand, standing
from tests.cli.desk import NONCE, answer


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "bart"


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    with standing(tmp_path / "authority") as stand:
        stand.answers["POST /v1/login/challenge"] = (200, {"nonce": NONCE})
        stand.answers["POST /v1/login"] = (200, answer())
        yield stand
