"""
Checks that a person has just asked for this node and login, from what she signed herself. Pure.

The bastion that hands in the proof is not believed: all that counts is computed here, from the transcript of the
key exchange and from bytes that the person's key signed. The shared secret is used once and kept nowhere.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from ca import sshcert, wire
from ca.errors import AccessDenied
from ca.model import LOGIN
from ca.sshcert import Certificate, CertificateError, CertKind
from recordings.sshkey import ED25519, KeyFormatError, PublicKey, SignatureError
from recordings.sshwire import Reader, WireError, mpint, string


class ProofError(AccessDenied):
    """The proof does not hold. ``code`` begins with ``proof_`` and names the step that failed.

    ``certificate`` is set when it was the person's certificate that failed after its CA's signature was checked.
    """

    def __init__(self, code: str, message: str, *, certificate: Certificate | None = None) -> None:
        super().__init__(message, code=f"proof_{code}")
        self.certificate = certificate


PUBLICKEY = "publickey"
HOSTBOUND = "publickey-hostbound-v00@openssh.com"
POSSESSION = b"bartizan-session\0"
"""What stands before H when the session key signs it, so that no other protocol's bytes look the same."""

MAX_BEACON_AGE = timedelta(seconds=120)

_VERSION = re.compile(rb"SSH-2\.0-[!-,./-~][ -~]{0,244}\Z")
_BEACON = re.compile(rb"SSH-2\.0-Bartizan_[0-9]{1,4}\.[0-9]{1,4}(?:\.[0-9]{1,4})? b=([0-9a-f]{32})\Z")
_USER_AUTH_REQUEST = 50
_KEX_INIT = 20


@dataclass(frozen=True, slots=True)
class _Exchange:
    """A key exchange method: its hash, the lengths of both shares, and how the secret is written before hashing."""

    digest: Literal["sha256", "sha384", "sha512"]
    client_share: int
    server_share: int
    secret: Literal["mpint", "string"]
    secret_bytes: int


_CURVE25519 = _Exchange("sha256", 32, 32, "mpint", 32)
_SNTRUP761 = _Exchange("sha512", 1158 + 32, 1039 + 32, "string", 64)

EXCHANGES: dict[str, _Exchange] = {
    "curve25519-sha256": _CURVE25519,
    "curve25519-sha256@libssh.org": _CURVE25519,
    "ecdh-sha2-nistp256": _Exchange("sha256", 65, 65, "mpint", 32),
    "ecdh-sha2-nistp384": _Exchange("sha384", 97, 97, "mpint", 48),
    "ecdh-sha2-nistp521": _Exchange("sha512", 133, 133, "mpint", 66),
    "mlkem768x25519-sha256": _Exchange("sha256", 1184 + 32, 1088 + 32, "string", 32),
    "sntrup761x25519-sha512": _SNTRUP761,
    "sntrup761x25519-sha512@openssh.com": _SNTRUP761,
}
"""RFC 8731, RFC 5656, and the drafts on hybrid exchanges with ML-KEM and NTRU Prime. No other is accepted."""


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """An SSH_MSG_USERAUTH_REQUEST for a public key, up to where its signature begins (RFC 4252 §7)."""

    user: str
    service: str
    method: str
    algorithm: str
    key_blob: bytes
    host_key_blob: bytes | None
    """The server's host key, where the method covers it."""


@dataclass(frozen=True, slots=True)
class Proven:
    """What the person has proven: who she is, and that she asked for this node and login just now."""

    user_certificate: Certificate
    user: str
    h: bytes
    """The session identifier; to be accepted once."""
    beacon: str
    beacon_age: timedelta
    session_key: PublicKey
    """The key for the target certificate; whoever handed in the proof holds it."""
    bound: bool
    """Whether what was signed names the node by itself. If not, only a grant with ``unsafe_unbound_client`` admits."""


def check(
    request: wire.SessionRequest,
    *,
    bastion_key: PublicKey,
    user_cas: Collection[PublicKey],
    bastion_cas: Collection[PublicKey],
    beacon: Callable[[str], timedelta | None],
    now: datetime,
) -> Proven:
    """What *request* proves; ProofError at the first step that does not hold.

    *beacon* gives the age of a beacon of ours, None for any other.

    The plan:
    1. H is computed from the transcript, never taken from the bastion.
    2. The server's version line in it carries a beacon of ours that is fresh.
    3. The host key in it is this bastion's enrolled key; in ways ``config`` and ``jump`` within a certificate of the
       bastion CA whose only principal is the node.
    4. The signed request asks for a connection, by public key, and names the login (ways 1 and 2) or login and node.
       A host key in it is the transcript's. Without one, and without the node in the user name, it is not bound.
    5. The key in it is a certificate of the user CA for one person, valid now and from this source.
    6. That person's key signed H and the request, with the algorithm that the request names.
    7. The session's own key signed H: whoever hands in the proof holds it, and it is nobody else's key.
    """
    # 1.
    h = exchange_hash(request.transcript)
    # 2.
    name, age = _fresh_beacon(request.transcript.v_s, beacon)
    # 3.
    _check_host_key(request, bastion_key=bastion_key, bastion_cas=bastion_cas, now=now)
    # 4.
    asked = parse_auth_request(request.auth_request)
    bound = _check_request(request, asked)
    # 5.
    certificate = _user_certificate(asked.key_blob, user_cas=user_cas, source=request.source, now=now)
    # 6.
    _check_signature(certificate, asked, signed=string(h) + request.auth_request, signature=request.signature)
    # 7.
    others = {certificate.public_key.blob, bastion_key.blob, *(key.blob for key in (*user_cas, *bastion_cas))}
    session_key = _session_key(request, h, others)
    return Proven(
        user_certificate=certificate,
        user=certificate.principals[0],
        h=h,
        beacon=name,
        beacon_age=age,
        session_key=session_key,
        bound=bound,
    )


# --- the transcript -----------------------------------------------------------------------------------------------


def exchange_hash(transcript: wire.Transcript) -> bytes:
    """H of RFC 4253 §8: the hash over versions, proposals, host key, both shares and the secret. Strict on each."""
    method = EXCHANGES.get(transcript.kex)
    if method is None:
        raise ProofError("kex", f"key exchange {transcript.kex[:64]!a} is not accepted")
    for version in (transcript.v_c, transcript.v_s):
        if not _VERSION.match(version):
            raise ProofError("transcript", "a version line is malformed")
    for proposal in (transcript.i_c, transcript.i_s):
        _check_proposal(proposal, transcript.kex)
    shares = (len(transcript.q_c), len(transcript.q_s))
    if shares != (method.client_share, method.server_share):
        raise ProofError("transcript", "a public share has the wrong length")
    _check_secret(transcript.k, method)
    prefix = (transcript.v_c, transcript.v_s, transcript.i_c, transcript.i_s, transcript.k_s)
    hashed = b"".join(string(part) for part in (*prefix, transcript.q_c, transcript.q_s)) + transcript.k
    return hashlib.new(method.digest, hashed).digest()


def _check_proposal(proposal: bytes, kex: str) -> None:
    """RFC 4253 §7.1: a cookie, ten lists of names, a flag, a reserved number. The exchange is among the offered."""
    reader = Reader(proposal)
    try:
        kind = reader.byte()
        for _ in range(16):
            reader.byte()
        lists = [reader.name_list() for _ in range(10)]
        reader.boolean()
        reserved = reader.uint32()
        reader.end()
    except WireError as error:
        raise ProofError("transcript", f"a proposal is malformed: {error}") from error
    if kind != _KEX_INIT or reserved != 0 or kex not in lists[0]:
        raise ProofError("transcript", "a proposal is not one for this key exchange")


def _check_secret(secret: bytes, method: _Exchange) -> None:
    """One value in its one spelling, so that nothing else can hide in the bytes that are hashed last."""
    reader = Reader(secret)
    try:
        if method.secret == "mpint":
            value = reader.mpint()
            whole = mpint(value) == secret and 0 < value.bit_length() <= 8 * method.secret_bytes
        else:
            whole = len(reader.string()) == method.secret_bytes
        reader.end()
    except WireError as error:
        raise ProofError("transcript", "the shared secret is malformed") from error
    if not whole:
        raise ProofError("transcript", "the shared secret has the wrong length")


def _fresh_beacon(version: bytes, beacon: Callable[[str], timedelta | None]) -> tuple[str, timedelta]:
    found = _BEACON.match(version)
    if not found:
        raise ProofError("beacon", "the bastion's version line carries no beacon")
    name = found[1].decode("ascii")
    age = beacon(name)
    if age is None:
        raise ProofError("beacon", "the bastion's version line carries an unknown beacon")
    if age > MAX_BEACON_AGE:
        raise ProofError("stale", "the connection was made too long ago")
    return name, age


# --- the bastion --------------------------------------------------------------------------------------------------


def _check_host_key(
    request: wire.SessionRequest, *, bastion_key: PublicKey, bastion_cas: Collection[PublicKey], now: datetime
) -> None:
    shown = request.transcript.k_s
    if request.way == "username" and shown == bastion_key.blob:
        return
    principal = None if request.way == "username" else request.node
    try:
        certificate = sshcert.verify(shown, trusted=bastion_cas, kind=CertKind.HOST, now=now, principal=principal)
    except CertificateError as error:
        raise ProofError("host_key", f"the host key that was shown does not hold: {error}") from error
    if principal is not None and certificate.principals != (principal,):
        raise ProofError("host_key", "the host certificate that was shown names more than the node")
    if certificate.public_key.blob != bastion_key.blob:
        raise ProofError("host_key", "the host key that was shown is not this bastion's")


# --- the person ---------------------------------------------------------------------------------------------------


def parse_auth_request(data: bytes) -> AuthRequest:
    """The fields of the signed request; the signature itself is not part of *data*."""
    reader = Reader(data)
    try:
        kind = reader.byte()
        user, service, method = (reader.string().decode("utf-8") for _ in range(3))
        signed = reader.boolean()
        algorithm, key_blob = reader.string().decode("ascii"), reader.string()
        host_key_blob = reader.string() if method == HOSTBOUND else None
        reader.end()
    except (WireError, UnicodeDecodeError) as error:
        raise ProofError("request", f"the signed request is malformed: {error}") from error
    if kind != _USER_AUTH_REQUEST or not signed or method not in (PUBLICKEY, HOSTBOUND):
        raise ProofError("request", "this is not a signed request for a public key")
    return AuthRequest(user, service, method, algorithm, key_blob, host_key_blob)


def _check_request(request: wire.SessionRequest, asked: AuthRequest) -> bool:
    """Whether it is bound to the node; an error if it asks for something else."""
    if asked.service != "ssh-connection":
        raise ProofError("request", "the signed request is for another service")
    if not LOGIN.match(request.login):
        raise ProofError("user", "the login is not the name of an account")
    if asked.host_key_blob is not None and asked.host_key_blob != request.transcript.k_s:
        raise ProofError("host_key", "the signed request names another host key")
    if request.way == "username":
        if asked.user not in (f"{request.login}+{request.node}", f"{request.login}%{request.node}"):
            raise ProofError("user", "the signed request names another login or node")
        return True
    if asked.user != request.login:
        raise ProofError("user", "the signed request names another login")
    return asked.host_key_blob is not None


def _user_certificate(blob: bytes, *, user_cas: Collection[PublicKey], source: str, now: datetime) -> Certificate:
    try:
        certificate = sshcert.verify(blob, trusted=user_cas, kind=CertKind.USER, now=now, source=source)
    except CertificateError as error:
        code = "certificate_expired" if error.code == "expired" else "certificate"
        raise ProofError(code, str(error), certificate=error.certificate) from error
    if len(certificate.principals) != 1:
        raise ProofError("certificate", "the certificate is not for one person", certificate=certificate)
    if "force-command" in certificate.critical_options:
        raise ProofError("certificate", "a certificate with a forced command opens nothing", certificate=certificate)
    return certificate


def _check_signature(certificate: Certificate, asked: AuthRequest, *, signed: bytes, signature: bytes) -> None:
    try:
        sshcert.verify_signature(certificate, asked.algorithm, signed, signature)
    except CertificateError as error:
        code = "signature" if error.code == "sig_bad" else error.code
        raise ProofError(code, f"the person's signature is refused: {error}") from error


def _session_key(request: wire.SessionRequest, h: bytes, others: Collection[bytes]) -> PublicKey:
    try:
        key = PublicKey.from_line(request.session_key)
        if key.algorithm != ED25519 or key.blob in others:
            raise ProofError("possession", "the session's key must be an Ed25519 key of its own")
        key.verify(POSSESSION + h, request.possession)
    except (KeyFormatError, SignatureError) as error:
        raise ProofError("possession", f"the session's key is not proven: {error}") from error
    return key
