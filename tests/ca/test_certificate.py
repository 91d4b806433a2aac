"""ca/certificate.py: nothing is planned that its CA does not sign, and nothing that is asked for is quietly changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca import certificate, sshcert
from ca.certificate import BACKDATED, CA, CertPlan
from ca.errors import AccessDenied, BartizanError, InvalidInput
from ca.model import Identity, Role
from ca.sshcert import CertificateError, CertKind
from recordings.sshkey import PublicKey
from tests.ca import forge
from tests.ca.forge import NOW

KEY = forge.ed25519().public
AUTHORITY = forge.ed25519()
ALICE = Identity("alice", frozenset({"developer"}))
DEVELOPER = Role("developer")


def user(
    ttl: timedelta | None = None, *roles: Role, who: Identity = ALICE, key: PublicKey = KEY, **more: Any
) -> CertPlan:
    return certificate.user_plan(who, roles or (DEVELOPER,), serial=7, public_key=key, ttl=ttl, now=NOW, **more)


def target(**change: Any) -> CertPlan:
    asked: dict[str, Any] = {
        "login": "root",
        "node_id": "n0123",
        "user": "alice",
        "session": "s0123",
        "serial": 9,
        "public_key": KEY,
        "actions": {"shell", "exec"},
        "source_addresses": [],
        "now": NOW,
    }
    return certificate.target_plan(**{**asked, **change})


def host(name: str = "web1", node_id: str = "n0123", **more: Any) -> CertPlan:
    return certificate.host_plan(name, node_id, serial=3, public_key=KEY, now=NOW, **more)


def bastion(*names: str, **more: Any) -> CertPlan:
    return certificate.bastion_plan(names, bastion="bastion1", serial=4, public_key=KEY, now=NOW, **more)


def refused(ask: Callable[..., object], *arguments: Any, **more: Any) -> str:
    with pytest.raises(BartizanError) as caught:
        ask(*arguments, **more)
    return caught.value.code


# --- people -------------------------------------------------------------------------------------------------------


def test_a_person_gets_her_own_name_for_twelve_hours_and_a_terminal() -> None:
    plan = user()
    assert plan.kind is CertKind.USER
    assert plan.principals == ("alice",)
    assert plan.key_id == "v1;u=alice;n=7"
    assert plan.extensions == {"permit-pty"}
    assert plan.critical_options == {}
    assert plan.valid_after == NOW - timedelta(seconds=60)
    assert plan.valid_before == NOW + timedelta(hours=12)


def test_a_life_that_is_asked_for_is_given_or_refused_never_cut() -> None:
    """CA-14, CA-18."""
    day = timedelta(hours=24)
    assert user(day).valid_before == NOW + day
    assert user(timedelta(minutes=5)).valid_before == NOW + timedelta(minutes=5)
    for ttl in (timedelta(hours=25), day + timedelta(seconds=1), timedelta(days=365_000)):
        assert refused(user, ttl) == "ttl_too_long"


@pytest.mark.parametrize(
    "ttl",
    [timedelta(), timedelta(seconds=-1), timedelta(seconds=299), timedelta(minutes=6, microseconds=1)],
    ids=str,
)
def test_a_life_that_is_none_is_refused(ttl: timedelta) -> None:
    """CA-15."""
    assert refused(user, ttl) == "ttl_invalid"


def test_the_shortest_lived_role_that_is_held_bounds_the_life() -> None:
    short = Role("developer", certificate_ttl=timedelta(hours=1))
    other = Role("dba", certificate_ttl=timedelta(minutes=10))
    assert user(None, short, other).valid_before == NOW + timedelta(hours=1)
    assert refused(user, timedelta(hours=2), short, other) == "ttl_too_long"
    both = Identity("alice", frozenset({"developer", "dba"}))
    assert user(None, short, other, who=both).valid_before == NOW + timedelta(minutes=10)


def test_a_role_never_gives_more_than_the_ca_signs() -> None:
    long = Role("developer", certificate_ttl=timedelta(days=30))
    assert user(None, long).valid_before == NOW + timedelta(hours=12)
    assert refused(user, timedelta(days=2), long) == "ttl_too_long"


def test_who_holds_no_role_gets_nothing() -> None:
    """CA-42: nor does a role that exists but is not held, or is held but does not exist."""
    nobody = Identity("alice", frozenset())
    gone = Identity("alice", frozenset({"gone"}))
    for who in (nobody, gone):
        assert refused(user, None, DEVELOPER, who=who) == "no_role"


@pytest.mark.parametrize("name", ["root", "toor"])
def test_nobody_is_certified_as_root(name: str) -> None:
    """CA-10, CA-11."""
    assert refused(user, who=Identity(name, frozenset({"developer"}))) == "privileged_principal"


def test_a_forbidden_key_is_not_certified() -> None:
    """CA-28: a CA's key, a host's, a revoked one."""
    with pytest.raises(AccessDenied) as caught:
        user(forbidden=[forge.ed25519().public, KEY])
    assert caught.value.code == "key_forbidden"
    with pytest.raises(ValueError, match="itself"):
        user().to_be_signed(KEY, nonce=bytes(32))


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (PublicKey.parse(forge.ed25519().blob).line().replace("ssh-ed25519", "ssh-rsa", 1), "key_invalid"),
        ("hello", "key_invalid"),
        (sshcert.parse(forge.Forged().signed(AUTHORITY)).line(), "key_type"),
    ],
    ids=["another type", "no key", "a certificate"],
)
def test_a_key_that_we_do_not_take_is_refused_with_its_own_code(line: str, code: str) -> None:
    """CA-29, CA-30, CA-31."""
    assert refused(certificate.subject_key, line) == code
    assert certificate.subject_key(KEY.line("alice@laptop")) == KEY


# --- targets ------------------------------------------------------------------------------------------------------


def test_a_target_certificate_opens_one_node_as_one_login_for_a_minute() -> None:
    plan = target()
    assert plan.principals == ("root@n0123",)
    assert plan.key_id == "u=alice;s=s0123"
    assert plan.valid_after == NOW - timedelta(seconds=60)
    assert plan.valid_before == NOW + timedelta(seconds=60)


@pytest.mark.parametrize(
    ("actions", "extensions"),
    [
        ({"shell"}, {"permit-pty"}),
        ({"exec"}, {"permit-pty"}),
        ({"sftp.read"}, set()),
        ({"sftp.read", "sftp.write"}, set()),
        ({"shell", "exec"}, {"permit-pty"}),
    ],
)
def test_a_terminal_comes_with_a_shell_or_a_command(actions: set[str], extensions: set[str]) -> None:
    """CA-26: extensions mirror what was granted."""
    assert target(actions=actions).extensions == extensions


def test_nothing_permitted_is_nothing_certified() -> None:
    with pytest.raises(ValueError, match="nothing"):
        target(actions=set())


def test_a_target_certificate_is_bound_to_the_bastions_addresses() -> None:
    assert target(source_addresses=["192.0.2.1", "2001:db8::/64"]).critical_options == {
        "source-address": "192.0.2.1/32,2001:db8::/64"
    }
    assert target(source_addresses=[]).critical_options == {}


@pytest.mark.parametrize(
    "address",
    ["", "0.0.0.0/0", "::/0", "10.0.0.1/8", "!10.0.0.0/8", "10.0.0.0/8,192.0.2.0/24", "web1", "10.0.0.0/255.0.0.0"],
)
def test_an_address_that_binds_nothing_or_is_none_is_refused(address: str) -> None:
    """CA-22."""
    assert refused(target, source_addresses=[address]) == "source_address_invalid"


def test_too_many_addresses_are_refused() -> None:
    """CA-22."""
    many = [f"192.0.2.{number}" for number in range(200)] + [f"198.51.100.{number}" for number in range(100)]
    assert refused(target, source_addresses=many) == "source_address_invalid"


@pytest.mark.parametrize(
    "change",
    [
        {"login": ""},
        {"login": "root,alice"},
        {"login": "*"},
        {"login": "root@n9"},
        {"login": "{{user.name}}"},
        {"login": "Root"},
        {"login": "-oProxyCommand"},
        {"login": "root\n"},
        {"node_id": ""},
        {"node_id": "*"},
        {"node_id": "n1,root@n2"},
        {"node_id": "N1"},
    ],
    ids=str,
)
def test_what_is_not_a_login_on_a_node_is_no_principal(change: dict[str, str]) -> None:
    """CA-01 to CA-06: empty, joined, patterns, templates that were not filled in."""
    assert refused(target, **change) == "principal_invalid"


@pytest.mark.parametrize("change", [{"user": "a;s=x"}, {"user": "a\nb"}, {"session": "x;u=bob"}, {"session": ""}])
def test_a_key_id_says_what_we_mean(change: dict[str, str]) -> None:
    """CA-27: nobody writes into sshd's log through us."""
    with pytest.raises(ValueError, match="person and a session"):
        target(**change)


# --- hosts and bastions -------------------------------------------------------------------------------------------


def test_a_node_gets_its_name_and_its_id() -> None:
    plan = host()
    assert plan.kind is CertKind.HOST
    assert plan.principals == ("web1", "n0123")
    assert plan.key_id == "v1;h=web1;i=n0123;n=3"
    assert plan.valid_before == NOW + timedelta(days=30)
    assert plan.extensions == frozenset()
    assert host(ttl=timedelta(days=365)).valid_before == NOW + timedelta(days=365)
    assert refused(host, ttl=timedelta(days=366)) == "ttl_too_long"
    assert refused(host, ttl=timedelta(0)) == "ttl_invalid"
    assert refused(host, ttl=timedelta(days=-1)) == "ttl_invalid"


@pytest.mark.parametrize("name", ["", "*", "*.example.com", "Web1", "web1,web2", "web1.", "web 1", "-web", "web1\n"])
def test_what_is_no_name_of_a_node_is_not_certified(name: str) -> None:
    """CA-07: wildcards have no role that grants them."""
    assert refused(host, name) == "principal_invalid"


def test_a_bastion_gets_its_own_names_or_one_nodes_for_an_hour() -> None:
    plan = bastion("bastion.example.com", "bartizan", "192.0.2.1", "2001:db8::1")
    assert plan.kind is CertKind.HOST
    assert plan.key_id == "v1;b=bastion1;n=4"
    assert plan.valid_before == NOW + timedelta(hours=1)
    assert bastion("web1").principals == ("web1",)
    assert refused(bastion, "web1", ttl=timedelta(hours=2)) == "ttl_too_long"


def test_a_bastion_gets_no_pattern_and_no_empty_list() -> None:
    """CA-01, CA-07, CLI-03."""
    assert refused(bastion) == "principals_empty"
    for name in ("*", "*.bartizan", "", "Web1", "a,b"):
        assert refused(bastion, name) == "principal_invalid"


# --- the plan itself ----------------------------------------------------------------------------------------------

PLANS = {CA.USER: user(), CA.TARGET: target(), CA.HOST: host(), CA.BASTION: bastion("web1")}


@pytest.mark.parametrize("ca", CA)
@pytest.mark.parametrize(
    "change",
    [
        {"serial": 0},
        {"serial": -1},
        {"serial": 2**64},
        {"key_id": ""},
        {"key_id": "two words"},
        {"key_id": "a\x1b[2J"},
        {"key_id": "a" * 257},
        {"principals": ()},
        {"principals": ("",)},
        {"principals": ("*",)},
        {"principals": ("root,alice",)},
        {"principals": tuple(f"u{number}" for number in range(300))},
        {"valid_before": NOW - timedelta(days=1)},
        {"valid_before": NOW + timedelta(days=366)},
        {"valid_before": NOW.replace(tzinfo=None)},
        {"valid_before": NOW + timedelta(seconds=1, microseconds=1)},
        {"valid_before": datetime.max.replace(tzinfo=UTC, microsecond=0)},
        {"extensions": frozenset({"force-command"})},
        {"extensions": frozenset({"permit-port-forwarding"})},
        {"critical_options": {"force-command": "uptime"}},
        {"critical_options": {"x@y": ""}},
        {"critical_options": {"source-address": ""}},
        {"critical_options": {"source-address": "!10.0.0.0/8"}},
    ],
    ids=str,
)
def test_no_plan_exists_outside_the_limits_of_its_ca(ca: CA, change: dict[str, Any]) -> None:
    """CA-43: a caller that skipped the planner cannot make the CA sign more."""
    with pytest.raises(ValueError):
        replace(PLANS[ca], **change)


@pytest.mark.parametrize("ca", [CA.TARGET, CA.HOST, CA.BASTION])
def test_a_persons_certificate_is_signed_by_no_other_ca(ca: CA) -> None:
    """CA-09, CA-43, KEY-12: above all it opens no node."""
    with pytest.raises(ValueError):
        replace(PLANS[CA.USER], ca=ca)


@pytest.mark.parametrize("ca", CA)
def test_a_signed_plan_says_what_was_planned_and_is_believed(ca: CA) -> None:
    plan = PLANS[ca]
    to_be_signed = plan.to_be_signed(AUTHORITY.public, nonce=bytes(range(32)))
    blob = sshcert.with_signature(to_be_signed, AUTHORITY.sign(to_be_signed))
    made = sshcert.verify(blob, trusted=[AUTHORITY.public], kind=plan.kind, now=NOW)
    assert (made.public_key, made.serial, made.key_id, made.principals) == (
        plan.public_key,
        plan.serial,
        plan.key_id,
        plan.principals,
    )
    assert datetime.fromtimestamp(made.valid_after, UTC) == plan.valid_after
    assert made.expires == plan.valid_before
    assert made.extensions == dict.fromkeys(plan.extensions, b"")
    assert made.critical_options == plan.critical_options
    with pytest.raises(CertificateError) as caught:
        sshcert.verify(blob, trusted=[AUTHORITY.public], kind=plan.kind, now=plan.valid_before)
    assert caught.value.code == "expired"


def test_a_hardware_key_gets_a_hardware_certificate() -> None:
    """CA-32."""
    signer = forge.ed25519(application=b"ssh:work")
    to_be_signed = user(key=signer.public).to_be_signed(AUTHORITY.public, nonce=bytes(32))
    made = sshcert.parse(sshcert.with_signature(to_be_signed, AUTHORITY.sign(to_be_signed)))
    assert made.type == "sk-ssh-ed25519-cert-v01@openssh.com"
    assert made.public_key.application == "ssh:work"


@given(st.integers(min_value=-(10**9), max_value=10**9), st.integers(min_value=1, max_value=86_400) | st.none())
def test_no_ask_gives_more_than_a_day(asked: int, role: int | None) -> None:
    roles = (Role("developer", certificate_ttl=None if role is None else timedelta(seconds=role)),)
    try:
        plan = user(timedelta(seconds=asked), *roles)
    except InvalidInput as error:
        assert error.code in ("ttl_too_long", "ttl_invalid")  # noqa: PT017  # either outcome is right
    else:
        assert plan.valid_before - plan.valid_after == timedelta(seconds=asked) + BACKDATED
        assert asked <= 86_400
        assert role is None or asked <= role


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_text_as_login_or_node_is_a_principal_of_one_piece_or_refused(login: str, node_id: str) -> None:
    try:
        plan = target(login=login, node_id=node_id)
    except InvalidInput as error:
        assert error.code == "principal_invalid"  # noqa: PT017  # either outcome is right
    else:
        assert plan.principals == (f"{login}@{node_id}",)
        assert not set(plan.principals[0]) & set(", *?\"'\n\x00")


def test_fractions_of_a_second_and_zones_do_not_reach_the_certificate() -> None:
    late = NOW.replace(microsecond=999_999).astimezone()
    plan = certificate.user_plan(ALICE, [DEVELOPER], serial=1, public_key=KEY, ttl=None, now=late)
    assert plan.valid_after == NOW - BACKDATED
    with pytest.raises(ValueError, match="zone"):
        certificate.user_plan(ALICE, [DEVELOPER], serial=1, public_key=KEY, ttl=None, now=NOW.replace(tzinfo=None))
