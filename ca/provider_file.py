"""
An identity provider's file: strict parsing into a ``Provider``. Pure.

What is not understood is an error that names the line, the field and what was expected; nothing is skipped, and no
value is guessed. Empty never means all: who may sign in is always written out. docs/reference/provider-file.md
describes every field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

import yaml

from ca.certificate import ROOT_LIKE
from ca.claims import person
from ca.model import LABEL, USER
from ca.policy import ADMIN
from ca.provider import (
    GITHUB,
    GITHUB_ISSUER,
    KINDS,
    OIDC,
    OPEN_TO_ALL,
    RESERVED_NAMES,
    Condition,
    Everybody,
    Naming,
    Person,
    Provider,
    RoleEntry,
    TraitEntry,
    When,
)
from ca.roles import ROLE
from ca.strictyaml import (
    FileError,
    Problem,
    Refused,
    choice,
    close,
    compose,
    duration,
    entries,
    fields,
    items,
    line,
    one_of,
    shown,
    word,
    words,
)
from ca.web_address import wrong_origin, wrong_url

__all__ = ["Person", "Provider", "ProviderError", "parse", "person"]

T = TypeVar("T")

REQUIRED: Mapping[str, tuple[str, ...]] = {
    OIDC: ("name", "kind", "issuer", "client", "user", "allow"),
    GITHUB: ("name", "kind", "client", "allow"),
}
_ALWAYS = REQUIRED[GITHUB]
OPTIONAL = ("title", "scopes", "names", "roles", "traits", "also", "unreachable_limit")
FIELDS = (*REQUIRED[OIDC], *OPTIONAL)

DEFAULT_SCOPES: Mapping[str, tuple[str, ...]] = {
    OIDC: ("openid", "profile", "email"),
    GITHUB: ("read:org", "user:email"),
}
GITHUB_USER = "login"
GITHUB_CLAIMS = ("login", "id", "email", "email_verified", "orgs", "teams")
"""What is known of somebody on GitHub; a team is written ``organisation/team``."""

MOST_TRAITS = 16

_WORD = re.compile(r"[A-Za-z_-]{1,32}\Z")
_CLAIM = re.compile(r"[\x21-\x7e]{1,255}\Z")
_TRAIT = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}\Z")
_CLIENT = re.compile(r"[\x21-\x7e]{1,255}\Z")
_DOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9-]+(\.[a-z0-9-]+)+\Z")


class ProviderError(FileError):
    """The file cannot be taken. The message is the first of ``problems``, with file and line."""

    file_code = "provider_invalid"


def parse(text: str, file: str = "idp.yaml") -> Provider:
    """The provider that *text* describes. Every problem found is in the ProviderError, the first one in its message."""
    return _Parser("".join(one if one.isprintable() else "?" for one in file)).provider(text)


class _Parser:
    """Reads one file; keeps problems and goes on with the next field, so that all of them are told at once."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._problems: list[Problem] = []

    def provider(self, text: str) -> Provider:
        try:
            root = compose(text)
            top = self._fields(root)
        except Refused as refused:
            raise ProviderError(self._file, [*self._problems, refused.problem]) from refused
        found = self._found(root, top)
        if self._problems:
            raise ProviderError(self._file, self._problems)
        return Provider(**found, file=self._file, notes=_notes(self._file, root, found))  # type: ignore[arg-type]

    def _fields(self, root: yaml.Node) -> dict[str, yaml.Node]:
        """The fields of the file; unknown ones are problems."""
        found = {}
        if isinstance(root, yaml.ScalarNode):  # never shown: more often than not it is the secret's file
            raise Refused(root, "the file is a single text, expected fields such as `name: corp`")
        for name, key, value in entries(root, "the file"):
            if name in FIELDS:
                found[name] = value
            elif "secret" in name.lower():
                self._problem(key, f"{shown(name)}: a secret never stands in the file, use --secret-file FILE")
            else:
                what = f"unknown field {shown(name)}" if _WORD.fullmatch(name) else "unknown field"
                self._problem(key, f"{what}, expected {one_of(FIELDS)}{close(name, FIELDS)}")
        return found

    def _found(self, root: yaml.Node, top: Mapping[str, yaml.Node]) -> dict[str, object]:
        """What each field says, by the names of Provider's fields."""
        told = self._read(top, "kind", lambda node: choice(node, "kind", KINDS))
        kind = told or OIDC
        required = REQUIRED[kind] if told else _ALWAYS
        for field in required:
            if field not in top:
                self._problem(root, f"the file has no field {field!r}, expected {', '.join(required)}")
        claim = _github_claim if kind == GITHUB else _claim
        issuer = self._read(top, "issuer", _issuer if kind == OIDC else _origin) or GITHUB_ISSUER
        return {
            "name": (name := self._read(top, "name", _name_of_provider)),
            "title": self._read(top, "title", _title) or name,
            "kind": kind,
            "issuer": issuer,
            "client": self._read(top, "client", _client),
            "scopes": self._read(top, "scopes", lambda node: _scopes(node, kind)) or DEFAULT_SCOPES[kind],
            "user": self._read(top, "user", lambda node: _user(node, claim)) or Naming(line(root), GITHUB_USER),
            "allow": tuple(self._allow(top, claim, anybody=kind == GITHUB or issuer in OPEN_TO_ALL)),
            "names": self._names(top),
            "roles": tuple(self._each(top, "roles", lambda node: _role_entry(node, claim))),
            "traits": tuple(self._traits(top, claim)),
            "also": tuple(self._each(top, "also", _origin)),
            "unreachable_limit": self._read(top, "unreachable_limit", _limit),
        }

    def _read(self, top: Mapping[str, yaml.Node], name: str, read: Callable[[yaml.Node], T]) -> T | None:
        """What *read* makes of a field; None when it is not there, or is refused and its problem kept."""
        if name not in top:
            return None
        try:
            return read(top[name])
        except Refused as refused:
            self._problems.append(refused.problem)
            return None

    def _each(self, top: Mapping[str, yaml.Node], name: str, read: Callable[[yaml.Node], T]) -> list[T]:
        """What *read* makes of each item of a list."""
        nodes = self._read(top, name, lambda node: items(node, name)) or []
        found = [self._read({name: node}, name, read) for node in nodes]
        return [one for one in found if one is not None]

    def _allow(
        self, top: Mapping[str, yaml.Node], claim: Callable[[yaml.Node], str], *, anybody: bool
    ) -> Iterator[When]:
        """Who may sign in. *anybody*: the provider vouches for whoever makes an account, so this must be narrowed."""
        if isinstance(top.get("allow"), yaml.ScalarNode):
            if found := self._read(top, "allow", lambda node: _everybody(node, anybody)):
                yield found
            return
        for condition in self._each(top, "allow", lambda node: _condition(node, "an allow-condition", claim)):
            if anybody and not _narrows(condition):
                self._problems.append(Problem(condition.line, f"this lets in anybody with an account there, {_NARROW}"))
            yield condition

    def _names(self, top: Mapping[str, yaml.Node]) -> dict[str, tuple[str, int]]:
        found: dict[str, tuple[str, int]] = {}
        first: dict[str, int] = {}
        for value, _, node in self._read(top, "names", lambda node: entries(node, "names")) or ():
            name = self._read({"names": node}, "names", _person_name)
            if name in first:
                self._problem(node, f"{shown(name)} is somebody's name already, on line {first[name]}")
            elif name is not None:
                first[name] = line(node)
                found[value] = (name, line(node))
        return found

    def _traits(self, top: Mapping[str, yaml.Node], claim: Callable[[yaml.Node], str]) -> Iterator[TraitEntry]:
        found = self._read(top, "traits", lambda node: entries(node, "traits")) or []
        if len(found) > MOST_TRAITS:
            self._problem(top["traits"], f"traits has {len(found)} entries, expected at most {MOST_TRAITS}")
        for trait, key, node in found:
            if not _TRAIT.match(trait):
                self._problem(key, f"trait {shown(trait)}, expected letters, digits, '-', '_' and '.', at most 64")
            elif (read := self._read({"traits": node}, "traits", claim)) is not None:
                yield TraitEntry(line(key), trait, read)

    def _problem(self, at: yaml.Node, text: str) -> None:
        self._problems.append(Problem(line(at), text))


def _notes(file: str, root: yaml.Node, found: Mapping[str, object]) -> tuple[str, ...]:
    notes = []
    if not found["roles"]:
        notes.append(f"{file}:{line(root)}: without an entry under roles nobody who signs in holds a role")
    return tuple(notes)


# --- fields -----------------------------------------------------------------------------------------------------

_NARROW = "expected conditions such as {orgs: [example]} or {hd: [example.com]}"


def _name_of_provider(node: yaml.Node) -> str:
    name = word(node, "name")
    if not LABEL.match(name) or name in RESERVED_NAMES:
        raise Refused(node, f"name is {shown(name)}, expected lower-case letters, digits and '-', such as corp")
    return name


def _title(node: yaml.Node) -> str:
    title = word(node, "title")
    if len(title) > 64:
        raise Refused(node, "title is longer than 64 characters")
    return title


def _client(node: yaml.Node) -> str:
    client = word(node, "client")
    if not _CLIENT.match(client):
        raise Refused(node, f"client is {shown(client)}, expected the client id that the provider gave")
    return client


def _issuer(node: yaml.Node) -> str:
    issuer = word(node, "issuer")
    if wrong := wrong_url(issuer):
        raise Refused(node, f"issuer is {_without_userinfo(issuer)}, {wrong}")
    return issuer


def _origin(node: yaml.Node) -> str:
    origin = word(node, "an origin")
    if wrong := wrong_origin(origin):
        raise Refused(node, f"origin is {_without_userinfo(origin)}, {wrong}")
    return origin


def _without_userinfo(url: str) -> str:
    """An address in a message: it may hold a password where none belongs."""
    return shown(re.sub(r"//[^/]*@", "//...@", url))


def _scopes(node: yaml.Node, kind: str) -> tuple[str, ...]:
    found = words(node, "scopes")
    for text, at in found:
        if not _SCOPE.match(text):
            raise Refused(at, f"scope {shown(text)}, expected printable ASCII without blanks and quotes")
    scopes = tuple(text for text, _ in found)
    if kind == OIDC and "openid" not in scopes:
        raise Refused(node, "scopes has no openid, and without it there is no ID token")
    return scopes


def _claim(node: yaml.Node) -> str:
    claim = word(node, "a claim")
    if not _CLAIM.match(claim):
        raise Refused(node, f"claim {shown(claim)}, expected its name such as groups or realm_access.roles")
    return claim


def _github_claim(node: yaml.Node) -> str:
    claim = word(node, "a claim")
    if claim not in GITHUB_CLAIMS:
        raise Refused(
            node, f"GitHub gives no {shown(claim)}, expected {one_of(GITHUB_CLAIMS)}{close(claim, GITHUB_CLAIMS)}"
        )
    return claim


def _user(node: yaml.Node, claim: Callable[[yaml.Node], str]) -> Naming:
    if not isinstance(node, yaml.MappingNode):
        return Naming(line(node), claim(node))
    found = fields(node, "user", required=("claim", "domain"))
    domain = word(found["domain"], "domain")
    if not _DOMAIN.match(domain):
        raise Refused(found["domain"], f"domain is {shown(domain)}, expected it in lower case such as example.com")
    return Naming(line(node), claim(found["claim"]), domain)


def _person_name(node: yaml.Node) -> str:
    name = word(node, "a name")
    if not USER.match(name):
        raise Refused(node, f"name {shown(name)}, expected a user name such as alice")
    if name in ROOT_LIKE:
        raise Refused(node, f"nobody is called {name} here")
    return name


def _everybody(node: yaml.Node, anybody: bool) -> Everybody:
    if word(node, "allow") != "*":
        raise Refused(node, f'allow is {shown(node.value)}, expected "*" or conditions such as [{{groups: [ops]}}]')
    if anybody:
        raise Refused(node, f'allow is "*", and anybody makes an account there: {_NARROW}')
    return Everybody(line(node))


def _when(node: yaml.Node, claim: Callable[[yaml.Node], str]) -> When:
    if isinstance(node, yaml.ScalarNode) and node.value == "*":
        return Everybody(line(node))
    return _condition(node, "when", claim)


def _condition(node: yaml.Node, what: str, claim: Callable[[yaml.Node], str]) -> Condition:
    if not isinstance(node, yaml.MappingNode):
        raise Refused(node, f"{what} is not a set of claims, expected such as {{groups: [ops]}}")
    found = {claim(key): _patterns(value, name) for name, key, value in entries(node, what)}
    if not found:
        raise Refused(node, f"{what} is empty, and empty never means all: name a claim")
    return Condition(line(node), found)


def _patterns(node: yaml.Node, claim: str) -> tuple[str, ...]:
    found = words(node, f"claim {shown(claim)[1:-1]}")
    for text, at in found:
        if len(text) > 256:
            raise Refused(at, "a pattern is longer than 256 characters")
    return tuple(text for text, _ in found)


def _narrows(condition: Condition) -> bool:
    """Whether some claim is asked for by more than wildcards. That an address is verified narrows nothing."""
    asked: Iterable[Sequence[str]] = (texts for claim, texts in condition.claims.items() if claim != "email_verified")
    return any(all(text.strip("*?") for text in texts) for texts in asked)


def _role_entry(node: yaml.Node, claim: Callable[[yaml.Node], str]) -> RoleEntry:
    found = fields(node, "a role entry", required=("when", "roles"))
    when = _when(found["when"], claim)
    roles = words(found["roles"], "roles")
    for name, at in roles:
        if not ROLE.match(name):
            raise Refused(at, f"role {shown(name)}, expected a role's name such as developer")
        if name == ADMIN and isinstance(when, Everybody):
            raise Refused(at, f"{ADMIN} for everybody: name the claim that makes somebody an administrator")
    return RoleEntry(line(node), when, tuple(name for name, _ in roles))


def _limit(node: yaml.Node) -> timedelta:
    return duration(node, "unreachable_limit", least=timedelta(minutes=1), most=timedelta(days=366))
