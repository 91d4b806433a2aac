"""HTTP for hosts that join by a token, and that renew what they have. The caller is the host itself."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import NoReturn

from fastapi import APIRouter

from ca import audit
from ca.api.callers import Administrator, Here, Source
from ca.api.nodes import (
    check_address,
    check_host_key,
    check_labels,
    check_name,
    new_id,
    node_trust,
    store_host_certificate,
)
from ca.app import Authority
from ca.certificate import CA, HOST_LIFE, subject_key
from ca.errors import AccessDenied, BartizanError, Conflict, InvalidInput
from ca.grants import matches
from ca.issue import JOIN_NAMESPACE, Stored, possession, use_nonce
from ca.model import LABEL
from ca.store import Db, certificates, nodes, tokens
from ca.store import audit as log
from ca.store.nodes import StoredNode
from ca.wire import (
    Challenge,
    HostCertificate,
    JoinAnswer,
    JoinKey,
    JoinRequest,
    JoinToken,
    NewJoinToken,
    RenewRequest,
)
from recordings.sshkey import PublicKey

PURPOSE = "join"
PATTERN = re.compile(r"[a-z0-9*?-]{1,63}\Z")
router = APIRouter(prefix="/v1", tags=["join"])


@router.post("/join-tokens", status_code=201)
async def make_token(new: NewJoinToken, authority: Here, caller: Administrator) -> JoinToken:
    """A token with which one host may join, once."""
    if new.name is not None and not PATTERN.match(new.name):
        raise InvalidInput("name: expected a node name, or a pattern of one with * and ?")
    if new.replace and (new.name is None or not LABEL.match(new.name)):
        raise InvalidInput("name: a token that may replace a node names that node", hint="give --name NODE")
    check_labels(new.labels)
    data: dict[str, object] = {"name": new.name, "labels": new.labels, "replace": new.replace}

    def work(db: Db) -> JoinToken:
        text, expires = tokens.make(db, "join", life=timedelta(seconds=new.ttl_seconds), data=data)
        event = audit.JoinTokenMade(
            name=new.name, labels=new.labels, replace=new.replace, expires=audit.moment(expires)
        )
        log.append(db, event, actor=caller.actor)
        return JoinToken(token=text, expires=expires)

    return await authority.store.write(work)


@router.post("/join/challenge")
async def challenge(authority: Here, source: Source) -> Challenge:
    """A nonce to be signed with each host key."""
    authority.doors.challenges.use(source, now=authority.clock())
    return Challenge(nonce=await authority.store.write(lambda db: tokens.challenge(db, PURPOSE)))


@router.post("/join")
async def join(asked: JoinRequest, authority: Here, source: Source) -> JoinAnswer:
    """Join: the token says that one may, the signatures that the keys are the host's own."""
    try:
        keys = _proven(asked.keys, asked.nonce)
        check_name(authority, asked.name)
        address = check_address(asked.address)
        node, stored = await authority.change(lambda db: _join(authority, db, asked, address, keys, source))
    except BartizanError as error:
        await _denied(authority, asked.name, source, error)
    return await _answer(authority, node, stored)


@router.post("/join/renewal")
async def renew(asked: RenewRequest, authority: Here, source: Source) -> JoinAnswer:
    """New certificates for keys that the node has and whose certificates are still good."""
    try:
        keys = _proven(asked.keys, asked.nonce)
        node, stored = await authority.store.write(lambda db: _renew(authority, db, asked, keys))
    except BartizanError as error:
        await _denied(authority, asked.node, source, error)
    return await _answer(authority, node, stored)


def _join(
    authority: Authority, db: Db, asked: JoinRequest, address: str, keys: list[PublicKey], source: str
) -> tuple[StoredNode, list[Stored]]:
    use_nonce(db, PURPOSE, asked.nonce)
    token = tokens.use(db, "join", asked.token)
    if token is None:
        raise AccessDenied(
            "this join token is wrong, used or over", hint="bartizan nodes join-token", code="token_refused"
        )
    pattern, labels = token.data.get("name"), token.data.get("labels")
    if isinstance(pattern, str) and not matches(pattern, asked.name):
        raise AccessDenied("this join token is for a node of another name", code="name_not_allowed")
    known = nodes.find(db, asked.name)
    if known is not None and not token.data.get("replace"):
        raise Conflict(
            f"there is already a node {asked.name}", hint="make the token with --replace, or choose another name"
        )
    for key in keys:
        check_host_key(authority, db, key, node_id=None if known is None else known.id)
    labels = {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}
    if known is None:
        node = StoredNode(new_id(), asked.name, address, labels, db.now)
        nodes.add(db, node)
    else:
        node = replace(known, address=address, labels=labels, keys=())
        nodes.move(db, known.id, address=address, labels=labels)
        nodes.forget_keys(db, known.id)
    actor = f"node:{node.name}"
    event = audit.NodeJoined(
        node_id=node.id,
        node=node.name,
        address=address,
        source=source,
        labels=labels,
        host_keys=tuple(key.fingerprint() for key in keys),
        replaced=known is not None,
    )
    log.append(db, event, actor=actor)
    return node, [
        store_host_certificate(authority, db, node, key, how="joined", actor=actor, ttl=HOST_LIFE) for key in keys
    ]


def _renew(authority: Authority, db: Db, asked: RenewRequest, keys: list[PublicKey]) -> tuple[StoredNode, list[Stored]]:
    use_nonce(db, PURPOSE, asked.nonce)
    node = nodes.find(db, asked.node)
    known = {} if node is None else {key.fingerprint: key for key in node.keys}
    for key in keys:
        held = known.get(key.fingerprint())
        record = None
        if held is not None and held.certificate_serial is not None:
            record = certificates.find(db, CA.HOST, held.certificate_serial)
        if record is None or record.state != "issued" or not record.valid_after <= db.now < record.valid_before:
            raise AccessDenied(
                "only a key with a good host certificate can renew it", hint="join anew", code="renew_denied"
            )
    if node is None:
        raise AccessDenied("there is nothing to renew", hint="join first", code="renew_denied")
    actor = f"node:{node.name}"
    return node, [
        store_host_certificate(authority, db, node, key, how="renewed", actor=actor, ttl=HOST_LIFE) for key in keys
    ]


def _proven(keys: list[JoinKey], nonce: str) -> list[PublicKey]:
    """The keys, each of which signed the nonce; none twice."""
    proven: dict[bytes, PublicKey] = {}
    for one in keys:
        key = subject_key(one.public_key)
        possession(key, nonce, one.possession, namespace=JOIN_NAMESPACE)
        if key.blob in proven:
            raise InvalidInput("keys: the same key twice")
        proven[key.blob] = key
    return list(proven.values())


async def _denied(authority: Authority, node: str, source: str, error: BartizanError) -> NoReturn:
    event = audit.JoinDenied(node=node, source=source, reason=error.code)
    await authority.store.write(lambda db: log.append(db, event, actor="stranger"))
    raise error


async def _answer(authority: Authority, node: StoredNode, stored: list[Stored]) -> JoinAnswer:
    made = await authority.issuer.sign(stored)
    return JoinAnswer(
        node=node_trust(authority, node),
        certificates=[
            HostCertificate(certificate=certificate.line(node.name), expires=one.plan.valid_before)
            for certificate, one in zip(made, stored, strict=True)
        ],
    )
