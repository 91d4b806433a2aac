"""HTTP for the list of certificates, and for taking one back. For administrators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from ca import audit
from ca.api.callers import Administrator, Here
from ca.certificate import CA
from ca.errors import Conflict, NotFound
from ca.store import Db, certificates, nodes, tokens
from ca.store import audit as log
from ca.store.certificates import Record
from ca.wire import Issued, Termination

router = APIRouter(prefix="/v1/certificates", tags=["certificates"])


@router.get("")
async def listing(
    authority: Here, caller: Administrator, limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000
) -> list[Issued]:
    """The latest certificates, newest first."""
    return [view(record) for record in await authority.store.read(lambda db: certificates.recent(db, limit))]


@router.post("/{ca}/{serial}/revocation")
async def revoke(
    ca: str, serial: int, authority: Here, caller: Administrator, asked: Termination | None = None
) -> Issued:
    """Take a certificate back. Sessions that began with it end; the sign-in that gave it is over; a host key goes."""

    def work(db: Db) -> Issued:
        record = certificates.find(db, ca, serial) if ca in set(CA) and 0 < serial < 1 << 63 else None
        if record is None:
            raise NotFound("there is no such certificate", hint="bartizan certificates list")
        if record.state != "issued":
            raise Conflict(f"this certificate is {record.state} already")
        certificates.mark(db, ca, [serial], "revoked")
        if record.user is not None and ca == CA.USER:
            tokens.end_of_certificate(db, record.user, serial)
        if record.node_id is not None and ca == CA.HOST:
            nodes.forget_certificate(db, record.node_id, serial)
        reason = None if asked is None else asked.reason
        log.append(db, audit.CertificateRevoked(ca=ca, serial=serial, reason=reason), actor=caller.actor)
        found = certificates.find(db, ca, serial)
        return view(found or record)

    return await authority.change(work)


def view(record: Record) -> Issued:
    return Issued(
        ca=record.ca,
        serial=record.serial,
        key_id=record.key_id,
        principals=list(record.principals),
        valid_after=record.valid_after,
        valid_before=record.valid_before,
        state=record.state,
        user=record.user,
    )
