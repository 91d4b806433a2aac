"""HTTP for the cluster itself: what clients must know of it, its health and its numbers."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from ca.api.callers import Here
from ca.errors import Unavailable
from ca.metrics import CONTENT_TYPE
from ca.store import roles
from ca.wire import ClusterInfo

router = APIRouter(tags=["cluster"])


@router.get("/v1/cluster")
async def show(authority: Here) -> ClusterInfo:
    """Name, addresses and bastion CA."""
    return authority.cluster_info()


@router.get("/v1/tls-root", response_class=PlainTextResponse)
async def tls_root(authority: Here) -> str:
    """The root of the web certificate. Trust it by its pin, not because this said so."""
    return authority.root.pem


@router.get("/healthz", response_class=PlainTextResponse)
async def healthy() -> str:
    """The process runs."""
    return "ok\n"


@router.get("/readyz", response_class=PlainTextResponse)
async def ready(authority: Here) -> str:
    """It can answer: the database can be read, and nobody asked it to stop."""
    if authority.stopping.is_set():
        raise Unavailable("stopping", code="stopping")
    await authority.store.read(roles.revision)
    return "ready\n"


@router.get("/metrics")
async def metrics(authority: Here) -> Response:
    """Numbers for Prometheus."""
    return Response(authority.metrics.text(), media_type=CONTENT_TYPE)
