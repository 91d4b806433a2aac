"""A provider's file: what is understood, how it is told what is not, and whom claims make."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.claims import LONGEST_VALUE, MOST_VALUES, values
from ca.identity.provider import Refused
from ca.model import USER
from ca.provider import Condition, Everybody, Naming, RoleEntry, TraitEntry
from ca.provider_file import MOST_TRAITS, Person, Provider, ProviderError, parse, person

DESIGNED = """\
name: corp
title: Example Corp
kind: oidc
issuer: https://id.example.com
client: bartizan
scopes: [openid, profile, email, groups]
user: preferred_username
names: {"A.Smith@example.com": alice}
allow: "*"
roles:
  - {when: {groups: [sre, "team-*"]}, roles: [sre]}
  - {when: "*", roles: [developer]}
traits: {team: groups}
also: [https://keys.example.com]
unreachable_limit: 8h
"""

ON_GITHUB = """\
name: github
kind: github
client: Iv1.0123456789abcdef
allow: [{orgs: [example]}]
roles: [{when: {teams: [example/sre]}, roles: [sre]}]
"""


def test_a_provider_is_exactly_what_is_written():
    assert parse(DESIGNED, "corp.yaml") == Provider(
        name="corp",
        title="Example Corp",
        kind="oidc",
        issuer="https://id.example.com",
        client="bartizan",
        scopes=("openid", "profile", "email", "groups"),
        user=Naming(7, "preferred_username"),
        names={"A.Smith@example.com": ("alice", 8)},
        allow=(Everybody(9),),
        roles=(
            RoleEntry(11, Condition(11, {"groups": ("sre", "team-*")}), ("sre",)),
            RoleEntry(12, Everybody(12), ("developer",)),
        ),
        traits=(TraitEntry(13, "team", "groups"),),
        also=("https://keys.example.com",),
        unreachable_limit=timedelta(hours=8),
        file="corp.yaml",
    )


def test_what_is_left_out_has_its_default():
    found = parse(oidc())
    assert found.title == "corp"
    assert found.scopes == ("openid", "profile", "email")
    assert (found.names, found.roles, found.traits, found.also, found.unreachable_limit) == ({}, (), (), (), None)


def test_a_wrong_kind_is_not_followed_by_complaints_of_the_other_kind():
    with pytest.raises(ProviderError) as caught:
        parse(github(kind="gihub", issuer="https://github.example.com"))
    assert caught.value.lines() == ["idp.yaml:2: kind is 'gihub', expected oidc or github (did you mean github?)"]


def test_github_has_its_own_defaults():
    found = parse(ON_GITHUB)
    assert (found.issuer, found.scopes) == ("https://github.com", ("read:org", "user:email"))
    assert found.user == Naming(1, "login")
    enterprise = parse(ON_GITHUB + "issuer: https://github.example.com\n")
    assert enterprise.issuer == "https://github.example.com"


def test_a_file_that_gives_no_role_says_so():
    assert parse(oidc()).notes == ("idp.yaml:1: without an entry under roles nobody who signs in holds a role",)
    assert parse(DESIGNED).notes == ()


def test_which_claims_a_file_reads_is_known_beforehand():
    """So that no more is asked for than is needed."""
    file = oidc(
        user="{claim: email, domain: corp.com}",
        allow="[{realm_access.roles: [ssh], acr: gold}]",
        traits="{team: https://example.com/team}",
    )
    wanted = {"email", "email_verified", "realm_access", "acr", "https://example.com/team"}
    assert parse(file).claims_used == wanted
    assert parse(ON_GITHUB).claims_used == {"login", "orgs", "teams"}


def test_every_problem_is_told_with_its_line():
    with pytest.raises(ProviderError) as caught:
        parse("name: Corp\nkind: oidc\nclient: x\nusr: sub\nuser: sub\nallow: []\nissuer: http://id.example.com\n")
    assert caught.value.code == "provider_invalid"
    assert [problem.line for problem in caught.value.problems] == [1, 4, 6, 7]
    assert str(caught.value).startswith("idp.yaml:1: name is 'Corp', expected lower-case letters")
    assert "(did you mean user?)" in (caught.value.hint or "")


def oidc(**changed: str) -> str:
    """A short file, each field on its line: name 1, kind 2, issuer 3, client 4, user 5, allow 6, then what is added."""
    told = {
        "name": "corp",
        "kind": "oidc",
        "issuer": "https://id.example.com",
        "client": "bartizan",
        "user": "preferred_username",
        "allow": '"*"',
    } | changed
    return "".join(f"{name}: {value}\n" for name, value in told.items() if value)


def github(**changed: str) -> str:
    told = {"name": "gh", "kind": "github", "client": "x", "allow": "[{orgs: [example]}]"} | changed
    return "".join(f"{name}: {value}\n" for name, value in told.items() if value)


WRONG = [
    ("", "1: the file is empty"),
    ("hunter2", "1: the file is a single text, expected fields such as `name: corp`"),
    (oidc(name=""), "1: the file has no field 'name', expected name, kind, issuer, client, user, allow"),
    (oidc(user=""), "1: the file has no field 'user', expected name"),
    (oidc(allow=""), "1: the file has no field 'allow', expected name"),
    (github(allow=""), "1: the file has no field 'allow', expected name, kind, client, allow"),
    (oidc(titel="x"), "7: unknown field 'titel', expected name, "),
    (oidc(titel="x"), "(did you mean title?)"),
    # secrets
    (oidc() + "8f+hunter2/: 1\n", "7: unknown field, expected name, "),
    (oidc(secret="hunter2"), "7: 'secret': a secret never stands in the file, use --secret-file FILE"),
    (oidc(client_secret="hunter2"), "7: 'client_secret': a secret never stands in the file, use --secret-file"),
    (oidc(clientSecret="hunter2"), "7: 'clientSecret': a secret never stands in the file, use --secret-file"),
    (oidc(issuer="https://u:hunter2@id.example.com"), "3: issuer is 'https://...@id.example.com', expected no user"),
    # name, title, kind, client
    (oidc(name="Corp"), "1: name is 'Corp', expected lower-case letters, digits and '-', such as corp"),
    (oidc(name="../x"), "1: name is '../x', expected lower-case"),
    (oidc(name="password"), "1: name is 'password', expected lower-case"),
    (oidc(title="x" * 65), "7: title is longer than 64 characters"),
    (oidc(kind="saml"), "2: kind is 'saml', expected oidc or github"),
    (oidc(kind="oicd"), "2: kind is 'oicd', expected oidc or github (did you mean oidc?)"),
    (oidc(client='"a b"'), "4: client is 'a b', expected the client id"),
    # addresses
    (oidc(issuer="id.example.com"), "3: issuer is 'id.example.com', expected an address such as"),
    (oidc(issuer="http://id.example.com"), "3: issuer is 'http://id.example.com', expected https (http is for this m"),
    (oidc(issuer="http://169.254.169.254"), "3: issuer is 'http://169.254.169.254', expected https"),
    (oidc(issuer="http://localhost:80@evil"), "3: issuer is 'http://...@evil', expected no user or password"),
    (oidc(issuer="https://id.example.com?x=1"), "3: issuer is 'https://id.example.com?x=1', expected neither ? nor #"),
    (oidc(issuer='"https://id.example.com/#x"'), "3: issuer is 'https://id.example.com/#x', expected neither ? nor #"),
    (oidc(issuer="file:///etc/passwd"), "3: issuer is 'file:///etc/passwd', expected an address such as"),
    (oidc(issuer="https://:443"), "3: issuer is 'https://:443', expected an address such as"),
    (oidc(issuer="https://id.example.com:99999"), "3: issuer is 'https://id.example.com:99999', expected an address"),
    (oidc(issuer="'https://a\\b'"), "3: issuer is 'https://a\\\\b', expected an address in plain ASCII"),
    (oidc(also="[https://keys.example.com/jwks]"), "7: origin is 'https://keys.example.com/jwks', expected no path"),
    (oidc(also="[http://keys.example.com]"), "7: origin is 'http://keys.example.com', expected https"),
    (oidc(also="[]"), "7: also is an empty list"),
    (github(issuer="https://github.com/enterprises/x"), "5: origin is 'https://github.com/enterprises/x', expected no"),
    # scopes, limit
    (oidc(scopes="[profile]"), "7: scopes has no openid, and without it there is no ID token"),
    (oidc(scopes='[openid, "a b"]'), "7: scope 'a b', expected printable ASCII without blanks and quotes"),
    (oidc(scopes="[openid, openid]"), "7: 'openid' stands twice in scopes"),
    (oidc(unreachable_limit="8"), "7: unreachable_limit is '8', expected a duration such as 8h, 30m or 90s"),
    (oidc(unreachable_limit="59s"), "7: unreachable_limit is '59s', expected 1m to 366d"),
    # user, names
    (oidc(user="[a, b]"), "5: a claim is a list, expected a word"),
    (oidc(user='"a b"'), "5: claim 'a b', expected its name such as groups or realm_access.roles"),
    (oidc(user="{claim: email}"), "5: user has no field 'domain', expected claim, domain"),
    (oidc(user="{claim: email, domain: '*'}"), "5: domain is '*', expected it in lower case such as example.com"),
    (oidc(user="{claim: email, domain: Example.com}"), "5: domain is 'Example.com', expected it in lower case"),
    (oidc(user="{claim: email, domain: '@example.com'}"), "5: domain is '@example.com', expected it in lower case"),
    (oidc(names="{A: Alice}"), "7: name 'Alice', expected a user name such as alice"),
    (oidc(names="{A: root}"), "7: nobody is called root here"),
    (oidc(names="{A: alice, B: alice}"), "7: 'alice' is somebody's name already, on line 7"),
    (oidc(names="{A: alice, A: bob}"), "7: 'A' stands twice in names, first on line 7"),
    # allow
    (oidc(allow="all"), "6: allow is 'all', expected \"*\" or conditions such as [{groups: [ops]}]"),
    (oidc(allow="{groups: ops}"), "6: allow is a set of fields, expected a list"),
    (oidc(allow="[]"), "6: allow is an empty list, and empty never means all"),
    (oidc(allow="[{}]"), "6: an allow-condition is empty, and empty never means all: name a claim"),
    (oidc(allow="['*']"), "6: an allow-condition is not a set of claims, expected such as {groups: [ops]}"),
    (oidc(allow="[{groups: []}]"), "6: claim groups is an empty list, and empty never means all"),
    (oidc(allow="[{groups: {a: b}}]"), "6: claim groups is a set of fields, expected a word"),
    (oidc(allow=f"[{{groups: {'x' * 257}}}]"), "6: a pattern is longer than 256 characters"),
    # issuers where anybody has an account
    (github(allow='"*"'), '4: allow is "*", and anybody makes an account there: expected conditions such as'),
    (github(allow="[{orgs: '*'}]"), "4: this lets in anybody with an account there, expected conditions"),
    (github(allow="[{orgs: [example]}, {login: '?*'}]"), "4: this lets in anybody with an account there, expected"),
    (github(allow="[{orgs: [example, '*']}]"), "4: this lets in anybody with an account there, expected"),
    (github(allow="[{email_verified: 'true'}]"), "4: this lets in anybody with an account there, expected"),
    (oidc(issuer="https://accounts.google.com"), '6: allow is "*", and anybody makes an account there'),
    (github(allow="[{groups: x}]"), "4: GitHub gives no 'groups', expected login, id, email, email_verified, orgs or"),
    (github(allow="[{team: x}]"), "(did you mean teams?)"),
    # roles, traits
    (oidc(roles="[]"), "7: roles is an empty list"),
    (oidc(roles="[{when: '*'}]"), "7: a role entry has no field 'roles', expected when, roles"),
    (oidc(roles="[{when: {}, roles: [x]}]"), "7: when is empty, and empty never means all: name a claim"),
    (oidc(roles="[{when: x, roles: [x]}]"), "7: when is not a set of claims, expected such as {groups: [ops]}"),
    (oidc(roles="[{when: '*', roles: [X]}]"), "7: role 'X', expected a role's name such as developer"),
    (oidc(roles="[{when: '*', roles: [admin]}]"), "7: admin for everybody: name the claim that makes somebody an adm"),
    (oidc(traits="{'a b': groups}"), "7: trait 'a b', expected letters, digits"),
    (oidc(traits="{team: [a]}"), "7: a claim is a list, expected a word"),
    (oidc(traits=str({f"t{n}": "x" for n in range(MOST_TRAITS + 1)})), "7: traits has 17 entries, expected at most 16"),
]


@pytest.mark.parametrize(("text", "told"), WRONG, ids=[told[:60] for _, told in WRONG])
def test_what_is_not_understood_is_told(text: str, told: str):
    with pytest.raises(ProviderError) as caught:
        parse(text)
    assert any(told in line for line in caught.value.lines()), caught.value.lines()
    assert "hunter2" not in "".join([str(caught.value), caught.value.hint or "", *caught.value.lines()])


@pytest.mark.parametrize(
    "issuer",
    [
        "https://id.example.com:8443/realms/corp",
        "https://10.0.0.7",
        "https://[fd00::1]:8443/",
        "http://127.0.0.1:9000",
        "http://[::1]:9000",
        "http://localhost:9000/dex",
    ],
)
def test_the_issuer_is_taken_where_it_lies_and_as_it_is_written(issuer: str):
    assert parse(oidc(issuer=f'"{issuer}"')).issuer == issuer


# --- whom claims make -----------------------------------------------------------------------------------------


def of(provider: Provider, **claims: object) -> Person:
    return person(provider, claims)


def code(provider: Provider, **claims: object) -> str:
    with pytest.raises(Refused) as caught:
        person(provider, claims)
    return caught.value.code


def test_a_person_is_told_with_the_line_behind_each_part():
    found = of(parse(DESIGNED), preferred_username="alice2", groups=["ops", "team-db"])
    assert (found.user, found.roles) == ("alice2", {"sre", "developer"})
    assert found.traits == {"team": ("ops", "team-db")}
    assert found.lines == (
        "idp.yaml:9: everybody: may sign in",
        "idp.yaml:7: preferred_username is alice2: user alice2",
        "idp.yaml:11: groups has team-db: roles sre",
        "idp.yaml:12: everybody: roles developer",
        "idp.yaml:13: groups: trait team is ops, team-db",
    )


def test_all_claims_of_a_condition_and_any_condition():
    provider = parse(oidc(allow="[{groups: [sre], acr: [gold, silver]}, {hd: example.com}]"))
    assert of(provider, preferred_username="a", groups="sre", acr="silver").user == "a"
    assert of(provider, preferred_username="a", hd="example.com").user == "a"
    assert code(provider, preferred_username="a", groups=["sre"]) == "not_allowed"
    assert code(provider, preferred_username="a", hd="example.com.evil.net") == "not_allowed"
    assert code(provider, preferred_username="a") == "not_allowed"


def test_claims_lie_inside_others_as_keycloak_sends_them():
    provider = parse(oidc(allow="[{realm_access.roles: [ssh]}]", traits="{team: https://example.com/team}"))
    claims = {"preferred_username": "a", "realm_access": {"roles": ["ssh"]}, "https://example.com/team": "db"}
    assert person(provider, claims).traits == {"team": ("db",)}
    assert code(provider, preferred_username="a", realm_access=["ssh"]) == "not_allowed"
    assert of(provider, **{"preferred_username": "a", "realm_access.roles": "ssh"}).user == "a"


@pytest.mark.parametrize(
    ("claim", "found"),
    [
        ("x", ("x",)),
        ("", ()),
        (True, ("true",)),
        (False, ("false",)),
        (583231, ("583231",)),
        (1.5, ("1.5",)),
        (["a", "b", "a", ""], ("a", "b")),
        (["a", 1], ()),
        ([["a"]], ()),
        ({"a": "b"}, ()),
        (None, ()),
        (float("inf"), ()),
        (1 << 63, ()),
        ("x" * (LONGEST_VALUE + 1), ()),
    ],
)
def test_a_claim_of_another_type_gives_no_value(claim: object, found: tuple[str, ...]):
    assert values({"it": claim}, "it") == found


@pytest.mark.parametrize("verified", [False, None, 1, "yes", [True]])
@pytest.mark.parametrize(
    "file",
    [
        oidc(user="email"),
        oidc(user="{claim: email, domain: corp.com}"),
        oidc(allow="[{email: '*@corp.com'}]"),
        oidc(roles="[{when: {email: 'a@corp.com'}, roles: [sre]}]"),
        oidc(traits="{mail: email}"),
    ],
    ids=["name", "name of a domain", "allow", "roles", "traits"],
)
def test_an_address_that_is_not_verified_counts_for_nothing(file: str, verified: object):
    """OIDC-11"""
    claims = {"preferred_username": "a", "email": "a@corp.com"}
    assert code(parse(file), **claims, email_verified=verified) == "email_unverified"
    assert code(parse(file), **claims) == "email_unverified"
    for said in (True, "true"):
        assert person(parse(file), claims | {"email_verified": said}).user in ("a", "a@corp.com")


def test_an_address_that_nothing_hangs_on_need_not_be_verified():
    assert of(parse(oidc()), preferred_username="a", email="a@corp.com", email_verified=False).user == "a"


def test_somebody_elses_address_is_not_a_name():
    """OIDC-12, the pure half: the name comes from the claim that the file names, whatever the address says."""
    provider = parse(oidc(names='{"alice@corp.com": alice}'))
    assert of(provider, preferred_username="mallory", email="alice@corp.com", email_verified=True).user == "mallory"
    assert code(provider, preferred_username="alice") == "name_invalid", "the table gave the name away already"


@pytest.mark.parametrize("name", ["root", "toor", "admin", "ubuntu", "postgres", "_apt", "systemd-network", "git"])
def test_no_claim_makes_anybody_an_account_of_the_system(name: str):
    """CA-10"""
    assert code(parse(oidc()), preferred_username=name) == "privileged_principal"


@pytest.mark.parametrize("name", ["root", "admin"])
def test_the_local_part_of_an_address_is_no_account_of_the_system(name: str):
    """CA-11"""
    provider = parse(oidc(user="{claim: email, domain: corp.com}"))
    assert code(provider, email=f"{name}@corp.com", email_verified=True) == "privileged_principal"


def test_who_is_really_called_so_is_written_into_the_table():
    assert of(parse(oidc(names="{core: core}")), preferred_username="core").user == "core"


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        ("Alice+x@corp.com", "name_invalid"),
        ("ALICE@corp.com", "name_invalid"),
        ("Alice@corp.com", "name_invalid"),
        ("alice+x@corp.com", "name_invalid"),
        (" alice@corp.com", "name_invalid"),
        ("alice@x@corp.com", "name_invalid"),
        ("@corp.com", "name_invalid"),
        ("аlice@corp.com", "name_invalid"),
        ("alice@CORP.com", "domain_mismatch"),
        ("alice@corp.com.evil.net", "domain_mismatch"),
        ("alice@evilcorp.com", "domain_mismatch"),
        ("alice@corp.com\n", "domain_mismatch"),
        ("alice", "domain_mismatch"),
    ],
)
def test_a_name_is_never_folded_cut_or_cleaned(value: str, refused: str):
    """CA-12"""
    provider = parse(oidc(user="{claim: email, domain: corp.com}"))
    assert code(provider, email=value, email_verified=True) == refused


def test_the_table_names_who_has_no_name_here():
    """CA-12"""
    provider = parse(oidc(user="{claim: email, domain: corp.com}", names='{"Alice+x@corp.com": alice.x}'))
    found = of(provider, email="Alice+x@corp.com", email_verified=True)
    assert found.user == "alice.x"
    assert found.lines[1] == "idp.yaml:7: email is Alice+x@corp.com: user alice.x"


@pytest.mark.parametrize("claim", [None, "", [], {}, True, {"a": "b"}])
def test_without_the_claim_there_is_no_name(claim: object):
    assert code(parse(oidc()), preferred_username=claim) == "name_missing"
    assert code(parse(oidc())) == "name_missing"


def test_of_several_values_none_is_the_name():
    assert code(parse(oidc()), preferred_username=["alice", "bob"]) == "name_invalid"


def test_a_trait_is_bounded_and_says_what_it_left_out():
    many = [f"g{n}" for n in range(MOST_VALUES + 5)]
    found = of(parse(DESIGNED), preferred_username="a", groups=[*many, "x" * 300, "\x1b[2J"])
    assert found.traits == {"team": tuple(many[:MOST_VALUES])}
    assert found.lines[-1].endswith("g99 (7 left out)")


def test_what_comes_from_outside_is_shown_harmless():
    provider = parse(oidc(roles="[{when: {groups: '*'}, roles: [sre]}]"))
    found = of(provider, preferred_username="a", groups=["\x1b[2J"])
    assert found.lines[-1] == r"idp.yaml:7: groups has '\x1b[2J': roles sre"


def test_on_github_a_team_is_written_with_its_organisation():
    claims = {"login": "alice", "id": 583231, "orgs": ["example"], "teams": ["example/sre", "other/sre"]}
    found = person(parse(ON_GITHUB), claims)
    assert (found.user, found.roles) == ("alice", {"sre"})
    assert code(parse(ON_GITHUB), login="alice", orgs=["example2"]) == "not_allowed"
    by_number = parse(github(user="id", names='{"583231": alice}'))
    assert person(by_number, claims).user == "alice"


# --- laws -----------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(["sre", "ops", "team-a", "team-b", "", "x", "true"])
CLAIM_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "preferred_username": st.sampled_from(["alice", "bob", "Root", "root", "A.Smith@example.com"]) | CLAIM_VALUES,
        "groups": st.lists(WORDS, max_size=4) | CLAIM_VALUES,
        "acr": WORDS | CLAIM_VALUES,
        "realm_access": st.fixed_dictionaries({"roles": st.lists(WORDS, max_size=3)}) | CLAIM_VALUES,
        "email": st.sampled_from(["alice@example.com", "x"]) | CLAIM_VALUES,
        "email_verified": st.booleans() | CLAIM_VALUES,
    },
)
PATTERNS = st.lists(st.sampled_from(["sre", "team-*", "*", "o?s", "true", "alice@*"]), min_size=1, max_size=3)
CONDITIONS = st.dictionaries(
    st.sampled_from(["groups", "acr", "realm_access.roles", "email"]), PATTERNS.map(tuple), min_size=1, max_size=2
).map(lambda claims: Condition(6, claims))
NAMES = st.from_regex(r"[A-Za-z@._+ -]{1,12}", fullmatch=True) | st.text(max_size=12)


def outcome(provider: Provider, claims: Mapping[str, object]) -> Person | None:
    try:
        return person(provider, claims)
    except Refused:
        return None


@given(CLAIMS, st.lists(CONDITIONS, min_size=1, max_size=3), st.data())
def test_taking_a_condition_away_never_lets_anybody_in(
    claims: Mapping[str, object], conditions: list[Condition], data: st.DataObject
):
    """An address that is not verified closes the door only while something hangs on it: that is set aside here."""
    claims = {**claims, "email_verified": True}
    fewer = data.draw(st.lists(st.sampled_from(conditions), min_size=1, unique_by=id))
    if outcome(replace(parse(DESIGNED), allow=tuple(fewer)), claims) is not None:
        assert outcome(replace(parse(DESIGNED), allow=tuple(conditions)), claims) is not None


@given(CLAIMS, st.lists(st.tuples(CONDITIONS, st.sampled_from(["a", "b", "c"])), max_size=4), st.data())
def test_taking_a_role_entry_away_never_gives_a_role(
    claims: Mapping[str, object], told: list[tuple[Condition, str]], data: st.DataObject
):
    entries = [RoleEntry(7, condition, (role,)) for condition, role in told]
    many = replace(parse(DESIGNED), roles=tuple(entries))
    fewer = data.draw(st.lists(st.sampled_from(entries), unique_by=id)) if entries else []
    claims = {**claims, "email_verified": True}
    before, after = outcome(many, claims), outcome(replace(many, roles=tuple(fewer)), claims)
    if before is not None:
        assert after is not None
        assert after.roles <= before.roles


@given(NAMES, NAMES, st.sampled_from([None, "corp.com"]), st.dictionaries(NAMES, st.sampled_from(["alice", "bob"])))
def test_two_names_never_become_one_person(one: str, other: str, domain: str | None, table: dict[str, str]):
    """CA-12"""
    unique = {name: value for value, name in table.items()}
    names = {value: (name, 8) for name, value in unique.items()}
    provider = replace(parse(oidc()), user=Naming(5, "preferred_username", domain), names=names)
    for first, second in [(one, other), (f"{one}@corp.com", f"{other}@corp.com"), (one, f"{one}@corp.com")]:
        a, b = (outcome(provider, {"preferred_username": name}) for name in (first, second))
        if first != second and a is not None and b is not None:
            assert a.user != b.user


@given(CLAIMS)
def test_whatever_is_claimed_gives_a_person_or_a_refusal(claims: Mapping[str, object]):
    for file in (DESIGNED, oidc(user="email", allow="[{acr: '*'}]")):
        found = outcome(parse(file), claims)
        if found is not None:
            assert USER.match(found.user)
            assert all(re.match(r"idp.yaml:\d+: ", line) and line.isprintable() for line in found.lines)


@given(st.text())
def test_no_text_can_crash_the_reader(text: str):
    with suppress(ProviderError):
        parse(text)


LINES = DESIGNED.splitlines() + ON_GITHUB.splitlines()


@given(
    st.lists(
        st.sampled_from(LINES)
        | st.tuples(st.sampled_from(LINES), st.sampled_from(['"*"', "[]", "{}", "x", "[{a: b}]", "~", "*x"])).map(
            lambda parts: f"{parts[0].partition(':')[0]}: {parts[1]}"
        ),
        max_size=20,
    )
)
def test_no_mixture_of_lines_can_crash_the_reader(lines: list[str]):
    with suppress(ProviderError):
        assert isinstance(parse("\n".join(lines)), Provider)


def test_a_provider_cannot_be_made_wrong():
    whole = parse(DESIGNED)
    for wrong in (
        {"name": "Corp"},
        {"issuer": "http://id.example.com"},
        {"scopes": ("profile",)},
        {"allow": ()},
        {"kind": "github"},
        {"issuer": "https://accounts.google.com"},
        {"names": {"A": ("alice", 1), "B": ("alice", 2)}},
        {"names": {"A": ("root", 1)}},
        {"also": ("https://keys.example.com/x",)},
    ):
        with pytest.raises(ValueError):
            replace(whole, **wrong)  # type: ignore[arg-type]  # each is one field
