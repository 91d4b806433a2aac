"""
OAuth 2.0 as both kinds of provider speak it (RFC 6749, 7636): the address that a browser is sent to, what may come back
from there, and the token endpoint. Who the person is, is not decided here.

PKCE is always there and always S256. Of Authlib only what needs no network is used: all that is asked goes through
``WayOut``.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote_plus

from authlib.oauth2.client import OAuth2Client

from ca.audit import visible
from ca.identity.fetch import Answer, WayOut
from ca.identity.metadata import ClientAuth
from ca.identity.provider import Attempt, Refused, Unreachable

LONGEST_TOKEN = 65_536
LONGEST_CODE = 8_192
LONGEST_SAID = 200

_PERSON = frozenset(
    {
        "invalid_grant",
        "access_denied",
        "interaction_required",  # this and the next two: a provider that wants to see the person again
        "login_required",
        "consent_required",
        "bad_verification_code",  # GitHub's invalid_grant
    }
)
_LATER = frozenset({"server_error", "temporarily_unavailable"})


@dataclass(frozen=True, slots=True)
class Client:
    """Us, as the provider knows us."""

    id: str
    secret: str | None = field(repr=False)
    method: ClientAuth

    def sign(self, form: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        """*form* and the headers to send it with, so that the token endpoint knows who asks (RFC 6749 2.3.1)."""
        match self.method:
            case "client_secret_basic":
                pair = f"{quote_plus(self.id)}:{quote_plus(self.secret or '')}"
                return dict(form), {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
            case "client_secret_post":
                return {**form, "client_id": self.id, "client_secret": self.secret or ""}, {}
            case "none":
                return {**form, "client_id": self.id}, {}


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a token endpoint gave."""

    access: str = field(repr=False)
    id: str | None = field(repr=False)
    refresh: str | None = field(repr=False)


class SaidNo(Exception):
    """The token endpoint answered with an OAuth error that is about the person or their grant."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


def address(endpoint: str, client: str, attempt: Attempt, *, scopes: str, more: Mapping[str, str]) -> str:
    """Where the browser goes."""
    plumbing = OAuth2Client(None, client, redirect_uri=attempt.redirect_uri, code_challenge_method="S256")
    made, _ = plumbing.create_authorization_url(
        endpoint, state=attempt.state, code_verifier=attempt.verifier, scope=scopes, **more
    )
    return str(made)


def code_in(answer: Mapping[str, str]) -> str:
    """The code that came back with the browser. Raises Refused, Unreachable for what else may come."""
    if error := answer.get("error"):
        words = _words(error, answer.get("error_description"))
        if error in _LATER:
            raise Unreachable(f"the provider cannot sign anybody in now: {words}")
        raise Refused(f"the provider did not confirm this sign-in: {words}", code="provider_refused")
    code = answer.get("code", "")
    if not 1 <= len(code) <= LONGEST_CODE:
        raise Refused("the provider sent no code for this sign-in", code="code_refused")
    return code


async def tokens(way: WayOut, endpoint: str, client: Client, form: Mapping[str, str]) -> Tokens:
    """Ask the token endpoint. Raises SaidNo when the answer is about the person, Unreachable otherwise."""
    signed, headers = client.sign(form)
    answer = await way.post(endpoint, signed, headers=headers)
    if answer.status >= 500 or answer.status == 429:
        raise Unreachable(f"{answer.host} has trouble: it answered with status {answer.status}")
    said = answer.json()
    if "error" in said:
        raise _refusal(answer, said)
    if answer.status != 200:
        raise Unreachable(f"{answer.host} answered with status {answer.status} and no reason")
    return _read_tokens(answer, said)


def _refusal(answer: Answer, said: Mapping[str, object]) -> SaidNo | Unreachable:
    error = str(said["error"])
    words = _words(error, said.get("error_description"))
    if error in _PERSON:
        return SaidNo(words)
    hint = "are client and secret the ones that the provider knows?" if "client" in error else None
    return Unreachable(f"{answer.host} does not take our request: {words}", hint=hint, code="provider_client")


def _read_tokens(answer: Answer, said: Mapping[str, object]) -> Tokens:
    access, kind = _token(answer, said, "access_token"), said.get("token_type")
    if access is None or not isinstance(kind, str) or kind.lower() != "bearer":
        raise Unreachable(f"{answer.host} gave no bearer token")
    return Tokens(access, _token(answer, said, "id_token"), _token(answer, said, "refresh_token"))


def _token(answer: Answer, said: Mapping[str, object], name: str) -> str | None:
    value = said.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or len(value) > LONGEST_TOKEN:
        raise Unreachable(f"{answer.host} gave an {name} that is not one")
    return value or None


def _words(error: str, description: object) -> str:
    """What the provider said, cut and made visible: whoever holds the browser can write it too."""
    words = visible(error)[:60]
    if isinstance(description, str) and description:
        words += f" (“{visible(description)[:LONGEST_SAID]}”)"
    return words
