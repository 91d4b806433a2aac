"""
Secrets that the tests know, looked for in every log and database that the product wrote: none may be found (LOG-02).

Whoever makes a secret plants it; ``running_product`` searches when it stops, below its folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

SHORTEST = 12
"""Anything shorter could stand in a log by chance."""

_planted: dict[bytes, str] = {}


def plant(secret: str, what: str) -> str:
    """Remember *secret*, which is *what*, and give it back."""
    assert len(secret) >= SHORTEST, f"{what} is too short to be looked for"
    _planted[secret.encode()] = what
    return secret


def plant_home(home: Path) -> None:
    """What a sign-in left on a laptop: the token, and the middle of the private key."""
    for name in ("token", "id"):
        file = home / name
        if file.exists():
            lines = file.read_text().split()
            plant(lines[len(lines) // 2], f"{file.name} of {home.parent.name}")


def found_in(folder: Path) -> list[str]:
    """What was found where, below *folder*."""
    return [f"{what} in {file.name}" for file in _written(folder) for what in _found(file.read_bytes())]


def _written(folder: Path) -> Iterator[Path]:
    return (file for pattern in ("*.log", "*.db", "*.db-wal") for file in folder.rglob(pattern) if file.is_file())


def _found(text: bytes) -> Iterator[str]:
    return (what for secret, what in _planted.items() if secret in text)
