"""
What a provider says about itself (OpenID Connect Discovery, RFC 8414), as a value. Pure.

Nothing in it is believed that the operator wrote down otherwise: the issuer must be the file's, to the last character.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ca.identity.provider import Unreachable

ClientAuth = Literal["client_secret_basic", "client_secret_post", "none"]


@dataclass(frozen=True, slots=True)
class Metadata:
    """Where a provider's doors are, and how we knock."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    auth_methods: tuple[str, ...]
    names_itself: bool
    """Its answers carry ``iss`` (RFC 9207), so that one provider's answer is not taken for another's."""

    def auth_method(self, *, has_secret: bool) -> ClientAuth:
        """How we show who we are at the token endpoint. Raises Unreachable when it knows no way of ours."""
        if not has_secret:
            return "none"
        if "client_secret_basic" in self.auth_methods:
            return "client_secret_basic"
        if "client_secret_post" in self.auth_methods:
            return "client_secret_post"
        raise Unreachable(
            "the provider takes a client's secret in no way that we speak (client_secret_basic, client_secret_post)",
            code="provider_metadata",
        )


def read_metadata(document: Mapping[str, object], *, issuer: str) -> Metadata:
    """The metadata of *issuer*. Raises Unreachable when they are another's or do not say what we need."""
    said = document.get("issuer")
    if said != issuer:
        raise Unreachable(
            "the provider's metadata name another issuer than its file"
            if isinstance(said, str)
            else "the provider's metadata name no issuer",
            hint="the file's issuer must be what the metadata say, to the last character",
            code="provider_issuer",
        )
    methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    if not isinstance(methods, list):
        raise _malformed("token_endpoint_auth_methods_supported")
    return Metadata(
        authorization_endpoint=_address(document, "authorization_endpoint"),
        token_endpoint=_address(document, "token_endpoint"),
        jwks_uri=_address(document, "jwks_uri"),
        userinfo_endpoint=_address(document, "userinfo_endpoint") if "userinfo_endpoint" in document else None,
        auth_methods=tuple(method for method in methods if isinstance(method, str)),
        names_itself=document.get("authorization_response_iss_parameter_supported") is True,
    )


def _address(document: Mapping[str, object], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value:
        raise _malformed(name)
    return value


def _malformed(name: str) -> Unreachable:
    return Unreachable(f"the provider's metadata say nothing usable for {name}", code="provider_metadata")
