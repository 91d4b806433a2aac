"""HTTP for sessions: bastions ask for them, people see their own, administrators see and end all."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from ca import sessions as path
from ca.api.callers import Administrator, Anyone, Caller, EnrolledBastion, Here
from ca.app import Authority
from ca.store import Db, sessions
from ca.store.sessions import Session
from ca.wire import (
    Countersignature,
    RecordingHead,
    SessionAllowed,
    SessionDenied,
    SessionEnd,
    SessionRequest,
    SessionView,
    Termination,
)

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])
Name = Annotated[str | None, Query(max_length=64)]


@router.post("")
async def authorize(
    request: SessionRequest, authority: Here, bastion: EnrolledBastion
) -> SessionAllowed | SessionDenied:
    """Decide on one session; with a yes comes the certificate for the node."""
    return await path.authorize(authority, bastion, request)


@router.post("/{id}/end")
async def end(id: str, request: SessionEnd, authority: Here, bastion: EnrolledBastion) -> Countersignature:
    """The session is over, and its recording sealed: countersign it."""
    return await path.end(authority, bastion, id, request)


@router.get("/{id}/head")
async def head(id: str, authority: Here, bastion: EnrolledBastion) -> RecordingHead | None:
    """How far the recording had come when it was last heard of. For sealing after a crash."""
    session = await authority.store.read(lambda db: path.own(db, bastion, id))
    return None if session.head is None else RecordingHead.model_validate(session.head)


@router.get("")
async def listing(
    authority: Here, caller: Anyone, live: bool | None = None, user: Name = None, node: Name = None
) -> list[SessionView]:
    """Newest first. People without an administrator's or auditor's rights see their own."""

    def work(db: Db) -> list[SessionView]:
        found = sessions.listing(db, live=live, user=user, node=node)
        readable = Readable(authority, db, caller)
        return [view(one, readable) for one in found if visible(one, caller) or readable(one.node)]

    return await authority.store.read(work)


@router.post("/{id}/termination", status_code=204)
async def terminate(id: str, asked: Termination, authority: Here, caller: Administrator) -> None:
    """End a live session at once; the person reads the reason."""
    await authority.live.terminate(id, by=caller.actor, reason=asked.reason)


class Readable:
    """Whether the caller may read recordings of a node, asked once for each node."""

    def __init__(self, authority: Authority, db: Db, caller: Caller) -> None:
        self._authority, self._db, self._caller = authority, db, caller
        self._known: dict[str, bool] = {}

    def __call__(self, node: str) -> bool:
        if node not in self._known:
            self._known[node] = self._caller.may_audit(self._authority, self._db, node)
        return self._known[node]


def visible(session: Session, caller: Caller) -> bool:
    return caller.administrator or (caller.identity is not None and caller.identity.user == session.user)


def view(session: Session, readable: Readable) -> SessionView:
    return SessionView(
        id=session.id,
        user=session.user,
        node=session.node,
        login=session.login,
        way=session.way,
        source=session.source,
        started=session.started,
        ended=session.ended,
        how=session.how,
        recording=session.recording_deleted is None and session.how != "not_started" and readable(session.node),
    )
