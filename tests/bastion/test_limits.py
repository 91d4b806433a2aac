"""When a session ends by itself. Time is given."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.limits import Limits
from ca.model import LEASE
from ca.wire import GrantedAction

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def limits() -> Limits:
    return Limits(started=NOW, certificate_expires=NOW + timedelta(hours=1), last_activity=NOW)


def grant(**options: object) -> GrantedAction:
    whole = {
        "action": "shell",
        "role": "r",
        "max_session_seconds": None,
        "idle_seconds": None,
        "on_expiry": "keep",
        "record": "strict",
        "record_input": False,
        "record_limit": 1,
    }
    return GrantedAction.model_validate(whole | options)


def due(session: Limits, after: timedelta, *, contact: timedelta | None = None) -> str | None:
    ending = session.due(NOW + after, wall=NOW + after, last_contact=NOW + (after if contact is None else contact))
    return None if ending is None else ending.code


def test_without_conditions_only_the_lease_ends_a_session() -> None:
    session = limits()
    session.use(grant())

    assert due(session, timedelta(days=30)) is None
    assert due(session, LEASE - SECOND, contact=timedelta()) is None
    assert due(session, LEASE, contact=timedelta()) == "lease_over"


def test_a_grant_may_lend_for_longer_and_the_shortest_that_was_used_counts() -> None:
    session = limits()
    assert due(session, LEASE, contact=timedelta()) == "lease_over"
    session.use(grant(lease_seconds=300))
    assert due(session, timedelta(seconds=299), contact=timedelta()) is None
    assert due(session, timedelta(seconds=300), contact=timedelta()) == "lease_over"
    session.use(grant(lease_seconds=120))
    assert due(session, timedelta(seconds=120), contact=timedelta()) == "lease_over"
    session.use(grant(lease_seconds=300))
    assert due(session, timedelta(seconds=120), contact=timedelta()) == "lease_over"


def test_the_longest_time_counts_from_the_start() -> None:
    session = limits()
    session.use(grant(max_session_seconds=600))
    session.touch(NOW + timedelta(seconds=599))

    assert due(session, timedelta(seconds=599)) is None
    assert due(session, timedelta(seconds=600)) == "max_session"


def test_idleness_counts_from_the_last_message() -> None:
    session = limits()
    session.use(grant(idle_seconds=60))
    session.touch(NOW + timedelta(seconds=59))

    assert due(session, timedelta(seconds=118)) is None
    assert due(session, timedelta(seconds=119)) == "idle"


def test_a_certificate_that_runs_out_ends_the_session_where_the_grant_says_so() -> None:
    """CV-17"""
    keeps, ends = limits(), limits()
    keeps.use(grant(on_expiry="keep"))
    ends.use(grant(on_expiry="end"))

    assert due(keeps, timedelta(hours=1)) is None
    assert due(ends, timedelta(hours=1) - SECOND) is None
    assert due(ends, timedelta(hours=1)) == "certificate_expired"


def test_a_grant_that_nobody_used_binds_nobody() -> None:
    """FIELD: options of one role leak into all others."""
    session = limits()
    session.use(grant(max_session_seconds=36_000))

    assert due(session, timedelta(hours=9)) is None


@pytest.mark.parametrize(("span", "words"), [(90, "1 min 30 s"), (3600, "1 h"), (1, "1 s"), (0, "0 s")])
def test_the_user_is_told_the_time_in_words(span: int, words: str) -> None:
    session = limits()
    session.use(grant(max_session_seconds=span))
    ending = session.due(NOW + timedelta(days=1), wall=NOW + timedelta(days=1), last_contact=NOW + timedelta(days=1))

    assert ending is not None
    assert words in ending.reason


options = st.builds(
    lambda longest, idle, expiry: grant(max_session_seconds=longest, idle_seconds=idle, on_expiry=expiry),
    st.none() | st.integers(1, 10_000),
    st.none() | st.integers(1, 10_000),
    st.sampled_from(["keep", "end"]),
)


@given(st.lists(options, max_size=4), options, st.integers(0, 20_000))
def test_using_one_more_grant_never_prolongs_a_session(
    used: list[GrantedAction], more: GrantedAction, after: int
) -> None:
    fewer, all_of_them = limits(), limits()
    for each in used:
        fewer.use(each)
        all_of_them.use(each)
    all_of_them.use(more)

    if due(fewer, timedelta(seconds=after)):
        assert due(all_of_them, timedelta(seconds=after))
