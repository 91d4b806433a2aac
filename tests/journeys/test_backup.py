"""docs/how-to/backup-and-restore.md, typed word by word while people are at work."""

from __future__ import annotations

import re
import stat
import subprocess
import textwrap
from pathlib import Path

from tests.journeys import stage
from tests.product import Product, start_product
from tests.sshd import stop

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "backup-and-restore.md"


def commands(heading: str) -> str:
    """The commands that stand under *heading*."""
    section = HOW_TO.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    block = re.search(r"(?:^    .+\n)+", section, flags=re.MULTILINE)
    assert block
    return textwrap.dedent(block[0])


def test_a_backup_taken_while_it_runs_can_be_started_elsewhere(own_product: Product, tmp_path: Path) -> None:
    own_product.apply_roles("roles: [{name: developer, allow: [{nodes: {env: [dev]}, logins: [a], actions: [exec]}]}]")
    with own_product.node("web1", env="dev"):
        stage.guest(own_product, "alice", "developer")
        (tmp_path / "D").symlink_to(own_product.data)
        subprocess.run(["sh", "-euc", commands("Back up while it runs")], cwd=tmp_path, check=True, timeout=60)

    backup = tmp_path / "B"
    assert stat.S_IMODE((backup / "bartizan.db").stat().st_mode) == 0o600
    assert not [path.name for path in backup.rglob("*") if path.suffix in (".sock", ".lock")]
    stop(own_product.process, within=30)

    (tmp_path / "again").mkdir()
    backup.rename(tmp_path / "again" / "data")
    restored = start_product(tmp_path / "again")
    try:
        assert restored.pin == own_product.pin
        assert "alice" in restored.bartizan("users", "list").stdout
        assert "web1" in restored.bartizan("nodes", "list").stdout
        restored.bartizan("audit", "verify")
    finally:
        stop(restored.process, within=30)
