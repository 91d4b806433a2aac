"""The identity providers in force: each one's file parsed once for each revision, and its client kept open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ca import provider_file
from ca.errors import NotFound
from ca.identity.github import GitHub
from ca.identity.oidc import Oidc
from ca.identity.provider import IdentityProvider
from ca.sealing import Sealer
from ca.store import Db, Store
from ca.store import providers as rows
from ca.store.providers import StoredProvider

if TYPE_CHECKING:
    from ca.provider_file import Provider


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

    async def find(self, name: str) -> Ready:
        """The provider of this name. Raises NotFound."""
        stored = await self._store.read(lambda db: rows.find(db, name))
        if stored is None:
            await self._drop(name)
            raise NotFound("there is no such identity provider", hint="bartizan idp list")
        ready = self._ready.get(name)
        if ready is None or ready.revision != stored.revision:
            await self._drop(name)
            ready = self._ready[name] = self._opened(stored)
        return ready

    async def all(self) -> list[Provider]:
        """What the files of all providers say, by name."""

        def work(db: Db) -> list[Provider]:
            return [provider_file.parse(stored.text) for stored in rows.every(db)]

        return await self._store.read(work)

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


def opened(text: str, secret: str | None) -> tuple[Provider, IdentityProvider]:
    """The provider that *text* describes, and a client for it. The caller closes it."""
    file = provider_file.parse(text)
    return file, Oidc(file, secret) if file.kind == "oidc" else GitHub(file, secret)
