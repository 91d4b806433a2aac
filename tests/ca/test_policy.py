"""Laws and stories of ca/policy.py and ca/grants.py. Each law is one sentence that an auditor could sign."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ca import policy
from ca.grants import PRIVILEGED_LOGINS, denies, expand, logins, matches, reaches
from ca.model import (
    BUILT_ACTIONS,
    LOGIN,
    Action,
    Allow,
    AuditScope,
    Deny,
    DenyCode,
    Grant,
    Identity,
    Lock,
    Node,
    Options,
    Role,
)
from ca.policy import access, decide, explain, reachable, unknown_node, verdict

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

# Few words, so that they meet.
words = st.sampled_from(["ops", "dba", "web", "root"])
actions = st.sampled_from([*Action, "subsystem:netconf"]).map(str)
patterns = st.lists(st.sampled_from(["prod", "dev", "p*", "*", "d?v"]), min_size=1, max_size=2).map(tuple)
labels = st.dictionaries(st.sampled_from(["env", "team"]), st.sampled_from(["prod", "dev"]))
selectors = st.dictionaries(
    st.sampled_from(["env", "team", "name"]), patterns | words.map(lambda one: (one,)), max_size=2
)
options = st.builds(Options, max_session=st.none() | st.just(timedelta(hours=1)), unsafe_unbound_client=st.booleans())
written = st.lists(words | st.sampled_from(["{{user.name}}", "{{traits.team}}"]), max_size=3).map(tuple)
grants = st.builds(Grant, nodes=selectors, logins=written, actions=st.frozensets(actions), options=options)
narrow = st.builds(
    Grant, nodes=selectors, logins=st.lists(words, max_size=2).map(tuple), actions=st.frozensets(actions, max_size=2)
)
roles_without_deny = st.lists(
    st.builds(Role, name=words, allow=st.lists(grants, max_size=3).map(tuple)),
    max_size=4,
    unique_by=lambda one: one.name,
)
any_roles = st.lists(
    st.builds(
        Role, name=words, allow=st.lists(grants, max_size=3).map(tuple), deny=st.lists(narrow, max_size=1).map(tuple)
    ),
    max_size=4,
    unique_by=lambda one: one.name,
)
traits = st.dictionaries(st.just("team"), st.lists(words | st.text(max_size=3), max_size=2).map(tuple))
identities = st.builds(Identity, user=words, roles=st.frozensets(words), traits=traits)
nodes = st.builds(Node, id=st.just("n1"), name=words, labels=labels)
times = st.none() | st.sampled_from([NOW - timedelta(seconds=1), NOW, NOW + timedelta(seconds=1)])


@st.composite
def one_lock(draw: st.DrawFn) -> Lock:
    named = {one: draw(st.none() | words) for one in ("user", "node", "role", "login")}
    assume(any(named.values()))
    return Lock(id=draw(st.sampled_from("abc")), reason="because", expires=draw(times), **named)


locks = st.lists(one_lock(), max_size=2)
asked = st.tuples(identities, nodes, words, actions)


@given(asked, any_roles, locks, st.booleans())
def test_an_allow_is_always_explained_by_one_held_grant_and_its_own_options(asked, roles, locks, bound):
    who, node, login, action = asked
    match decide(*asked, roles=roles, locks=locks, now=NOW, bound=bound):
        case Allow(role=name, grant=number, options=options):
            role = next(one for one in roles if one.name == name)
            grant = role.allow[number - 1]
            assert name in who.roles
            assert reaches(grant, node)
            assert login in logins(grant, who)
            assert action in grant.actions
            assert options is grant.options
            assert action in BUILT_ACTIONS
            assert bound or options.unsafe_unbound_client


@given(asked, roles_without_deny, locks, st.data())
def test_taking_a_role_away_never_opens_a_door(asked, roles, locks, data):
    fewer = [role for role in roles if data.draw(st.booleans())]
    if isinstance(decide(*asked, roles=roles, locks=locks, now=NOW), Deny):
        assert isinstance(decide(*asked, roles=fewer, locks=locks, now=NOW), Deny)


@given(asked, any_roles, locks, st.data())
def test_taking_a_grant_away_never_opens_a_door(asked, roles, locks, data):
    fewer = [replace(role, allow=tuple(one for one in role.allow if data.draw(st.booleans()))) for role in roles]
    if isinstance(decide(*asked, roles=roles, locks=locks, now=NOW), Deny):
        assert isinstance(decide(*asked, roles=fewer, locks=locks, now=NOW), Deny)


@given(asked, any_roles, locks, narrow, st.data())
def test_one_more_deny_entry_never_opens_a_door(asked, roles, locks, entry, data):
    stricter = [replace(role, deny=(*role.deny, entry)) if data.draw(st.booleans()) else role for role in roles]
    if isinstance(decide(*asked, roles=roles, locks=locks, now=NOW), Deny):
        assert isinstance(decide(*asked, roles=stricter, locks=locks, now=NOW), Deny)


@given(asked, any_roles, st.booleans(), st.booleans(), st.booleans())
def test_a_deny_entry_of_a_held_role_beats_every_grant(asked, roles, nodes, logins, actions):
    who, node, login, action = asked
    entry = Grant(
        nodes={"name": (node.name,)} if nodes else {},
        logins=(login,) if logins else (),
        actions=frozenset({action}) if actions else frozenset(),
    )
    assert denies(entry, node, login, action)
    who = replace(who, roles=who.roles | {"denier"})
    roles = [*roles, Role("denier", deny=(entry,))]
    assert isinstance(decide(who, node, login, action, roles=roles, locks=[], now=NOW), Deny)


@given(asked, any_roles, st.sampled_from(["user", "node", "login", "role"]), st.data())
def test_a_lock_beats_every_role(asked, roles, kind, data):
    who, node, login, _ = asked
    assume(kind != "role" or who.roles)
    value = {"user": who.user, "node": node.name, "login": login, "role": min(who.roles, default="")}[kind]
    lock = Lock(id="l1", reason="because", **{kind: value})
    assert isinstance(decide(*asked, roles=roles, locks=[lock], now=NOW), Deny)
    assert isinstance(access(who, node, login, roles=roles, locks=[lock], now=NOW), Deny)


@given(asked, any_roles, locks, one_lock())
def test_one_more_lock_never_opens_a_door(asked, roles, locks, lock):
    if isinstance(decide(*asked, roles=roles, locks=locks, now=NOW), Deny):
        assert isinstance(decide(*asked, roles=roles, locks=[*locks, lock], now=NOW), Deny)


@given(asked, any_roles, locks)
def test_a_lock_that_has_run_out_changes_nothing(asked, roles, locks):
    over = [replace(lock, expires=NOW) for lock in locks]
    assert decide(*asked, roles=roles, locks=over, now=NOW) == decide(*asked, roles=roles, locks=[], now=NOW)


@given(asked, any_roles, locks, st.randoms())
def test_the_order_in_which_the_store_answers_never_matters(asked, roles, locks, chance: random.Random):
    locks = list({lock.id: lock for lock in locks}.values())
    before = decide(*asked, roles=roles, locks=locks, now=NOW)
    chance.shuffle(roles)
    chance.shuffle(locks)
    assert decide(*asked, roles=roles, locks=locks, now=NOW) == before


@given(asked, any_roles, locks)
def test_a_node_that_no_role_reaches_is_answered_like_one_that_does_not_exist(asked, roles, locks):
    who, node, login, _ = asked
    roles = [role for role in roles if not any(reaches(grant, node) for grant in role.allow)]
    telling = [lock for lock in locks if lock.node is not None]
    assert decide(*asked, roles=roles, locks=telling, now=NOW) == unknown_node(node.name)
    assert access(who, node, login, roles=roles, locks=telling, now=NOW) == unknown_node(node.name)


@given(asked, any_roles, locks, st.booleans())
def test_access_says_for_each_action_what_decide_says(asked, roles, locks, bound):
    who, node, login, _ = asked
    found = access(who, node, login, roles=roles, locks=locks, now=NOW, bound=bound)
    said = {
        str(one): decide(who, node, login, one, roles=roles, locks=locks, now=NOW, bound=bound) for one in BUILT_ACTIONS
    }
    assert (found if isinstance(found, dict) else {}) == {
        action: decision for action, decision in said.items() if isinstance(decision, Allow)
    }


@given(asked, any_roles, locks)
def test_what_is_reachable_is_what_decide_allows(asked, roles, locks):
    who, node, _, _ = asked
    found = reachable(who, node, roles=roles, locks=locks, now=NOW)
    allowed = {
        (login, str(action))
        for login in ("ops", "dba", "web", "root")
        for action in BUILT_ACTIONS
        if isinstance(decide(who, node, login, action, roles=roles, locks=locks, now=NOW), Allow)
    }
    if found is None:
        assert not allowed
    else:
        assert {login for login, _ in allowed} <= set(found.logins)
        assert {action for _, action in allowed} <= set(found.actions)
        assert who.user not in found.logins or found.logins[0] == who.user
        for login in found.logins:
            assert isinstance(access(who, node, login, roles=roles, locks=locks, now=NOW), dict)


@given(asked, any_roles, locks)
def test_the_hint_of_a_login_that_is_not_granted_names_logins_that_are(asked, roles, locks):
    who, node, _, _ = asked
    match decide(*asked, roles=roles, locks=locks, now=NOW):
        case Deny(code=DenyCode.LOGIN_NOT_GRANTED, hint=str(hint)):
            for login in hint.removeprefix("logins granted there: ").split(", "):
                assert isinstance(access(who, node, login, roles=roles, locks=locks, now=NOW), dict)


@given(asked, any_roles, locks)
def test_an_explanation_shows_the_grant_that_decided(asked, roles, locks):
    who, node, login, action = asked
    lines = explain(who, node, login, action, roles=roles, locks=locks, now=NOW)
    match decide(*asked, roles=roles, locks=locks, now=NOW):
        case Allow(role=role, grant=grant):
            assert f"role {role}, grant {grant}: reaches {node.name}; gives {login} and {action}" in lines
        case Deny(code=DenyCode.LOCKED):
            assert any(line.startswith("lock ") and "applies: no role" in line for line in lines)


@given(asked, any_roles, locks)
def test_leaving_login_and_action_out_asks_for_any(asked, roles, locks):
    who, node, _, _ = asked
    open_at_all = reachable(who, node, roles=roles, locks=locks, now=NOW) is not None
    assert isinstance(verdict(who, node, None, None, roles=roles, locks=locks, now=NOW), Allow) is open_at_all


# --- globs and templates --------------------------------------------------------------------------------------


@given(st.text("ab*?.[", max_size=8), st.text("ab.[", max_size=10))
def test_a_pattern_matches_the_whole_text_and_only_star_and_question_mark_are_wild(pattern, text):
    regex = "".join({"*": "(?s:.*)", "?": "(?s:.)"}.get(one, re.escape(one)) for one in pattern)
    assert matches(pattern, text) is (re.fullmatch(regex, text) is not None)


def test_a_pattern_made_to_be_slow_is_not():
    assert not matches("*a" * 50 + "b", "a" * 2_000)


@pytest.mark.parametrize(
    ("nodes", "reached"),
    [
        ({}, False),
        ({"env": ("dev",)}, True),
        ({"env": ("prod", "d*")}, True),
        ({"env": ("de",)}, False),  # never a prefix
        ({"env": ("DEV",)}, False),
        ({"env": ("dev",), "team": ("*",)}, False),  # a label that the node does not have
        ({"name": ("web?",)}, True),
        ({"name": ("db1",)}, False),  # the name is the node's, whatever a label of this name says
        ({"env": ()}, False),
    ],
)
def test_every_label_must_match_and_empty_never_means_all(nodes, reached):
    assert reaches(Grant(nodes), Node("n1", "web1", {"env": "dev", "name": "db1"})) is reached


@given(
    st.dictionaries(
        st.sampled_from(["team", "login"]), st.lists(st.text() | st.sampled_from(sorted(PRIVILEGED_LOGINS)))
    )
)
def test_a_template_gives_login_names_only_and_never_a_privileged_one(traits):
    """CA-05, CA-10, CA-11."""
    who = Identity("alice", frozenset(), {key: tuple(values) for key, values in traits.items()})
    templates = (
        "{{traits.team}}",
        "{{traits.login}}",
        "r{{traits.team}}",
        "{{traits.team}}t",
        "{{traits.none}}",
        "{{x}}",
    )
    for login in logins(Grant({}, templates), who):
        assert LOGIN.match(login)
        assert login not in PRIVILEGED_LOGINS
        assert "{" not in login


@pytest.mark.parametrize(
    ("user", "traits", "template", "expected"),
    [
        ("alice", {}, "{{user.name}}", ("alice",)),
        ("alice", {}, "{{ user.name }}", ("alice",)),
        ("alice", {}, "{{user.name}}-adm", ("alice-adm",)),
        ("alice@corp", {}, "{{user.name}}", ()),  # CA-11: the local part is never cut out
        ("root@corp", {}, "{{user.name}}", ()),
        ("alice", {}, "{{traits.team}}", ()),  # CA-05
        ("alice", {"team": ()}, "{{traits.team}}", ()),
        ("alice", {"team": ("web", "Web", "db")}, "{{traits.team}}", ("web", "db")),  # CA-12: nothing is folded
        ("alice", {"team": ("a,root", "a\nroot", " root", "")}, "{{traits.team}}", ()),
        ("alice", {"team": ("{{user.name}}",)}, "{{traits.team}}", ()),
        ("alice", {}, "{{user.email}}", ()),
    ],
)
def test_a_template_is_taken_as_it_is_or_gives_nothing(user, traits, template, expected):
    assert expand(template, Identity(user, frozenset(), traits)) == expected


# --- stories --------------------------------------------------------------------------------------------------

DEV = Node("n1", "web1", {"env": "dev"})
PROD = Node("n2", "db1", {"env": "prod"})
EVERYTHING = frozenset({"shell", "exec", "sftp.read", "sftp.write"})


def role(name: str, *allow: Grant, deny: tuple[Grant, ...] = ()) -> Role:
    return Role(name, allow=allow, deny=deny)


def grant(login: str = "{{user.name}}", *, env: str = "dev", actions: frozenset[str] = EVERYTHING, **options) -> Grant:
    return Grant({"env": (env,)}, (login,), actions, Options(**options))


def ask(login="alice", action="shell", *, roles, node=DEV, user="alice", traits=None, locks=(), **more):
    who = Identity(user, frozenset(one.name for one in roles), traits or {})
    return decide(who, node, login, action, roles=roles, locks=locks, now=NOW, **more)


def test_two_roles_never_add_up_to_a_right_that_neither_has():
    reaching = role("a", grant("deploy", env="prod", actions=frozenset({"exec"})))
    giving = role("b", grant("deploy", env="dev"))
    decision = ask("deploy", "shell", roles=[reaching, giving], node=PROD)
    assert isinstance(decision, Deny)
    assert decision.code is DenyCode.ACTION_NOT_GRANTED
    assert decision.hint == "you may use exec"


def test_the_options_of_one_role_do_not_leak_into_another():
    strict = role("strict", grant("deploy", env="prod", idle=timedelta(minutes=5)))
    easy = role("easy", grant("deploy"))
    assert ask("deploy", roles=[strict, easy]) == Allow("easy", 1, Options())


def test_a_login_that_is_not_granted_is_told_with_those_that_are():
    decision = ask("postgres", roles=[role("dev", grant("deploy"), grant())])
    assert decision == Deny(
        DenyCode.LOGIN_NOT_GRANTED,
        "none of your roles allows login postgres on web1",
        "logins granted there: alice, deploy",
    )


def test_the_hint_does_not_name_a_login_that_is_locked_or_denied():
    roles = [role("dev", grant("deploy"), grant("ops"), grant(), deny=(Grant({}, ("ops",)),))]
    decision = ask("postgres", roles=roles, locks=[Lock("l1", "because", login="deploy")])
    assert isinstance(decision, Deny)
    assert decision.hint == "logins granted there: alice"


@pytest.mark.parametrize(
    ("user", "traits", "template"),
    [
        ("root", {}, "{{user.name}}"),
        ("alice", {"preferred_username": ("root",)}, "{{traits.preferred_username}}"),
        ("alice", {"rest": ("oot",)}, "r{{traits.rest}}"),
    ],
)
def test_root_from_a_claim_opens_nothing(user, traits, template):
    """CA-10."""
    decision = ask("root", roles=[role("dev", grant(template))], user=user, traits=traits)
    assert isinstance(decision, Deny)
    assert decision.code is DenyCode.PRIVILEGED_PRINCIPAL
    assert decision.reason == f"root is a privileged login, and role dev gives it only by the template {template}"


def test_root_opens_when_the_grant_writes_root():
    """CA-10."""
    assert ask("root", roles=[role("ops", grant("root"))]) == Allow("ops", 1, Options())


def test_a_template_without_a_value_says_so():
    """CA-05."""
    decision = ask("web", roles=[role("dev", grant("{{traits.team}}"))])
    assert isinstance(decision, Deny)
    assert decision.code is DenyCode.TEMPLATE_UNRESOLVED


def test_an_action_that_is_not_built_is_refused_with_its_name():
    roles = [role("dev", grant(actions=frozenset({"shell", "forward.local"})))]
    decision = ask(action="forward.local", roles=roles)
    assert decision == Deny(
        DenyCode.ACTION_NOT_BUILT, "forward.local is not carried out by this version", "you may use shell"
    )


def test_a_role_of_forwards_only_lets_nobody_in_and_says_why():
    roles = [role("dev", grant(actions=frozenset({"forward.local"})))]
    found = access(Identity("alice", frozenset({"dev"})), DEV, "alice", roles=roles, locks=[], now=NOW)
    assert isinstance(found, Deny)
    assert found.code is DenyCode.ACTION_NOT_BUILT
    assert found.reason == "your roles allow only forward.local as alice on web1, which this version does not carry out"


def test_a_deny_entry_with_nodes_alone_denies_every_login_and_action_there():
    roles = [role("dev", grant(env="*"), deny=(Grant({"env": ("prod",)}),))]
    assert isinstance(ask(roles=roles), Allow)
    decision = ask(roles=roles, node=PROD)
    assert isinstance(decision, Deny)
    assert decision.code is DenyCode.DENIED_BY_ROLE
    assert decision.reason == "your role dev denies shell as alice on db1"


def test_a_deny_entry_with_one_action_leaves_the_others():
    roles = [role("dev", grant(), deny=(Grant({"env": ("dev",)}, actions=frozenset({"sftp.write"})),))]
    found = access(Identity("alice", frozenset({"dev"})), DEV, "alice", roles=roles, locks=[], now=NOW)
    assert isinstance(found, dict)
    assert sorted(found) == ["exec", "sftp.read", "shell"]


def test_a_lock_says_why_on_one_line():
    decision = ask(roles=[role("dev", grant())], locks=[Lock("l1", "stolen\r\nlaptop\x1b[2J", user="alice")])
    assert decision == Deny(DenyCode.LOCKED, "access is locked by an administrator: stolen  laptop [2J")


def test_a_lock_on_a_role_shuts_its_holders_out_by_whatever_other_role():
    decision = ask(roles=[role("dev", grant()), role("old")], locks=[Lock("l1", "because", role="old")])
    assert isinstance(decision, Deny)
    assert decision.code is DenyCode.LOCKED


def test_a_lock_that_names_two_things_holds_where_both_are_met():
    roles = [role("dev", grant(), grant("deploy"))]
    lock = Lock("l1", "because", user="alice", login="deploy")
    assert isinstance(ask("deploy", roles=roles, locks=[lock]), Deny)
    assert isinstance(ask("alice", roles=roles, locks=[lock]), Allow)


def test_a_client_that_signs_no_host_key_needs_a_grant_that_says_so():
    strict, easy = role("a", grant()), role("b", grant(unsafe_unbound_client=True))
    decision = ask(roles=[strict], bound=False)
    assert isinstance(decision, Deny)
    assert decision.code is DenyCode.UNBOUND_CLIENT
    assert ask(roles=[strict, easy], bound=False) == Allow("b", 1, Options(unsafe_unbound_client=True))


def test_what_was_typed_is_quoted_when_it_is_no_plain_word():
    decision = ask("a\x1b[2J", "she\nll", roles=[role("dev", grant())])
    assert isinstance(decision, Deny)
    assert decision.reason == r"none of your roles allows login 'a\x1b[2J' on web1"


def test_recordings_are_read_by_name_of_the_node_and_events_all_or_none():
    auditor = Role("auditor", audit=AuditScope(recordings=("web*",), events=True))
    carol, root = Identity("carol", frozenset({"auditor"})), Identity("root", frozenset({"admin"}))
    assert policy.may_audit(carol, [auditor], "web1")
    assert not policy.may_audit(carol, [auditor], "db1")
    assert not policy.may_audit(carol, [], "web1")
    assert not policy.may_audit(root, [auditor], "web1")
    assert policy.may_read_events(carol, [auditor])
    assert not policy.may_administer(carol)
    assert policy.may_administer(root)


def test_a_locked_person_neither_audits_nor_administers():
    auditor = Role("auditor", audit=AuditScope(recordings=("*",), events=True))
    who = Identity("carol", frozenset({"auditor", "admin"}))
    lock = Lock("l1", "because", user="carol", expires=NOW + timedelta(hours=1))
    assert not policy.may_audit(who, [auditor], "web1", locks=[lock], now=NOW)
    assert not policy.may_read_events(who, [auditor], locks=[lock], now=NOW)
    assert not policy.may_administer(who, locks=[lock], now=NOW)
    assert policy.may_administer(who, locks=[lock], now=NOW + timedelta(hours=1))
    assert policy.may_administer(who, locks=[Lock("l2", "because", user="carol", node="web1")], now=NOW)


wanting = st.lists(st.builds(Role, name=words, mfa=st.booleans()), max_size=4, unique_by=lambda one: one.name)


@given(identities, wanting, st.data())
def test_taking_a_role_away_never_adds_the_need_of_a_second_factor(who, roles, data):
    fewer = [role for role in roles if data.draw(st.booleans())]
    held = replace(who, roles=frozenset(name for name in who.roles if data.draw(st.booleans())))
    if not policy.needs_second_factor(who, roles):
        assert not policy.needs_second_factor(who, fewer)
        assert not policy.needs_second_factor(held, roles)


@given(identities, wanting)
def test_a_second_factor_is_needed_exactly_when_one_held_role_says_so(who, roles):
    assert policy.needs_second_factor(who, roles) == any(role.mfa for role in roles if role.name in who.roles)


def test_an_explanation_names_each_lock_role_and_grant():
    roles = [
        role("dev", grant(), grant("deploy", env="prod"), deny=(Grant({"tier": ("pci",)}),)),
        role("other", grant()),
    ]
    who = Identity("alice", frozenset({"dev", "gone", "admin", "other"}))
    locks = [Lock("l1", "because", user="bob")]
    assert explain(who, DEV, "deploy", "shell", roles=roles, locks=locks, now=NOW) == [
        "alice holds admin, dev, gone, other",
        "lock l1 on user bob: does not apply",
        "role gone: held, and the roles file has none of this name",
        "role admin: built in, administers the cluster, reaches no node",
        "role dev, deny 1: does not apply",
        "role dev, grant 1: reaches web1; gives the logins alice, not deploy",
        "role dev, grant 2: does not reach web1: env is 'dev', not 'prod'",
        "role other, grant 1: reaches web1; gives the logins alice, not deploy",
    ]
