"""
What is made of the claims of somebody who signed in: the person, and the line of the file behind each part. Pure.

Names are taken as they are, or from the file's own table; nothing is folded, cut or cleaned, so that no two names at
the provider become one person here (CA-12). Accounts that systems use for themselves are nobody's name (CA-10, CA-11).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ca.certificate import ROOT_LIKE
from ca.grants import matches, privileged
from ca.identity.provider import Refused
from ca.model import USER
from ca.provider import EMAIL, EMAIL_VERIFIED, Everybody, Person, Provider, When
from ca.strictyaml import shown

MOST_VALUES = 100
"""Values of one trait that are kept."""
LONGEST_TRAIT = 256
"""Characters of a trait's value; a longer one is left out."""
LONGEST_VALUE = 1024
"""Characters of any claim's value; a longer one counts for nothing."""

_PLAIN = re.compile(r"[A-Za-z0-9_.@/:+*?-]{1,60}\Z")
_MOST_INTEGER = 1 << 63


def person(provider: Provider, claims: Mapping[str, object], *, known_as: str | None = None) -> Person:
    """Whom *claims*, which the provider vouches for, make here. Raises ``ca.identity.provider.Refused``.

    Somebody who is *known_as* a person here already keeps that name, whatever the claims call them now.

    The plan:
    1. An e-mail address counts only when the provider says that it verified it.
    2. Some allow-condition fits.
    3. A newcomer's name: from the file's table, else the claim exactly as it is, unless systems use it for themselves.
    4. The roles of every entry that fits, and the traits.
    """
    # 1.
    verified = claims.get(EMAIL_VERIFIED)  # some providers send the word instead of the boolean
    if provider.uses_email and EMAIL in claims and not (verified is True or verified == "true"):
        raise Refused(
            f"{provider.title} does not say that your e-mail address is verified",
            hint="verify the address there; an administrator finds what else to do in the how-to of the provider",
            code="email_unverified",
        )
    # 2.
    allowed = next((said for when in provider.allow if (said := _fits(when, claims)) is not None), None)
    if allowed is None:
        raise Refused(
            f"{provider.title} knows you, but you are not among those who may sign in here",
            hint="ask an administrator",
            code="not_allowed",
        )
    # 3.
    name, because = _name(provider, claims) if known_as is None else (known_as, f"known here: user {known_as}")
    # 4.
    roles, role_lines = _roles(provider, claims)
    traits, trait_lines = _traits(provider, claims)
    lines = (f"{provider.file}:{allowed[0]}: {allowed[1]}: may sign in", because, *role_lines, *trait_lines)
    return Person(name, roles, traits, lines)


def _roles(provider: Provider, claims: Mapping[str, object]) -> tuple[frozenset[str], list[str]]:
    found = [(entry, fits) for entry in provider.roles if (fits := _fits(entry.when, claims)) is not None]
    lines = [f"{provider.file}:{entry.line}: {why}: roles {', '.join(entry.roles)}" for entry, (_, why) in found]
    return frozenset(role for entry, _ in found for role in entry.roles), lines


def _traits(provider: Provider, claims: Mapping[str, object]) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """The traits that have values. What is too much or too long is left out, which opens nothing, and said."""
    traits, lines = {}, []
    for entry in provider.traits:
        every = values(claims, entry.claim)
        kept = tuple(value for value in every if len(value) <= LONGEST_TRAIT and value.isprintable())[:MOST_VALUES]
        if kept:
            traits[entry.trait] = kept
        left_out = f" ({len(every) - len(kept)} left out)" if len(kept) < len(every) else ""
        words = ", ".join(map(told, kept)) or "nothing"
        lines.append(f"{provider.file}:{entry.line}: {entry.claim}: trait {entry.trait} is {words}{left_out}")
    return traits, lines


def _fits(when: When, claims: Mapping[str, object]) -> tuple[int, str] | None:
    """The line and the words for why *when* fits; None when it does not."""
    if isinstance(when, Everybody):
        return when.line, "everybody"
    reasons = []
    for claim, patterns in when.claims.items():
        found = next((value for value in values(claims, claim) if any(matches(one, value) for one in patterns)), None)
        if found is None:
            return None
        reasons.append(f"{claim} {'has' if isinstance(find(claims, claim), list) else 'is'} {told(found)}")
    return when.line, " and ".join(reasons)


def _name(provider: Provider, claims: Mapping[str, object]) -> tuple[str, str]:
    """The person's name, and the line that gave it."""
    rule = provider.user
    value = _one_word(provider, claims)
    # A table is written by hand for this one value, so it comes first and is not held against privileged names.
    if value in provider.names:
        name, at = provider.names[value]
        return name, f"{provider.file}:{at}: {rule.claim} is {told(value)}: user {name}"
    name = value if rule.domain is None else _local_part(provider, value, rule.domain)
    if not USER.match(name):
        raise Refused(
            f"the name {shown(name)} from {provider.title} cannot be a name here: expected a-z, 0-9, _ . @ -",
            hint="an administrator can give this person a name under `names` in the provider's file",
            code="name_invalid",
        )
    if name in ROOT_LIKE or privileged(name):
        raise Refused(
            f"nobody becomes {name} by what {provider.title} says: systems use this name for themselves",
            hint="an administrator can give this person another name under `names` in the provider's file",
            code="privileged_principal",
        )
    if name in {given for given, _ in provider.names.values()}:
        raise Refused(
            f"the name {name} belongs to somebody else by the provider's file",
            hint="an administrator can give this person another name under `names` there",
            code="name_invalid",
        )
    return name, f"{provider.file}:{rule.line}: {rule.claim} is {told(value)}: user {name}"


def _one_word(provider: Provider, claims: Mapping[str, object]) -> str:
    """The one value of the claim that names the person."""
    found = values(claims, provider.user.claim)
    if not found or isinstance(find(claims, provider.user.claim), bool):
        raise Refused(
            f"{provider.title} sends no {provider.user.claim}, which would be your name here",
            hint="an administrator can see what is missing: bartizan idp test",
            code="name_missing",
        )
    if len(found) > 1:
        raise Refused(
            f"{provider.title} sends several values of {provider.user.claim}: none of them is your name",
            code="name_invalid",
        )
    return found[0]


def _local_part(provider: Provider, value: str, domain: str) -> str:
    local, at, found = value.rpartition("@")
    if not at or found != domain:
        raise Refused(
            f"{shown(value)} does not end in @{domain}, and only names of that domain are taken from {provider.title}",
            code="domain_mismatch",
        )
    if "@" in local:
        raise Refused(f"{shown(value)} holds more than one @", code="name_invalid")
    return local


def find(claims: Mapping[str, object], path: str) -> object:
    """What stands at *path*. A claim whose own name has dots in it comes before one inside another."""
    place: Mapping[str, object] = claims
    while path not in place:
        outer, dot, path = path.partition(".")
        inner = place.get(outer)
        if not dot or not isinstance(inner, Mapping):
            return None
        place = inner
    return place[path]


def values(claims: Mapping[str, object], path: str) -> tuple[str, ...]:
    """The values of a claim as words, each once. A claim of a type that we do not take has none."""
    return tuple(dict.fromkeys(one for one in _words(find(claims, path)) if 0 < len(one) <= LONGEST_VALUE))


def _words(found: object) -> list[str]:
    match found:
        case str(text):
            return [text]
        case bool(yes):
            return ["true" if yes else "false"]
        case int(number) if abs(number) < _MOST_INTEGER:
            return [str(number)]
        case float(number) if math.isfinite(number):
            return [str(number)]
        case list(several) if all(isinstance(one, str) for one in several):
            return several
        case _:
            return []


def told(value: str) -> str:
    """A value from outside, in a message: as it is where that is harmless, else quoted."""
    return value if _PLAIN.match(value) else shown(value)
