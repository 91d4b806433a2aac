"""
Any provider that speaks OpenID Connect, by its discovery document. The rules for tokens are in ``id_token.py``; here is
the order in which a provider is asked, and how long its answers are believed.

The numbered plan of one sign-in, once the browser is back:

1. The answer is this provider's: ``iss`` (RFC 9207) is its issuer, and stands there if the metadata promise it.
2. It brings a code, not an error.
3. The code is exchanged, with the verifier that only this sign-in has.
4. The ID token holds (``id_token.py``), for the nonce of this sign-in. An unknown key makes us look for new ones once,
   at most every minute.
5. What the file reads and the token lacks comes from the user information, of the same subject. The signed token wins.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Generic, Protocol, TypeVar

from ca.identity import id_token, oauth
from ca.identity.fetch import Answer, WayOut
from ca.identity.key_set import SigningKey, read_keys
from ca.identity.metadata import Metadata, read_metadata
from ca.identity.provider import NEEDS_DISCOVERY, Attempt, Probe, Proven, Refused, Unreachable

DISCOVERY = "/.well-known/openid-configuration"
JUST_NOW_SECONDS = 2.0
BELIEVED_SECONDS = 3_600.0
"""How long metadata and keys are used before they are asked for again."""
AGAIN_SECONDS = 60.0
"""How often, at most, an unknown key makes us ask for the keys."""
GOOGLE = "https://accounts.google.com"
NO_PLACE = "https://bartizan.invalid/"


class Described(Protocol):
    """What is needed of a provider's file (``ca/provider.py``)."""

    @property
    def issuer(self) -> str: ...
    @property
    def client(self) -> str: ...
    @property
    def scopes(self) -> Collection[str]: ...
    @property
    def also(self) -> Collection[str]: ...
    @property
    def claims_used(self) -> frozenset[str]: ...


T = TypeVar("T")


class _Kept(Generic[T]):
    """One of the provider's documents, believed for a while. One asks at a time; those who waited share a failure."""

    def __init__(self, ask: Callable[[], Awaitable[T]], clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._turn = asyncio.Lock()
        self._kept: tuple[float, T] | None = None
        self._asked = 0.0
        self._times = 0
        self._failure: Unreachable | None = None

    async def value(self, serves: Callable[[T], bool] = lambda _: True, *, believed: float = BELIEVED_SECONDS) -> T:
        """The document; a newer one when it is old, or when it does not serve and the last is a minute ago."""
        times = self._times
        async with self._turn:
            if self._times != times and self._failure is not None:
                raise Unreachable(str(self._failure), hint=self._failure.hint, code=self._failure.code)
            if self._kept is None or self._clock() - self._kept[0] > believed:
                return await self._anew()
            if not serves(self._kept[1]) and self._clock() - self._asked >= AGAIN_SECONDS:
                return await self._anew()
            return self._kept[1]

    async def _anew(self) -> T:
        self._asked = self._clock()
        self._failure = None
        try:
            found = await self._ask()
        except Unreachable as error:
            self._failure = error
            raise
        finally:
            self._times += 1
        self._kept = (self._clock(), found)
        return found


class Oidc:
    """One provider. Made for each revision of its file: what was learnt under another is not carried over.

    clock: seconds that nobody sets (``time.monotonic``).
    """

    def __init__(
        self,
        provider: Described,
        secret: str | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        way: WayOut | None = None,
    ) -> None:
        self._provider = provider
        self._secret = secret
        self._clock = clock
        self._way = way or WayOut([provider.issuer, *provider.also])
        self._metadata = _Kept(self._ask_metadata, clock)
        self._keys = _Kept(self._ask_keys, clock)
        self._key_types: dict[str, str] = {}
        self._newer: dict[str, str] = {}
        """Renewals that were replaced, until somebody asks with the new one."""

    async def address(self, attempt: Attempt) -> str:
        # Asked anew: nobody is sent off to a provider that is down, to read what a browser says of it.
        metadata = await self._metadata.value(believed=JUST_NOW_SECONDS)
        scopes, more = self._scopes()
        return oauth.address(
            metadata.authorization_endpoint,
            self._provider.client,
            attempt,
            scopes=" ".join(scopes),
            more={"nonce": attempt.nonce, **more},
        )

    async def prove(self, attempt: Attempt, answer: Mapping[str, str], *, now: datetime) -> Proven:
        """Whom *answer* proves; the plan is above."""
        metadata = await self._metadata.value()
        self._check_sender(answer, metadata)  # 1.
        code = oauth.code_in(answer)  # 2.
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": attempt.redirect_uri,
            "code_verifier": attempt.verifier,
        }
        try:
            tokens = await oauth.tokens(self._way, metadata.token_endpoint, self._client(metadata), form)  # 3.
        except oauth.SaidNo as error:
            raise Refused(
                f"the provider does not take the code of this sign-in: {error.said}",
                hint="start again; a code works once and for a short time",
                code="code_refused",
            ) from error
        if tokens.id is None:
            raise Unreachable("the provider gave no ID token: do the scopes hold `openid`?")
        claims = await self._verified(tokens.id, nonce=attempt.nonce, now=now, access_token=tokens.access)  # 4.
        return await self._proven(claims, tokens, metadata)  # 5.

    async def ask_again(self, renewal: str, *, subject: str, now: datetime) -> Proven:
        """Whether *subject* is still vouched for. What does not hold here is no answer: it ends nobody's session."""
        metadata = await self._metadata.value()
        self._newer = {old: new for old, new in self._newer.items() if new != renewal}  # the caller has it
        form = {"grant_type": "refresh_token", "refresh_token": self._newer.get(renewal, renewal)}
        try:
            tokens = await oauth.tokens(self._way, metadata.token_endpoint, self._client(metadata), form)
        except oauth.SaidNo as error:
            self._newer.pop(renewal, None)
            raise Refused(f"it does not renew the sign-in: {error.said}", code="identity_refused") from error
        if tokens.refresh is not None:
            self._newer[renewal] = tokens.refresh  # the old one may be dead, and the caller may stop waiting for us
        newer = self._newer.get(renewal)
        try:
            claims = await self._refreshed(tokens, metadata, subject=subject, now=now)
            return await self._proven(claims, tokens, metadata, renewal=newer or renewal)
        except Unreachable as error:
            raise Unreachable(str(error), hint=error.hint, code=error.code, renewal=newer) from error

    async def probe(self, *, now: datetime) -> list[Probe]:
        found, metadata = await self._probe_discovery(now)
        if metadata is None:
            return [*found, Probe("keys", None, NEEDS_DISCOVERY), Probe("client", None, NEEDS_DISCOVERY)]
        return [*found, await self._probe_keys(metadata), await self._probe_client(metadata)]

    async def read_token(self, token: str, *, now: datetime) -> Proven:
        claims = await self._verified(token, nonce=None, now=now, access_token=None, refreshed=True)
        return Proven(self._provider.issuer, str(claims["sub"]), claims, None)

    async def close(self) -> None:
        await self._way.close()

    # --- what the provider says about itself ------------------------------------------------------------------

    async def _ask_metadata(self) -> Metadata:
        return self._read(await self._discovery())

    async def _discovery(self) -> Answer:
        return await self._way.get(self._provider.issuer.rstrip("/") + DISCOVERY)

    def _read(self, answer: Answer) -> Metadata:
        metadata = read_metadata(_document(answer, "metadata"), issuer=self._provider.issuer)
        for url in (metadata.authorization_endpoint, metadata.token_endpoint, metadata.jwks_uri):
            self._way.permit(url)
        if metadata.userinfo_endpoint is not None:
            self._way.permit(metadata.userinfo_endpoint)
        return metadata

    def _client(self, metadata: Metadata) -> oauth.Client:
        method = metadata.auth_method(has_secret=self._secret is not None)
        return oauth.Client(self._provider.client, self._secret, method)

    def _scopes(self) -> tuple[list[str], dict[str, str]]:
        """The scopes to ask for, and what has to be said with them so that a refresh token is given."""
        scopes = list(self._provider.scopes)
        if "offline_access" not in scopes:
            return scopes, {}
        if self._provider.issuer == GOOGLE:  # knows no such scope
            return [scope for scope in scopes if scope != "offline_access"], {
                "access_type": "offline",
                "prompt": "consent",
            }
        return scopes, {"prompt": "consent"}  # OpenID Connect Core 11: without it the scope is ignored

    # --- keys -------------------------------------------------------------------------------------------------

    async def _verified(
        self, token: str, *, nonce: str | None, now: datetime, access_token: str | None, refreshed: bool = False
    ) -> Mapping[str, object]:
        kid = id_token.key_name(token)
        keys = await self._keys.value(lambda keys: kid is None or any(key.kid == kid for key in keys))
        return id_token.verify(
            token,
            keys=keys,
            issuer=self._provider.issuer,
            client=self._provider.client,
            nonce=nonce,
            now=now,
            access_token=access_token,
            refreshed=refreshed,
        )

    async def _ask_keys(self) -> tuple[SigningKey, ...]:
        metadata = await self._metadata.value()
        keys = _read_keys(await self._way.get(metadata.jwks_uri))
        return tuple(key for key in keys if self._is_what_it_was(key))

    def _is_what_it_was(self, key: SigningKey) -> bool:
        """A key that came back under its old name as another type is not believed."""
        return key.kid is None or self._key_types.setdefault(key.kid, key.kty) == key.kty

    # --- the person -------------------------------------------------------------------------------------------

    def _check_sender(self, answer: Mapping[str, str], metadata: Metadata) -> None:
        said = answer.get("iss")
        if said is None and not metadata.names_itself:
            return
        if said != self._provider.issuer:
            raise Refused("the answer is not from the provider that was asked", code="issuer_mismatch")

    async def _proven(
        self, claims: Mapping[str, object], tokens: oauth.Tokens, metadata: Metadata, *, renewal: str | None = None
    ) -> Proven:
        subject = str(claims["sub"])
        lacking = self._provider.claims_used - claims.keys()
        if metadata.userinfo_endpoint is not None and (lacking or tokens.id is None):
            information = await self._user_information(metadata.userinfo_endpoint, tokens.access, subject)
            claims = _joined(claims, information)
        return Proven(self._provider.issuer, subject, claims, tokens.refresh or renewal)

    async def _refreshed(
        self, tokens: oauth.Tokens, metadata: Metadata, *, subject: str, now: datetime
    ) -> Mapping[str, object]:
        if tokens.id is None:
            if metadata.userinfo_endpoint is None:
                raise Unreachable("the provider says nothing about a person when it is asked again")
            return {"sub": subject}
        try:
            claims = await self._verified(tokens.id, nonce=None, now=now, access_token=tokens.access, refreshed=True)
        except Refused as error:
            raise Unreachable(f"the provider's new token does not hold: {error}", hint=error.hint) from error
        if claims["sub"] != subject:
            raise Refused("the provider answered for another person", code="token_subject")
        return claims

    async def _user_information(self, endpoint: str, access_token: str, subject: str) -> Mapping[str, object]:
        answer = await self._way.get(endpoint, headers={"Authorization": f"Bearer {access_token}"})
        information = _document(answer, "user information")
        if information.get("sub") != subject:
            raise Refused("the provider's user information is about another person", code="token_subject")
        return information

    # --- trying it out ----------------------------------------------------------------------------------------

    async def _probe_discovery(self, now: datetime) -> tuple[list[Probe], Metadata | None]:
        try:
            answer = await self._discovery()
            clock = probe_clock(answer, now)
            metadata = self._read(answer)
        except Unreachable as error:
            return [Probe("discovery", False, _sentence(error)), Probe("clock", None, NEEDS_DISCOVERY)], None
        return [Probe("discovery", True, f"{self._provider.issuer} describes itself"), clock], metadata

    async def _probe_keys(self, metadata: Metadata) -> Probe:
        try:
            keys = _read_keys(await self._way.get(metadata.jwks_uri))
        except Unreachable as error:
            return Probe("keys", False, _sentence(error))
        usable = [key for key in keys if key.use in (None, "sig")]
        kinds = ", ".join(sorted({key.alg or key.kty for key in usable}))
        return Probe("keys", bool(usable), f"{len(usable)} that can sign: {kinds}" if usable else "none that can sign")

    async def _probe_client(self, metadata: Metadata) -> Probe:
        """A code that nobody was given is refused for the code's sake if the provider knows us."""
        form = {
            "grant_type": "authorization_code",
            "code": "a-code-that-nobody-was-given",
            "redirect_uri": NO_PLACE,
            "code_verifier": "a-verifier-that-belongs-to-no-sign-in-at-all",
        }
        try:
            await oauth.tokens(self._way, metadata.token_endpoint, self._client(metadata), form)
        except oauth.SaidNo:
            return Probe("client", True, f"the provider knows {self._provider.client}")
        except Unreachable as error:
            return Probe("client", False, _sentence(error))
        return Probe("client", False, "the provider takes codes that it never gave")


def probe_clock(answer: Answer, now: datetime) -> Probe:
    """How far the provider's clock is from *now*."""
    try:
        there = parsedate_to_datetime(answer.headers["date"])
        apart = (there - now).total_seconds()
    except (KeyError, ValueError, TypeError):
        return Probe("clock", None, "the provider does not say what time it is")
    if abs(apart) <= id_token.LEEWAY_SECONDS:
        return Probe("clock", True, f"within {id_token.LEEWAY_SECONDS} s of the provider's")
    return Probe("clock", False, f"the provider's clock is {abs(apart):.0f} s {'ahead' if apart > 0 else 'behind'}")


def _joined(signed: Mapping[str, object], information: Mapping[str, object]) -> Mapping[str, object]:
    """Both; what is signed wins. That a mail address is verified is only said of the address beside it."""
    joined = {**information, **signed}
    if signed.get("email") != information.get("email"):
        joined.pop("email_verified", None)
        source = signed if "email" in signed else information
        joined |= {name: value for name, value in source.items() if name == "email_verified"}
    return joined


def _document(answer: Answer, what: str) -> Mapping[str, object]:
    if answer.status != 200:
        raise Unreachable(f"{answer.host} gives no {what}: it answered with status {answer.status}")
    return answer.json()


def _read_keys(answer: Answer) -> tuple[SigningKey, ...]:
    try:
        return read_keys(_document(answer, "keys"))
    except ValueError as error:
        raise Unreachable(f"{answer.host} gives no set of keys: {error}") from error


def _sentence(error: Unreachable) -> str:
    return f"{error}; {error.hint}" if error.hint else str(error)
