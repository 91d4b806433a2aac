"""HTTP for the audit log. Reading and checking it are themselves events."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from ca import audit
from ca.api.callers import Anyone, Caller, Here
from ca.app import Authority
from ca.errors import AccessDenied
from ca.store import Db
from ca.store import audit as log
from ca.wire import AuditRecord, AuditVerdict

router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get("")
async def records(
    authority: Here,
    caller: Anyone,
    after: Annotated[int, Query(ge=0, lt=1 << 63)] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000,
) -> list[AuditRecord]:
    """Records after the one numbered *after*, in order."""

    def work(db: Db) -> list[audit.Entry]:
        _refuse(authority, db, caller)
        return log.records(db, after=after, limit=limit)

    found = await authority.store.read(work)
    told = [one for one in found if one.code != audit.AuditExported.code]
    if told:
        event = audit.AuditExported(by=caller.actor, first=found[0].seq, count=len(found))
        await authority.store.write(lambda db: log.append(db, event, actor=caller.actor))
    return [
        AuditRecord(
            seq=one.seq,
            at=one.at,
            code=one.code,
            actor=one.actor,
            fields=dict(one.fields),
            prev=one.prev,
            hash=one.hash,
        )
        for one in found
    ]


@router.post("/verification")
async def verify(authority: Here, caller: Anyone) -> AuditVerdict:
    """Go through the whole chain; the first record that does not fit is named."""

    def check(db: Db) -> tuple[int, audit.Broken | None]:
        _refuse(authority, db, caller)
        return log.verify(db)

    count, broken = await authority.store.read(check)
    event = audit.AuditVerified(by=caller.actor, records=count, ok=broken is None)
    await authority.store.write(lambda db: log.append(db, event, actor=caller.actor))
    return AuditVerdict(
        ok=broken is None,
        records=count,
        first_bad=None if broken is None else broken.seq,
        problem=None if broken is None else broken.problem,
    )


def _refuse(authority: Authority, db: Db, caller: Caller) -> None:
    if not caller.may_read_events(authority, db):
        raise AccessDenied("you may not read the audit log", hint='a role with audit: {events: "*"} may')
