"""The identity providers in force: each one's file parsed once for each revision, and its client kept open."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from ca import provider_file
from ca.errors import BartizanError, NotFound
from ca.identity.github import GitHub
from ca.identity.oidc import Oidc
from ca.identity.provider import IdentityProvider
from ca.sealing import Sealer
from ca.store import Store
from ca.store import providers as rows
from ca.store.providers import StoredProvider

if TYPE_CHECKING:
    from ca.provider_file import Provider


logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ready:
    """A provider as its file says, and the client that asks it."""

    revision: int
    file: Provider
    client: IdentityProvider


class Providers:
    """Finds providers by name. What was applied, changed or removed counts from the next question on."""

    def __init__(self, store: Store, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer
        self._ready: dict[str, Ready] = {}
        self._files: dict[str, tuple[int, Provider | None]] = {}
        self._turn = asyncio.Lock()

    async def find(self, name: str) -> Ready:
        """The provider of this name. Raises NotFound."""
        async with self._turn:  # looked up and opened in one go: nobody puts an older revision over a newer one
            stored = await self._store.read(lambda db: rows.find(db, name))
            if stored is None:
                await self._drop(name)
                raise NotFound("there is no such identity provider", hint="bartizan idp list")
            ready = self._ready.get(name)
            if ready is None or ready.revision != stored.revision:
                fresh = self._opened(stored)
                await self._drop(name)
                ready = self._ready[name] = fresh
            return ready

    async def all(self) -> list[Provider]:
        """What the files of all providers say, by name. Each is parsed once for each revision, for strangers ask this.

        A file that no longer parses hides its own provider and no other.
        """
        revisions = await self._store.read(rows.revisions)
        known = {name: found for name, found in self._files.items() if revisions.get(name) == found[0]}
        if known.keys() != revisions.keys():
            every = await self._store.read(rows.every)
            known = {one.name: known.get(one.name, (0, None)) for one in every}
            for one in every:
                if known[one.name][0] != one.revision:
                    known[one.name] = (one.revision, _parsed(one))
        self._files = known
        return [file for _, (_, file) in sorted(known.items()) if file is not None]

    async def close(self) -> None:
        for name in list(self._ready):
            await self._drop(name)

    def _opened(self, stored: StoredProvider) -> Ready:
        secret = None if stored.secret is None else self._sealer.open(f"client:{stored.name}", stored.secret)
        return Ready(stored.revision, *opened(stored.text, secret))

    async def _drop(self, name: str) -> None:
        ready = self._ready.pop(name, None)
        if ready is not None:
            await ready.client.close()


def _parsed(stored: StoredProvider) -> Provider | None:
    try:
        return provider_file.parse(stored.text)
    except BartizanError as error:
        logger.error("the file of an identity provider is no longer understood", provider=stored.name, why=str(error))
        return None


def opened(text: str, secret: str | None) -> tuple[Provider, IdentityProvider]:
    """The provider that *text* describes, and a client for it. The caller closes it."""
    file = provider_file.parse(text)
    return file, Oidc(file, secret) if file.kind == "oidc" else GitHub(file, secret)
