"""
A small GitHub of ours: its documented endpoints for signing in (web application flow) and for asking who somebody is.

As on a GitHub Enterprise Server the API lies under ``/api/v3``. Whoever comes to ``authorize`` is signed in already, as
``person``, and says yes.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from tests.ca.identity.provider import Asked, Reply, challenge, serving

API = "/api/v3"


@dataclass(slots=True)
class Hub:
    """The state of it. Everything may be changed while it runs."""

    issuer: str = ""
    client: str = "Iv1.bartizan"
    secret: str | None = "a-secret-of-the-hub"
    scopes: tuple[str, ...] = ("read:user", "user:email", "read:org")
    also: tuple[str, ...] = ()
    claims_used: frozenset[str] = frozenset({"login", "email", "email_verified", "orgs", "teams"})

    person: dict[str, Any] = field(default_factory=lambda: {"id": 583_231, "login": "octocat", "name": "The Octocat"})
    emails: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {"email": "old@example.com", "primary": False, "verified": True, "visibility": None},
            {"email": "octocat@example.com", "primary": True, "verified": True, "visibility": "private"},
        ]
    )
    orgs: list[str] = field(default_factory=lambda: ["example"])
    teams: list[tuple[str, str]] = field(default_factory=lambda: [("example", "sre")])
    page: int = 100
    tokens: set[str] = field(default_factory=set)
    bent: dict[str, Reply] = field(default_factory=dict)
    diary: list[Asked] = field(default_factory=list)
    ahead: float = 0
    over: threading.Event = field(default_factory=threading.Event)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def answer(self, asked: Asked) -> Reply:
        self.diary.append(asked)
        if (bent := self.bent.get(asked.path)) is not None:
            return bent
        match asked.path.removeprefix(API):
            case "/login/oauth/authorize":
                return self._authorize(dict(asked.query))
            case "/login/oauth/access_token":
                return self._token(asked)
            case "/meta":
                return Reply({"installed_version": "3.19.0"})
        if asked.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return Reply({"message": "Bad credentials", "status": "401"}, 401)
        match asked.path.removeprefix(API):
            case "/user":
                return Reply(self.person)
            case "/user/emails":
                return self._listed(asked, self.emails)
            case "/user/orgs":
                return self._listed(asked, [{"login": name, "id": 1} for name in self.orgs])
            case "/user/teams":
                teams = [
                    {"slug": slug, "name": slug.upper(), "organization": {"login": org}} for org, slug in self.teams
                ]
                return self._listed(asked, teams)
        return Reply({"message": "Not Found"}, 404)

    def _authorize(self, query: dict[str, str]) -> Reply:
        code = secrets.token_hex(10)
        self._codes[code] = query
        back = query["redirect_uri"] + "?" + urlencode({"code": code, "state": query["state"]})
        return Reply(b"", 302, {"Location": back})

    def _token(self, asked: Asked) -> Reply:
        if (asked.form.get("client_id"), asked.form.get("client_secret")) != (self.client, self.secret):
            return Reply({"error": "incorrect_client_credentials", "error_description": "The client_id is wrong."})
        grant = self._codes.pop(asked.form.get("code", ""), None)
        if grant is None or grant.get("code_challenge") != challenge(asked.form.get("code_verifier", "")):
            return Reply({"error": "bad_verification_code", "error_description": "The code is incorrect or expired."})
        if grant["redirect_uri"] != asked.form.get("redirect_uri"):
            return Reply({"error": "redirect_uri_mismatch"})
        token = f"gho_{secrets.token_hex(18)}"
        self.tokens.add(token)
        return Reply({"access_token": token, "scope": grant.get("scope", ""), "token_type": "bearer"})

    def _listed(self, asked: Asked, entries: list[dict[str, Any]]) -> Reply:
        number = int(asked.query.get("page", 1))
        size = min(self.page, int(asked.query.get("per_page", 30)))
        part = entries[(number - 1) * size : number * size]
        place = f"{self.issuer}{asked.path}?per_page={size}"
        more = f'<{place}&page={number + 1}>; rel="next", <{place}&page=9>; rel="last"'
        return Reply(part, headers={"Link": more} if number * size < len(entries) else {})


@contextmanager
def running_hub() -> Iterator[Hub]:
    with serving(Hub()) as hub:
        yield hub
