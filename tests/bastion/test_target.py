"""What people type, and what it may come to: a node's name and a login, or a sentence."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.target import (
    PREAMBLE_LIMIT,
    Target,
    TargetError,
    from_preamble,
    from_user_name,
    login_name,
    node_name,
)
from ca.model import LABEL


@pytest.mark.parametrize("typed", ["web1", "WEB1", "web1.bartizan", "Web1.Bartizan", "w", "a" * 63, "0-0"])
def test_a_node_name_may_be_typed_in_any_case_and_with_the_clusters_name(typed: str) -> None:
    name = node_name(typed, cluster="bartizan")

    assert LABEL.match(name)
    assert name == typed.lower().removesuffix(".bartizan")


@pytest.mark.parametrize(
    "typed",
    [
        "host$(id)",
        "host;x",
        "-J",
        "169.254.169.254",
        "[::1]",
        "::1",
        "a/b",
        "..",
        "",
        "a_b",
        "a" * 64,
        "web1.",
        "web1\n",
        "web1.bartizan.bartizan",
        "web1.other",
        "a b",
        "é",
        "-web",
        "web-",
        "xn--\x00",
    ],
)
def test_what_is_no_label_is_no_target(typed: str) -> None:
    """SSH-09"""
    with pytest.raises(TargetError, match="unknown target"):
        node_name(typed, cluster="bartizan")


@pytest.mark.parametrize("between", ["+", "%"])
def test_a_user_name_may_hold_login_and_node(between: str) -> None:
    assert from_user_name(f"root{between}web1", cluster="bartizan") == Target("web1", "root")
    assert from_user_name(f"a.b@c{between}WEB1.bartizan", cluster="bartizan") == Target("web1", "a.b@c")


@pytest.mark.parametrize("user", ["alice", "", "a.b", "root@web1", "-oProxyCommand=x"])
def test_a_user_name_without_a_node_names_none(user: str) -> None:
    assert from_user_name(user, cluster="bartizan") is None


@pytest.mark.parametrize(
    "user",
    [
        "a%h;",
        "+web1",
        "root+",
        "root++web1",
        "root+web1+web2",
        "a\nb+web1",
        "$(id)+web1",
        "../x+web1",
        "a/b+web1",
        "root+169.254.169.254",
        "root+web1\n",
        "x" * 65 + "+web1",
        "-oProxyCommand=x+web1",
        "r\u202et+web1",
    ],
)
def test_a_user_name_that_tries_something_is_refused(user: str) -> None:
    """SSH-08, SSH-09"""
    with pytest.raises(TargetError):
        from_user_name(user, cluster="bartizan")


@pytest.mark.parametrize("typed", ["..", "a/b", "-oProxyCommand=x", "$(id)", "a%h", "a\nb", "", "a+b", "x" * 65, "a b"])
def test_a_login_that_could_mean_something_else_is_refused(typed: str) -> None:
    """SSH-08: ``..`` is an account name like any other to us, and never a path."""
    if typed == "..":
        assert login_name(typed) == ".."
        return
    with pytest.raises(TargetError, match="unknown login"):
        login_name(typed)


def test_a_preamble_names_the_node() -> None:
    assert from_preamble(b"bartizan/1 web1", cluster="bartizan") == "web1"
    assert from_preamble(b"bartizan/1 WEB1.bartizan", cluster="bartizan") == "web1"


@pytest.mark.parametrize(
    "line",
    [b"bartizan/1 ", b"bartizan/2 web1", b"bartizan/1 web1 x", b"bartizan/1 \xff", b"bartizan/1 " + b"a" * 200, b""],
)
def test_a_malformed_preamble_is_an_error_with_a_sentence(line: bytes) -> None:
    with pytest.raises(TargetError):
        from_preamble(line, cluster="bartizan")


@given(st.binary(max_size=PREAMBLE_LIMIT + 8))
def test_any_preamble_is_a_label_or_an_error(line: bytes) -> None:
    try:
        assert LABEL.match(from_preamble(line, cluster="bartizan"))
    except TargetError:
        pass


@given(st.text(max_size=80))
def test_any_user_name_gives_a_clean_target_none_or_an_error(user: str) -> None:
    try:
        target = from_user_name(user, cluster="bartizan")
    except TargetError:
        return
    if target is not None:
        assert LABEL.match(target.node)
        assert re.fullmatch(r"[A-Za-z0-9_.@-]{1,64}", target.login)
