"""
GitHub, which speaks OAuth but not OpenID Connect: who somebody is comes from its API, asked with the token that the
sign-in gave. github.com, or a GitHub Enterprise Server.

The claims it makes: ``login``, ``id``, ``name``, ``orgs`` (their names), ``teams`` (``ORG/TEAM``), and ``email`` with
``email_verified``: the primary address, if GitHub verified it. Only what the file reads is asked for. The person is
(issuer, numeric id): names can be given away. The access token is the renewal: it holds until somebody takes it back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from ca.identity import oauth
from ca.identity.fetch import Answer, WayOut
from ca.identity.oidc import NO_PLACE, Described, probe_clock
from ca.identity.provider import NEEDS_DISCOVERY, Attempt, Probe, Proven, Refused, Unreachable

PUBLIC = "https://github.com"
PUBLIC_API = "https://api.github.com"
PAGE = 100
MOST_PAGES = 20
_NEXT = re.compile(r'<([^<>]+)>\s*;\s*rel="next"')


class GitHub:
    """One GitHub."""

    def __init__(self, provider: Described, secret: str | None, *, way: WayOut | None = None) -> None:
        self._provider = provider
        self._web = provider.issuer.rstrip("/")
        self._api = PUBLIC_API if self._web == PUBLIC else f"{self._web}/api/v3"
        self._client = oauth.Client(provider.client, secret, "client_secret_post" if secret else "none")
        self._way = way or WayOut([self._web, self._api])

    async def address(self, attempt: Attempt) -> str:
        return oauth.address(
            f"{self._web}/login/oauth/authorize",
            self._provider.client,
            attempt,
            scopes=" ".join(self._provider.scopes),
            more={},
        )

    async def prove(self, attempt: Attempt, answer: Mapping[str, str], *, now: datetime) -> Proven:
        form = {
            "code": oauth.code_in(answer),
            "redirect_uri": attempt.redirect_uri,
            "code_verifier": attempt.verifier,
        }
        try:
            tokens = await self._tokens(form)
        except oauth.SaidNo as error:
            raise Refused(
                f"GitHub does not take the code of this sign-in: {error.said}",
                hint="start again; a code works once and for ten minutes",
                code="code_refused",
            ) from error
        return await self._whose(tokens.access)

    async def ask_again(self, renewal: str, *, subject: str, now: datetime) -> Proven:
        proven = await self._whose(renewal)
        if proven.subject != subject:
            raise Refused("GitHub answered for another person", code="token_subject")
        return proven

    async def probe(self, *, now: datetime) -> list[Probe]:
        return [*await self._probe_api(now), Probe("keys", None, "GitHub signs nothing"), await self._probe_client()]

    async def read_token(self, token: str, *, now: datetime) -> Proven:
        """Whose access token *token* is. GitHub has no ID tokens; this one proves nothing about who sent it."""
        proven = await self._whose(token)
        return Proven(proven.issuer, proven.subject, proven.claims, None)

    async def close(self) -> None:
        await self._way.close()

    # --- the person -------------------------------------------------------------------------------------------

    async def _whose(self, token: str) -> Proven:
        answer = await self._ask(f"{self._api}/user", token)
        user = answer.json()
        number = user.get("id")
        if isinstance(number, bool) or not isinstance(number, int) or not isinstance(user.get("login"), str):
            raise Unreachable(f"{answer.host} does not say who the person is")
        claims: dict[str, object] = {"id": str(number)}
        claims |= {name: user[name] for name in ("login", "name") if isinstance(user.get(name), str)}
        wanted = self._provider.claims_used
        if wanted & {"email", "email_verified"}:
            claims |= await self._address_of(token)
        if "orgs" in wanted:
            claims["orgs"] = [_word(one, "login") for one in await self._pages(f"{self._api}/user/orgs", token)]
        if "teams" in wanted:
            claims["teams"] = [_team(one) for one in await self._pages(f"{self._api}/user/teams", token)]
        return Proven(self._provider.issuer, str(number), claims, token)

    async def _address_of(self, token: str) -> dict[str, object]:
        for one in await self._pages(f"{self._api}/user/emails", token):
            if one.get("primary") is True and one.get("verified") is True:
                return {"email": _word(one, "email"), "email_verified": True}
        return {}

    async def _pages(self, url: str, token: str) -> list[Mapping[str, object]]:
        entries: list[Mapping[str, object]] = []
        following: str | None = f"{url}?per_page={PAGE}"
        for _ in range(MOST_PAGES):
            if following is None:
                return entries
            answer = await self._ask(following, token)
            entries += answer.json_list()
            found = _NEXT.search(answer.headers.get("link", ""))
            following = found[1] if found else None
        raise Unreachable(f"GitHub lists more than {PAGE * MOST_PAGES} of what it was asked for")

    async def _ask(self, url: str, token: str) -> Answer:
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        answer = await self._way.get(url, headers=headers)
        if answer.status == 401 or (answer.status == 403 and b"suspended" in answer.body):
            raise Refused("it does not take the token of the sign-in any more", code="identity_refused")
        if answer.status != 200:
            hint = "do the scopes hold user:email and read:org?" if answer.status in (403, 404) else None
            raise Unreachable(f"{answer.host} answered with status {answer.status}", hint=hint)
        return answer

    # --- the door for codes -----------------------------------------------------------------------------------

    async def _tokens(self, form: Mapping[str, str]) -> oauth.Tokens:
        return await oauth.tokens(self._way, f"{self._web}/login/oauth/access_token", self._client, form)

    async def _probe_api(self, now: datetime) -> list[Probe]:
        try:
            answer = await self._way.get(f"{self._api}/meta")
        except Unreachable as error:
            return [Probe("discovery", False, str(error)), Probe("clock", None, NEEDS_DISCOVERY)]
        works = answer.status == 200
        return [
            Probe("discovery", works, f"{self._api} answered with status {answer.status}"),
            probe_clock(answer, now),
        ]

    async def _probe_client(self) -> Probe:
        try:
            await self._tokens({"code": "a-code-that-nobody-was-given", "redirect_uri": NO_PLACE})
        except oauth.SaidNo:
            return Probe("client", True, f"GitHub knows {self._provider.client}")
        except Unreachable as error:
            return Probe("client", False, str(error))
        return Probe("client", False, "GitHub takes codes that it never gave")


def _word(entry: Mapping[str, object], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value:
        raise Unreachable(f"GitHub lists something without a {name}")
    return value


def _team(entry: Mapping[str, object]) -> str:
    organization = entry.get("organization")
    if not isinstance(organization, dict):
        raise Unreachable("GitHub lists a team without its organisation")
    return f"{_word(organization, 'login')}/{_word(entry, 'slug')}"
