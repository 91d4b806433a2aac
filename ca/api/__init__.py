"""
HTTP: one file per noun, each route a load, one call and a save. ``create_app`` puts them behind the door.

Start reading at ``callers.py`` (who asks) and ``door.py`` (what every request passes). Errors look as in ``render.py``.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.types import ASGIApp

from ca.api import (
    audit,
    bastions,
    cas,
    certificates,
    cluster,
    join,
    locks,
    login,
    nodes,
    providers,
    recordings,
    render,
    roles,
    second_factor,
    sessions,
    users,
)
from ca.api.door import Door
from ca.app import Authority, product_version
from ca.web import device, factor, invitation, pages, signing_in, static, terminal, with_provider, you

NOUNS = (
    cluster,
    login,
    second_factor,
    users,
    roles,
    providers,
    nodes,
    join,
    cas,
    certificates,
    locks,
    sessions,
    audit,
    recordings,
    bastions,
    invitation,
    signing_in,
    with_provider,
    terminal,
    device,
    you,
    factor,
    static,
)


def create_app(authority: Authority) -> ASGIApp:
    """All routes, behind the door."""
    app = FastAPI(
        title="Bartizan authority",
        version=product_version(),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.authority = authority
    for noun in NOUNS:
        app.include_router(noun.router)
    render.install(app)
    pages.install(app)
    return Door(app, authority)
