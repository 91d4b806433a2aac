"""
The private keys: four CAs, the key that countersigns recordings, and the secret behind the beacons.

Only ``ca/app.py`` opens them and only ``ca/issue.py`` signs with them. A CA signs a ``CertPlan`` and nothing else,
of its own kind and within its own limits, and believes its own signature only after verifying it like a stranger's.
"""

from __future__ import annotations

import hmac
import secrets
from datetime import UTC, datetime, timedelta
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ca import sshcert
from ca.certificate import CA, CertPlan
from ca.errors import SignerFault
from ca.sshcert import Certificate, CertificateError
from ca.vault import Vault
from recordings import sshsig
from recordings.sshkey import PublicKey, sign_ed25519

RECORDING_NAMESPACE = "bartizan-recording"
WINDOW = 30
"""Seconds that one beacon is current."""
BEACONS_KEPT = 5
"""How many windows back a beacon is still recognised; its age decides whether it is accepted."""


class Signer(Protocol):
    """What makes a signature blob (RFC 4253 §6.6) over bytes."""

    def __call__(self, data: bytes) -> bytes: ...


class CertificateAuthority:
    """One CA key."""

    def __init__(self, name: CA, public_key: PublicKey, sign: Signer) -> None:
        self.name = name
        self.public_key = public_key
        self._sign = sign

    def encode(self, plan: CertPlan) -> bytes:
        """The bytes to be signed for *plan*. A plan for another CA is refused: one key, one use (KEY-12)."""
        if plan.ca is not self.name:
            raise SignerFault(f"the {self.name} CA does not sign for the {plan.ca} CA", code="invariant")
        return plan.to_be_signed(self.public_key, nonce=secrets.token_bytes(32))

    def sign(self, plan: CertPlan, to_be_signed: bytes) -> Certificate:
        """The certificate over *to_be_signed*, parsed back, verified, and found to say what *plan* says."""
        blob = sshcert.with_signature(to_be_signed, self._sign(to_be_signed))
        bound_to = plan.critical_options.get("source-address", "").partition(",")[0].partition("/")[0]
        try:
            made = sshcert.verify(
                blob, trusted=[self.public_key], kind=plan.kind, now=plan.valid_after, source=bound_to or None
            )
        except CertificateError as error:
            raise SignerFault("what the key signed does not verify") from error
        said = (made.serial, made.public_key.blob, made.key_id, made.principals)
        if said != (plan.serial, plan.public_key.blob, plan.key_id, plan.principals):
            raise SignerFault("what the key signed is another certificate")
        return made


class KeyRing:
    """All keys of one cluster, opened."""

    def __init__(self, vault: Vault) -> None:
        self.authorities: dict[CA, CertificateAuthority] = {}
        for name in CA:
            private = _ed25519(vault, f"{name}-ca")
            self.authorities[name] = CertificateAuthority(name, PublicKey.of(private.public_key()), _signer(private))
        self._recorder = _ed25519(vault, "recording")
        self._beacon = vault.load_or_make("beacon", lambda: secrets.token_bytes(32))
        self._forms = vault.load_or_make("forms", lambda: secrets.token_bytes(32))

    @property
    def recorder(self) -> PublicKey:
        return PublicKey.of(self._recorder.public_key())

    def countersign(self, manifest: bytes) -> str:
        """The authority's armored signature over a manifest."""
        return sshsig.sign(self._recorder, manifest, namespace=RECORDING_NAMESPACE)

    def beacon(self, now: datetime) -> str:
        """The beacon of this moment: the same after a restart, and on every replica."""
        return self._beacon_of(int(now.timestamp()) // WINDOW)

    def beacon_age(self, beacon: str, now: datetime) -> timedelta | None:
        """How long ago *beacon* was first given out; None for one that is not ours, or long gone."""
        current = int(now.timestamp()) // WINDOW
        for window in range(current, current - BEACONS_KEPT - 1, -1):
            if hmac.compare_digest(self._beacon_of(window).encode(), beacon.encode("ascii", "replace")):
                return now - datetime.fromtimestamp(window * WINDOW, UTC)
        return None

    def form_token(self, about: str) -> str:
        """What a page's form must carry to show that the page was ours."""
        return hmac.digest(self._forms, about.encode(), "sha256").hex()

    def _beacon_of(self, window: int) -> str:
        return hmac.digest(self._beacon, str(window).encode(), "sha256")[:16].hex()


def _ed25519(vault: Vault, name: str) -> Ed25519PrivateKey:
    def make() -> bytes:
        return Ed25519PrivateKey.generate().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())

    return Ed25519PrivateKey.from_private_bytes(vault.load_or_make(name, make))


def _signer(private: Ed25519PrivateKey) -> Signer:
    def sign(data: bytes) -> bytes:
        return sign_ed25519(private, data)

    return sign
