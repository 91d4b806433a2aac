"""HTTP for public keys: of the four CAs, and of those who sign recordings. Open to everyone."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from ca.api.callers import Here
from ca.certificate import CA
from ca.errors import NotFound
from ca.store import bastions
from ca.store.bastions import RecorderKey

NAMESPACE = "bartizan-recording"
router = APIRouter(prefix="/v1/ca", tags=["ca"])


@router.get("/{name}", response_class=PlainTextResponse)
async def public_keys(name: str, authority: Here) -> str:
    """One CA's public key as a line, or ``recorders``: an allowed_signers file."""
    if name == "recorders":
        return allowed_signers(await authority.store.read(bastions.recorder_keys))
    if name not in set(CA):
        raise NotFound("there is no such CA", hint="user, target, host, bastion or recorders")
    return authority.issuer.public_key(CA(name)).line(f"bartizan-{name}-ca") + "\n"


def allowed_signers(keys: list[RecorderKey]) -> str:
    """The keys with the time each is good for, as ``ssh-keygen -Y verify -f`` reads them."""
    lines = []
    for key in keys:
        options = f'namespaces="{NAMESPACE}",valid-after="{_when(key.valid_after)}"'
        if key.valid_before is not None:
            options += f',valid-before="{_when(key.valid_before)}"'
        lines.append(f"{key.name} {options} {key.line}\n")
    return "".join(lines)


def _when(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y%m%d%H%M%SZ")
