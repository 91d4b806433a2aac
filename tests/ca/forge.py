"""
Keys of every kind and certificates of every kind of wrong, byte by byte, for the tests of whoever has to refuse them.

It shares nothing with the encoder of the product but the wire encoding of single values: what that one will not
write is written here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from recordings.sshkey import PublicKey
from recordings.sshwire import mpint, string, uint32, uint64

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
FORK = int(NOW.timestamp())

PRESENT, VERIFIED = 0x01, 0x04
CURVES: dict[str, tuple[type[ec.EllipticCurve], type[hashes.HashAlgorithm]]] = {
    "nistp256": (ec.SECP256R1, hashes.SHA256),
    "nistp384": (ec.SECP384R1, hashes.SHA384),
    "nistp521": (ec.SECP521R1, hashes.SHA512),
}

Private = Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Signer:
    """A private key of any kind that SSH knows; hardware keys are played."""

    algorithm: str
    private: Private
    blob: bytes
    application: bytes | None = None
    flags: int = PRESENT

    @property
    def public(self) -> PublicKey:
        return PublicKey.parse(self.blob)

    def sign(self, data: bytes, algorithm: str | None = None) -> bytes:
        """The signature blob over *data*; *algorithm* names another than the key's usual one (RSA)."""
        name = algorithm or ("rsa-sha2-512" if self.algorithm == "ssh-rsa" else self.algorithm)
        tail = b""
        if self.application is not None:
            tail = bytes([self.flags]) + uint32(7)
            data = hashlib.sha256(self.application).digest() + tail + hashlib.sha256(data).digest()
        return string(name.encode()) + string(self._raw(data, name)) + tail

    def _raw(self, data: bytes, name: str) -> bytes:
        match self.private:
            case Ed25519PrivateKey():
                return self.private.sign(data)
            case ec.EllipticCurvePrivateKey():
                hashed = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[self.private.key_size]
                r, s = decode_dss_signature(self.private.sign(data, ec.ECDSA(hashed)))
                return mpint(r) + mpint(s)
            case rsa.RSAPrivateKey():
                digest: hashes.HashAlgorithm = hashes.SHA512()
                if name != "rsa-sha2-512":
                    digest = hashes.SHA256() if name == "rsa-sha2-256" else hashes.SHA1()
                return self.private.sign(data, padding.PKCS1v15(), digest)


def ed25519(*, application: bytes | None = None, flags: int = PRESENT) -> Signer:
    private = Ed25519PrivateKey.generate()
    name = "ssh-ed25519" if application is None else "sk-ssh-ed25519@openssh.com"
    blob = string(name.encode()) + string(private.public_key().public_bytes_raw())
    return Signer(name, private, blob + (b"" if application is None else string(application)), application, flags)


def ecdsa(curve: str = "nistp256", *, application: bytes | None = None, flags: int = PRESENT) -> Signer:
    private = ec.generate_private_key(CURVES[curve][0]())
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    name = f"ecdsa-sha2-{curve}" if application is None else f"sk-ecdsa-sha2-{curve}@openssh.com"
    blob = string(name.encode()) + string(curve.encode()) + string(point)
    return Signer(name, private, blob + (b"" if application is None else string(application)), application, flags)


@lru_cache
def rsa_key(bits: int = 3072, exponent: int = 65537) -> Signer:
    private = rsa.generate_private_key(exponent, bits)
    numbers = private.public_key().public_numbers()
    return Signer("ssh-rsa", private, rsa_blob(numbers.e, numbers.n))


def rsa_blob(exponent: int, modulus: int) -> bytes:
    return string(b"ssh-rsa") + mpint(exponent) + mpint(modulus)


@lru_cache
def every_kind() -> tuple[Signer, ...]:
    """One key of each kind that we take; made once, RSA is slow to make."""
    curves = tuple(ecdsa(curve) for curve in CURVES)
    return (ed25519(), *curves, rsa_key(), ed25519(application=b"ssh:"), ecdsa(application=b"ssh:"))


def option(name: str, value: str | bytes | None = None) -> tuple[bytes, bytes]:
    """An option with a text as sshd writes it; with raw bytes; or without data."""
    data = b"" if value is None else value if isinstance(value, bytes) else string(value.encode())
    return name.encode(), data


@dataclass(frozen=True)
class Forged:
    """Each field of a certificate as bytes that nobody has checked. As it stands, it is good."""

    subject: Signer = field(default_factory=ed25519)
    serial: int = 1
    kind: int = 1
    key_id: bytes = b"v1;u=alice;n=1"
    principals: Sequence[bytes] = (b"alice",)
    valid_after: int = FORK - 60
    valid_before: int = FORK + 3600
    options: Sequence[tuple[bytes, bytes]] = ()
    extensions: Sequence[tuple[bytes, bytes]] = ((b"permit-pty", b""),)
    reserved: bytes = b""
    nonce: bytes = field(default_factory=lambda: os.urandom(32))
    type: str | None = None
    ca_blob: bytes | None = None
    tail: bytes = b""

    def to_be_signed(self, ca: Signer) -> bytes:
        algorithm = self.subject.algorithm
        name = self.type or f"{algorithm.removesuffix('@openssh.com')}-cert-v01@openssh.com"
        return b"".join(
            (
                string(name.encode()),
                string(self.nonce),
                self.subject.blob[len(string(algorithm.encode())) :],
                uint64(self.serial),
                uint32(self.kind),
                string(self.key_id),
                string(b"".join(string(principal) for principal in self.principals)),
                uint64(self.valid_after),
                uint64(self.valid_before),
                string(packed(self.options)),
                string(packed(self.extensions)),
                string(self.reserved),
                string(ca.blob if self.ca_blob is None else self.ca_blob),
            )
        )

    def signed(self, ca: Signer, algorithm: str | None = None) -> bytes:
        """The certificate, signed by *ca*."""
        to_be_signed = self.to_be_signed(ca)
        return to_be_signed + string(ca.sign(to_be_signed, algorithm)) + self.tail


def packed(options: Sequence[tuple[bytes, bytes]]) -> bytes:
    return b"".join(string(name) + string(data) for name, data in options)
