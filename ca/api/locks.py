"""HTTP for locks. For administrators."""

from __future__ import annotations

import secrets
from datetime import timedelta

from fastapi import APIRouter

from ca import audit
from ca.api.callers import Administrator, Here
from ca.errors import InvalidInput, NotFound
from ca.model import Lock
from ca.store import Db, locks
from ca.store import audit as log
from ca.store.locks import StoredLock
from ca.wire import LockView, NewLock

LONGEST = 10 * 365 * 86_400
router = APIRouter(prefix="/v1/locks", tags=["locks"])


@router.post("", status_code=201)
async def add(new: NewLock, authority: Here, caller: Administrator) -> LockView:
    """Say no, at once: live sessions that it names end."""
    if not (new.user or new.node or new.role or new.login):
        raise InvalidInput("a lock names a user, a node, a role or a login")
    if new.ttl_seconds is not None and new.ttl_seconds > LONGEST:
        raise InvalidInput("ttl_seconds: at most ten years; leave it out for ever", code="ttl_too_long")

    def work(db: Db) -> LockView:
        expires = None if new.ttl_seconds is None else db.now + timedelta(seconds=new.ttl_seconds)
        id = f"l-{secrets.token_hex(6)}"
        lock = Lock(id, new.reason, new.user or None, new.node or None, new.role or None, new.login or None, expires)
        locks.add(db, lock)
        event = audit.LockAdded(
            lock=lock.id,
            reason=lock.reason,
            user=lock.user,
            node=lock.node,
            role=lock.role,
            login=lock.login,
            expires=None if expires is None else audit.moment(expires),
        )
        log.append(db, event, actor=caller.actor)
        return view(StoredLock(lock, db.now))

    return await authority.change(work)


@router.get("")
async def listing(authority: Here, caller: Administrator) -> list[LockView]:
    """The locks in force, oldest first."""
    return [view(lock) for lock in await authority.store.read(locks.every)]


@router.delete("/{id}", status_code=204)
async def remove(id: str, authority: Here, caller: Administrator) -> None:
    """Take a lock away."""

    def work(db: Db) -> None:
        if not locks.remove(db, id):
            raise NotFound("there is no such lock", hint="bartizan locks list")
        log.append(db, audit.LockRemoved(lock=id), actor=caller.actor)

    await authority.change(work)


def view(stored: StoredLock) -> LockView:
    lock = stored.lock
    return LockView(
        id=lock.id,
        reason=lock.reason,
        user=lock.user,
        node=lock.node,
        role=lock.role,
        login=lock.login,
        created=stored.created,
        expires=lock.expires,
    )
