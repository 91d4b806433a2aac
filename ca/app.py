"""
The authority, wired: settings, store, keys and what is live, opened in order and closed in reverse.

``opened`` gives an ``Authority``; ``ca.api.create_app`` puts the routes around it. Rules are elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import structlog

from ca import audit, housekeeping, tls
from ca.allowance import Doors
from ca.certificate import CA
from ca.errors import Conflict
from ca.identity.local import Passwords
from ca.identity.registry import Providers
from ca.issue import Issuer
from ca.keys import KeyRing
from ca.live import Live
from ca.metrics import Metrics
from ca.recheck import Recheck
from ca.rights import Rights
from ca.sealing import Sealer
from ca.settings import Settings
from ca.store import Db, Store, bastions
from ca.store import audit as log
from ca.store import opened as store_opened
from ca.store.bastions import RecorderKey
from ca.vault import Vault, read_private, write_private
from ca.wire import ClusterInfo

T = TypeVar("T")
logger = structlog.get_logger()


@dataclass(eq=False)
class Authority:
    """Everything a route may need."""

    settings: Settings
    clock: Callable[[], datetime]
    store: Store
    issuer: Issuer
    rights: Rights
    live: Live
    passwords: Passwords
    metrics: Metrics
    root: tls.Root
    bastion_root: tls.Root
    admin_token: str
    sealer: Sealer
    providers: Providers
    recheck: Recheck
    doors: Doors = field(default_factory=Doors)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def change(self, work: Callable[[Db], T]) -> T:
        """A change of who may do what: written, then live sessions are looked at again before anyone is answered."""
        result = await self.store.write(work)
        await self.live.reconsider()
        return result

    def cluster_info(self) -> ClusterInfo:
        """What clients have to know."""
        return ClusterInfo(
            cluster=self.settings.cluster,
            ssh_host=self.settings.public_ssh.host,
            ssh_port=self.settings.public_ssh.port,
            web_url=self.settings.web_url,
            bastion_ca=[self.issuer.public_key(CA.BASTION).line()],
        )

    def load_web_certificate(self, context: ssl.SSLContext) -> None:
        """Put a fresh web certificate into *context*. Its key never lies on the disk in the clear."""
        key, chain = tls.web_certificate(self.root, self.settings.web_names, self.clock())
        password = secrets.token_hex(32)
        with tempfile.TemporaryDirectory(dir=self.settings.data, prefix=".tls-") as folder:
            file = Path(folder) / "web.pem"
            write_private(file, tls.private_pem(key, password.encode()) + chain.encode())
            context.load_cert_chain(file, password=password)


@asynccontextmanager
async def opened(
    settings: Settings, *, clock: Callable[[], datetime], passwords: Passwords | None = None
) -> AsyncIterator[Authority]:
    """Open the data folder, making what a first start makes and repairing what a crash left."""
    data = settings.data
    vault = Vault.open(data / "secrets", settings.passphrase)
    fresh = not vault.has(f"{CA.USER}-ca")
    if fresh and (data / "bartizan.db").exists():
        raise Conflict(
            f"{data}: the database is here, but the keys of its CAs are gone",
            hint="bring back the folder 'secrets' from a backup",
        )
    keys = KeyRing(vault)
    roots = [_root(vault, name, settings.cluster, clock()) for name in ("web-root", "bastion-root")]
    async with store_opened(data / "bartizan.db", clock) as store:
        metrics = Metrics()
        issuer = Issuer(store, keys, metrics)
        rights = Rights()
        live = Live(store, rights, issuer, metrics)
        sealer = Sealer(vault.load_or_make("rows", lambda: secrets.token_bytes(32)))
        providers = Providers(store, sealer)
        authority = Authority(
            settings=settings,
            clock=clock,
            store=store,
            issuer=issuer,
            rights=rights,
            live=live,
            passwords=passwords or Passwords(),
            metrics=metrics,
            root=roots[0],
            bastion_root=roots[1],
            admin_token=_admin_token(data / "admin.token"),
            sealer=sealer,
            providers=providers,
            recheck=Recheck(store, providers, sealer, live, metrics),
        )
        _publish_root(data / "root.pem", authority.root.pem)
        await _begin(authority)
        await live.load()
        async with asyncio.TaskGroup() as group:
            keepers = [
                group.create_task(live.keep(authority.stopping)),
                group.create_task(housekeeping.keep(settings, store, metrics, authority.stopping)),
                group.create_task(authority.recheck.keep(authority.stopping)),
            ]
            try:
                yield authority
            finally:
                authority.stopping.set()
                for keeper in keepers:
                    keeper.cancel()
                await providers.close()
        await store.write(lambda db: log.append(db, audit.ClusterStopped(), actor="authority"))


def product_version() -> str:
    try:
        return version("bartizan")
    except PackageNotFoundError:
        return "0"


async def _begin(authority: Authority) -> None:
    """Check that folder and flags belong together, repair, and write that we started."""
    settings, issuer = authority.settings, authority.issuer

    def know(db: Db) -> bool:
        cluster = bastions.mark(db, "cluster")
        if cluster is not None and cluster != settings.cluster:
            raise Conflict(f"{settings.data} belongs to the cluster {cluster!r}, not {settings.cluster!r}")
        if cluster is None:
            bastions.set_mark(db, "cluster", settings.cluster)
            log.append(db, audit.ClusterCreated(cluster=settings.cluster), actor="authority")
            for ca in CA:
                made = audit.CaMade(ca=ca, fingerprint=issuer.public_key(ca).fingerprint())
                log.append(db, made, actor="authority")
        recorder = issuer.recorder
        bastions.add_recorder(db, RecorderKey(recorder.fingerprint(), "authority", recorder.line(), db.now))
        return cluster is None

    await authority.store.write(know)
    repaired = await issuer.repair()
    for line in repaired:
        logger.warning("repaired after a crash", what=line)
    started = audit.ClusterStarted(version=product_version(), repaired=tuple(repaired))
    await authority.store.write(lambda db: log.append(db, started, actor="authority"))


def _root(vault: Vault, name: str, cluster: str, now: datetime) -> tls.Root:
    return tls.Root.load(vault.load_or_make(name, lambda: tls.Root.make(f"{cluster} {name}", now).dump()))


def _admin_token(file: Path) -> str:
    """What the Unix socket wants to hear, beside file permissions."""
    if not os.path.lexists(file):
        write_private(file, f"bza_{secrets.token_urlsafe(32)}\n".encode())
    return read_private(file).decode("ascii", "replace").strip()


def _publish_root(file: Path, pem: str) -> None:
    """The public half of the web root, for tools on this machine."""
    if not file.exists() or file.read_text() != pem:
        draft = file.with_suffix(".new")
        draft.write_text(pem)
        draft.chmod(0o644)
        draft.replace(file)
