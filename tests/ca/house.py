"""
A whole authority in this process, with a clock that the test turns, for the tests of routes and paths.

Everything is real but the clock and the doors: requests go to the app itself, through the socket's door
(``house.operator``), as a stranger or a person (``house.web``), or with a bastion's client certificate.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from argon2 import PasswordHasher
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from starlette.types import ASGIApp, Receive, Scope, Send

from ca import audit, tls
from ca.api import create_app
from ca.api.door import PEER, UNIX
from ca.app import Authority, opened
from ca.identity.local import Passwords
from ca.settings import Address, Settings
from ca.store import audit as log
from recordings import sshsig
from recordings.sshkey import PublicKey
from recordings.sshwire import string, uint32
from tests.ca import forge

CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
BEGAN = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
PASSWORD = "correct horse battery"
ROLES = """
roles:
  - name: developer
    allow:
      - nodes: {env: [dev]}
        logins: ["{{user.name}}", deploy, root]
        actions: [shell, exec, sftp.read, sftp.write]
  - name: auditor
    audit: {recordings: "*", events: "*"}
"""


@dataclass
class Clock:
    """Stands still until it is turned."""

    now: datetime = BEGAN

    def __call__(self) -> datetime:
        return self.now

    def turn(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class BastionKeys:
    """An enrolled bastion, seen from its own side."""

    id: str
    name: str
    host_key: forge.Signer
    recording_key: Ed25519PrivateKey
    http: httpx.AsyncClient


@dataclass
class House:
    """The authority, and ways to talk to it."""

    authority: Authority
    clock: Clock
    app: ASGIApp
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    def client(self, token: str | None = None, **scope: object) -> httpx.AsyncClient:
        """Somebody who comes with these keys in the ASGI scope."""

        async def marked(inner: Scope, receive: Receive, send: Send) -> None:
            inner.update(scope)
            await self.app(inner, receive, send)

        transport = httpx.ASGITransport(marked, raise_app_exceptions=False, client=("192.0.2.7", 4711))
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        made = httpx.AsyncClient(transport=transport, base_url="https://127.0.0.1:8443", headers=headers)
        self.clients.append(made)
        return made

    @property
    def web(self) -> httpx.AsyncClient:
        """A stranger."""
        return self.client()

    @property
    def operator(self) -> httpx.AsyncClient:
        """Whoever sits at the socket with the token beside it."""
        return self.client(self.authority.admin_token, **{UNIX: True})

    async def roles(self, text: str = ROLES) -> None:
        (await self.operator.put("/v1/roles", json={"text": text})).raise_for_status()

    async def user(self, name: str, *roles: str) -> None:
        body = {"name": name, "roles": list(roles), "password": PASSWORD}
        (await self.operator.post("/v1/users", json=body)).raise_for_status()

    async def node(self, name: str, **labels: str) -> dict[str, Any]:
        key = forge.ed25519().public.line()
        body = {"name": name, "address": "192.0.2.9:22", "labels": labels, "host_keys": [key]}
        answer = await self.operator.post("/v1/nodes", json=body)
        answer.raise_for_status()
        made: dict[str, Any] = answer.json()
        return made

    async def login_request(self, user: str, key: forge.Signer | None = None, **change: object) -> dict[str, Any]:
        """What an honest client sends to sign in."""
        key = key or forge.ed25519()
        nonce = (await self.web.post("/v1/login/challenge")).json()["nonce"]
        return {
            "user": user,
            "password": PASSWORD,
            "public_key": key.public.line(),
            "nonce": nonce,
            "possession": possession(key, nonce),
            **change,
        }

    async def login(self, user: str, key: forge.Signer | None = None, **change: object) -> httpx.Response:
        return await self.web.post("/v1/login", json=await self.login_request(user, key, **change))

    async def person(self, user: str, key: forge.Signer | None = None) -> httpx.AsyncClient:
        """Somebody who is signed in."""
        answer = await self.login(user, key)
        assert answer.status_code == 200, answer.text
        return self.client(answer.json()["token"])

    async def bastion(self, name: str = "local", *egress: str) -> BastionKeys:
        """A bastion that has just enrolled."""
        token = (await self.operator.post("/v1/bastion-tokens", json={"name": name})).json()["token"]
        host, recording = forge.ed25519(), Ed25519PrivateKey.generate()
        tls_key = ec.generate_private_key(ec.SECP256R1())
        body = {
            "token": token,
            "name": name,
            "host_key": host.public.line(),
            "recording_key": PublicKey.of(recording.public_key()).line(),
            "tls_request": certificate_request(tls_key),
            "egress": list(egress),
        }
        answer = await self.web.post("/v1/bastions/enrolment", json=body)
        assert answer.status_code == 200, answer.text
        certificate = x509.load_pem_x509_certificate(answer.json()["tls_certificate"].encode())
        return BastionKeys(answer.json()["id"], name, host, recording, self.client(**{PEER: key_digest(certificate)}))

    async def events(self, code: str | None = None) -> list[audit.Entry]:
        """What the audit log says."""
        found = await self.authority.store.read(lambda db: log.records(db, after=0, limit=100_000))
        return [one for one in found if code in (None, one.code)]


@asynccontextmanager
async def house(folder: Path, **change: Any) -> AsyncIterator[House]:
    """An authority in *folder*."""
    clock = change.pop("clock", None) or Clock()
    settings = Settings(
        data=folder, **{"web": Address("127.0.0.1", 8443), "public_ssh": Address("127.0.0.1", 2222), **change}
    )
    if not change and not any(folder.iterdir()):
        shutil.copytree(await _first_start(), folder, dirs_exist_ok=True)
    async with opened(settings, clock=clock, passwords=Passwords(CHEAP)) as authority:
        made = House(authority, clock, create_app(authority))
        try:
            yield made
        finally:
            for client in made.clients:
                await client.aclose()


async def _first_start() -> Path:
    """A folder as the first start leaves it, made once: migrations take longer than most tests."""
    if not _made:
        _made.append(tempfile.TemporaryDirectory(prefix="house-"))
        data = Path(_made[0].name)
        settings = Settings(data=data, web=Address("127.0.0.1", 8443), public_ssh=Address("127.0.0.1", 2222))
        async with opened(settings, clock=Clock(), passwords=Passwords(CHEAP)):
            pass
    return Path(_made[0].name)


_made: list[tempfile.TemporaryDirectory[str]] = []


def possession(key: forge.Signer, nonce: str, *, namespace: str = "bartizan-enrol") -> str:
    """An armored SSHSIG by a key of any kind."""
    if isinstance(key.private, Ed25519PrivateKey) and key.application is None:
        return sshsig.sign(key.private, nonce.encode(), namespace=namespace)
    return forge_sshsig(key, nonce.encode(), namespace)


def forge_sshsig(key: forge.Signer, message: bytes, namespace: str) -> str:
    """PROTOCOL.sshsig, for kinds of keys that the product never signs with."""
    digest = hashlib.sha512(message).digest()
    signed = b"SSHSIG" + string(namespace.encode()) + string(b"") + string(b"sha512") + string(digest)
    blob = b"SSHSIG" + uint32(1) + string(key.blob) + string(namespace.encode()) + string(b"") + string(b"sha512")
    text = base64.b64encode(blob + string(key.sign(signed))).decode()
    lines = "\n".join(text[at : at + 70] for at in range(0, len(text), 70))
    return f"-----BEGIN SSH SIGNATURE-----\n{lines}\n-----END SSH SIGNATURE-----\n"


def certificate_request(key: ec.EllipticCurvePrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bastion")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def key_digest(certificate: x509.Certificate) -> str:
    return tls.key_digest(certificate)
