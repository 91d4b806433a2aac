"""tests/canaries.py: a search that could not find anything would be worth nothing."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.canaries import found_in, plant


@pytest.mark.parametrize("name", ["up.log", "nodes/web1/sshd.log", "data/bartizan.db", "data/bartizan.db-wal"])
def test_a_planted_secret_is_found_where_it_was_written(tmp_path: Path, name: str) -> None:
    secret = plant(secrets.token_urlsafe(12), "a canary")
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"\x00before " + secret.encode() + b" after")
    assert found_in(tmp_path) == [f"a canary in {file.name}"]
    file.write_bytes(b"nothing")
    assert found_in(tmp_path) == []
