"""HTTP for recordings: the list, and one recording as a tar stream with all that is needed to check it."""

from __future__ import annotations

import asyncio
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from ca import audit
from ca.api.callers import Anyone, Caller, Here
from ca.api.cas import allowed_signers
from ca.api.sessions import Readable, view
from ca.app import Authority
from ca.errors import AccessDenied, NotFound
from ca.store import Db, bastions, sessions
from ca.store import audit as log
from ca.wire import SessionView
from recordings import folder as disk
from recordings import reader, seal

PIECE = 1 << 18
BLOCK = 512
router = APIRouter(prefix="/v1/recordings", tags=["recordings"])
Purpose = Literal["export", "play", "verify"]


@router.get("")
async def listing(authority: Here, caller: Anyone) -> list[SessionView]:
    """The recordings that the caller may read, newest first."""

    def work(db: Db) -> list[SessionView]:
        readable = Readable(authority, db, caller)
        return [one for one in (view(session, readable) for session in sessions.listing(db)) if one.recording]

    found = await authority.store.read(work)
    event = audit.RecordingListed(by=caller.actor, count=len(found))
    await authority.store.write(lambda db: log.append(db, event, actor=caller.actor))
    return found


@router.get("/{id}/archive")
async def archive(id: str, authority: Here, caller: Anyone, purpose: Purpose = "export") -> StreamingResponse:
    """The recording's files and ``allowed_signers``. One that may not be read is refused like one that is not there."""
    signers = await authority.store.write(lambda db: _opened(authority, db, caller, id, purpose))
    if signers is None:
        await authority.store.write(
            lambda db: log.append(db, audit.RecordingDenied(session=id, by=caller.actor), actor=caller.actor)
        )
        raise AccessDenied(
            "you may not read this recording, or there is none", hint="a role with audit: {recordings: …} may"
        )
    folder = await asyncio.to_thread(reader.find, authority.settings.recordings_folder, id)
    if folder is None:
        raise NotFound("the files of this recording are not here", code="recording_gone")
    return StreamingResponse(_tar(folder, signers.encode()), media_type="application/x-tar")


def _opened(authority: Authority, db: Db, caller: Caller, id: str, purpose: Purpose) -> str | None:
    """Check the right, write the event, and give the allowed_signers; None when there is no right or no session."""
    session = sessions.find(db, id)
    if session is None or not caller.may_audit(authority, db, session.node):
        return None
    if session.recording_deleted is not None:
        raise NotFound("this recording was deleted by the retention rule", code="recording_deleted")
    seen = audit.RecordingViewed if purpose == "play" else audit.RecordingExported
    log.append(db, seen(session=id, by=caller.actor), actor=caller.actor)
    return allowed_signers(bastions.recorder_keys(db))


def _tar(folder: Path, signers: bytes) -> Iterator[bytes]:
    """*folder* as a tar stream. A part that is still growing is cut at the size it had when its turn came."""
    yield _entry("allowed_signers", len(signers)) + _padded(signers)
    for name in [*disk.parts(folder), seal.MANIFEST, seal.SIGNATURE, seal.COUNTERSIGNATURE]:
        path = folder / name
        if not path.exists():
            continue  # not sealed yet
        # A bastion can write here: only what we know by name goes out, and a link or a pipe is not followed.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            size = left = os.fstat(stream.fileno()).st_size
            yield _entry(name, size)
            while left:
                piece = stream.read(min(PIECE, left))
                if not piece:
                    raise OSError(f"{path} became shorter while it was read")
                left -= len(piece)
                yield piece
            yield b"\0" * (-size % BLOCK)
    yield b"\0" * (2 * BLOCK)


def _entry(name: str, size: int) -> bytes:
    about = tarfile.TarInfo(name)
    about.size, about.mode = size, 0o600
    return about.tobuf(tarfile.PAX_FORMAT)


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % BLOCK)
