"""The roles file: what is understood, and how it is told what is not."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca import roles
from ca.model import AuditScope, DenyCode, Grant, Options, Role
from ca.roles import RolesError, changes, parse, run_tests

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = re.search(r"```yaml\n(.*?)```", (DOCS / "how-to" / "write-roles.md").read_text(encoding="utf-8"), re.DOTALL)
assert EXAMPLE is not None
FILE = EXAMPLE[1]

DESIGNED = """\
roles:
  - name: developer
    allow:
      - nodes: {env: [dev, staging]}
        logins: ["{{user.name}}", deploy]
        actions: [shell, exec, sftp.read, sftp.write, forward.local]
        forward_to: ["127.0.0.1:*", "db.internal:5432"]
        options: {max_session: 8h, idle: 30m, record: strict, mfa: login}
    deny:
      - nodes: {tier: [pci]}
    request:
      - {roles: [prod-admin], reviewers: [sre-lead], approvals: 1, max_duration: 4h}
  - name: prod-admin
  - name: sre-lead
  - name: auditor
    audit: {recordings: "*", events: "*"}
tests:
  - {user: {name: alice, roles: [developer]}, node: {env: dev}, login: deploy, action: shell, expect: allow}
"""


def test_the_file_of_the_how_to_is_understood_and_its_tests_pass():
    document = parse(FILE)
    assert [role.name for role in document.roles] == ["developer", "oncall", "release", "auditor"]
    assert len(document.tests) == 8
    assert run_tests(document) == []
    assert document.notes == ()


def test_a_role_says_exactly_what_is_written():
    document = parse(DESIGNED)
    assert document.roles[0] == Role(
        "developer",
        allow=(
            Grant(
                nodes={"env": ("dev", "staging")},
                logins=("{{user.name}}", "deploy"),
                actions=frozenset({"shell", "exec", "sftp.read", "sftp.write", "forward.local"}),
                options=Options(max_session=timedelta(hours=8), idle=timedelta(minutes=30)),
            ),
        ),
        deny=(Grant(nodes={"tier": ("pci",)}),),
        mfa=True,
    )
    assert document.roles[3] == Role("auditor", audit=AuditScope(recordings=("*",), events=True))
    assert run_tests(document) == []


def test_what_is_accepted_and_has_no_effect_yet_is_noted_with_its_line():
    document = parse(DESIGNED, "access.yaml")
    assert document.notes == (
        "access.yaml:6: forward.local: granted, and refused at the door by this version",
        "access.yaml:12: role developer: requests are kept, and not carried out by this version",
    )
    rule = document.requests["developer"][0]
    assert rule == roles.RequestRule(("prod-admin",), ("sre-lead",), 1, timedelta(hours=4))


def test_every_option_is_read():
    text = """\
roles:
  - name: r
    certificate_ttl: 1h30m
    allow:
      - nodes: {name: "*"}
        logins: root
        actions: shell
        options:
          max_session: 1d
          idle: 90s
          on_expiry: end
          lease: 5m
          record: strict
          record_input: true
          record_limit: 64MiB
          unsafe_unbound_client: true
          mfa: login
"""
    [role] = parse(text).roles
    assert role.certificate_ttl == timedelta(minutes=90)
    assert role.allow[0].options == Options(
        max_session=timedelta(days=1),
        idle=timedelta(seconds=90),
        on_expiry="end",
        lease=timedelta(minutes=5),
        record="strict",
        record_input=True,
        record_limit=64 << 20,
        unsafe_unbound_client=True,
    )


@pytest.mark.parametrize(
    ("role", "wanted"),
    [
        ("{name: r, mfa: login}", True),
        ("{name: r}", False),
        ("{name: r, allow: [{nodes: {env: a}, logins: a, actions: exec, options: {mfa: login}}]}", True),
        (
            "{name: r, allow: [{nodes: {env: a}, logins: a, actions: exec},"
            " {nodes: {env: b}, logins: a, actions: exec, options: {mfa: login}}]}",
            True,
        ),
        ("{name: r, allow: [{nodes: {env: a}, logins: a, actions: exec, options: {idle: 1m}}]}", False),
    ],
)
def test_a_role_wants_a_second_factor_when_it_or_one_grant_says_so(role, wanted):
    [found] = parse(f"roles: [{role}]").roles
    assert found.mfa is wanted


def test_words_are_taken_as_they_are_written():
    text = "roles: [{name: r, allow: [{nodes: {site: [no, 08, 1.0]}, logins: a, actions: exec}]}]"
    assert parse(text).roles[0].allow[0].nodes == {"site": ("no", "08", "1.0")}


def test_a_file_without_roles_is_a_file():
    assert parse("roles: []").roles == ()


# --- errors ---------------------------------------------------------------------------------------------------


def grant(**changed: str) -> str:
    """A file with one grant, each field on its line: nodes 5, logins 6, actions 7, then what is added."""
    told = {"nodes": "{env: dev}", "logins": "[deploy]", "actions": "[shell]"} | changed
    first, *rest = (f"{name}: {value}" for name, value in told.items() if value)
    return "roles:\n  - name: r\n    allow:\n\n      - " + "\n        ".join([first, *rest]) + "\n"


def option(**told: str) -> str:
    [(name, value)] = told.items()
    return grant(options=f"{{{name}: {value}}}")


ACTIONS = (
    "shell, exec, sftp.read, sftp.write, forward.local, forward.remote, forward.agent, forward.x11 or subsystem:NAME"
)

WRONG = [
    # the file
    ("", "1: the file is empty"),
    ("# nothing\n", "1: the file is empty"),
    ("roles", "1: the file is 'roles', expected fields such as `key: value`"),
    ("tests: []", "1: the file has no field 'roles', expected roles"),
    ("roles: 1", "1: roles is '1', expected a list"),
    ("roles:\n", "1: roles is empty, expected a list"),
    ("roles: []\nrolez: []", "2: unknown field 'rolez' in the file, expected roles or tests (did you mean roles?)"),
    ("roles: []\nroles: []", "2: 'roles' stands twice in the file, first on line 1"),
    ("roles: []\n---\nroles: []", "2: a second document begins here, expected one"),
    ("roles: []\nx: \x1b", "2: the character U+001B may not stand here"),
    ("roles: []\nx: \ud800", "2: the character U+D800 may not stand here"),
    ("roles: &all []", '1: a word that begins with & must stand in quotes: "&all"'),
    (
        "roles: !!python/object:os.system []",
        "1: the tag 'tag:yaml.org,2002:python/object:os.system' may not stand here",
    ),
    ("roles: !x []", "1: the tag '!x' may not stand here"),
    ("roles: " + "[" * 100_000, "1: this is nested deeper than 16 levels"),
    ("roles: [" + " " * 1_000_000, "1: the file is longer than 1000000 characters"),
    ("roles:\n\t- name: x", "2: not YAML: lines are indented with spaces, not tabs"),
    # roles
    ("roles: [x]", "1: a role is 'x', expected fields such as `key: value`"),
    ("roles: [~]", "1: a role is '~', expected fields such as `key: value`"),
    ("roles:\n - allow: []", "2: a role has no field 'name', expected name"),
    ("roles:\n - name:\n", "2: name has no value"),
    ("roles:\n - name: [a]\n", "2: name is a list, expected a word"),
    (
        "roles:\n - nam: x",
        "2: unknown field 'nam' in a role, expected name, allow, deny, request, audit, certificate_ttl or"
        " mfa (did you mean name?)",
    ),
    ("roles:\n - name: Dev", "2: name is 'Dev', expected lower-case letters, digits, '-', '_' and '.', at most 64"),
    (
        "roles:\n - name: admin",
        "2: admin is built in and only administers: give rights on nodes to a role of another name",
    ),
    ("roles:\n - name: x\n - name: x", "3: role 'x' is there already, on line 2"),
    ("roles:\n - name: x\n   name: y", "3: 'name' stands twice in a role, first on line 2"),
    (
        "roles:\n - name: x\n   allow: []",
        "3: allow is an empty list, and empty never means all: write what is meant or leave it out",
    ),
    ("roles:\n - {name: x, certificate_ttl: 25h}", "2: certificate_ttl is '25h', expected 5m to 1d"),
    ("roles:\n - {name: x, certificate_ttl: 4m59s}", "2: certificate_ttl is '4m59s', expected 5m to 1d"),
    # grants
    (grant(logins=""), "5: a grant has no field 'logins', expected nodes, logins, actions"),
    (grant(login="x"), "8: unknown field 'login' in a grant, expected nodes, logins, actions, options or forward_to"),
    (grant(nodes="{}"), '5: nodes is empty, and empty never means all: for all nodes write {name: "*"}'),
    (
        grant(nodes='"*"'),
        '5: nodes is not a set of labels, expected such as {env: [dev, staging]} or {name: "web*"}',
    ),
    (grant(nodes="{env: }"), "5: label env has no value"),
    (grant(nodes="{env: []}"), "5: label env is an empty list, and empty never means all"),
    (grant(nodes="{env: [dev, dev]}"), "5: 'dev' stands twice in label env"),
    (grant(nodes="{env: {a: b}}"), "5: label env is a set of fields, expected a word"),
    (grant(nodes="{env: *}"), '5: not YAML: a word that begins with * must stand in quotes: "*"'),
    (grant(nodes="{env: *dev}"), '5: a word that begins with * must stand in quotes: "*dev"'),
    (grant(nodes='{env: "[dp]*"}'), "5: pattern '[dp]*': only * and ? are wildcards"),
    (grant(nodes="{'a b': x}"), "5: label 'a b', expected letters, digits"),
    (grant(nodes='{env: "\\e[2J"}'), r"5: label env is '\x1b[2J', expected printable characters"),
    (grant(logins="[]"), "6: logins is an empty list, and empty never means all"),
    (
        grant(logins="[{{user.name}}]"),
        '6: logins is a set of fields, expected a word (a template must stand in quotes: "{{us',
    ),
    (grant(logins='["*"]'), "6: login '*': logins are written out, only nodes take patterns"),
    (grant(logins="[Root]"), "6: login 'Root', expected an account name such as deploy"),
    (grant(logins='["a,root"]'), "6: login 'a,root', expected an account name such as deploy"),
    (grant(logins='["-oProxyCommand=x"]'), "6: login '-oProxyCommand=x', expected an account name"),
    (grant(logins='["{{user.email}}"]'), "6: template '{{user.email}}', expected one {{user.name}} or {{traits.KEY}}"),
    (grant(logins='["{{user.name}"]'), "6: template '{{user.name}', expected one {{user.name}} or {{traits.KEY}}"),
    (grant(logins='["{{user.name}}{{user.name}}"]'), "6: template '{{user.name}}{{user.name}}', expected one"),
    (grant(logins='["A{{user.name}}"]'), "6: template 'A{{user.name}}', expected only a-z"),
    (grant(actions="[shel]"), f"7: unknown action 'shel', expected {ACTIONS} (did you mean shell?)"),
    (grant(actions="[Shell]"), f"7: unknown action 'Shell', expected {ACTIONS} (did you mean shell?)"),
    (grant(actions="[tunnel]"), f"7: unknown action 'tunnel', expected {ACTIONS}"),
    (grant(actions="[scp]"), "7: action 'scp': scp needs sftp.read to fetch and sftp.write to send: write these"),
    (grant(actions="[sftp]"), "7: action 'sftp': write sftp.read, sftp.write or both"),
    (grant(actions='["*"]'), "7: action '*': actions are written out, expected shell, exec"),
    (grant(actions="[exec, exec]"), "7: 'exec' stands twice in actions"),
    (grant(forward_to="db"), "8: forward_to is 'db', expected HOST:PORT, the port a number or *"),
    # options
    (option(idel="1m"), "8: unknown field 'idel' in options, expected max_session, idle"),
    (option(idle="30"), "8: idle is '30', expected a duration such as 8h, 30m or 90s"),
    (option(idle="0s"), "8: idle is '0s', expected 1s to 366d"),
    (option(idle="-1h"), "8: idle is '-1h', expected a duration such as"),
    (option(max_session="8 h"), "8: max_session is '8 h', expected a duration such as"),
    (option(max_session="99999999999h"), "8: max_session is '99999999999h', expected a duration"),
    (option(lease="59s"), "8: lease is '59s', expected"),
    (option(on_expiry="kill"), "8: on_expiry is 'kill', expected keep or end"),
    (option(record="best-effort"), "8: record is 'best-effort', expected strict: what cannot be recorded ends"),
    (option(record_input="yes"), "8: record_input is 'yes', expected true or false"),
    (option(record_limit="1GB"), "8: record_limit is '1GB', expected bytes such as 1048576, 64MiB or 1GiB"),
    (option(record_limit="0"), "8: record_limit is '0', expected bytes such as"),
    (option(mfa="session"), "8: mfa is 'session', expected login: asking again is not built"),
    ("roles:\n - name: x\n   mfa: true", "3: mfa is 'true', expected login: asking again is not built"),
    # deny, audit, request
    ("roles:\n - name: x\n   deny: [{}]", "3: a deny-entry has no field, expected nodes, logins or actions"),
    ("roles:\n - name: x\n   deny: [{nodes: {}}]", "3: nodes is empty, and empty never means all"),
    (
        "roles:\n - name: x\n   deny: [{logins: ['{{user.name}}']}]",
        "3: login '{{user.name}}': a deny-entry takes no templ",
    ),
    ("roles:\n - name: x\n   deny: [{options: {}}]", "3: unknown field 'options' in a deny-entry"),
    ("roles:\n - name: x\n   audit: {}", "3: audit has no field, expected recordings or events"),
    ("roles:\n - name: x\n   audit: {events: some}", "3: events is 'some', expected *, true or false"),
    ("roles:\n - name: x\n   audit: {recordings: []}", "3: recordings is an empty list"),
    (
        "roles:\n - name: x\n   request: [{roles: [y], reviewers: [x]}]",
        "3: there is no role 'y' in this file",
    ),
    (
        "roles:\n - name: x\n   request: [{roles: [x], reviewers: [x], approvals: 0}]",
        "3: approvals is '0', expected a whole number from 1 to 100",
    ),
    # tests
    ("roles: []\ntests: [{}]", "2: a test has no field 'user', expected user, node, login, action, expect"),
    (
        "roles: [{name: developer}]\ntests:\n"
        "  - {user: {name: a, roles: [develper]}, node: {}, login: a, action: shell, expect: deny}",
        "3: there is no role 'develper' in this file (did you mean developer?)",
    ),
    (
        "roles: []\ntests:\n  - {user: {name: a, roles: []}, node: {}, login: a, action: shell, expect: denied}",
        "3: expect is 'denied', expected allow, deny,",
    ),
    (
        "roles: []\ntests:\n  - {user: {name: a, roles: []}, node: {name: Web}, login: a, action: shell, expect: deny}",
        "3: node 'Web', expected a node name such as web1",
    ),
    (
        "roles: []\ntests:\n  - {user: {name: 'A b', roles: []}, node: {}, login: a, action: shell, expect: deny}",
        "3: user 'A b', expected a user name such as alice",
    ),
]


@pytest.mark.parametrize(("text", "problem"), WRONG, ids=[problem[:60] for _, problem in WRONG])
def test_an_error_names_line_field_and_what_was_expected(text, problem):
    with pytest.raises(RolesError) as caught:
        parse(text)
    assert str(caught.value).startswith(f"roles.yaml:{problem}")
    assert caught.value.code == "roles_invalid"
    assert str(caught.value).isascii()
    assert "\n" not in str(caught.value)


def test_all_problems_are_told_at_once_in_the_order_of_the_file():
    text = """\
roles:
  - name: a
    allow:
      - {nodes: {env: dev}, logins: Root, actions: shell}
      - {nodes: {env: dev}, logins: root, actions: shel}
    deny:
      - {}
  - name: a
  - {}
tests:
  - {}
"""
    with pytest.raises(RolesError) as caught:
        parse(text, "r.yaml")
    assert [problem.line for problem in caught.value.problems] == [4, 5, 7, 8, 9, 11]
    assert str(caught.value) == "r.yaml:4: login 'Root', expected an account name such as deploy, or \"{{user.name}}\""
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("also r.yaml:5: unknown action 'shel'")
    assert caught.value.hint.endswith("; and 2 more")


def test_the_name_of_the_file_cannot_move_the_cursor():
    with pytest.raises(RolesError, match=r"^a\?\[2Jb:1: "):
        parse("", "a\x1b[2Jb")


@pytest.mark.parametrize(
    ("expect", "got"),
    [
        ("deny", "allow by role developer, grant 1"),
        ("login_not_granted", "allow by role developer, grant 1"),
    ],
)
def test_a_test_that_fails_says_what_came_out(expect, got):
    document = parse(DESIGNED.replace("expect: allow", f"expect: {expect}"), "r.yaml")
    assert run_tests(document) == [
        f"r.yaml:18: test failed: alice on a-node as deploy, shell: expected {expect}, got {got}"
    ]


def test_a_test_may_expect_the_exact_reason_of_a_denial():
    for code in DenyCode:
        if code is not DenyCode.LOCKED:
            parse(DESIGNED.replace("expect: allow", f"expect: {code}"))


def test_changes_are_named():
    before = parse("roles: [{name: a}, {name: b}, {name: c}]").roles
    after = parse("roles: [{name: d}, {name: b, certificate_ttl: 1h}, {name: a}]").roles
    assert changes(before, after) == roles.Changes(added=("d",), changed=("b",), removed=("c",))
    assert changes(after, after) == roles.Changes((), (), ())


# --- laws -----------------------------------------------------------------------------------------------------


@given(st.text())
def test_no_text_can_crash_the_parser(text):
    with suppress(RolesError):
        parse(text)


@given(st.data())
def test_a_file_with_a_piece_put_in_or_taken_out_is_understood_or_refused(data):
    start = data.draw(st.integers(0, len(FILE)))
    end = start + data.draw(st.integers(0, 30))
    piece = data.draw(
        st.text(max_size=3) | st.sampled_from(["{}", "[]", "*", "&a ", "!!int ", "{{", "\n", "- ", "~", '"'])
    )
    changed = FILE[:start] + piece + FILE[end:]
    try:
        run_tests(parse(changed))
    except RolesError as error:
        for problem in error.problems:
            assert 1 <= problem.line <= changed.count("\n") + 2
            assert problem.text.isascii()


def test_a_name_that_nobody_can_type_is_not_proposed():
    changed = FILE.replace("name: oncall", "name: \xa0oncall")
    assert changed != FILE
    with pytest.raises(RolesError) as caught:
        parse(changed)
    assert all(problem.text.isascii() for problem in caught.value.problems)
