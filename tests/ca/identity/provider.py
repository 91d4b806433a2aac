"""
A provider of ours that misbehaves on demand: a real HTTP server with real keys, whose every answer can be bent.

Left alone it is a correct OpenID provider for one client. What it was asked stands in its diary.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs, unquote_plus, urlsplit

from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

DISCOVERY = "/.well-known/openid-configuration"
Key = RSAKey | ECKey | OKPKey
RSA_KEY = RSAKey.generate_key(2048, {"kid": "r1", "use": "sig"})
EC_KEY = ECKey.generate_key("P-256", {"kid": "e1", "use": "sig"})
ED_KEY = OKPKey.generate_key("Ed25519", {"kid": "o1", "use": "sig"})
OTHER_RSA_KEY = RSAKey.generate_key(2048, {"kid": "r2", "use": "sig"})


@dataclass(frozen=True, slots=True)
class Asked:
    """One line of the diary."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    form: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent instead of the right answer. pause: seconds before it; endless: megabytes of blanks after it."""

    body: bytes | dict[str, Any] | list[Any] = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pause: float = 0
    megabytes: int = 0


@dataclass(slots=True)
class Provider:
    """The state of one provider. Everything may be changed while it runs."""

    issuer: str = ""
    client: str = "bartizan"
    secret: str | None = "a+secret with %/:signs"
    scopes: tuple[str, ...] = ("openid", "profile")
    also: tuple[str, ...] = ()
    claims_used: frozenset[str] = frozenset({"preferred_username"})

    keys: list[Key] = field(default_factory=lambda: [RSA_KEY, EC_KEY, ED_KEY])
    sign_with: Key = field(default_factory=lambda: RSA_KEY)
    alg: str = "RS256"
    header: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=lambda: {"preferred_username": "alice"})
    information: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    ahead: float = 0
    """Seconds by which its clock is ahead of ours."""
    bent: dict[str, Reply | Callable[[Asked], Reply]] = field(default_factory=dict)
    diary: list[Asked] = field(default_factory=list)
    refresh_tokens: set[str] = field(default_factory=set)
    subject: str = "248289761001"
    over: threading.Event = field(default_factory=threading.Event)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def times_asked(self, path: str) -> int:
        return sum(asked.path == path for asked in self.diary)

    def authorize(self, address: str) -> dict[str, str]:
        """What the browser brings back after somebody signed in at *address*."""
        query = _once_each(urlsplit(address).query)
        code = secrets.token_urlsafe(16)
        self._codes[code] = query
        return {"code": code, "state": query["state"], "iss": self.issuer}

    def right_metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "jwks_uri": f"{self.issuer}/jwks",
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
            "authorization_response_iss_parameter_supported": True,
        }

    def token(self, access_token: str | None = None, **claims: Any) -> str:
        """An ID token, right but for what was bent. A claim that is None is left out."""
        now = int(time.time() + self.ahead)
        right: dict[str, Any] = {
            "iss": self.issuer,
            "sub": self.subject,
            "aud": self.client,
            "iat": now,
            "exp": now + 300,
        }
        if access_token is not None:
            right["at_hash"] = at_hash(access_token)
        said = right | claims | self.claims
        payload = json.dumps({name: value for name, value in said.items() if value is not None})
        header = {"alg": self.alg, "kid": self.sign_with.kid, "typ": "JWT"} | self.header
        return signed({name: value for name, value in header.items() if value is not None}, payload, self.sign_with)

    # --- its doors ------------------------------------------------------------------------------------------------

    def answer(self, asked: Asked) -> Reply:
        self.diary.append(asked)
        bent = self.bent.get(asked.path)
        if bent is not None:
            return bent if isinstance(bent, Reply) else bent(asked)
        match asked.path:
            case "/.well-known/openid-configuration":
                said = self.right_metadata() | self.metadata
                return Reply({name: value for name, value in said.items() if value is not None})
            case "/jwks":
                return Reply({"keys": [key.as_dict(private=False) for key in self.keys]})
            case "/token":
                return self._tokens(asked)
            case "/userinfo":
                return Reply({"sub": self.subject, **self.information})
        return Reply(status=404)

    def _tokens(self, asked: Asked) -> Reply:
        if not self._knows(asked):
            return Reply({"error": "invalid_client"}, 401)
        if asked.form.get("grant_type") == "refresh_token":
            if (token := asked.form.get("refresh_token", "")) not in self.refresh_tokens:
                return Reply({"error": "invalid_grant", "error_description": "grant request is invalid"}, 400)
            self.refresh_tokens.remove(token)
            return self._granted()
        grant = self._codes.pop(asked.form.get("code", ""), None)
        if grant is None or grant["redirect_uri"] != asked.form.get("redirect_uri"):
            return Reply({"error": "invalid_grant"}, 400)
        verifier = asked.form.get("code_verifier", "")
        if grant.get("code_challenge_method") != "S256" or grant.get("code_challenge") != challenge(verifier):
            return Reply({"error": "invalid_grant", "error_description": "PKCE verification failed"}, 400)
        return self._granted(nonce=grant.get("nonce"))

    def _granted(self, **claims: Any) -> Reply:
        access, refresh = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
        self.refresh_tokens.add(refresh)
        said = {"access_token": access, "token_type": "Bearer", "refresh_token": refresh, "expires_in": 300}
        return Reply(said | {"id_token": self.token(access, **claims)})

    def _knows(self, asked: Asked) -> bool:
        kind, _, credentials = asked.headers.get("authorization", "").partition(" ")
        if kind == "Basic":
            name, _, secret = base64.b64decode(credentials).decode().partition(":")
            return (unquote_plus(name), unquote_plus(secret)) == (self.client, self.secret)
        return (asked.form.get("client_id"), asked.form.get("client_secret")) == (self.client, self.secret)


@contextmanager
def running_provider() -> Iterator[Provider]:
    with serving(Provider()) as provider:
        yield provider


class State(Protocol):
    """What a server of the tests answers."""

    issuer: str
    ahead: float
    over: threading.Event

    def answer(self, asked: Asked) -> Reply: ...


S = TypeVar("S", bound=State)


@contextmanager
def serving(state: S) -> Iterator[S]:
    """Serve *state* on a free loopback port, which becomes its issuer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._take()

        def do_POST(self) -> None:
            self._take()

        def _take(self) -> None:
            where = urlsplit(self.path)
            size = int(self.headers.get("content-length", 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            form = _once_each(self.rfile.read(size).decode())
            self._send(state.answer(Asked(self.command, where.path, _once_each(where.query), headers, form)))

        def _send(self, reply: Reply) -> None:
            state.over.wait(reply.pause)
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            kind = {} if isinstance(reply.body, bytes) else {"Content-Type": "application/json"}
            try:
                self.send_response(reply.status)
                for name, value in (kind | dict(reply.headers)).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                for _ in range(reply.megabytes):
                    self.wfile.write(b" " * 1_000_000)
            except OSError:
                pass  # whoever asked has gone: that is what the tests are about

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate((timestamp or time.time()) + state.ahead, usegmt=True)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.issuer = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        state.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _once_each(text: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(text).items()}


def signed(header: dict[str, Any], payload: str, key: Key) -> str:
    """A compact JWS with any header at all, right or not."""
    head, body = (b64(text.encode()) for text in (json.dumps(header), payload))
    model = jws.JWSRegistry.algorithms[{"EdDSA": "Ed25519"}.get(header["alg"], header["alg"])]
    return f"{head}.{body}.{b64(model.sign(f'{head}.{body}'.encode(), key))}"


def at_hash(access_token: str, digest: str = "sha256") -> str:
    made = hashlib.new(digest, access_token.encode()).digest()
    return b64(made[: len(made) // 2])


def challenge(verifier: str) -> str:
    return b64(hashlib.sha256(verifier.encode()).digest())


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
