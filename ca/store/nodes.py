"""Nodes and the host keys by which they are known."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, insert, select, update

from ca.model import Node
from ca.store import Db
from ca.tables import NodeKeyRow, NodeRow, table

nodes = table(NodeRow)
keys = table(NodeKeyRow)


@dataclass(frozen=True, slots=True)
class HostKey:
    """One registered host key. ``pinned`` keys are believed without a certificate."""

    fingerprint: str
    line: str
    pinned: bool
    certificate_serial: int | None = None
    certificate_expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredNode:
    """One node as stored."""

    id: str
    name: str
    address: str
    labels: dict[str, str]
    created: datetime
    keys: tuple[HostKey, ...] = ()

    @property
    def node(self) -> Node:
        return Node(self.id, self.name, {**self.labels, "name": self.name})

    @property
    def pinned(self) -> bool:
        """Whether it is known by pinned keys alone."""
        return bool(self.keys) and all(key.certificate_serial is None for key in self.keys)

    @property
    def certificate_expires(self) -> datetime | None:
        """The first of its certificates to run out."""
        return min((key.certificate_expires for key in self.keys if key.certificate_expires), default=None)


def find(db: Db, name: str) -> StoredNode | None:
    found = _load(db, nodes.c.name == name)
    return found[0] if found else None


def every(db: Db) -> list[StoredNode]:
    return _load(db)


def add(db: Db, node: StoredNode) -> None:
    db.run(
        insert(nodes).values(id=node.id, name=node.name, address=node.address, labels=node.labels, created=node.created)
    )
    for key in node.keys:
        put_key(db, node.id, key)


def move(db: Db, node_id: str, *, address: str, labels: dict[str, str]) -> None:
    """Give a node that stays itself another address and labels."""
    db.run(update(nodes).where(nodes.c.id == node_id).values(address=address, labels=labels))


def remove(db: Db, node_id: str) -> None:
    db.run(delete(keys).where(keys.c.node_id == node_id))
    db.run(delete(nodes).where(nodes.c.id == node_id))


def forget_keys(db: Db, node_id: str) -> None:
    db.run(delete(keys).where(keys.c.node_id == node_id))


def put_key(db: Db, node_id: str, key: HostKey) -> None:
    """Register *key*, or replace what is known of it."""
    db.run(delete(keys).where(keys.c.node_id == node_id, keys.c.fingerprint == key.fingerprint))
    db.run(
        insert(keys).values(
            node_id=node_id,
            fingerprint=key.fingerprint,
            line=key.line,
            pinned=key.pinned,
            certificate_serial=key.certificate_serial,
            certificate_expires=key.certificate_expires,
        )
    )


def forget_certificate(db: Db, node_id: str, serial: int) -> None:
    """The key with this certificate is no longer one of the node's."""
    db.run(delete(keys).where(keys.c.node_id == node_id, keys.c.certificate_serial == serial))


def owner_of_key(db: Db, fingerprint: str) -> str | None:
    """The id of the node that has this key."""
    row = db.one(select(keys.c.node_id).where(keys.c.fingerprint == fingerprint))
    return None if row is None else str(row.node_id)


def _load(db: Db, *conditions: object) -> list[StoredNode]:
    by_node: dict[str, list[HostKey]] = {}
    found = db.rows(select(nodes).where(*conditions).order_by(nodes.c.name))  # type: ignore[arg-type]
    wanted = select(keys).order_by(keys.c.line)
    if conditions:
        wanted = wanted.where(keys.c.node_id.in_([row.id for row in found]))
    for row in db.rows(wanted):
        key = HostKey(row.fingerprint, row.line, row.pinned, row.certificate_serial, row.certificate_expires)
        by_node.setdefault(row.node_id, []).append(key)
    return [
        StoredNode(row.id, row.name, row.address, dict(row.labels), row.created, tuple(by_node.get(row.id, ())))
        for row in found
    ]
