"""
An identity provider as its file describes it, and a person as its claims make them: values that cannot be wrong. Pure.

``ca/provider_file.py`` reads one from text, ``ca/claims.py`` makes a person of what the provider says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from ca.certificate import ROOT_LIKE
from ca.model import LABEL, USER
from ca.policy import ADMIN
from ca.roles import ROLE
from ca.web_address import wrong_origin, wrong_url

OIDC, GITHUB = "oidc", "github"
KINDS = (OIDC, GITHUB)
GITHUB_ISSUER = "https://github.com"

OPEN_TO_ALL = frozenset(
    {
        GITHUB_ISSUER,
        "https://accounts.google.com",
        "https://gitlab.com",
        "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0",
    }
)
"""Issuers at which anybody makes an account: who may sign in must be narrowed."""

RESERVED_NAMES = frozenset({"password", "local"})
"""What the audit log calls a way in that is no provider."""

EMAIL, EMAIL_VERIFIED = "email", "email_verified"


@dataclass(frozen=True, slots=True)
class Everybody:
    """Whoever the provider vouches for: ``"*"``, written out on this line."""

    line: int


@dataclass(frozen=True, slots=True)
class Condition:
    """Every claim must have a value that one of its patterns matches."""

    line: int
    claims: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        if not self.claims or not all(self.claims.values()):
            raise ValueError("a condition names claims and patterns: empty never means all")


When = Everybody | Condition


@dataclass(frozen=True, slots=True)
class Naming:
    """Which claim is the person's name. With ``domain``, ``@domain`` is cut off, and no other domain is taken."""

    line: int
    claim: str
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class RoleEntry:
    """Roles for whom a condition fits."""

    line: int
    when: When
    roles: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.roles or not all(ROLE.match(role) for role in self.roles):
            raise ValueError("an entry names roles")
        if isinstance(self.when, Everybody) and ADMIN in self.roles:
            raise ValueError("not everybody is an administrator")


@dataclass(frozen=True, slots=True)
class TraitEntry:
    """A trait, and the claim that holds its values."""

    line: int
    trait: str
    claim: str


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider's file that was understood. One that exists is complete: nothing about it is guessed later."""

    name: str
    title: str
    kind: str
    issuer: str
    client: str
    scopes: tuple[str, ...]
    user: Naming
    allow: tuple[When, ...]
    names: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """From the claim's value to the person's name, and the line that says so."""
    roles: tuple[RoleEntry, ...] = ()
    traits: tuple[TraitEntry, ...] = ()
    also: tuple[str, ...] = ()
    """Other origins (``https://keys.example.com``) that the provider's metadata may point to."""
    unreachable_limit: timedelta | None = None
    """After so long without an answer live sessions end. None: never."""
    file: str = "idp.yaml"
    notes: tuple[str, ...] = ()
    """What a person who applies the file should know, each with its line."""

    def __post_init__(self) -> None:
        if not LABEL.match(self.name) or self.name in RESERVED_NAMES or self.kind not in KINDS:
            raise ValueError("not a provider's name and kind")
        if wrong_url(self.issuer) or any(wrong_origin(origin) for origin in self.also):
            raise ValueError("not an issuer and origins")
        if self.kind == OIDC and "openid" not in self.scopes:
            raise ValueError("without the scope openid there is no ID token")
        if not self.allow or not self.client:
            raise ValueError("who may sign in is written out: empty never means all")
        if self.open_to_all and any(isinstance(when, Everybody) for when in self.allow):
            raise ValueError("everybody on the internet may not sign in")
        targets = [name for name, _ in self.names.values()]
        if len(set(targets)) != len(targets) or not all(USER.match(name) for name in targets):
            raise ValueError("each name belongs to one person")
        if ROOT_LIKE & set(targets):
            raise ValueError("nobody is root")

    @property
    def open_to_all(self) -> bool:
        """Whether the provider vouches for anybody who makes an account there."""
        return self.kind == GITHUB or self.issuer in OPEN_TO_ALL

    @property
    def uses_email(self) -> bool:
        """Whether anything hangs on the e-mail address, so that it must be a verified one (OIDC-11)."""
        return EMAIL in self.claims_used

    @property
    def claims_used(self) -> frozenset[str]:
        """The claims that the file reads, by their outermost names. With an address goes whether it is verified."""
        found = {claim if "://" in claim else claim.partition(".")[0] for claim in self._claims()}
        return frozenset(found | ({EMAIL_VERIFIED} if EMAIL in found else set()))

    def _claims(self) -> Iterator[str]:
        yield self.user.claim
        yield from (entry.claim for entry in self.traits)
        for when in (*self.allow, *(entry.when for entry in self.roles)):
            if isinstance(when, Condition):
                yield from when.claims


@dataclass(frozen=True, slots=True)
class Person:
    """Whom the claims make: the name, the roles and traits held now, and the line of the file behind each part."""

    user: str
    roles: frozenset[str]
    traits: Mapping[str, tuple[str, ...]]
    lines: tuple[str, ...] = ()
