"""Completion as the real bash does it, from the script that bart prints."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.authority import Stand
from tests.cli.desk import login, shell

COMPLETE = """\
source <(bart completion bash)
COMP_WORDS=({words}) COMP_CWORD={at}
_bart_completion bart
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
RECORDING = "20260101T120000Z-0123456789abcdef"


def completed(home: Path, *words: str) -> list[str]:
    """What bash offers after *words*, the last of which is only begun."""
    script = COMPLETE.format(words=" ".join(f"'{word}'" for word in ("bart", *words)), at=len(words))
    command = ["bash", "--norc", "-c", script]
    result = subprocess.run(command, env=shell(home), capture_output=True, text=True, timeout=60, check=True)
    assert result.stderr == ""
    return result.stdout.splitlines()


@pytest.fixture
def door(stand: Stand) -> Stand:
    login(stand)
    view = {
        "id": RECORDING,
        "user": "alice",
        "node": "web1",
        "login": "alice",
        "way": "config",
        "source": "127.0.0.1",
        "started": "2026-01-01T12:00:00Z",
        "ended": None,
        "how": None,
        "recording": True,
    }
    stand.answers["GET /v1/recordings"] = (200, [view])
    return stand


def test_bash_completes_commands_nodes_recordings_and_clusters(door: Stand, home: Path) -> None:
    assert "login" in completed(home, "lo")
    assert completed(home, "ssh", "we") == ["web1"]
    assert completed(home, "play", "2026") == [RECORDING]
    assert completed(home, "recordings", "export", "") == [RECORDING]
    assert completed(home, "--cluster", "") == ["bartizan"]
    assert completed(home, "clusters", "remove", "b") == ["bartizan"]


def test_what_cannot_be_asked_is_completed_by_silence(door: Stand, home: Path) -> None:
    door.answers["GET /v1/recordings"] = (503, "no")
    assert completed(home, "play", "") == [""]
    assert completed(home.parent / "nobody", "ssh", "") == [""]
    assert completed(home.parent / "nobody", "play", "") == [""]
