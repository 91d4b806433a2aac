"""A bastion's identity on disk: private, plain files of its own, or nothing starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bastion.state import load, write_private
from ca.errors import Unavailable
from tests.bastion.rawssh import key_pair


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("host_key", "recording_key"):
        key_pair(tmp_path / name)
    write_private(tmp_path / "identity.json", json.dumps({"id": "b-1", "name": "b1"}))
    write_private(tmp_path / "tls.key", "key")
    return tmp_path


def test_an_enrolled_bastion_is_loaded_and_signs_with_its_recording_key(folder: Path) -> None:
    state = load(folder)
    assert (state.id, state.name) == ("b-1", "b1")
    assert state.sign(b"manifest").startswith("-----BEGIN SSH SIGNATURE-----")


def test_a_folder_without_an_identity_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no bastion is enrolled"):
        load(tmp_path)


def link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


@pytest.mark.parametrize("name", ["identity.json", "host_key", "recording_key", "tls.key"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [(lambda path: path.chmod(0o640), "read by others"), (link, "plain file"), (lambda path: path.unlink(), "missing")],
    ids=["readable", "link", "missing"],
)
def test_a_private_file_that_is_not_private_stops_the_start(
    folder: Path, name: str, spoil: Callable[[Path], None], words: str
) -> None:
    """KEY-01"""
    if (name, words) == ("identity.json", "missing"):
        words = "no bastion is enrolled"
    spoil(folder / name)
    with pytest.raises(Unavailable, match=words):
        load(folder)


def test_a_private_file_is_written_in_one_step_for_its_owner_alone(tmp_path: Path) -> None:
    write_private(tmp_path / "x", "one")
    write_private(tmp_path / "x", "two")
    assert (tmp_path / "x").read_text() == "two"
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
