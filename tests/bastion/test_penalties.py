"""Who may connect: after OpenSSH's MaxStartups and PerSourcePenalties. Time is given."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bastion.penalties import FAILED, LEAST, MOST, STARTUPS, TRACKED, Bucket, Penalties

STRANGER = "203.0.113.7"


def test_a_source_that_failed_often_has_to_wait_and_is_then_let_in_again() -> None:
    """CV-27, DOS-10"""
    penalties = Penalties()
    for _ in range(3):
        penalties.punish(STRANGER, FAILED, now=100)

    assert penalties.refuses(STRANGER, now=100)
    assert not penalties.refuses("203.0.113.8", now=100)
    assert not penalties.refuses(STRANGER, now=100 + 3 * FAILED)


def test_one_failure_refuses_nobody() -> None:
    penalties = Penalties()
    penalties.punish(STRANGER, FAILED, now=100)

    assert FAILED < LEAST
    assert not penalties.refuses(STRANGER, now=100)


def test_a_penalty_has_a_bound() -> None:
    penalties = Penalties()
    for _ in range(10_000):
        penalties.punish(STRANGER, FAILED, now=0)

    assert penalties.refuses(STRANGER, now=MOST - LEAST)
    assert not penalties.refuses(STRANGER, now=MOST)


def test_loopback_is_never_punished() -> None:
    penalties = Penalties()
    for source in ("127.0.0.1", "127.9.9.9", "::1"):
        penalties.punish(source, 1000, now=0)
        assert not penalties.refuses(source, now=0)


def test_too_many_that_are_signing_in_keep_everybody_out() -> None:
    """DOS-10"""
    penalties = Penalties(signing_in=STARTUPS)
    assert penalties.refuses(STRANGER, now=0)
    penalties.signing_in -= 1
    assert not penalties.refuses(STRANGER, now=0)


def test_what_is_remembered_of_sources_is_bounded() -> None:
    penalties = Penalties(until={f"source {n}": 10.0 for n in range(TRACKED)})
    penalties.punish(STRANGER, 100, now=5)
    assert len(penalties.until) == TRACKED
    assert penalties.refuses(STRANGER, now=5)

    penalties.punish("203.0.113.9", 100, now=11)
    assert set(penalties.until) == {STRANGER, "203.0.113.9"}


@given(st.lists(st.tuples(st.sampled_from(["a", "b", STRANGER]), st.floats(0, 100), st.floats(0, 50))))
def test_more_penalties_never_open_the_door_earlier(acts: list[tuple[str, float, float]]) -> None:
    penalties, now = Penalties(), 0.0
    for source, seconds, later in acts:
        now += later
        before = {other: penalties.refuses(other, now) for other in ("a", "b", STRANGER)}
        penalties.punish(source, seconds, now)
        assert all(penalties.refuses(other, now) for other, refused in before.items() if refused)


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = Bucket(burst=3, rate=1)
    assert [bucket.take(10.0) for _ in range(5)] == [True, True, True, False, False]
    assert [bucket.take(12.0) for _ in range(3)] == [True, True, False]


def test_a_penalty_meets_the_whole_network_of_an_ipv6_line() -> None:
    """DOS-10: whoever has one such address has 2^64 of them."""
    penalties = Penalties()
    penalties.punish("2001:db8:1:2::5", LEAST, 0.0)
    assert penalties.refuses("2001:db8:1:2:ffff::9", 0.0)
    assert not penalties.refuses("2001:db8:1:3::5", 0.0)
    penalties.punish("192.0.2.1", LEAST, 0.0)
    assert not penalties.refuses("192.0.2.2", 0.0)
