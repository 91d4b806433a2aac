"""HTTP for nodes. For administrators; joining by token is in ``join.py``."""

from __future__ import annotations

import secrets
from datetime import timedelta
from ipaddress import ip_address

from fastapi import APIRouter

from ca import audit
from ca.api.callers import Administrator, Here
from ca.app import Authority
from ca.certificate import CA, CertPlan, host_plan, subject_key
from ca.errors import AccessDenied, Conflict, InvalidInput, NotFound
from ca.issue import Stored
from ca.model import LABEL, RESERVED_NODE_NAMES, no_place_for_a_node
from ca.roles import LABEL_KEY
from ca.settings import Address
from ca.store import Db, nodes
from ca.store import audit as log
from ca.store.nodes import HostKey, StoredNode
from ca.wire import CertifyNode, HostCertificate, NewNode, NodeTrust, NodeView
from recordings.sshkey import PublicKey

BY_HAND = timedelta(days=365)
router = APIRouter(prefix="/v1/nodes", tags=["nodes"])


@router.post("", status_code=201)
async def add(new: NewNode, authority: Here, caller: Administrator) -> NodeView:
    """Register a node. Keys given here are believed as they are (pinned)."""
    check_name(authority, new.name)
    address = check_address(new.address)
    check_labels(new.labels)
    keys = [subject_key(line) for line in new.host_keys]

    def work(db: Db) -> NodeView:
        if nodes.find(db, new.name) is not None:
            raise Conflict(
                f"there is already a node {new.name}", hint=f"bartizan nodes remove {new.name}, then add it anew"
            )
        for key in keys:
            check_host_key(authority, db, key, node_id=None)
        pinned = {key.fingerprint(): HostKey(key.fingerprint(), key.line(), True) for key in keys}
        node = StoredNode(new_id(), new.name, address, dict(new.labels), db.now, tuple(pinned.values()))
        nodes.add(db, node)
        event = audit.NodeAdded(
            node_id=node.id, node=node.name, address=node.address, labels=node.labels, pinned=tuple(pinned)
        )
        log.append(db, event, actor=caller.actor)
        return view(node)

    return await authority.change(work)


@router.get("")
async def listing(authority: Here, caller: Administrator) -> list[NodeView]:
    """All nodes, by name, with when their first certificate runs out."""
    return [view(node) for node in await authority.store.read(nodes.every)]


@router.delete("/{name}", status_code=204)
async def remove(name: str, authority: Here, caller: Administrator) -> None:
    """Take a node out. Live sessions on it end."""

    def work(db: Db) -> None:
        node = find(db, name)
        nodes.remove(db, node.id)
        log.append(db, audit.NodeRemoved(node_id=node.id, node=node.name), actor=caller.actor)

    await authority.change(work)


@router.post("/{name}/certificate")
async def certify(name: str, asked: CertifyNode, authority: Here, caller: Administrator) -> HostCertificate:
    """A host certificate for a key that the administrator vouches for: one year."""
    issuer = authority.issuer

    def work(db: Db) -> Stored:
        node = find(db, name)
        check_host_key(authority, db, key, node_id=node.id)
        return store_host_certificate(authority, db, node, key, how="by hand", actor=caller.actor, ttl=BY_HAND)

    async with issuer.refusals(CA.HOST, actor=caller.actor, node=name):
        key = subject_key(asked.public_key)
        stored = await authority.store.write(work)
    (certificate,) = await issuer.sign([stored])
    return HostCertificate(certificate=certificate.line(name), expires=stored.plan.valid_before)


@router.get("/{name}/trust")
async def trust(name: str, authority: Here, caller: Administrator) -> NodeTrust:
    """What the node's sshd needs to know."""
    return node_trust(authority, await authority.store.read(lambda db: find(db, name)))


def view(node: StoredNode) -> NodeView:
    return NodeView(
        id=node.id,
        name=node.name,
        address=node.address,
        labels=node.labels,
        host_keys=[key.line for key in node.keys],
        pinned=node.pinned,
        certificate_expires=node.certificate_expires,
        created=node.created,
    )


def find(db: Db, name: str) -> StoredNode:
    node = nodes.find(db, name)
    if node is None:
        raise NotFound(f"there is no node {name[:64]!r}", hint="bartizan nodes list")
    return node


def node_trust(authority: Authority, node: StoredNode) -> NodeTrust:
    return NodeTrust(id=node.id, name=node.name, target_ca=[authority.issuer.public_key(CA.TARGET).line()])


def store_host_certificate(
    authority: Authority, db: Db, node: StoredNode, key: PublicKey, *, how: str, actor: str, ttl: timedelta
) -> Stored:
    """Register *key* for *node* and store its certificate, in the caller's transaction."""

    def plan(serial: int) -> CertPlan:
        return host_plan(node.name, node.id, serial=serial, public_key=key, now=db.now, ttl=ttl)

    stored = authority.issuer.store(db, CA.HOST, plan, actor=actor, node_id=node.id)
    fingerprint = key.fingerprint()
    certified = HostKey(fingerprint, key.line(), False, stored.plan.serial, stored.plan.valid_before)
    nodes.put_key(db, node.id, certified)
    log.append(db, audit.NodeCertified(node_id=node.id, node=node.name, fingerprint=fingerprint, how=how), actor=actor)
    return stored


def new_id() -> str:
    """An id that no name can be: names are what people type, ids are what certificates say."""
    return f"n-{secrets.token_hex(8)}"


def check_name(authority: Authority, name: str) -> None:
    if not LABEL.match(name):
        raise InvalidInput("name: expected one lower-case DNS label, such as web1", code="principal_invalid")
    if name in RESERVED_NODE_NAMES or name in authority.settings.bastion_names:
        raise InvalidInput(f"name: {name} is reserved", code="name_reserved")


def check_address(text: str) -> str:
    address = Address.parse(text, field_name="address", default_port=22)
    if address.port == 0:
        raise InvalidInput(f"address: {text!r} is nowhere to connect to")
    why = no_place_for_a_node(ip_address(address.host), loopback=True) if address.is_ip else None
    if why is not None:
        raise InvalidInput(f"address: no node can be at {address.host}: {why}", code="address_forbidden")
    return str(address)


def check_labels(labels: dict[str, str]) -> None:
    for key, value in labels.items():
        if key == "name" or not LABEL_KEY.match(key) or len(value) > 253 or not value.isprintable():
            raise InvalidInput(f"labels: {key[:64]!a} is not a label that can be set")


def check_host_key(authority: Authority, db: Db, key: PublicKey, *, node_id: str | None) -> None:
    """A host's key is no key of ours, no person's, and no other node's."""
    authority.issuer.refuse_own_keys(db, key)
    owner = nodes.owner_of_key(db, key.fingerprint())
    if owner is not None and owner != node_id:
        raise AccessDenied("this key belongs to another node", code="key_forbidden")
