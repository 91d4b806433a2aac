"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("fields", sa.Text(), nullable=False),
        sa.Column("prev", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index(op.f("ix_audit_code"), "audit", ["code"], unique=False)
    op.create_table(
        "bastion_events",
        sa.Column("bastion_id", sa.String(32), nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("bastion_id", "id"),
    )
    op.create_table(
        "bastions",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("host_key", sa.Text(), nullable=False),
        sa.Column("recording_key", sa.Text(), nullable=False),
        sa.Column("tls_key", sa.String(64), nullable=False),
        sa.Column("egress", sa.JSON(), nullable=False),
        sa.Column("created", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
        sa.UniqueConstraint("tls_key"),
    )
    op.create_table(
        "certificates",
        sa.Column("ca", sa.String(16), nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("key_id", sa.String(256), nullable=False),
        sa.Column("principals", sa.JSON(), nullable=False),
        sa.Column("valid_after", sa.String(27), nullable=False),
        sa.Column("valid_before", sa.String(27), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("tbs_sha256", sa.String(64), nullable=False),
        sa.Column("user", sa.String(64), nullable=True),
        sa.Column("node_id", sa.String(32), nullable=True),
        sa.Column("session", sa.String(32), nullable=True),
        sa.Column("created", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("ca", "serial"),
    )
    op.create_index("certificates_state", "certificates", ["state"], unique=False)
    op.create_index("certificates_user", "certificates", ["user", "valid_before"], unique=False)
    op.create_table(
        "counters",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "locks",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("user", sa.String(64), nullable=True),
        sa.Column("node", sa.String(63), nullable=True),
        sa.Column("role", sa.String(64), nullable=True),
        sa.Column("login", sa.String(64), nullable=True),
        sa.Column("created", sa.String(27), nullable=False),
        sa.Column("expires", sa.String(27), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "login_failures",
        sa.Column("user", sa.String(64), nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("first", sa.String(27), nullable=False),
        sa.Column("last", sa.String(27), nullable=False),
        sa.Column("locked_until", sa.String(27), nullable=True),
        sa.PrimaryKeyConstraint("user", "source"),
    )
    op.create_index(op.f("ix_login_failures_last"), "login_failures", ["last"], unique=False)
    op.create_table(
        "marks",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "node_keys",
        sa.Column("node_id", sa.String(32), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.Column("pinned", sa.Boolean(), nullable=False),
        sa.Column("certificate_serial", sa.BigInteger(), nullable=True),
        sa.Column("certificate_expires", sa.String(27), nullable=True),
        sa.PrimaryKeyConstraint("node_id", "fingerprint"),
    )
    op.create_table(
        "nodes",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("address", sa.String(255), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("created", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "nonces",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("expires", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_index(op.f("ix_nonces_expires"), "nonces", ["expires"], unique=False)
    op.create_table(
        "proofs",
        sa.Column("h", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("h"),
    )
    op.create_index(op.f("ix_proofs_at"), "proofs", ["at"], unique=False)
    op.create_table(
        "recorder_keys",
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.Column("valid_after", sa.String(27), nullable=False),
        sa.Column("valid_before", sa.String(27), nullable=True),
        sa.PrimaryKeyConstraint("fingerprint"),
    )
    op.create_table(
        "roles_files",
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("applied_by", sa.String(128), nullable=False),
        sa.Column("applied", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("revision"),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("user", sa.String(64), nullable=False),
        sa.Column("node_id", sa.String(32), nullable=False),
        sa.Column("node", sa.String(63), nullable=False),
        sa.Column("login", sa.String(64), nullable=False),
        sa.Column("way", sa.String(16), nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("bastion_id", sa.String(32), nullable=False),
        sa.Column("worker", sa.String(64), nullable=False),
        sa.Column("h", sa.LargeBinary(), nullable=False),
        sa.Column("user_serial", sa.BigInteger(), nullable=False),
        sa.Column("target_serial", sa.BigInteger(), nullable=False),
        sa.Column("certificate_expires", sa.String(27), nullable=False),
        sa.Column("bound", sa.Boolean(), nullable=False),
        sa.Column("actions", sa.JSON(), nullable=False),
        sa.Column("started", sa.String(27), nullable=False),
        sa.Column("ended", sa.String(27), nullable=True),
        sa.Column("how", sa.String(32), nullable=True),
        sa.Column("head", sa.JSON(), nullable=True),
        sa.Column("manifest_sha256", sa.String(64), nullable=True),
        sa.Column("authority_signature", sa.Text(), nullable=True),
        sa.Column("recording_deleted", sa.String(27), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("h"),
    )
    op.create_index(op.f("ix_sessions_node"), "sessions", ["node"], unique=False)
    op.create_index(op.f("ix_sessions_user"), "sessions", ["user"], unique=False)
    op.create_index("sessions_ended", "sessions", ["ended"], unique=False)
    op.create_index("sessions_started", "sessions", ["started"], unique=False)
    op.create_table(
        "tokens",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("user", sa.String(64), nullable=True),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("created", sa.String(27), nullable=False),
        sa.Column("expires", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_index(op.f("ix_tokens_user"), "tokens", ["user"], unique=False)
    op.create_table(
        "users",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("password_hash", sa.String(256), nullable=True),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
