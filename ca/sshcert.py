"""
OpenSSH certificates as bytes: one strict codec and one strict verifier, used by authority and bastion alike. Pure.

Where sshd, asyncssh and cryptography disagree about a certificate, the one that refuses is right here
(tests/journeys/test_certificate_differential.py holds the table). ``parse`` says what a certificate claims;
only ``verify`` says that it may be believed. The format is OpenSSH's PROTOCOL.certkeys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from types import MappingProxyType

from ca.errors import NotSignedIn
from recordings.sshkey import (
    SIGNATURES,
    KeyFormatError,
    PublicKey,
    SignatureError,
    as_line,
    split_line,
)
from recordings.sshwire import Reader, WireError, string, uint32, uint64


class CertKind(IntEnum):
    """Whom a certificate speaks for."""

    USER = 1
    HOST = 2


class CertificateError(NotSignedIn):
    """The certificate is not believed. ``code`` is stable, one for each step of ``parse`` and ``verify``.

    ``certificate`` is set once the signature of a trusted CA has been checked, so that its words can be shown.
    """

    def __init__(self, code: str, message: str, *, certificate: Certificate | None = None) -> None:
        super().__init__(message, code=code)
        self.certificate = certificate


MAX_BLOB = 65_536
MAX_PRINCIPALS = 256
NONCE_BYTES = 32
MAX_LIFE: Mapping[CertKind, timedelta] = {
    CertKind.USER: timedelta(hours=24, seconds=60),
    CertKind.HOST: timedelta(days=365, seconds=60),
}
"""The longest life that is believed when the caller names none: the longest we sign, and the backdating."""

KEY_ID = re.compile(r"[!-~]{1,256}\Z")
USER_PRINCIPAL = re.compile(r"[a-z_][a-z0-9_.@-]{0,127}\Z")
HOST_PRINCIPAL = re.compile(r"[a-z0-9*?][a-z0-9.:_*?-]{0,254}\Z")

CRITICAL_OPTIONS = frozenset({"force-command", "source-address", "verify-required"})
"""All there are. Any other means something that we would not enforce."""

FLAGS = frozenset(
    {
        "no-touch-required",
        "permit-X11-forwarding",
        "permit-agent-forwarding",
        "permit-port-forwarding",
        "permit-pty",
        "permit-user-rc",
    }
)
"""Extensions that we know; none of them carries data. Others are ignored, as sshd does."""

CERTIFICATE_TYPES: Mapping[str, str] = {
    algorithm: f"{algorithm.removesuffix('@openssh.com')}-cert-v01@openssh.com" for algorithm in SIGNATURES
}
"""Key algorithm → type of its certificates."""

CA_SIGNATURES = frozenset(name for names in SIGNATURES.values() for name in names)
"""Signatures we believe of a CA. ``ssh-rsa`` is SHA-1 and not among them."""

_ALGORITHMS = {name: algorithm for algorithm, name in CERTIFICATE_TYPES.items()}
_KEY_FIELDS = dict.fromkeys(SIGNATURES, 1) | {
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "ssh-rsa": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}
"""How many strings a public key has after its type; numbers are strings, too (RFC 4251 §5)."""


_LAST_SECOND = 253_402_300_799
"""The end of the year 9999, where ``datetime`` ends."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate claims. Times are Unix seconds: valid from ``valid_after`` to just before ``valid_before``."""

    kind: CertKind
    public_key: PublicKey
    serial: int
    key_id: str
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    critical_options: Mapping[str, str]
    """Name → value; ``verify-required`` has none (an empty text)."""
    extensions: Mapping[str, bytes]
    """Name → raw data; empty for all that we know."""
    ca_key: PublicKey
    blob: bytes
    """The whole certificate, signature included."""

    @property
    def type(self) -> str:
        return CERTIFICATE_TYPES[self.public_key.algorithm]

    @property
    def signed(self) -> bytes:
        """What its CA signed: all but the signature."""
        return _split(self.blob)[1]

    @property
    def expires(self) -> datetime:
        """The first moment at which it is no longer valid."""
        return datetime.fromtimestamp(min(self.valid_before, _LAST_SECOND), UTC)

    def line(self, comment: str = "") -> str:
        """As in a ``-cert.pub`` file, without a newline."""
        return as_line(self.type, self.blob, comment)


# --- writing ------------------------------------------------------------------------------------------------------


def encode(
    *,
    kind: CertKind,
    public_key: PublicKey,
    serial: int,
    key_id: str,
    principals: Iterable[str],
    valid_after: int,
    valid_before: int,
    critical_options: Mapping[str, str],
    extensions: Iterable[str],
    ca_key: PublicKey,
    nonce: bytes,
) -> bytes:
    """The bytes that a CA has to sign. What ``parse`` would refuse cannot be written: ValueError."""
    names = tuple(principals)
    flags = tuple(sorted(extensions))
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"the nonce has {NONCE_BYTES} bytes")
    if not set(critical_options) <= CRITICAL_OPTIONS or not set(flags) <= FLAGS or len(set(flags)) != len(flags):
        raise ValueError("only known options and extensions are written, each once and in its own section")
    if critical_options.get("verify-required"):
        raise ValueError("verify-required has no value")
    if not 1 <= len(names) <= MAX_PRINCIPALS or not all(names):
        raise ValueError("a certificate without principals would open every account")
    options = {
        name: b"" if name == "verify-required" else string(value.encode("utf-8"))
        for name, value in sorted(critical_options.items())
    }
    algorithm = public_key.algorithm
    return b"".join(
        (
            string(CERTIFICATE_TYPES[algorithm].encode("ascii")),
            string(nonce),
            public_key.blob[len(string(algorithm.encode("ascii"))) :],
            uint64(serial),
            uint32(kind),
            string(key_id.encode("utf-8")),
            string(b"".join(string(name.encode("utf-8")) for name in names)),
            uint64(valid_after),
            uint64(valid_before),
            string(_packed(options)),
            string(_packed(dict.fromkeys(flags, b""))),
            string(b""),
            string(ca_key.blob),
        )
    )


def with_signature(to_be_signed: bytes, signature: bytes) -> bytes:
    """The certificate: what was signed, then the signature blob."""
    return to_be_signed + string(signature)


def _packed(options: Mapping[str, bytes]) -> bytes:
    return b"".join(string(name.encode("ascii")) + string(data) for name, data in options.items())


# --- reading ------------------------------------------------------------------------------------------------------


def from_line(text: str) -> Certificate:
    """The certificate in one line of a ``-cert.pub`` file. Parsed, not verified."""
    try:
        name, blob = split_line(text)
    except KeyFormatError as error:
        raise CertificateError("parse", f"not a certificate line: {error}") from error
    certificate = parse(blob)
    if certificate.type != name:
        raise CertificateError("parse", "the line names another type than the certificate in it")
    return certificate


def parse(blob: bytes) -> Certificate:
    """What the bytes claim. Each certificate has one spelling; any other is a CertificateError, usually ``parse``.

    A key that we do not take keeps its own code (``key_type``, ``key_weak``, ``key_invalid``, ``sk_application``),
    a critical option that we do not know is ``option_unknown``.
    """
    return _split(blob)[0]


def _split(blob: bytes) -> tuple[Certificate, bytes, bytes]:
    """The certificate, the bytes that were signed, and the signature."""
    if len(blob) > MAX_BLOB:
        raise CertificateError("parse", "the certificate is too long")
    reader = Reader(blob)
    try:
        public_key = _subject(reader)
        serial = reader.uint64()
        kind = _kind(reader.uint32())
        key_id = _text(reader.string(), "the key id")
        principals = _principals(reader.string())
        valid_after, valid_before = reader.uint64(), reader.uint64()
        critical = _options(reader.string())
        extensions = _options(reader.string())
        reserved, ca_blob, signature = reader.string(), reader.string(), reader.string()
        reader.end()
        certificate = Certificate(
            kind=kind,
            public_key=public_key,
            serial=serial,
            key_id=key_id,
            principals=principals,
            valid_after=valid_after,
            valid_before=valid_before,
            critical_options=MappingProxyType({name: _critical(name, data) for name, data in critical.items()}),
            extensions=MappingProxyType(extensions),
            ca_key=PublicKey.parse(ca_blob),
            blob=bytes(blob),
        )
    except KeyFormatError as error:
        raise CertificateError(error.code, str(error)) from error
    except WireError as error:
        raise CertificateError("parse", f"the certificate is malformed: {error}") from error
    if reserved:
        raise CertificateError("parse", "the certificate uses a reserved field")
    if any(extensions[name] for name in extensions.keys() & FLAGS):
        raise CertificateError("parse", "an extension that is only a flag carries data")
    return certificate, blob[: -len(string(signature))], signature


def _subject(reader: Reader) -> PublicKey:
    """The certified key, put together again as a plain key, so that the same strict reader checks it."""
    name = reader.string().decode("ascii", "replace")
    algorithm = _ALGORITHMS.get(name)
    if algorithm is None:
        raise CertificateError("parse", "not a certificate of a type that we know")
    if not 16 <= len(reader.string()) <= 64:
        raise CertificateError("parse", "the nonce has an unusual length")
    fields = (reader.string() for _ in range(_KEY_FIELDS[algorithm]))
    return PublicKey.parse(string(algorithm.encode("ascii")) + b"".join(string(field) for field in fields))


def _kind(value: int) -> CertKind:
    try:
        return CertKind(value)
    except ValueError as error:
        raise CertificateError("parse", "the certificate is for neither a user nor a host") from error


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CertificateError("parse", f"{what} is not UTF-8") from error


def _principals(data: bytes) -> tuple[str, ...]:
    reader = Reader(data)
    names: list[str] = []
    while reader.more():
        if len(names) == MAX_PRINCIPALS:
            raise CertificateError("parse", f"more than {MAX_PRINCIPALS} principals")
        names.append(_text(reader.string(), "a principal"))
    return tuple(names)


def _options(data: bytes) -> dict[str, bytes]:
    """Pairs of name and data, sorted by name, each name once (PROTOCOL.certkeys)."""
    reader = Reader(data)
    options: dict[str, bytes] = {}
    last = b""
    while reader.more():
        name, value = reader.string(), reader.string()
        if name <= last:
            raise CertificateError("parse", "options are not sorted, or one comes twice")
        last = name
        options[_text(name, "an option's name")] = value
    return options


def _critical(name: str, data: bytes) -> str:
    """The value of a critical option: one string and nothing behind it, or nothing for a flag."""
    if name not in CRITICAL_OPTIONS:
        raise CertificateError("option_unknown", f"critical option {name[:64]!a} is not known")
    if name == "verify-required":
        if data:
            raise CertificateError("parse", "verify-required carries data")
        return ""
    reader = Reader(data)
    value = _text(reader.string(), "an option's value")
    reader.end()
    return value


# --- believing ----------------------------------------------------------------------------------------------------


def verify(
    blob: bytes,
    *,
    trusted: Iterable[PublicKey],
    kind: CertKind,
    now: datetime,
    principal: str | None = None,
    source: str | None = None,
    max_life: timedelta | None = None,
    host_pattern: bool = False,
) -> Certificate:
    """The certificate in *blob*, if one of the *trusted* CAs signed it and it says what is asked; else an error.

    *principal* None: it may name anyone, and the caller looks. *source* is the address of the peer: a certificate
    bound to addresses is refused where none is given. *max_life* None: the longest that we sign. *host_pattern*
    lets ``*`` and ``?`` in a host's principals stand for part of one DNS label.

    Two promises of a certificate only its caller can keep: ``force-command`` must be carried out, and with
    ``verify-required`` the user's signature must carry the flag (``SkFlags.verified``).

    The plan:
    1. The bytes are a certificate in its only spelling, and every key in it is one that we take.
    2. It is of the kind that was asked for.
    3. Its CA is trusted, by the whole key.
    4. The CA's signature is of a kind that we believe, and it is good. From here on the words are the CA's.
    5. Serial, key id and principals are as we write them; at least one principal.
    6. It lives, and not for longer than we sign.
    7. Its options fit its kind, and its addresses hold the peer.
    8. It names the principal.
    """
    # 1.
    certificate, signed, signature = _split(blob)
    # 2.
    if certificate.kind is not kind:
        raise CertificateError("kind", f"this is a {certificate.kind.name.lower()} certificate")
    # 3.
    ca_key = next((key for key in trusted if key.blob == certificate.ca_key.blob), None)
    if ca_key is None:
        raise CertificateError("ca_untrusted", "the certificate was signed by a CA that is not trusted here")
    # 4.
    try:
        ca_key.verify(signed, signature, allow=CA_SIGNATURES)
    except SignatureError as error:
        code = "ca_alg" if error.code == "algorithm" else "sig_bad"
        raise CertificateError(code, f"the CA's signature is refused: {error}") from error
    # 5. to 8.
    _check_words(certificate)
    _check_life(certificate, now, MAX_LIFE[kind] if max_life is None else max_life)
    _check_options(certificate, source)
    if principal is not None and not _names(certificate, principal, host_pattern=host_pattern):
        raise CertificateError("principal_mismatch", "the certificate names somebody else", certificate=certificate)
    return certificate


def _check_words(certificate: Certificate) -> None:
    if certificate.serial < 1:
        raise CertificateError("serial", "serial numbers count from 1", certificate=certificate)
    if not KEY_ID.match(certificate.key_id):
        raise CertificateError("key_id", "the key id is not printable ASCII", certificate=certificate)
    if not certificate.principals:
        raise CertificateError(
            "principals_empty", "a certificate without principals is good for nobody", certificate=certificate
        )
    pattern = USER_PRINCIPAL if certificate.kind is CertKind.USER else HOST_PRINCIPAL
    if not all(pattern.match(name) for name in certificate.principals):
        raise CertificateError("principal_invalid", "a principal is not a name", certificate=certificate)


def _check_life(certificate: Certificate, now: datetime, max_life: timedelta) -> None:
    at = now.timestamp()
    if certificate.valid_before <= certificate.valid_after:
        raise CertificateError("validity", "the certificate ends before it begins", certificate=certificate)
    if certificate.valid_before - certificate.valid_after > max_life.total_seconds():
        raise CertificateError(
            "life_too_long", "the certificate lives longer than is believed", certificate=certificate
        )
    if at < certificate.valid_after:
        raise CertificateError("not_yet_valid", "the certificate is not valid yet", certificate=certificate)
    if at >= certificate.valid_before:
        when = certificate.expires.strftime("%Y-%m-%d %H:%M:%S UTC")
        raise CertificateError("expired", f"certificate expired at {when}", certificate=certificate)


def _check_options(certificate: Certificate, source: str | None) -> None:
    options = certificate.critical_options
    if certificate.kind is CertKind.HOST and options:
        raise CertificateError("option_unknown", "a host certificate has no critical options", certificate=certificate)
    if "verify-required" in options and certificate.public_key.application is None:
        raise CertificateError("option_unknown", "only a hardware key can verify its user", certificate=certificate)
    if "source-address" in options and not _within(options["source-address"], source):
        raise CertificateError(
            "source_address", "the certificate is not for use from this address", certificate=certificate
        )


def _names(certificate: Certificate, principal: str, *, host_pattern: bool) -> bool:
    if host_pattern and certificate.kind is CertKind.HOST:
        return any(host_matches(pattern, principal) for pattern in certificate.principals)
    return principal in certificate.principals


def host_matches(pattern: str, host: str) -> bool:
    """Whether *pattern* stands for *host*; ``*`` and ``?`` never reach over a dot, and alone they stand for nothing.

    ``*.example.com`` is a.example.com, but not a.b.example.com.
    """
    if pattern.strip("*?.") == "":
        return False
    translated = re.escape(pattern).replace(r"\*", "[^.:]*").replace(r"\?", "[^.:]")
    return re.fullmatch(translated, host) is not None


# --- addresses ----------------------------------------------------------------------------------------------------

MAX_NETWORKS = 256
_NETWORK = re.compile(r"[0-9a-fA-F.:]{2,45}(/[0-9]{1,3})?\Z")


def source_networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks of a ``source-address``; ValueError for anything that sshd would not read, or read otherwise."""
    entries = text.split(",")
    if len(entries) > MAX_NETWORKS or not all(_NETWORK.match(entry) for entry in entries):
        raise ValueError("not a list of addresses")
    return tuple(ip_network(entry) for entry in entries)


def peer_address(text: str) -> IPv4Address | IPv6Address:
    """A peer's address; an IPv4 address in IPv6 clothes is the IPv4 address."""
    address = ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def _within(networks: str, source: str | None) -> bool:
    """Whether *source* is in one of them. What cannot be read holds nobody."""
    try:
        listed = source_networks(networks)
        address = peer_address(source) if source is not None else None
    except ValueError:
        return False
    return address is not None and any(address in network for network in listed)


def verify_signature(certificate: Certificate, algorithm: str, data: bytes, signature: bytes) -> None:
    """Check that the holder of *certificate* signed *data*, with the public key algorithm that the request names.

    CertificateError: ``algorithm`` (it does not go with the certificate, RFC 8332 §2), ``sig_bad``, or
    ``verify_required`` (a hardware key that did not verify its user, PROTOCOL.certkeys).
    """
    try:
        flags = certificate.public_key.verify(data, signature, allow=(_signature_algorithm(certificate, algorithm),))
    except SignatureError as error:
        raise CertificateError("sig_bad", str(error), certificate=certificate) from error
    if "verify-required" in certificate.critical_options and (flags is None or not flags.verified):
        raise CertificateError("verify_required", "the hardware key did not verify its user", certificate=certificate)


def _signature_algorithm(certificate: Certificate, name: str) -> str:
    if certificate.public_key.algorithm != "ssh-rsa":
        if name == certificate.type:
            return certificate.public_key.algorithm
    elif name in ("rsa-sha2-512-cert-v01@openssh.com", "rsa-sha2-256-cert-v01@openssh.com"):
        return name.removesuffix("-cert-v01@openssh.com")
    raise CertificateError("algorithm", f"algorithm {name[:64]!a} does not go with the certificate")
