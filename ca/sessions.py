"""
The path of one session authorization, and of its end. The numbered plan of ``authorize``:

1. Proof: a person's signature over this very connection, made through this bastion, fresh (``ca/proof.py``).
2. Once: the session identifier H is used up in the database; of many who bring it, one goes on.
3. Person: the certificate is, to the last byte, one that we issued, and did not take back; the account is open; and
   the identity provider, asked again when its last yes is old, still vouches for them (``ca/recheck.py``).
4. Decide: roles and locks give some action on this node as this login (``ca/policy.py``), or the person hears why not.
5. Store: session, target certificate and their events, in the transaction of steps 2 to 4.
6. Live: from now on locks, roles and administrators reach it.
7. Sign: ``ca/issue.py``.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ca import audit, policy, proof
from ca.app import Authority
from ca.certificate import CA, target_plan
from ca.errors import AccessDenied, Conflict, InvalidInput, NotFound
from ca.issue import Stored
from ca.model import LABEL, Allow, Deny
from ca.proof import Proven
from ca.rights import granted
from ca.store import Db, certificates, nodes, sessions, users
from ca.store import audit as log
from ca.store.bastions import Bastion
from ca.store.nodes import StoredNode
from ca.store.sessions import Session
from ca.wire import Countersignature, RecordingHead, SessionAllowed, SessionDenied, SessionEnd, SessionRequest
from recordings import seal
from recordings.sshkey import PublicKey

_HOW = re.compile(r"(?!(?:not_started|broken)\Z)[a-z][a-z0-9_]{0,31}\Z")
"""How a bastion may say that a session ended. That it never began, or is not what was heard, only we can say."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


@dataclass(frozen=True, slots=True)
class _Allowed:
    session: Session
    node: StoredNode
    stored: Stored
    actions: Mapping[str, Allow]


async def authorize(authority: Authority, bastion: Bastion, request: SessionRequest) -> SessionAllowed | SessionDenied:
    """Decide on one session; the plan is above."""
    # 1.
    proven = await _proven(authority, bastion, request)
    # 3., the part that may have to ask somebody else; what came of it stands in the account.
    await authority.recheck.fresh(proven.user)
    # 2. to 5.
    decided = await authority.store.write(lambda db: _decide(authority, db, bastion, request, proven))
    if decided is None:
        await _note_failure(authority, bastion, request, "proof_replayed", None)
        raise AccessDenied("this proof was used before", code="proof_replayed")
    if isinstance(decided, SessionDenied):
        authority.metrics.sessions.labels("denied").inc()
        return decided
    # 6. Nothing is awaited since 5: a lock that comes now finds the session alive.
    authority.live.add(decided.session, decided.session.started)
    # 7.
    try:
        (certificate,) = await authority.issuer.sign([decided.stored])
    except BaseException:
        authority.live.gone(decided.session.id)
        await _never_began(authority, decided.session.id)
        raise
    authority.metrics.sessions.labels("allowed").inc()
    return SessionAllowed(
        session=decided.session.id,
        user=decided.session.user,
        node=decided.node.name,
        node_id=decided.node.id,
        login=decided.session.login,
        address=decided.node.address,
        host_keys=[key.line for key in decided.node.keys],
        pinned=decided.node.pinned,
        target_certificate=certificate.line(),
        actions=granted(dict(decided.actions)),
        certificate_expires=decided.session.certificate_expires,
        started=decided.session.started,
    )


async def _proven(authority: Authority, bastion: Bastion, request: SessionRequest) -> Proven:
    issuer, now = authority.issuer, authority.clock()
    try:
        return proof.check(
            request,
            bastion_key=PublicKey.from_line(bastion.host_key),
            user_cas=[issuer.public_key(CA.USER)],
            bastion_cas=[issuer.public_key(CA.BASTION)],
            beacon=lambda text: issuer.beacon_age(text, now),
            now=now,
        )
    except proof.ProofError as error:
        await _note_failure(authority, bastion, request, error.code, str(error))
        raise


def _decide(
    authority: Authority, db: Db, bastion: Bastion, request: SessionRequest, proven: Proven
) -> _Allowed | SessionDenied | None:
    # 2.
    if not sessions.use_proof(db, proven.h):
        return None
    # 3.
    account = users.find(db, proven.user)
    record = certificates.find(db, CA.USER, proven.user_certificate.serial)
    if record is None or record.tbs_sha256 != hashlib.sha256(proven.user_certificate.signed).hexdigest():
        authority.metrics.alarm("certificate_not_in_log")
        why = "your certificate is not one that this cluster issued"
        return _denied(db, bastion, request, proven, "not_in_log", why, "bart login")
    # Closing an account and a provider's no revoke certificates too; these say why.
    if account is None or account.disabled:
        return _denied(db, bastion, request, proven, "user_disabled", "your account is closed", None)
    if account.refused is not None:
        return _denied(db, bastion, request, proven, "identity_refused", account.refused, "bart login")
    if record.state != "issued" or record.user != proven.user:
        why = "your certificate was revoked"
        return _denied(db, bastion, request, proven, "certificate_revoked", why, "bart login")
    # 4.
    node = nodes.find(db, request.node) if LABEL.match(request.node) else None
    if node is None:
        deny = policy.unknown_node(request.node)
        return _denied(db, bastion, request, proven, deny.code, deny.reason, deny.hint)
    access = authority.rights.access(db, account.identity, node, request.login, bound=proven.bound)
    if isinstance(access, Deny):
        return _denied(db, bastion, request, proven, access.code, access.reason, access.hint)
    # 5.
    id = session_id(db.now)
    stored = authority.issuer.store(
        db,
        CA.TARGET,
        lambda serial: target_plan(
            request.login,
            node.id,
            user=account.name,
            session=id,
            serial=serial,
            public_key=proven.session_key,
            actions=frozenset(access),
            source_addresses=bastion.egress,
            now=db.now,
        ),
        actor=f"user:{account.name}",
        user=account.name,
        node_id=node.id,
        session=id,
    )
    session = Session(
        id=id,
        user=account.name,
        node_id=node.id,
        node=node.name,
        login=request.login,
        way=request.way,
        source=request.source,
        bastion_id=bastion.id,
        worker=request.worker,
        h=proven.h,
        user_serial=record.serial,
        target_serial=stored.plan.serial,
        certificate_expires=record.valid_before,
        bound=proven.bound,
        actions=tuple(action.model_dump(mode="json") for action in granted(access)),
        started=db.now,
    )
    sessions.add(db, session)
    log.append(db, _started(session, bastion, access), actor=f"user:{account.name}")
    return _Allowed(session, node, stored, access)


def _denied(
    db: Db, bastion: Bastion, request: SessionRequest, proven: Proven, code: str, reason: str, hint: str | None
) -> SessionDenied:
    event = audit.SessionDenied(
        user=proven.user,
        node=request.node,
        login=request.login,
        way=request.way,
        source=request.source,
        bastion=bastion.name,
        denial=code,
        reason=reason,
    )
    log.append(db, event, actor=f"user:{proven.user}")
    return SessionDenied(code=code, reason=reason, hint=hint)


def _started(session: Session, bastion: Bastion, access: Mapping[str, Allow]) -> audit.SessionStarted:
    return audit.SessionStarted(
        session=session.id,
        user=session.user,
        node=session.node,
        node_id=session.node_id,
        login=session.login,
        way=session.way,
        source=session.source,
        bastion=bastion.name,
        user_serial=session.user_serial,
        target_serial=session.target_serial,
        grants={action: f"{allow.role}:{allow.grant}" for action, allow in access.items()},
        bound=session.bound,
    )


async def _note_failure(
    authority: Authority, bastion: Bastion, request: SessionRequest, code: str, detail: str | None
) -> None:
    authority.metrics.sessions.labels("proof_failed").inc()
    event = audit.SessionProofFailed(
        bastion=bastion.name,
        node=request.node,
        login=request.login,
        source=request.source,
        reason=code,
        detail=detail,
    )
    await authority.store.write(lambda db: log.append(db, event, actor=f"bastion:{bastion.name}"))


async def _never_began(authority: Authority, id: str) -> None:
    def work(db: Db) -> None:
        if sessions.end(db, id, "not_started"):
            event = audit.SessionEnded(session=id, how="not_started", reason="its certificate could not be signed")
            log.append(db, event, actor="authority")

    await authority.store.write(work)


# --- the end ------------------------------------------------------------------------------------------------------


async def end(authority: Authority, bastion: Bastion, id: str, request: SessionEnd) -> Countersignature:
    """Countersign the manifest of a session that ended, if it goes on from the last head that was heard.

    Asked again with the same manifest, it answers the same; another manifest is refused.
    """
    session = await authority.store.read(lambda db: own(db, bastion, id))
    digest = hashlib.sha256(request.manifest).hexdigest()
    if session.manifest_sha256 is not None:
        return _as_before(session, digest)
    manifest = _manifest(id, request)

    def work(db: Db) -> Countersignature | str:
        # All of it in one transaction: of two manifests at once, one is signed and the other is another one.
        session = own(db, bastion, id)
        if session.manifest_sha256 is not None:
            return _as_before(session, digest)
        problem = _gap(session, manifest)
        if problem is not None:
            return problem
        signature = authority.issuer.countersign(request.manifest)  # kept here unless the transaction is
        if sessions.end(db, id, request.how):
            log.append(db, audit.SessionEnded(session=id, how=request.how), actor=f"bastion:{bastion.name}")
        sessions.seal(db, id, how=request.how, manifest_sha256=digest, signature=signature)
        attested = session.head is not None and all(part.unattested == 0 for part in manifest.parts)
        sealed = audit.SessionSealed(session=id, manifest=digest, parts=len(manifest.parts), attested=attested)
        log.append(db, sealed, actor=f"bastion:{bastion.name}")
        return Countersignature(signature=signature)

    sealed = await authority.store.write(work)
    if isinstance(sealed, str):
        await _broken(authority, session, sealed)
        raise Conflict(f"the manifest does not go on from what was heard: {sealed}", code="attest_broken")
    authority.live.gone(id)
    return sealed


def _as_before(session: Session, digest: str) -> Countersignature:
    """The countersignature that was given before, to the same manifest."""
    if session.manifest_sha256 != digest or session.authority_signature is None:
        raise Conflict("another manifest of this session was countersigned before", code="already_sealed")
    return Countersignature(signature=session.authority_signature)


def own(db: Db, bastion: Bastion, id: str) -> Session:
    """A bastion's own session; another's is none of its business."""
    session = sessions.find(db, id)
    if session is None or session.bastion_id != bastion.id:
        raise AccessDenied("a bastion may only speak of its own sessions", code="not_own_session")
    return session


def _manifest(id: str, request: SessionEnd) -> seal.Manifest:
    try:
        manifest = seal.decode(request.manifest)
    except seal.SealError as error:
        raise InvalidInput(f"manifest: {error}", code="manifest_invalid") from error
    if manifest.session != id or manifest.how != request.how or not _HOW.match(manifest.how):
        raise InvalidInput("manifest: it is of another session, or ended another way", code="manifest_invalid")
    for part, what in seal.disorder(manifest):
        raise InvalidInput(f"manifest: {part or 'chain'}: {what}", code="manifest_invalid")
    return manifest


def _gap(session: Session, manifest: seal.Manifest) -> str | None:
    """Where *manifest* departs from the head that was heard last; None when it goes on from there."""
    if session.head is None:
        return None
    head = RecordingHead.model_validate(session.head)
    if head.closed > len(manifest.parts):
        return "parts are missing"
    if seal.chain_of(session.id, manifest.parts[: head.closed]) != head.chain:
        return "closed parts are not the ones reported"
    later = {part.name: part for part in manifest.parts[head.closed :]}
    for name, (size, sha256) in head.open.items():
        part = later.get(name)
        if part is None and size == 0:
            continue
        if part is None or part.bytes < size or (part.bytes == size and part.sha256 != sha256):
            return f"{name} is shorter than reported, or another"
    return None


async def _broken(authority: Authority, session: Session, problem: str) -> None:
    """Say once that the recording is not the one that was reported. Its session is over in any case."""
    authority.metrics.alarm("attest_broken")

    def work(db: Db) -> None:
        if session.how == "broken":
            return
        sessions.end(db, session.id, "broken")
        sessions.mark_broken(db, session.id)
        log.append(db, audit.SessionAttestBroken(session=session.id, problem=problem), actor="authority")

    await authority.store.write(work)
    authority.live.gone(session.id)


def find(db: Db, id: str) -> Session:
    """A session that must be there."""
    session = sessions.find(db, id)
    if session is None:
        raise NotFound("there is no such session")
    return session


def session_id(now: datetime) -> str:
    """A new id: ``s`` and 25 characters, the first ten the time, so that ids sort by it."""
    number = (int(now.timestamp() * 1000) << 75) | secrets.randbits(75)
    return "s" + "".join(_ALPHABET[(number >> shift) & 31] for shift in range(120, -1, -5))
