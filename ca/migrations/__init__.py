"""
Alembic migrations, run at every start inside the one transaction that opens the database.

``upgrade(connection)`` is all there is to import. ``versions/`` holds one file per step, never edited once released.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from ca.errors import Conflict


def upgrade(connection: Connection) -> None:
    """Bring the database to this version. One written by a newer version is refused."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    known = {step.revision for step in script.walk_revisions()}
    if current is not None and current not in known:
        raise Conflict(
            "the database was written by a newer version of bartizan",
            hint="start that version, or restore a backup from before the upgrade",
            code="database_too_new",
        )
    if current != script.get_current_head():
        command.upgrade(config, "head")
