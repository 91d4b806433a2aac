"""One SSH connection of a person through a bastion, as an honest bastion hands it in to the authority."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ca import proof, sshcert, wire
from ca.proof import HOSTBOUND, POSSESSION, PUBLICKEY
from recordings.sshkey import PublicKey, sign_ed25519
from recordings.sshwire import mpint, string, uint32
from tests.ca import forge
from tests.ca.house import BastionKeys, House


@dataclass(frozen=True)
class Visit:
    """Who comes through which bastion to which node, and what is to be wrong with it."""

    bastion: BastionKeys
    key: forge.Signer
    certificate: bytes
    shown: bytes
    beacon: str
    node: str = "web1"
    login: str = "root"
    way: Literal["config", "jump", "username"] = "config"
    bound: bool = True
    worker: str = "w1"
    source: str = "198.51.100.4"
    session: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    share: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    def request(self) -> dict[str, Any]:
        transcript = wire.Transcript(
            kex="curve25519-sha256",
            v_c=b"SSH-2.0-OpenSSH_9.2",
            v_s=f"SSH-2.0-Bartizan_0.1 b={self.beacon}".encode(),
            i_c=_proposal("curve25519-sha256", "ext-info-c"),
            i_s=_proposal("curve25519-sha256"),
            k_s=self.shown,
            q_c=self.share,
            q_s=bytes(range(32, 64)),
            k=mpint(2**254 + 12345),
        )
        h = proof.exchange_hash(transcript)
        asked = self._auth_request()
        return wire.SessionRequest(
            worker=self.worker,
            way=self.way,
            node=self.node,
            login=self.login,
            source=self.source,
            transcript=transcript,
            auth_request=asked,
            signature=self.key.sign(string(h) + asked),
            session_key=PublicKey.of(self.session.public_key()).line(),
            possession=sign_ed25519(self.session, POSSESSION + h),
        ).model_dump(mode="json")

    def again(self, **change: Any) -> Visit:
        """Another connection: fresh key shares."""
        return replace(self, **{"share": secrets.token_bytes(32), "session": Ed25519PrivateKey.generate(), **change})

    async def ask(self) -> httpx.Response:
        return await self.bastion.http.post("/v1/sessions", json=self.request())

    def _auth_request(self) -> bytes:
        user = f"{self.login}+{self.node}" if self.way == "username" else self.login
        method = HOSTBOUND if self.bound else PUBLICKEY
        data = b"\x32" + b"".join(string(name.encode()) for name in (user, "ssh-connection", method)) + b"\1"
        data += string(b"ssh-ed25519-cert-v01@openssh.com") + string(self.certificate)
        return data + string(self.shown) if self.bound else data


async def visit(house: House, bastion: BastionKeys, user: str = "alice", **change: Any) -> Visit:
    """*user* signs in and connects to web1 through *bastion*."""
    key = forge.ed25519()
    answer = await house.login(user, key)
    assert answer.status_code == 200, answer.text
    certificate = sshcert.from_line(answer.json()["certificate"]).blob
    beacon = (await bastion.http.post("/v1/bastions/sync", json={"worker": "w1"})).json()["beacon"]
    node = change.get("node", "web1")
    return Visit(bastion, key, certificate, await shown(bastion, node), beacon, **change)


async def shown(bastion: BastionKeys, node: str) -> bytes:
    answer = await bastion.http.post("/v1/bastions/shown-certificates", json={"names": [node]})
    return sshcert.from_line(answer.json()["certificates"][0]).blob


def _proposal(*kex: str) -> bytes:
    lists = [",".join(kex).encode(), b"ssh-ed25519", *[b"aes256-gcm@openssh.com"] * 2, *[b""] * 6]
    return b"\x14" + bytes(16) + b"".join(string(names) for names in lists) + b"\0" + uint32(0)
