"""
The rows, as SQLModel describes them. Only ``ca/store/`` and the migrations look in here; rows travel no further.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import JSON, BigInteger, Index, LargeBinary, String, Table, Text, TypeDecorator
from sqlalchemy.engine import Dialect
from sqlmodel import Field, SQLModel

FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"


class UtcTime(TypeDecorator[datetime]):
    """A moment in UTC as text that sorts like time, alike on every database."""

    impl = String(27)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        return None if value is None else value.astimezone(UTC).strftime(FORMAT)

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        return None if value is None else datetime.strptime(value, FORMAT).replace(tzinfo=UTC)


class UserRow(SQLModel, table=True):
    __tablename__ = "users"
    name: str = Field(primary_key=True, max_length=64)
    roles: list[str] = Field(sa_type=JSON)
    password_hash: str | None = Field(default=None, max_length=256)
    disabled: bool = False
    created: datetime = Field(sa_type=UtcTime)
    provider: str | None = Field(default=None, max_length=64)
    """The identity provider that vouches for the person; None for a local account."""
    traits: dict[str, list[str]] = Field(default_factory=dict, sa_type=JSON)
    refused: str | None = Field(default=None, max_length=500)
    """Why the provider no longer vouches; None while it does."""


class ProviderRow(SQLModel, table=True):
    """An identity provider: its file as written, and the client secret, sealed."""

    __tablename__ = "providers"
    name: str = Field(primary_key=True, max_length=64)
    revision: int
    text: str = Field(sa_type=Text)
    secret: str | None = Field(default=None, sa_type=Text)
    applied_by: str = Field(max_length=128)
    applied: datetime = Field(sa_type=UtcTime)


class IdentityRow(SQLModel, table=True):
    """Who somebody is at a provider: issuer and subject, never an e-mail address; and the person they are here."""

    __tablename__ = "identities"
    issuer: str = Field(primary_key=True, max_length=255)
    subject: str = Field(primary_key=True, max_length=255)
    provider: str = Field(max_length=64, index=True)
    user: str = Field(max_length=64, unique=True)
    renewal: str | None = Field(default=None, sa_type=Text)
    """What the provider is asked again with (a refresh token), sealed."""
    created: datetime = Field(sa_type=UtcTime)
    checked: datetime = Field(sa_type=UtcTime)
    """When the provider last said yes."""
    unreachable_since: datetime | None = Field(default=None, sa_type=UtcTime)


class DeviceLoginRow(SQLModel, table=True):
    """A sign-in that a machine without a browser asked for (RFC 8628), by the SHA-256 of its device code."""

    __tablename__ = "device_logins"
    hash: str = Field(primary_key=True, max_length=64)
    user_code: str = Field(max_length=16, unique=True)
    challenge: str = Field(max_length=64)
    host: str = Field(max_length=255)
    source: str = Field(max_length=64)
    state: str = Field(max_length=16)
    user: str | None = Field(default=None, max_length=64)
    with_code: bool = False
    created: datetime = Field(sa_type=UtcTime)
    expires: datetime = Field(sa_type=UtcTime, index=True)
    polled: datetime | None = Field(default=None, sa_type=UtcTime)


class FactorRow(SQLModel, table=True):
    """A person's second factor: the secret of RFC 6238, sealed. It counts once a code has confirmed it."""

    __tablename__ = "factors"
    user: str = Field(primary_key=True, max_length=64)
    secret: str = Field(sa_type=Text)
    confirmed: bool = False
    last_step: int = Field(default=0, sa_type=BigInteger)
    """The time step of the last code that was taken: neither it nor an earlier one is taken again."""
    created: datetime = Field(sa_type=UtcTime)


class RecoveryCodeRow(SQLModel, table=True):
    """Codes for the day the telephone is lost, by SHA-256 alone; a used one is deleted."""

    __tablename__ = "recovery_codes"
    hash: str = Field(primary_key=True, max_length=64)
    user: str = Field(max_length=64, index=True)
    created: datetime = Field(sa_type=UtcTime)


class RolesFileRow(SQLModel, table=True):
    __tablename__ = "roles_files"
    revision: int = Field(primary_key=True)
    text: str = Field(sa_type=Text)
    applied_by: str = Field(max_length=128)
    applied: datetime = Field(sa_type=UtcTime)


class NodeRow(SQLModel, table=True):
    __tablename__ = "nodes"
    id: str = Field(primary_key=True, max_length=32)
    name: str = Field(unique=True, max_length=63)
    address: str = Field(max_length=255)
    labels: dict[str, str] = Field(sa_type=JSON)
    created: datetime = Field(sa_type=UtcTime)


class NodeKeyRow(SQLModel, table=True):
    __tablename__ = "node_keys"
    node_id: str = Field(primary_key=True, max_length=32)
    fingerprint: str = Field(primary_key=True, max_length=64)
    line: str = Field(sa_type=Text)
    pinned: bool = False
    certificate_serial: int | None = Field(default=None, sa_type=BigInteger)
    certificate_expires: datetime | None = Field(default=None, sa_type=UtcTime)


class CounterRow(SQLModel, table=True):
    """The last serial of each CA, and when it was given."""

    __tablename__ = "counters"
    name: str = Field(primary_key=True, max_length=32)
    value: int = Field(sa_type=BigInteger)
    at: datetime = Field(sa_type=UtcTime)


class CertificateRow(SQLModel, table=True):
    __tablename__ = "certificates"
    __table_args__ = (Index("certificates_user", "user", "valid_before"), Index("certificates_state", "state"))
    ca: str = Field(primary_key=True, max_length=16)
    serial: int = Field(primary_key=True, sa_type=BigInteger)
    key_id: str = Field(max_length=256)
    principals: list[str] = Field(sa_type=JSON)
    valid_after: datetime = Field(sa_type=UtcTime)
    valid_before: datetime = Field(sa_type=UtcTime)
    state: str = Field(max_length=16)
    subject: str = Field(max_length=64)
    tbs_sha256: str = Field(max_length=64)
    user: str | None = Field(default=None, max_length=64)
    node_id: str | None = Field(default=None, max_length=32)
    session: str | None = Field(default=None, max_length=32)
    created: datetime = Field(sa_type=UtcTime)


class TokenRow(SQLModel, table=True):
    """Opaque tokens of every kind, by SHA-256 alone."""

    __tablename__ = "tokens"
    hash: str = Field(primary_key=True, max_length=64)
    kind: str = Field(max_length=16)
    user: str | None = Field(default=None, max_length=64, index=True)
    data: dict[str, object] = Field(sa_type=JSON)
    created: datetime = Field(sa_type=UtcTime)
    expires: datetime = Field(sa_type=UtcTime)


class NonceRow(SQLModel, table=True):
    __tablename__ = "nonces"
    hash: str = Field(primary_key=True, max_length=64)
    purpose: str = Field(max_length=16)
    expires: datetime = Field(sa_type=UtcTime, index=True)


class ProofRow(SQLModel, table=True):
    """Every session identifier H that was ever accepted within the life of a beacon."""

    __tablename__ = "proofs"
    h: bytes = Field(primary_key=True, sa_type=LargeBinary)
    at: datetime = Field(sa_type=UtcTime, index=True)


class LoginFailureRow(SQLModel, table=True):
    __tablename__ = "login_failures"
    user: str = Field(primary_key=True, max_length=64)
    source: str = Field(primary_key=True, max_length=64)
    count: int
    total: int = Field(sa_type=BigInteger)
    first: datetime = Field(sa_type=UtcTime)
    last: datetime = Field(sa_type=UtcTime, index=True)
    locked_until: datetime | None = Field(default=None, sa_type=UtcTime)


class SessionRow(SQLModel, table=True):
    __tablename__ = "sessions"
    __table_args__ = (Index("sessions_ended", "ended"), Index("sessions_started", "started"))
    id: str = Field(primary_key=True, max_length=32)
    user: str = Field(max_length=64, index=True)
    node_id: str = Field(max_length=32)
    node: str = Field(max_length=63, index=True)
    login: str = Field(max_length=64)
    way: str = Field(max_length=16)
    source: str = Field(max_length=64)
    bastion_id: str = Field(max_length=32)
    worker: str = Field(max_length=64)
    h: bytes = Field(sa_type=LargeBinary, unique=True)
    user_serial: int = Field(sa_type=BigInteger)
    target_serial: int = Field(sa_type=BigInteger)
    certificate_expires: datetime = Field(sa_type=UtcTime)
    bound: bool = True
    actions: list[dict[str, object]] = Field(sa_type=JSON)
    started: datetime = Field(sa_type=UtcTime)
    ended: datetime | None = Field(default=None, sa_type=UtcTime)
    how: str | None = Field(default=None, max_length=32)
    head: dict[str, object] | None = Field(default=None, sa_type=JSON)
    manifest_sha256: str | None = Field(default=None, max_length=64)
    authority_signature: str | None = Field(default=None, sa_type=Text)
    recording_deleted: datetime | None = Field(default=None, sa_type=UtcTime)


class LockRow(SQLModel, table=True):
    __tablename__ = "locks"
    id: str = Field(primary_key=True, max_length=32)
    reason: str = Field(max_length=500)
    user: str | None = Field(default=None, max_length=64)
    node: str | None = Field(default=None, max_length=63)
    role: str | None = Field(default=None, max_length=64)
    login: str | None = Field(default=None, max_length=64)
    created: datetime = Field(sa_type=UtcTime)
    expires: datetime | None = Field(default=None, sa_type=UtcTime)


class BastionRow(SQLModel, table=True):
    __tablename__ = "bastions"
    id: str = Field(primary_key=True, max_length=32)
    name: str = Field(unique=True, max_length=63)
    host_key: str = Field(sa_type=Text)
    recording_key: str = Field(sa_type=Text)
    tls_key: str = Field(max_length=64, unique=True)
    """SHA-256 of the client certificate's public key info: who speaks."""
    egress: list[str] = Field(sa_type=JSON)
    created: datetime = Field(sa_type=UtcTime)


class RecorderKeyRow(SQLModel, table=True):
    """Keys that ever signed manifests, for allowed_signers. Never deleted."""

    __tablename__ = "recorder_keys"
    fingerprint: str = Field(primary_key=True, max_length=64)
    name: str = Field(max_length=64)
    line: str = Field(sa_type=Text)
    valid_after: datetime = Field(sa_type=UtcTime)
    valid_before: datetime | None = Field(default=None, sa_type=UtcTime)


class BastionEventRow(SQLModel, table=True):
    """Ids of events that bastions sent, so that sending twice is harmless."""

    __tablename__ = "bastion_events"
    bastion_id: str = Field(primary_key=True, max_length=32)
    id: str = Field(primary_key=True, max_length=64)
    at: datetime = Field(sa_type=UtcTime)


class AuditRow(SQLModel, table=True):
    __tablename__ = "audit"
    seq: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    at: datetime = Field(sa_type=UtcTime)
    code: str = Field(max_length=64, index=True)
    actor: str = Field(max_length=128)
    fields: str = Field(sa_type=Text)
    """Canonical JSON, exactly as it was hashed."""
    prev: str = Field(max_length=64)
    hash: str = Field(max_length=64)


class MarkRow(SQLModel, table=True):
    """Single facts about the cluster, such as its name."""

    __tablename__ = "marks"
    name: str = Field(primary_key=True, max_length=64)
    value: str = Field(sa_type=Text)


def table(row: type[SQLModel]) -> Table:
    """The table behind *row*, for statements."""
    return SQLModel.metadata.tables[str(row.__tablename__)]
