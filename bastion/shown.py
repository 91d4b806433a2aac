"""The host certificates that a bastion shows: one for its own names, one for each node name that people ask for.

Whether a node exists is never told before sign-in: any well-formed name gets its certificate. Names not yet in the
cache are fetched at a bounded rate, so that strangers cost the authority little.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

from asyncssh.public_key import SSHKey

from bastion.authority import Authority
from bastion.penalties import Bucket
from bastion.ssh_adapter import Shown, shown_certificate
from ca.errors import Unavailable

KEPT = 4096
SPARE = timedelta(minutes=10)
"""A certificate with less life than this left is fetched anew."""


class ShownKeys:
    """Certificates by node name; the name ``""`` stands for the bastion itself."""

    def __init__(self, authority: Authority, host_key: SSHKey) -> None:
        self._authority = authority
        self._key = host_key
        self._cache: dict[str, tuple[Shown, datetime]] = {}
        self._fetching = asyncio.Lock()
        self._bucket = Bucket(burst=200, rate=20)

    def ready(self, name: str) -> Shown | None:
        """The certificate for *name* if it is here and lives long enough."""
        found = self._cache.get(name)
        if found is None or found[1] - datetime.now(UTC) < SPARE:
            return None
        return found[0]

    async def fetch(self, name: str) -> Shown:
        """The certificate for *name*. Raises Unavailable."""
        async with self._fetching:
            ready = self.ready(name)
            if ready is not None:
                return ready
            try:
                if name and not self._bucket.take(time.monotonic()):
                    raise Unavailable("too many new node names at once")
                answer = await self._authority.shown([name] if name else [])
            except Unavailable:
                old = self._cache.get(name)
                if old is not None and old[1] > datetime.now(UTC):
                    return old[0]
                raise
            shown = shown_certificate(self._key, answer.certificates[0], plain_too=not name)
            if len(self._cache) >= KEPT:
                oldest = min((key for key in self._cache if key), key=lambda key: self._cache[key][1])
                del self._cache[oldest]
            self._cache[name] = (shown, answer.expires)
            return shown
