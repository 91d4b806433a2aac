"""Floods of failed tries are told in few words, and to the last one. Time is given."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bastion.tries import AT_ONCE, KINDS, WINDOW, Tries, Try

kinds = st.builds(Try, st.sampled_from(["root", "alice"]), st.sampled_from(["192.0.2.1", "::1"]), st.just("expired"))


def test_the_first_of_a_kind_is_told_at_once_and_those_alike_as_one_with_their_number() -> None:
    """LOG-05"""
    tries, one = Tries(), Try("root", "192.0.2.1", "expired")
    assert [tries.add(one, float(second)) for second in range(50)] == [True] + [False] * 49
    assert tries.take(WINDOW - 1) == {}
    assert tries.take(WINDOW) == {one: 49}
    assert tries.take(2 * WINDOW) == {}
    assert tries.add(one, 3 * WINDOW)


def test_what_could_not_be_told_comes_again_a_window_later() -> None:
    tries, one = Tries(), Try("root", "192.0.2.1", "expired")
    tries.count(one, 7)
    assert [tries.take(now) for now in (10.0, 10.0 + WINDOW - 1, 10.0 + WINDOW)] == [{}, {}, {one: 7}]


@given(st.lists(kinds, max_size=300))
def test_every_try_is_told_once(all_tries: list[Try]) -> None:
    """LOG-05"""
    tries = Tries()
    told = [one for one in all_tries if tries.add(one, 0.0)]
    counted = tries.take(1.0, early=True)
    assert len(told) + sum(counted.values()) == len(all_tries)
    assert {one: told.count(one) + counted.get(one, 0) for one in all_tries} == {
        one: all_tries.count(one) for one in all_tries
    }


def test_a_million_names_and_addresses_take_little_room_and_are_still_counted() -> None:
    """LOG-05"""
    tries = Tries()
    told = sum(tries.add(Try(f"user{n}", f"192.0.2.{n % 5000}", "sig_bad"), 0.0) for n in range(100_000))
    counted = tries.take(WINDOW)
    assert told == AT_ONCE
    assert len(counted) <= 2 * KINDS + 1
    assert told + sum(counted.values()) == 100_000
    assert counted[Try("", "", "sig_bad")] > 0
