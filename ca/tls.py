"""
X.509 for our own doors: the root behind the web certificate, whose public key people pin, and the root behind the
client certificates of bastions. Only shapes: the private keys are made here and kept by ``ca/keys.py``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ca.errors import InvalidInput

ROOT_LIFE = timedelta(days=3650)
WEB_LIFE = timedelta(days=90)
BASTION_LIFE = timedelta(days=30)
SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Root:
    """A root's key and certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, name: str, now: datetime) -> Root:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        builder = (
            _builder(subject, subject, key.public_key(), now, ROOT_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        return cls(key, builder.sign(key, hashes.SHA256()))

    @classmethod
    def load(cls, pem: bytes) -> Root:
        key = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("a root's key is ECDSA")
        return cls(key, x509.load_pem_x509_certificate(pem))

    def dump(self) -> bytes:
        """Key and certificate as PEM, to be sealed."""
        return private_pem(self.key) + self.pem.encode()

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def pin(self) -> str:
        """What people compare: the SHA-256 of the public key info."""
        return f"sha256:{key_digest(self.certificate)}"


def key_digest(certificate: x509.Certificate) -> str:
    """SHA-256 of the public key info, in hex."""
    info = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(info).hexdigest()


def private_pem(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    sealing: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        sealing = serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealing)


def web_certificate(root: Root, names: tuple[str, ...], now: datetime) -> tuple[ec.EllipticCurvePrivateKey, str]:
    """A new key and the chain (certificate, root) for the web door."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(_name(names[0]), root.certificate.subject, key.public_key(), now, WEB_LIFE)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key()), critical=False)
    )
    certificate = builder.sign(root.key, hashes.SHA256())
    return key, certificate.public_bytes(serialization.Encoding.PEM).decode() + root.pem


def bastion_certificate(root: Root, request_pem: str, bastion_id: str, now: datetime) -> tuple[str, str]:
    """A client certificate for the key of a PKCS#10 request, and that key's digest. Only the key is taken over."""
    try:
        request = x509.load_pem_x509_csr(request_pem.encode())
        key = request.public_key()
        sound = request.is_signature_valid
    except (ValueError, InvalidSignature, TypeError) as error:
        raise InvalidInput("tls_request: expected a PEM certificate request") from error
    if not sound or not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        raise InvalidInput("tls_request: its signature does not hold, or its key is of no known kind")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < 3072:
        raise InvalidInput("tls_request: the key is too weak", code="key_weak")
    builder = (
        _builder(_name(bastion_id), root.certificate.subject, key, now, BASTION_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key()), critical=False)
    )
    certificate = builder.sign(root.key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), key_digest(certificate)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + life)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, sign_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )
