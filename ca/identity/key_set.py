"""
The keys that a provider signs with (JWK sets, RFC 7517), as a value. Pure: never fetches, never follows a header.

Only public keys that can sign are taken: RSA of 2048 bits or more, P-256, Ed25519. Secrets (``oct``), keys for
encryption and what nobody here can use are left out, so that they can verify nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

MOST_KEYS = 100
SHORTEST_RSA = 2048
LONGEST_RSA = 8192
LONGEST_NAME = 1024


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One public key. ``use`` and ``alg`` are what the provider says the key is for; None: it says nothing."""

    kid: str | None
    kty: str
    use: str | None
    alg: str | None
    public: RSAKey | ECKey | OKPKey


def read_keys(document: Mapping[str, object]) -> tuple[SigningKey, ...]:
    """The keys in a JWK set that can verify a token. Raises ValueError when it is no JWK set."""
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise ValueError("'keys' is not a list")
    if len(entries) > MOST_KEYS:
        raise ValueError(f"more than {MOST_KEYS} keys")
    return tuple(key for entry in entries if (key := _key(entry)) is not None)


def _key(entry: object) -> SigningKey | None:
    if not isinstance(entry, dict):
        raise ValueError("a key is not an object")
    kid, use, alg = (entry.get(name) for name in ("kid", "use", "alg"))
    if not all(said is None or (isinstance(said, str) and len(said) <= LONGEST_NAME) for said in (kid, use, alg)):
        raise ValueError("'kid', 'use' and 'alg' of a key must be words")
    public = _public(entry)
    return None if public is None else SigningKey(kid, str(entry["kty"]), use, alg, public)


def _public(entry: dict[str, object]) -> RSAKey | ECKey | OKPKey | None:
    try:
        match entry:
            case {"kty": "RSA", "n": str(n), "e": str(e)} if SHORTEST_RSA <= _bits(n) <= LONGEST_RSA:
                return RSAKey.import_key({"kty": "RSA", "n": n, "e": e})
            case {"kty": "EC", "crv": "P-256", "x": str(x), "y": str(y)}:
                return ECKey.import_key({"kty": "EC", "crv": "P-256", "x": x, "y": y})
            case {"kty": "OKP", "crv": "Ed25519", "x": str(x)}:
                return OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": x})
    except (JoseError, ValueError, TypeError):
        pass  # numbers that are no key: nothing can be signed with it
    return None


def _bits(number: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(number + "=" * (-len(number) % 4))).bit_length()
