"""
Signatures over files and messages as ``ssh-keygen -Y`` makes and checks them (OpenSSH's PROTOCOL.sshsig). Pure.

A signature is good for one namespace only, so that what was signed for one purpose is worth nothing for another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recordings.sshkey import KeyFormatError, PublicKey, SignatureError, sign_ed25519
from recordings.sshwire import Reader, WireError, string, uint32

__all__ = ["SignatureError", "sign", "verify"]

MAGIC = b"SSHSIG"
VERSION = 1
BEGIN = "-----BEGIN SSH SIGNATURE-----"
END = "-----END SSH SIGNATURE-----"
LINE = 70
MAX_ARMORED = 16_384
HASHES = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}


def sign(key: Ed25519PrivateKey, message: bytes, *, namespace: str) -> str:
    """The armored signature of *key* over *message*, as ``ssh-keygen -Y sign -n NAMESPACE`` writes it."""
    signature = sign_ed25519(key, _signed(message, namespace, b"sha512"))
    public = PublicKey.of(key.public_key()).blob
    fields = (public, namespace.encode("ascii"), b"", b"sha512", signature)
    body = MAGIC + uint32(VERSION) + b"".join(string(field) for field in fields)
    text = base64.b64encode(body).decode("ascii")
    lines = [text[at : at + LINE] for at in range(0, len(text), LINE)]
    return "\n".join([BEGIN, *lines, END, ""])


def verify(armored: str, message: bytes, *, namespace: str) -> bytes:
    """The public key blob that signed *message* for *namespace*. Whether to trust it is for the caller."""
    # 1. Armor and fields have exactly the one shape; nothing is left over.
    reader = Reader(_unarmor(armored))
    try:
        magic, version = bytes(reader.byte() for _ in MAGIC), reader.uint32()
        public, signed_for, reserved, hash_name, signature = (reader.string() for _ in range(5))
        reader.end()
    except WireError as error:
        raise SignatureError(f"the signature is malformed: {error}") from error
    if magic != MAGIC or version != VERSION or reserved:
        raise SignatureError("the signature is of a version that we do not know")
    # 2. It was made for this purpose, with a hash that we trust.
    if not namespace or signed_for != namespace.encode("ascii"):
        raise SignatureError("the signature was made for another purpose", code="namespace")
    if hash_name not in HASHES:
        raise SignatureError("the signature uses an unknown hash", code="algorithm")
    # 3. The key is one that we take (never a certificate), and it signed this.
    try:
        key = PublicKey.parse(public)
    except KeyFormatError as error:
        raise SignatureError(f"the signature's key is refused: {error}") from error
    key.verify(_signed(message, namespace, hash_name), signature)
    return key.blob


def _signed(message: bytes, namespace: str, hash_name: bytes) -> bytes:
    """What is really signed: the purpose and a hash of the message."""
    digest = HASHES[hash_name](message).digest()
    return MAGIC + b"".join(string(field) for field in (namespace.encode("ascii"), b"", hash_name, digest))


def _unarmor(armored: str) -> bytes:
    if len(armored) > MAX_ARMORED:
        raise SignatureError("the signature is too long")
    lines = armored.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if len(lines) < 3 or lines[0] != BEGIN or lines[-1] != END:
        raise SignatureError("the signature is not armored as ssh-keygen does it")
    try:
        text = "".join(lines[1:-1]).encode("ascii")
        body = base64.b64decode(text, validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise SignatureError("the signature is not base64") from error
    if base64.b64encode(body) != text:
        raise SignatureError("the signature's base64 is not canonical")
    return body
