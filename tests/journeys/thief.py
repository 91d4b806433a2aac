"""
A bastion that somebody has taken over: its identity, everything on its disk, and no scruples.

People connect to it with stock ``ssh`` and sign in as ever. It sends the authority nothing; it keeps what they signed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
import httpx
from asyncssh.public_key import load_keypairs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bastion.authority import Authority, HttpAuthority
from bastion.listener import FirstBytes, listening_socket
from bastion.outbox import Outbox
from bastion.penalties import Penalties
from bastion.session import Services
from bastion.shown import ShownKeys
from bastion.ssh_adapter import Shown, server_options
from bastion.state import State
from bastion.visit import Door
from ca import proof, wire
from ca.errors import Unavailable
from recordings.sshkey import PublicKey, sign_ed25519

REASON = "come back later"


@dataclass
class Keeping:
    """The authority as the thief sees it: all of it, but sessions are not asked for. Their requests are kept."""

    real: Authority
    kept: list[wire.SessionRequest] = field(default_factory=list)

    async def trust(self) -> wire.TrustAnchors:
        return await self.real.trust()

    async def shown(self, names: list[str]) -> wire.ShownCertificates:
        return await self.real.shown(names)

    async def authorize(self, request: wire.SessionRequest) -> wire.SessionAllowed | wire.SessionDenied:
        self.kept.append(request)
        raise Unavailable(REASON)

    async def sync(self, request: wire.SyncRequest) -> wire.SyncAnswer:
        return await self.real.sync(request)

    async def end(self, session: str, end: wire.SessionEnd) -> wire.Countersignature:
        return await self.real.end(session, end)

    async def head(self, session: str) -> wire.RecordingHead | None:
        return await self.real.head(session)


class OverHttp(HttpAuthority):
    """The authority over a connection that somebody else made."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http


class ForeignKeys(ShownKeys):
    """Host keys of a server that is no bastion: no certificate, whatever name is asked for."""

    def ready(self, name: str) -> Shown | None:
        return Shown(load_keypairs([self._key]))

    async def fetch(self, name: str) -> Shown:
        return Shown(load_keypairs([self._key]))


@dataclass
class Thief:
    """The server that people connect to, and what it kept."""

    port: int
    keeping: Keeping
    door: Door

    async def catch(self, argv: list[str], env: Mapping[str, str]) -> wire.SessionRequest:
        """Let *argv*, a stock ``ssh``, come in; the request that an honest bastion would have sent."""
        before = len(self.keeping.kept)
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(30):
            _, said = await process.communicate()
        assert REASON in said.decode(), said
        (caught,) = self.keeping.kept[before:]
        return caught


@asynccontextmanager
async def thief(
    folder: Path, state: State, authority: Authority, *, foreign: bool = False, beacon: str | None = None
) -> AsyncIterator[Thief]:
    """Run it on a free port. *foreign*: its host key is not the enrolled one, and it has no certificate for it."""
    folder.mkdir(parents=True, exist_ok=True)
    keeping = Keeping(authority)
    shown = (ForeignKeys if foreign else ShownKeys)(keeping, state.host_key)
    await shown.fetch("")
    outbox = Outbox(folder / "outbox.ndjson")
    if beacon is None:
        beacon = (await authority.sync(wire.SyncRequest(worker="thief"))).beacon
    with ThreadPoolExecutor(1) as pool:
        services = Services(
            state=state,
            authority=keeping,
            worker="thief",
            recordings=folder / "recordings",
            outbox=outbox,
            pool=pool,
            trust=await authority.trust(),
        )
        async with asyncio.TaskGroup() as group:
            door = Door(services, shown, await server_options(state.host_key), Penalties(), group, beacon=beacon)
            door.trust(services.trust)
            sock = listening_socket("127.0.0.1", 0)
            server = await asyncio.get_running_loop().create_server(lambda: FirstBytes(door), sock=sock)
            yield Thief(sock.getsockname()[1], keeping, door)
            server.close()
    outbox.close()


def client(state: Path, web: str) -> httpx.AsyncClient:
    """The API with the client certificate that lies in the bastion's folder *state*."""
    context = ssl.create_default_context(cafile=str(state / "root.pem"))
    context.load_cert_chain(state / "tls.pem", state / "tls.key")
    return httpx.AsyncClient(base_url=f"https://{web}", verify=context, timeout=60, trust_env=False)


def with_own_key(request: wire.SessionRequest) -> tuple[dict[str, Any], Ed25519PrivateKey]:
    """The same proof with a session key that the thief holds, for it needs no person to prove that key."""
    private = Ed25519PrivateKey.generate()
    h = proof.exchange_hash(request.transcript)
    change = {
        "session_key": PublicKey.of(private.public_key()).line(),
        "possession": sign_ed25519(private, proof.POSSESSION + h),
    }
    return request.model_copy(update=change).model_dump(mode="json"), private


def own_state(folder: Path, host_key: Ed25519PrivateKey, *, name: str = "local", id: str = "b-0") -> State:
    """A bastion's state with this host key, made in memory."""
    key = asyncssh.import_private_key(_pem(host_key))
    return State(folder, id, name, key, Ed25519PrivateKey.generate())


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
