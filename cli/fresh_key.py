"""The key pair of one sign-in. Made here and nowhere else; only who stores it asks for its private half."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from recordings import sshsig
from recordings.sshkey import PublicKey

NAMESPACE = "bartizan-enrol"


@dataclass(frozen=True, slots=True)
class FreshKey:
    """An Ed25519 key that nobody has seen yet."""

    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate, repr=False)

    @property
    def public(self) -> PublicKey:
        return PublicKey.of(self.private.public_key())

    @property
    def line(self) -> str:
        """The public half, as the authority wants it."""
        return self.public.line()

    def possession(self, nonce: str) -> str:
        """The proof, good for *nonce* alone, that we hold the private half."""
        return sshsig.sign(self.private, nonce.encode("ascii"), namespace=NAMESPACE)

    def file(self) -> str:
        """The private half, as OpenSSH reads it from a file."""
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode("ascii")
