"""Identity providers, identities, device logins and second factors."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("provider", sa.String(64), nullable=True))
    op.add_column("users", sa.Column("traits", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("users", sa.Column("refused", sa.String(500), nullable=True))
    op.create_table(
        "providers",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=True),
        sa.Column("applied_by", sa.String(128), nullable=False),
        sa.Column("applied", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "identities",
        sa.Column("issuer", sa.String(255), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("provider", sa.String(64), nullable=False),
        sa.Column("user", sa.String(64), nullable=False),
        sa.Column("renewal", sa.Text(), nullable=True),
        sa.Column("created", sa.String(27), nullable=False),
        sa.Column("checked", sa.String(27), nullable=False),
        sa.Column("unreachable_since", sa.String(27), nullable=True),
        sa.PrimaryKeyConstraint("issuer", "subject"),
        sa.UniqueConstraint("user"),
    )
    op.create_index(op.f("ix_identities_provider"), "identities", ["provider"], unique=False)
    op.create_table(
        "device_logins",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("user_code", sa.String(16), nullable=False),
        sa.Column("challenge", sa.String(64), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("user", sa.String(64), nullable=True),
        sa.Column("with_code", sa.Boolean(), nullable=False),
        sa.Column("created", sa.String(27), nullable=False),
        sa.Column("expires", sa.String(27), nullable=False),
        sa.Column("polled", sa.String(27), nullable=True),
        sa.PrimaryKeyConstraint("hash"),
        sa.UniqueConstraint("user_code"),
    )
    op.create_index(op.f("ix_device_logins_expires"), "device_logins", ["expires"], unique=False)
    op.create_table(
        "factors",
        sa.Column("user", sa.String(64), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("confirmed", sa.Boolean(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("user"),
    )
    op.create_table(
        "recovery_codes",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("user", sa.String(64), nullable=False),
        sa.Column("created", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_index(op.f("ix_recovery_codes_user"), "recovery_codes", ["user"], unique=False)
