"""
A bastion worker in this process, with an authority in memory: real proofs, certificates and sockets, no database.

Real ``ssh`` clients connect to it and it enters a real ``sshd``. What the bastion sends the authority is kept in lists,
so that a test can read it like a diary.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import subprocess
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncssh
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bastion.listener import FirstBytes, listening_socket
from bastion.outbox import Outbox
from bastion.penalties import Penalties
from bastion.session import Services, Session
from bastion.shown import ShownKeys
from bastion.ssh_adapter import server_options
from bastion.state import State
from bastion.visit import Door
from ca import proof, sshcert, wire
from ca.certificate import BACKDATED, CertPlan, bastion_plan, host_plan, target_plan
from ca.errors import Unavailable
from recordings.sshkey import PublicKey, sign_ed25519

BEACON = "5ba0" * 8
CONNECT = Path(__file__).parents[2] / "cli" / "connect.py"


@dataclass
class Signer:
    """One CA key."""

    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    serial: int = 0

    @property
    def public(self) -> PublicKey:
        return PublicKey.of(self.key.public_key())

    def sign(self, plan: CertPlan) -> str:
        to_be_signed = plan.to_be_signed(self.public, nonce=os.urandom(32))
        return sshcert.parse(sshcert.with_signature(to_be_signed, sign_ed25519(self.key, to_be_signed))).line()

    def next(self) -> int:
        self.serial += 1
        return self.serial


@dataclass
class MemoryAuthority:
    """Checks each proof as the authority does, allows what ``actions`` says, and keeps what it was sent."""

    bastion_key: PublicKey
    user: Signer = field(default_factory=Signer)
    target: Signer = field(default_factory=Signer)
    host: Signer = field(default_factory=Signer)
    bastion: Signer = field(default_factory=Signer)
    nodes: dict[str, str] = field(default_factory=dict)
    host_keys: dict[str, list[str]] = field(default_factory=dict)
    actions: tuple[str, ...] = ("shell", "exec", "sftp.read", "sftp.write")
    options: dict[str, object] = field(default_factory=dict)
    denial: wire.SessionDenied | None = None
    down: bool = False
    pinned: bool = False
    proven: list[proof.Proven] = field(default_factory=list)
    requests: list[wire.SessionRequest] = field(default_factory=list)
    ended: dict[str, str] = field(default_factory=dict)
    seen_h: set[bytes] = field(default_factory=set)

    def _up(self) -> None:
        if self.down:
            raise Unavailable("the authority cannot be reached: ConnectError")

    async def trust(self) -> wire.TrustAnchors:
        self._up()
        return wire.TrustAnchors(
            cluster="bartizan",
            user_ca=[self.user.public.line()],
            host_ca=[self.host.public.line()],
            bastion_ca=[self.bastion.public.line()],
            names=["bartizan"],
            ssh_port=22,
        )

    async def shown(self, names: list[str]) -> wire.ShownCertificates:
        self._up()
        now = datetime.now(UTC)
        wanted = [[name] for name in names] or [["bartizan"]]
        lines = [
            self.bastion.sign(
                bastion_plan(each, bastion="b1", serial=self.bastion.next(), public_key=self.bastion_key, now=now)
            )
            for each in wanted
        ]
        return wire.ShownCertificates(certificates=lines, expires=now + timedelta(hours=1))

    async def authorize(self, request: wire.SessionRequest) -> wire.SessionAllowed | wire.SessionDenied:
        self._up()
        now = datetime.now(UTC)
        self.requests.append(request)
        proven = proof.check(
            request,
            bastion_key=self.bastion_key,
            user_cas=[self.user.public],
            bastion_cas=[self.bastion.public],
            beacon=lambda name: timedelta(seconds=1) if name == BEACON else None,
            now=now,
        )
        assert proven.h not in self.seen_h
        self.seen_h.add(proven.h)
        self.proven.append(proven)
        if self.denial is not None:
            return self.denial
        session = f"s{len(self.proven):025d}"
        plan = target_plan(
            request.login,
            f"n-{request.node}",
            user=proven.user,
            session=session,
            serial=self.target.next(),
            public_key=proven.session_key,
            actions=self.actions,
            source_addresses=[],
            now=now,
        )
        options = {
            "max_session_seconds": None, "idle_seconds": None, "on_expiry": "keep", "record": "strict",
            "record_input": False, "record_limit": 1 << 30,
        } | self.options  # fmt: skip
        return wire.SessionAllowed(
            session=session,
            user=proven.user,
            node=request.node,
            node_id=f"n-{request.node}",
            login=request.login,
            address=self.nodes[request.node],
            host_keys=self.host_keys[request.node],
            pinned=self.pinned,
            target_certificate=self.target.sign(plan),
            actions=[wire.GrantedAction.model_validate({"action": a, "role": "r"} | options) for a in self.actions],
            certificate_expires=datetime.fromtimestamp(proven.user_certificate.valid_before, UTC),
            started=now,
        )

    async def sync(self, request: wire.SyncRequest) -> wire.SyncAnswer:
        raise NotImplementedError("this worker has no sync loop; tests give orders themselves")

    async def end(self, session: str, end: wire.SessionEnd) -> wire.Countersignature:
        self._up()
        self.ended[session] = end.how
        return wire.Countersignature(signature="-----BEGIN SSH SIGNATURE-----\n")

    async def head(self, session: str) -> wire.RecordingHead | None:
        return None


@dataclass
class Rig:
    """A running worker and the files of one user."""

    door: Door
    authority: MemoryAuthority
    port: int
    folder: Path
    recordings: Path

    @property
    def config(self) -> Path:
        return self.folder / "ssh_config"

    def user(self, name: str = "alice", *, life: timedelta = timedelta(hours=1), **changes: object) -> None:
        """Give the user a key, a certificate and an ssh_config for all three ways."""
        key = self.folder / "id"
        if not key.exists():
            subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", key], check=True)
        public = PublicKey.from_line((self.folder / "id.pub").read_text())
        now = datetime.now(UTC).replace(microsecond=0)
        begin = now - BACKDATED if life > timedelta() else now - timedelta(hours=2)
        fields: dict[str, object] = {
            "kind": sshcert.CertKind.USER,
            "public_key": public,
            "serial": self.authority.user.next(),
            "key_id": f"v1;u={name};n=1",
            "principals": [name],
            "valid_after": int(begin.timestamp()),
            "valid_before": int((now + life).timestamp()),
            "critical_options": {},
            "extensions": ["permit-pty"],
            "ca_key": self.authority.user.public,
            "nonce": os.urandom(32),
        }
        to_be_signed = sshcert.encode(**(fields | changes))  # type: ignore[arg-type]
        blob = sshcert.with_signature(to_be_signed, sign_ed25519(self.authority.user.key, to_be_signed))
        (self.folder / "id-cert.pub").write_text(sshcert.parse(blob).line() + "\n")
        names = ",".join(self.authority.nodes)
        (self.folder / "known_hosts").write_text(
            f"@cert-authority {names} {self.authority.bastion.public.line()}\n"
            f"@cert-authority bartizan {self.authority.bastion.public.line()}\n"
        )
        common = (
            f"  IdentityFile {key}\n  CertificateFile {self.folder}/id-cert.pub\n"
            f"  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {self.folder}/known_hosts\n  StrictHostKeyChecking yes\n  BatchMode yes\n"
        )
        nodes = " ".join(self.authority.nodes)
        self.config.write_text(
            f"Host bartizan\n  HostName 127.0.0.1\n  Port {self.port}\n  HostKeyAlias bartizan\n{common}"
            f"Host {nodes}\n  ProxyCommand /usr/bin/env python3 -I -S {CONNECT} 127.0.0.1 {self.port} %h\n"
            f"  ProxyUseFdpass yes\n{common}"
        )

    async def run(
        self, program: str, *arguments: str, input: bytes | None = None, timeout: float = 30
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ``ssh``, ``scp`` or ``sftp`` with the user's configuration."""
        process = await asyncio.create_subprocess_exec(
            program, "-F", str(self.config), *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(input)
        assert process.returncode is not None
        return subprocess.CompletedProcess([program, *arguments], process.returncode, out, err)

    @property
    def newest(self) -> Session:
        """The session that began last."""
        return list(self.door.services.sessions.values())[-1]

    async def settled(self) -> None:
        """Wait until every session is over and sealed."""
        async with asyncio.timeout(15):
            while self.door.services.sessions:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    def events(self) -> list[wire.BastionEvent]:
        return self.door.services.outbox.first(10_000)

    def notes(self) -> list[dict[str, object]]:
        """All events of all recordings, decompressed by the stock tool."""
        found = sorted(self.recordings.rglob("events.*.ndjson.zst"))
        lines = b"".join(subprocess.run(["zstdcat", path], capture_output=True, check=True).stdout for path in found)
        return [json.loads(line) for line in lines.splitlines()]

    def streams(self, names: str = "c*") -> bytes:
        """All recorded streams with these names, decompressed by the stock tool."""
        found = sorted(self.recordings.rglob(f"{names}.cast.zst"))
        return b"".join(subprocess.run(["zstdcat", path], capture_output=True, check=True).stdout for path in found)


@asynccontextmanager
async def opened(door: Door, *, balancers: tuple[ipaddress.IPv4Network, ...] = ()) -> AsyncIterator[int]:
    """A port that leads to *door*; at the end nobody stays on the line."""
    visitors: list[FirstBytes] = []

    def visitor() -> FirstBytes:
        visitors.append(FirstBytes(door, balancers=balancers))
        return visitors[-1]

    sock = listening_socket("127.0.0.1", 0)
    server = await asyncio.get_running_loop().create_server(visitor, sock=sock)
    try:
        yield sock.getsockname()[1]
    finally:
        server.close()
        for each in visitors:
            if each._transport is not None:
                each._transport.abort()
        await asyncio.sleep(0.01)


@asynccontextmanager
async def rig(folder: Path, **changes: object) -> AsyncIterator[Rig]:
    """Start a worker on a free loopback port; stop it on the way out."""
    folder.mkdir(parents=True, exist_ok=True)
    host, recording = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    host_key = asyncssh.import_private_key(_pem(host))
    state = State(folder, "b-1", "b1", host_key, recording)
    authority = MemoryAuthority(PublicKey.of(host.public_key()), **changes)  # type: ignore[arg-type]
    shown = ShownKeys(authority, host_key)
    await shown.fetch("")
    with closing(Outbox(folder / "outbox.ndjson")) as outbox, ThreadPoolExecutor(2) as pool:
        services = Services(
            state=state, authority=authority, worker="w1", recordings=folder / "recordings", outbox=outbox, pool=pool,
            trust=await authority.trust(),
        )  # fmt: skip
        (folder / "recordings").mkdir(mode=0o700)
        async with asyncio.TaskGroup() as group:
            door = Door(services, shown, await server_options(host_key), Penalties(), group, beacon=BEACON)
            door.trust(services.trust)
            try:
                async with opened(door) as port:
                    yield Rig(door, authority, port, folder, folder / "recordings")
            finally:
                for session in list(services.sessions.values()):
                    session.end("test_over", "the test is over")


def _pem(key: Ed25519PrivateKey) -> bytes:
    from bastion.session import _openssh

    return _openssh(key)


def certified(folder: Path, authority: MemoryAuthority, name: str, host_key: Path) -> Path:
    """Certify a node's host key and register it; gives the certificate's file."""
    public = PublicKey.from_line(
        host_key.with_suffix(".pub").read_text() if not host_key.suffix else host_key.read_text()
    )
    plan = host_plan(name, f"n-{name}", serial=authority.host.next(), public_key=public, now=datetime.now(UTC))
    path = folder / f"{name}-cert.pub"
    path.write_text(authority.host.sign(plan) + "\n")
    authority.host_keys.setdefault(name, []).append(public.line())
    return path
