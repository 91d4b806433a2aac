"""Alembic's entry: runs the steps on the connection that ``ca.migrations.upgrade`` hands over."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

import ca.tables  # noqa: F401  (registers the tables)

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()
