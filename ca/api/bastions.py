"""HTTP for bastions: enrol once with a token, then everything with the client certificate."""

from __future__ import annotations

import secrets
import zlib
from datetime import datetime, timedelta

from fastapi import APIRouter

from ca import audit, tls
from ca.api.callers import Administrator, EnrolledBastion, Here, Source
from ca.app import Authority
from ca.certificate import BASTION_LIFE, CA, CertPlan, bastion_plan, source_address, subject_key
from ca.errors import AccessDenied, BartizanError, InvalidInput
from ca.issue import Stored
from ca.model import LABEL, LEASE
from ca.store import Db, bastions, nodes, tokens
from ca.store import audit as log
from ca.store.bastions import Bastion, RecorderKey
from ca.wire import (
    BastionEnrolment,
    BastionIdentity,
    BastionRenewal,
    JoinToken,
    NewBastionToken,
    ShownCertificates,
    ShownNames,
    SyncAnswer,
    SyncRequest,
    TrustAnchors,
)
from recordings.sshkey import PublicKey

TOKEN_LIFE = timedelta(hours=1)
MOST_EGRESS = 64
router = APIRouter(prefix="/v1", tags=["bastions"])


@router.post("/bastion-tokens", status_code=201)
async def make_token(authority: Here, caller: Administrator, new: NewBastionToken | None = None) -> JoinToken:
    """A token with which one bastion may enrol, once. Only one that names it may put another in its place."""
    name = None if new is None else new.name

    def work(db: Db) -> JoinToken:
        text, expires = tokens.make(db, "bastion", life=TOKEN_LIFE, data={"name": name})
        log.append(db, audit.BastionTokenMade(expires=audit.moment(expires)), actor=caller.actor)
        return JoinToken(token=text, expires=expires)

    return await authority.store.write(work)


@router.post("/bastions/enrolment")
async def enrol(asked: BastionEnrolment, authority: Here, source: Source) -> BastionIdentity:
    """Enrol a bastion, or the one of this name anew: it stays the same bastion with other keys."""
    try:
        return await authority.store.write(lambda db: _enrol(authority, db, asked))
    except BartizanError as error:
        event = audit.BastionDenied(bastion=asked.name, source=source, reason=error.code)
        await authority.store.write(lambda db: log.append(db, event, actor="stranger"))
        raise


@router.post("/bastions/renewal")
async def renew(asked: BastionRenewal, authority: Here, bastion: EnrolledBastion) -> BastionIdentity:
    """A new client certificate for the key that the bastion has."""
    certificate, key = tls.bastion_certificate(authority.bastion_root, asked.tls_request, bastion.id, authority.clock())
    if key != bastion.tls_key:
        raise AccessDenied("a renewal is for the key that is enrolled", hint="enrol anew", code="key_forbidden")
    event = audit.BastionRenewed(bastion_id=bastion.id, bastion=bastion.name)
    await authority.store.write(lambda db: log.append(db, event, actor=f"bastion:{bastion.name}"))
    return BastionIdentity(id=bastion.id, tls_certificate=certificate, tls_root=authority.root.pem)


@router.get("/bastions/trust")
async def trust(authority: Here, bastion: EnrolledBastion) -> TrustAnchors:
    """What a bastion checks with."""
    return anchors(authority)


@router.post("/bastions/shown-certificates")
async def shown(asked: ShownNames, authority: Here, bastion: EnrolledBastion) -> ShownCertificates:
    """Host certificates of the bastion CA. Any well-formed name gets one: which nodes exist is not told here."""
    groups = [_shown_name(authority, name) for name in asked.names] or [authority.settings.bastion_names]
    key = PublicKey.from_line(bastion.host_key)
    actor = f"bastion:{bastion.name}"
    issuer = authority.issuer

    def work(db: Db) -> list[Stored]:
        def plan(names: tuple[str, ...]) -> Stored:
            def make(serial: int) -> CertPlan:
                return bastion_plan(names, bastion=bastion.name, serial=serial, public_key=key, now=db.now)

            return issuer.store(db, CA.BASTION, make, actor=actor)

        return [plan(names) for names in groups]

    stored = await authority.store.write(work)
    made = await issuer.sign(stored)
    expires = min((one.plan.valid_before for one in stored), default=authority.clock() + BASTION_LIFE)
    return ShownCertificates(certificates=[one.line() for one in made], expires=expires)


@router.post("/bastions/sync")
async def sync(request: SyncRequest, authority: Here, bastion: EnrolledBastion) -> SyncAnswer:
    """Alive: heads and events in, orders and the beacon out."""
    orders = await authority.live.sync(bastion, request)
    return SyncAnswer(
        beacon=authority.issuer.beacon(authority.clock()),
        orders=orders,
        lease_seconds=int(LEASE.total_seconds()),
        trust_revision=zlib.crc32(anchors(authority).model_dump_json().encode()),
    )


def anchors(authority: Authority) -> TrustAnchors:
    def line(ca: CA) -> list[str]:
        return [authority.issuer.public_key(ca).line()]

    return TrustAnchors(
        cluster=authority.settings.cluster,
        user_ca=line(CA.USER),
        host_ca=line(CA.HOST),
        bastion_ca=line(CA.BASTION),
        names=list(authority.settings.bastion_names),
        ssh_port=authority.settings.public_ssh.port,
    )


def _enrol(authority: Authority, db: Db, asked: BastionEnrolment) -> BastionIdentity:
    token = tokens.use(db, "bastion", asked.token)
    if token is None:
        raise AccessDenied("this enrolment token is wrong, used or over", code="token_refused")
    if not LABEL.match(asked.name) or asked.name == "authority":
        raise InvalidInput("name: expected one lower-case DNS label", code="principal_invalid")
    if len(asked.egress) > MOST_EGRESS:
        raise InvalidInput(f"egress: at most {MOST_EGRESS} addresses", code="source_address_invalid")
    egress = tuple(source_address(text) for text in asked.egress)
    host_key, recording_key = subject_key(asked.host_key), subject_key(asked.recording_key)
    for key in (host_key, recording_key):
        authority.issuer.refuse_own_keys(db, key)
        if nodes.owner_of_key(db, key.fingerprint()) is not None:
            raise AccessDenied("this key belongs to a node", code="key_forbidden")
    if host_key.blob == recording_key.blob:
        raise InvalidInput("recording_key: expected another key than the host key", code="key_forbidden")
    before = bastions.by_name(db, asked.name)
    if asked.name != token.data.get("name") and (before or token.data.get("name")):
        hint = f"bartizan bastions token --name {asked.name}"
        raise AccessDenied("this enrolment token is not for a bastion of this name", hint=hint, code="name_not_allowed")
    id = before.id if before else f"b-{secrets.token_hex(8)}"
    certificate, tls_key = tls.bastion_certificate(authority.bastion_root, asked.tls_request, id, db.now)
    bastion = Bastion(id, asked.name, host_key.line(), recording_key.line(), tls_key, egress, db.now)
    bastions.enrol(db, bastion)
    recorder = RecorderKey(recording_key.fingerprint(), asked.name, recording_key.line(), _second(db.now))
    bastions.add_recorder(db, recorder)
    event = audit.BastionEnrolled(
        bastion_id=id, bastion=asked.name, host_key=host_key.fingerprint(), recording_key=recorder.fingerprint
    )
    log.append(db, event, actor=f"bastion:{asked.name}")
    return BastionIdentity(id=id, tls_certificate=certificate, tls_root=authority.root.pem)


def _shown_name(authority: Authority, name: str) -> tuple[str, ...]:
    """A node's name, alone or with the cluster's behind it."""
    label = name.removesuffix(f".{authority.settings.cluster}")
    if not LABEL.match(label):
        raise InvalidInput("names: expected lower-case DNS labels", code="principal_invalid")
    return (name,)


def _second(at: datetime) -> datetime:
    return at.replace(microsecond=0)
