"""
Whether an ID token holds (OpenID Connect Core 3.1.3.7). Pure: keys, time and what we expect come in, claims go out.

No message ever contains the token or a part of it that is secret. The numbered plan (docs/reference/token-checks.md):

1. Short enough, three parts of canonical base64url, header and claims each one JSON object without a name twice.
2. The header says ``alg``, ``kid`` and ``typ`` alone: no key, no address of a key, nothing critical, no other payload.
3. The algorithm is one of our fixed list, whatever the provider's metadata say.
4. The key is the provider's, found by ``kid``; without a ``kid`` only when one key alone fits.
5. The key is for signatures, and of the type that the algorithm needs.
6. The signature verifies.
7. The issuer is, to the last character, the one that the operator wrote down.
8. The audience holds our client; of several audiences, or where ``azp`` stands, the authorised party is our client.
9. The times are numbers; it has not run out, is not from the future, and is valid already: 30 s of leeway.
10. The nonce is the one of this sign-in. Tokens that no browser asked for (refreshed, pasted) have none of ours.
11. ``at_hash``, where it stands, is that of the access token that came with it.
12. The subject is printable text of 1 to 255 characters.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeGuard

from joserfc.errors import JoseError
from joserfc.jwa import JWS_ALGORITHMS

from ca.identity.key_set import SigningKey
from ca.identity.provider import Refused
from ca.strictjson import read_object

LONGEST_TOKEN = 65_536
LONGEST_SUBJECT = 255
LEEWAY_SECONDS = 30
HEADER_NAMES = frozenset({"alg", "kid", "typ"})


@dataclass(frozen=True, slots=True)
class _Algorithm:
    kty: str
    digest: str
    """Of ``at_hash``: the hash that the signature uses."""
    verifier: str
    """Its name in joserfc, where ``EdDSA`` is an old word for ``Ed25519`` (RFC 9864) and other curves."""


_KNOWN: Mapping[str, _Algorithm] = {
    "RS256": _Algorithm("RSA", "sha256", "RS256"),
    "PS256": _Algorithm("RSA", "sha256", "PS256"),
    "ES256": _Algorithm("EC", "sha256", "ES256"),
    "EdDSA": _Algorithm("OKP", "sha512", "Ed25519"),
    "Ed25519": _Algorithm("OKP", "sha512", "Ed25519"),
}
ALGORITHMS = frozenset(_KNOWN)
_VERIFIERS = {model.name: model for model in JWS_ALGORITHMS}
_PART = re.compile(r"[A-Za-z0-9_-]+")


def verify(
    token: str,
    *,
    keys: Sequence[SigningKey],
    issuer: str,
    client: str,
    nonce: str | None,
    now: datetime,
    access_token: str | None = None,
    algorithms: Collection[str] = ALGORITHMS,
    refreshed: bool = False,
) -> Mapping[str, object]:
    """The claims of *token*, after all steps of the plan. Raises Refused, whose code tells the step.

    nonce: of the sign-in that *token* answers. None is a mistake of ours unless *refreshed* says that no browser
    asked for this token. access_token: the one that came with it.
    """
    if not refreshed and not nonce:
        raise ValueError("a token that a browser brought needs the nonce of its sign-in")
    header, claims, signed, signature = _parts(token)  # 1.
    _check_header(header)  # 2.
    algorithm = _algorithm(header, algorithms)  # 3.
    key = _key(header, algorithm, keys)  # 4.
    _check_key(key, header, algorithm)  # 5.
    _check_signature(signed, signature, key, algorithm)  # 6.
    _check_issuer(claims, issuer)  # 7.
    _check_audience(claims, client)  # 8.
    _check_times(claims, now.timestamp())  # 9.
    _check_nonce(claims, nonce)  # 10.
    _check_access_token(claims, access_token, algorithm)  # 11.
    _check_subject(claims)  # 12.
    return claims


def key_name(token: str) -> str | None:
    """The ``kid`` that *token* asks for, before anything about it is believed. Raises Refused."""
    header = _parts(token)[0]
    _check_header(header)
    kid = header.get("kid")
    return kid if isinstance(kid, str) else None


def _parts(token: str) -> tuple[dict[str, object], dict[str, object], bytes, bytes]:
    # 1.
    if len(token) > LONGEST_TOKEN:
        raise Refused(f"the provider's token is longer than {LONGEST_TOKEN} characters", code="token_malformed")
    parts = token.split(".")
    if len(parts) != 3:
        raise Refused("the provider's token is not a signed JWT of three parts", code="token_malformed")
    try:
        header, claims, signature = (_decoded(part) for part in parts)
        signed = token.rpartition(".")[0].encode("ascii")
        return read_object(header), read_object(claims), signed, signature
    except ValueError as error:
        raise Refused("the provider's token cannot be read as a signed JWT", code="token_malformed") from error


def _decoded(part: str) -> bytes:
    """base64url in its one canonical form: two texts of a token are never the same token."""
    if not _PART.fullmatch(part):
        raise ValueError("not base64url")
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error as error:
        raise ValueError("not base64url") from error
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != part:
        raise ValueError("not canonical")
    return data


def _check_header(header: Mapping[str, object]) -> None:
    # 2.
    if header.keys() - HEADER_NAMES:
        raise Refused("the token's header says more than alg, kid and typ", code="token_header")
    kid, typ = header.get("kid"), header.get("typ", "JWT")
    if not isinstance(kid, str | None) or not isinstance(typ, str) or typ.upper() != "JWT":
        raise Refused("the token's header is not that of an ID token", code="token_header")


def _algorithm(header: Mapping[str, object], algorithms: Collection[str]) -> _Algorithm:
    # 3.
    name = header.get("alg")
    if not isinstance(name, str) or name not in algorithms or name not in _KNOWN:
        expected = ", ".join(sorted(ALGORITHMS.intersection(algorithms)))
        raise Refused(f"the token is signed with another algorithm than {expected}", code="token_alg")
    return _KNOWN[name]


def _key(header: Mapping[str, object], algorithm: _Algorithm, keys: Sequence[SigningKey]) -> SigningKey:
    # 4.
    if (kid := header.get("kid")) is None:
        found = [key for key in keys if key.kty == algorithm.kty and key.use in (None, "sig")]
    else:
        found = [key for key in keys if key.kid == kid]
    if not found:
        raise Refused("the token is signed with a key that the provider does not publish", code="token_key_unknown")
    if len(found) > 1:
        raise Refused("the token does not say which of the provider's keys signed it", code="token_key_unknown")
    return found[0]


def _check_key(key: SigningKey, header: Mapping[str, object], algorithm: _Algorithm) -> None:
    # 5.
    if key.use not in (None, "sig"):
        raise Refused("the token is signed with a key that is not for signatures", code="token_key")
    if key.kty != algorithm.kty or key.alg not in (None, header["alg"]):
        raise Refused("the token's key is of another type than its algorithm", code="token_key")


def _check_signature(signed: bytes, signature: bytes, key: SigningKey, algorithm: _Algorithm) -> None:
    # 6.
    try:
        good = _VERIFIERS[algorithm.verifier].verify(signed, signature, key.public)
    except (JoseError, ValueError) as error:
        raise Refused("the token's signature cannot be checked with its key", code="token_signature") from error
    if not good:
        raise Refused("the token's signature is not by the provider's key", code="token_signature")


def _check_issuer(claims: Mapping[str, object], issuer: str) -> None:
    # 7.
    if claims.get("iss") != issuer:
        raise Refused("the token is from another issuer than the provider's file says", code="token_issuer")


def _check_audience(claims: Mapping[str, object], client: str) -> None:
    # 8.
    said = claims.get("aud")
    audiences = said if isinstance(said, list) else [said]
    if client not in audiences or not all(isinstance(one, str) for one in audiences):
        raise Refused("the token is for another client than ours", code="token_audience")
    if ("azp" in claims or len(audiences) > 1) and claims.get("azp") != client:
        raise Refused("the token was made out to another client than ours", code="token_audience")


def _check_times(claims: Mapping[str, object], now: float) -> None:
    # 9.
    expires, issued = _seconds(claims, "exp"), _seconds(claims, "iat")
    if expires + LEEWAY_SECONDS <= now:
        raise Refused(
            f"the token ran out {now - expires:.0f} s ago",
            hint="is the clock right, here and at the provider?",
            code="token_expired",
        )
    valid_from = max(issued, _seconds(claims, "nbf") if "nbf" in claims else issued)
    if valid_from - LEEWAY_SECONDS > now:
        raise Refused(
            f"the token is from {valid_from - now:.0f} s in the future",
            hint="is the clock right, here and at the provider?",
            code="token_not_yet",
        )


def _seconds(claims: Mapping[str, object], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        raise Refused(f"the token's '{name}' is not a time", code="token_malformed")
    return value


def _check_nonce(claims: Mapping[str, object], nonce: str | None) -> None:
    # 10.
    if nonce is None:
        return
    said = claims.get("nonce")
    if not isinstance(said, str) or not hmac.compare_digest(said.encode(), nonce.encode()):
        raise Refused("the token does not belong to this sign-in", code="token_nonce")


def _check_access_token(claims: Mapping[str, object], access_token: str | None, algorithm: _Algorithm) -> None:
    # 11.
    if "at_hash" not in claims or access_token is None:
        return
    digest = hashlib.new(algorithm.digest, access_token.encode()).digest()
    expected = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=")
    said = claims["at_hash"]
    if not isinstance(said, str) or not hmac.compare_digest(said.encode(), expected):
        raise Refused("the token does not belong to the access token that came with it", code="token_at_hash")


def _check_subject(claims: Mapping[str, object]) -> None:
    # 12.
    subject = claims.get("sub")
    if not is_subject(subject):
        raise Refused(
            f"the token's subject is not printable text of 1 to {LONGEST_SUBJECT} characters", code="token_subject"
        )


def is_subject(value: object) -> TypeGuard[str]:
    """Whether *value* can name a person for ever: printable text of 1 to 255 characters."""
    return isinstance(value, str) and 1 <= len(value) <= LONGEST_SUBJECT and value.isprintable()
