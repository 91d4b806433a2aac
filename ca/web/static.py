"""The files that pages load. What is not in the list does not exist, whatever the path says."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

from ca.errors import NotFound

KINDS = {".css": "text/css", ".svg": "image/svg+xml"}
FILES = {
    file.name: (file.read_bytes(), KINDS[file.suffix])
    for file in (Path(__file__).parent / "static").iterdir()
    if file.suffix in KINDS
}

router = APIRouter(prefix="/static", tags=["pages"])


@router.get("/{name}")
async def static(name: str) -> Response:
    if name not in FILES:
        raise NotFound("there is no such file")
    content, kind = FILES[name]
    return Response(content, media_type=kind, headers={"Cache-Control": "max-age=3600"})
