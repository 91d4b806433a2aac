"""Promises of recordings/player.py: everything is shown once, in order, at its time, whatever keys are pressed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recordings.format import Event, Output
from recordings.player import Player

TIMES = (0.0, 1.0, 1.5, 61.5, 62.0)
EVENTS = [Output(at, b"%d" % index) for index, at in enumerate(TIMES)]


def played(player: Player, *, start: float = 100.0) -> list[tuple[float, bytes]]:
    """Play to the end, waiting exactly as long as told: (when by the clock, what)."""
    clock, shown = start, []
    while not player.ended:
        shown += [(round(clock - start, 6), event.data) for event in player.due(clock) if isinstance(event, Output)]
        clock += player.wait(clock) or 0.0
    return shown


def test_events_are_shown_at_their_times() -> None:
    assert played(Player(lambda: EVENTS)) == [(at, b"%d" % index) for index, at in enumerate(TIMES)]


def test_twice_the_speed_takes_half_the_time() -> None:
    assert [at for at, _ in played(Player(lambda: EVENTS, speed=2))] == [at / 2 for at in TIMES]


def test_a_long_silence_is_cut_to_the_idle_limit() -> None:
    assert [at for at, _ in played(Player(lambda: EVENTS, idle_limit=2))] == [0, 1, 1.5, 3.5, 4]


def test_waiting_in_small_steps_changes_nothing() -> None:
    for limit in (None, 2.0):
        player = Player(lambda: EVENTS, idle_limit=limit)
        shown, clock = [], 0.0
        while not player.ended:
            shown += [(round(clock, 1), event.at) for event in player.due(clock)]
            clock = round(clock + 0.1, 6)
        assert [at for at, _ in shown] == ([0, 1, 1.5, 61.5, 62] if limit is None else [0, 1, 1.5, 3.5, 4])


def test_a_slow_terminal_catches_up() -> None:
    player = Player(lambda: EVENTS)
    assert [event.at for event in player.due(0)] == [0]
    assert [event.at for event in player.due(1.7)] == [1, 1.5]
    assert player.wait(1.7) == pytest.approx(59.8)


def test_a_pause_takes_no_time_of_the_recording() -> None:
    player = Player(lambda: EVENTS)
    player.due(0)
    player.due(0.4)
    player.pause(0.5)
    assert player.wait(0.5) is None
    assert player.due(50) == []
    assert player.position == pytest.approx(0.5)
    player.resume(60)
    assert player.wait(60) == pytest.approx(0.5)
    assert [event.at for event in player.due(60.5)] == [1]


def test_a_step_shows_the_next_event_and_stays() -> None:
    player = Player(lambda: EVENTS)
    player.due(0)
    assert [event.at for event in player.step(0.2)] == [1]
    assert player.paused
    assert [event.at for event in player.step(0.3)] == [1.5]
    assert player.position == 1.5
    player.resume(10)
    assert player.wait(10) == pytest.approx(60)


def test_forward_is_reached_by_showing_what_lies_between() -> None:
    player = Player(lambda: EVENTS)
    player.due(0)
    reset, passed = player.seek(30, 5)
    assert (reset, [event.at for event in passed]) == (False, [1, 1.5])
    assert player.wait(5) == pytest.approx(31.5)


def test_backwards_is_reached_from_a_blank_screen() -> None:
    player = Player(lambda: EVENTS)
    player.seek(62, 0)
    assert player.ended
    reset, passed = player.seek(1.2, 10)
    assert (reset, [event.at for event in passed]) == (True, [0, 1])
    assert player.wait(10) == pytest.approx(0.3)
    assert not player.ended


def test_a_little_back_within_a_silence_needs_no_reset() -> None:
    player = Player(lambda: EVENTS)
    player.seek(40, 0)
    reset, passed = player.seek(20, 1)
    assert (reset, passed) == (False, [])
    assert player.wait(1) == pytest.approx(41.5)


def test_the_speed_can_change_on_the_way() -> None:
    player = Player(lambda: EVENTS)
    player.due(0)
    player.set_speed(4, 0.5)
    assert player.wait(0.5) == pytest.approx(0.125)


@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf")])
def test_a_speed_is_above_zero(speed: float) -> None:
    with pytest.raises(ValueError):
        Player(lambda: EVENTS, speed=speed)
    with pytest.raises(ValueError):
        Player(lambda: EVENTS, idle_limit=0)


def test_an_empty_recording_has_ended() -> None:
    player = Player(list)
    assert player.ended
    assert player.wait(0) is None
    assert player.seek(10, 0) == (False, [])


acts = st.one_of(
    st.tuples(st.just("wait"), st.floats(0, 5)),
    st.tuples(st.just("pause"), st.just(0.0)),
    st.tuples(st.just("resume"), st.just(0.0)),
    st.tuples(st.just("step"), st.just(0.0)),
    st.tuples(st.just("speed"), st.floats(0.1, 10)),
    st.tuples(st.just("seek"), st.floats(-1, 20)),
)
timelines = st.lists(st.floats(0, 20), max_size=12).map(sorted)


@given(timelines, st.lists(acts, max_size=30), st.none() | st.floats(0.1, 5))
def test_whatever_is_pressed_the_screen_holds_the_beginning_of_the_recording(
    times: list[float], acts: list[tuple[str, float]], limit: float | None
) -> None:
    events: list[Event] = [Output(at, b"%d" % index) for index, at in enumerate(times)]
    player = Player(lambda: events, idle_limit=limit)
    screen: list[Event] = []
    clock = 0.0
    for act, value in acts:
        match act:
            case "wait":
                clock += value
                screen += player.due(clock)
            case "pause":
                player.pause(clock)
            case "resume":
                player.resume(clock)
            case "step":
                screen += player.step(clock)
            case "speed":
                player.set_speed(value, clock)
            case _:
                reset, passed = player.seek(value, clock)
                screen = passed if reset else screen + passed
                assert len(screen) >= sum(event.at <= value for event in events[: len(screen)])
        assert screen == events[: len(screen)]
        assert player.ended == (len(screen) == len(events))
        wait = player.wait(clock)
        assert wait is None or wait >= 0
    player.resume(clock)
    assert len(screen) + len(played(player, start=clock)) == len(events)
