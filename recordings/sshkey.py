"""
SSH public keys and the signatures made with them. Pure: bytes in, a key or an error out; files are in ``keyfile.py``.

The only place where a public key from outside becomes a value. What is weak, malformed, a certificate or signed
with SHA-1 never gets that far. Sizes are checked before any arithmetic, so that a hostile key costs nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from recordings.sshwire import Reader, WireError, string

ED25519 = "ssh-ed25519"
SK_ED25519 = "sk-ssh-ed25519@openssh.com"
SK_ECDSA = "sk-ecdsa-sha2-nistp256@openssh.com"
RSA = "ssh-rsa"

SIGNATURES: dict[str, tuple[str, ...]] = {
    ED25519: (ED25519,),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    RSA: ("rsa-sha2-512", "rsa-sha2-256"),
    SK_ED25519: (SK_ED25519,),
    SK_ECDSA: (SK_ECDSA,),
}
"""Key algorithm → signature algorithms. ``ssh-rsa`` as a signature is SHA-1, and so is not here."""

MAX_BLOB = 4096
"""Bytes of the longest key or signature: RSA 8192 takes about a quarter."""

MAX_LINE = 98_304
"""Characters of the longest line: a certificate of 64 KiB in base64, and a comment."""

RSA_BITS = range(3072, 8192 + 1)
RSA_EXPONENT = 65537

_COMMENT = re.compile(r"[ -~]*\Z")


class KeyFormatError(ValueError):
    """Not a public key that we take. ``code``: key_type, key_weak, key_invalid or sk_application."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class SignatureError(ValueError):
    """Not a good signature. ``code``: ``algorithm`` if its kind is not accepted, else ``invalid``."""

    def __init__(self, message: str, *, code: str = "invalid") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class SkFlags:
    """What a hardware key says about one signature: was it touched, did it check its user, how often has it signed."""

    present: bool
    verified: bool
    counter: int


_Key = Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key that has been checked. Two are equal if their bytes are."""

    algorithm: str
    blob: bytes
    application: str | None = field(default=None, compare=False)
    """What a hardware key signs for; begins with ``ssh:``. None for other keys."""
    _key: _Key = field(repr=False, compare=False, kw_only=True)

    @classmethod
    def parse(cls, blob: bytes) -> PublicKey:
        """The key in *blob* (RFC 4253 §6.6). KeyFormatError says what is wrong with it."""
        if len(blob) > MAX_BLOB:
            raise KeyFormatError("key_invalid", "the key is too long")
        return _parse(bytes(blob))

    @classmethod
    def from_line(cls, text: str) -> PublicKey:
        """The key in one line of a ``.pub`` file: type, base64, perhaps a comment. Options are not taken."""
        name, blob = split_line(text)
        key = cls.parse(blob)
        if key.algorithm != name:
            raise KeyFormatError("key_invalid", f"the line says {_shown(name)}, the key in it is {key.algorithm}")
        return key

    @classmethod
    def of(cls, key: Ed25519PublicKey) -> PublicKey:
        """A key of our own making."""
        return cls.parse(string(ED25519.encode()) + string(key.public_bytes_raw()))

    def line(self, comment: str = "") -> str:
        """As in a ``.pub`` file, without a newline."""
        return as_line(self.algorithm, self.blob, comment)

    def fingerprint(self) -> str:
        """``SHA256:…``, as ``ssh-keygen -l`` shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode("ascii").rstrip("=")

    def verify(self, data: bytes, signature: bytes, *, allow: Collection[str] | None = None) -> SkFlags | None:
        """Check that this key signed *data*; SignatureError if not. A hardware key's flags are given back.

        *allow* narrows the signature algorithms further. A hardware key must have been touched.
        """
        if len(signature) > MAX_BLOB:
            raise SignatureError("the signature is too long")
        try:
            reader = Reader(signature)
            algorithm = reader.string().decode("ascii", "replace")
            if algorithm not in SIGNATURES[self.algorithm] or (allow is not None and algorithm not in allow):
                message = f"signatures of type {_shown(algorithm)} are not accepted for {self.algorithm}"
                raise SignatureError(message, code="algorithm")
            value = reader.string()
            if self.application is not None:
                return self._verify_hardware(data, value, reader)
            reader.end()
            self._verify_raw(data, value, algorithm)
        except (WireError, InvalidSignature) as error:
            raise SignatureError("the signature does not match") from error
        return None

    def _verify_hardware(self, data: bytes, value: bytes, reader: Reader) -> SkFlags:
        """PROTOCOL.u2f: the device signs hashes of the application and the data, between them flags and counter."""
        assert self.application is not None
        tail = reader.rest()
        if len(tail) != 5:
            raise WireError("a hardware signature ends with five bytes")
        flags = SkFlags(bool(tail[0] & 0x01), bool(tail[0] & 0x04), int.from_bytes(tail[1:], "big"))
        signed = hashlib.sha256(self.application.encode()).digest() + tail + hashlib.sha256(data).digest()
        self._verify_raw(signed, value, self.algorithm)
        if not flags.present:
            raise SignatureError("the hardware key was not touched")
        return flags

    def _verify_raw(self, data: bytes, value: bytes, algorithm: str) -> None:
        match self._key:
            case Ed25519PublicKey():
                self._key.verify(value, data)
            case ec.EllipticCurvePublicKey():
                reader = Reader(value)
                r, s = reader.mpint(), reader.mpint()
                reader.end()
                self._key.verify(encode_dss_signature(r, s), data, ec.ECDSA(_CURVE_HASHES[self._key.curve.name]))
            case rsa.RSAPublicKey():
                size = (self._key.key_size + 7) // 8
                if not 0 < len(value) <= size:
                    raise WireError("the signature is not as long as the key")
                # Some clients leave out leading zeros; OpenSSH puts them back, and so do we.
                hashed = hashes.SHA512() if algorithm == "rsa-sha2-512" else hashes.SHA256()
                self._key.verify(value.rjust(size, b"\0"), data, padding.PKCS1v15(), hashed)


@lru_cache(maxsize=512)
def _parse(blob: bytes) -> PublicKey:
    """The same few keys come again and again (CAs, people, bastions), and checking a point takes 0.1 ms."""
    reader = Reader(blob)
    try:
        algorithm = reader.string().decode("ascii", "replace")
        if algorithm.endswith(("-cert-v00@openssh.com", "-cert-v01@openssh.com")):
            raise KeyFormatError("key_type", "this is a certificate, not a plain public key")
        read = _READERS.get(algorithm)
        if read is None:
            raise KeyFormatError("key_type", f"keys of type {_shown(algorithm)} are not accepted")
        key = read(reader)
        application = _application(reader) if algorithm in (SK_ED25519, SK_ECDSA) else None
        reader.end()
    except WireError as error:
        raise KeyFormatError("key_invalid", f"the key is malformed: {error}") from error
    return PublicKey(algorithm, blob, application, _key=key)


def sign_ed25519(private: Ed25519PrivateKey, data: bytes) -> bytes:
    """The SSH signature blob of *private* over *data*."""
    return string(ED25519.encode()) + string(private.sign(data))


def split_line(text: str) -> tuple[str, bytes]:
    """Type and bytes of one OpenSSH line; KeyFormatError if it has another shape."""
    if len(text) > MAX_LINE or "\n" in text.rstrip("\n"):
        raise KeyFormatError("key_invalid", "expected one line with one key")
    fields = text.split(maxsplit=2)
    if len(fields) < 2:
        raise KeyFormatError("key_invalid", "expected a key type and base64, as in a .pub file")
    try:
        text64 = fields[1].encode("ascii")
        blob = base64.b64decode(text64, validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise KeyFormatError("key_invalid", "the key is not base64") from error
    if base64.b64encode(blob) != text64:
        raise KeyFormatError("key_invalid", "the key's base64 is not canonical")
    return fields[0], blob


def as_line(name: str, blob: bytes, comment: str = "") -> str:
    """One OpenSSH line. A comment is printable ASCII, so that it cannot start another line."""
    if not _COMMENT.match(comment):
        raise ValueError("a comment is printable ASCII")
    return f"{name} {base64.b64encode(blob).decode('ascii')} {comment}".rstrip()


def _shown(name: str) -> str:
    """A name from outside, short and harmless."""
    return ascii(name[:64])


def _application(reader: Reader) -> str:
    """Hardware keys for web sites must not open shells: ``ssh:`` or ``ssh:…``, nothing else."""
    value = reader.string()
    if not value.startswith(b"ssh:") or len(value) > 256 or any(not 0x21 <= byte <= 0x7E for byte in value):
        raise KeyFormatError("sk_application", "the hardware key was not made for SSH")
    return value.decode("ascii")


# --- reading, one kind at a time --------------------------------------------------------------------------------

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_SMALL_ORDER = frozenset(
    {
        0,
        1,
        _P - 1,
        2707385501144840649318225287225658788936804267575313519463743609750303402022,
        55188659117513257062467267217118295137698188065244968500265048394206261417927,
    }
)
"""The y of the eight points whose multiples are only eight points: with them anyone can make signatures."""


def _ed25519(reader: Reader) -> Ed25519PublicKey:
    value = reader.string()
    if len(value) != 32:
        raise WireError("an Ed25519 key has 32 bytes")
    y = int.from_bytes(value, "little") & (2**255 - 1)
    if y >= _P or y in _SMALL_ORDER:
        raise KeyFormatError("key_invalid", "the Ed25519 key is not a usable point")
    # RFC 8032 §5.1.3: x² = (y²-1) / (d·y²+1) must have a root; u/v is a square just when u·v is.
    square = y * y % _P
    if pow((square - 1) * (_D * square + 1) % _P, (_P - 1) // 2, _P) != 1:
        raise KeyFormatError("key_invalid", "the Ed25519 key is not on the curve")
    return Ed25519PublicKey.from_public_bytes(value)


_CURVES: dict[str, tuple[ec.EllipticCurve, int]] = {
    "nistp256": (ec.SECP256R1(), 65),
    "nistp384": (ec.SECP384R1(), 97),
    "nistp521": (ec.SECP521R1(), 133),
}
_CURVE_HASHES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


def _ecdsa(curve: str) -> Callable[[Reader], ec.EllipticCurvePublicKey]:
    def read(reader: Reader) -> ec.EllipticCurvePublicKey:
        if reader.string() != curve.encode():
            raise WireError("the curve is not the one of the key type")
        kind, size = _CURVES[curve]
        point = reader.string()
        if len(point) != size or point[0] != 4:
            raise WireError("the point is not in uncompressed form")
        try:
            return ec.EllipticCurvePublicKey.from_encoded_point(kind, point)
        except ValueError as error:
            raise KeyFormatError("key_invalid", "the point is not on the curve") from error

    return read


def _rsa(reader: Reader) -> rsa.RSAPublicKey:
    exponent, modulus = reader.mpint(), reader.mpint()
    if modulus.bit_length() not in RSA_BITS:
        raise KeyFormatError("key_weak", f"RSA keys have {RSA_BITS[0]} to {RSA_BITS[-1]} bits")
    if exponent != RSA_EXPONENT or not modulus & 1:
        raise KeyFormatError("key_weak", "the RSA key has an unusual exponent or an even modulus")
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as error:
        raise KeyFormatError("key_invalid", "the RSA key is not usable") from error


_READERS: dict[str, Callable[[Reader], _Key]] = {
    ED25519: _ed25519,
    "ecdsa-sha2-nistp256": _ecdsa("nistp256"),
    "ecdsa-sha2-nistp384": _ecdsa("nistp384"),
    "ecdsa-sha2-nistp521": _ecdsa("nistp521"),
    RSA: _rsa,
    SK_ED25519: _ed25519,
    SK_ECDSA: _ecdsa("nistp256"),
}
