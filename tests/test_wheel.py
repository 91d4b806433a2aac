"""What we ship is what we test: the wheel holds all of the four rooms, and runs away from the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
ROOMS = ("ca", "bastion", "recordings", "cli")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, HOUSE]
    built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_every_file_of_the_rooms_is_in_the_wheel(wheel: Path) -> None:
    """Templates, static files and migrations too: without them the first start would fail."""
    there = {
        str(path.relative_to(HOUSE))
        for room in ROOMS
        for path in (HOUSE / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert there - packed == set()
    assert {name.partition("/")[0] for name in packed if ".dist-info" not in name} == set(ROOMS)


def test_the_wheel_carries_its_licence_and_both_programs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = {name.partition("/")[2]: name for name in packed.namelist() if ".dist-info/" in name}
        programs = packed.read(names["entry_points.txt"]).decode()
    assert "licenses/LICENSE" in names
    assert "bart = cli.bart:main" in programs
    assert "bartizan = cli.bartizan:main" in programs


@pytest.mark.parametrize("program", ["bart", "bartizan"])
def test_the_programs_start_from_the_wheel_alone(wheel: Path, tmp_path: Path, program: str) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(pip, check=True, timeout=120)
    code = (
        f"import sys; sys.argv = [{program!r}, '--help']; import cli.{program} as program;"
        f"assert program.__file__.startswith({str(site)!r}), program.__file__; program.main()"
    )
    environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    started = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert started.returncode == 0, started.stderr
    assert started.stdout.startswith("Usage:")
