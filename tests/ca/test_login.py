"""Laws of ca/login.py: what is decided is decided once, in time, and by nobody who guesses."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca import login
from ca.errors import Conflict
from ca.login import DeviceLogin, State
from tests.ca.house import BEGAN

CHALLENGE = login.challenge_of("v" * 43)
ASKED = login.asked(CHALLENGE, host="build7", source="192.0.2.1", user_code="WDJB-MJHT", now=BEGAN)
seconds = st.integers(0, 1_200)


@given(seconds, st.booleans(), st.booleans())
def test_a_login_is_decided_once_and_in_time(after: int, approve: bool, again: bool) -> None:
    now = BEGAN + timedelta(seconds=after)
    if now >= ASKED.expires:
        with pytest.raises(Conflict):
            login.decided(ASKED, user="alice", approve=approve, now=now)
        return
    once = login.decided(ASKED, user="alice", approve=approve, now=now)
    assert (once.user, once.state) == ("alice", State.APPROVED if approve else State.DENIED)
    with pytest.raises(Conflict):
        login.decided(once, user="mallory", approve=again, now=now)


@given(st.sampled_from(State), seconds, st.none() | seconds)
def test_a_poll_never_hears_approved_of_what_is_not(state: State, after: int, polled: int | None) -> None:
    now = BEGAN + timedelta(seconds=after)
    last = None if polled is None else BEGAN + timedelta(seconds=polled)
    told = login.heard(DeviceLogin("WDJB-MJHT", CHALLENGE, "h", "s", BEGAN, ASKED.expires, state, "a", last), now=now)
    assert (told == "approved") is (state is State.APPROVED and now < ASKED.expires)
    assert told in {"pending", "slow_down", "approved", "denied", "over"}


def test_who_polls_too_fast_is_told_to_slow_down() -> None:
    """RFC 8628 §3.5"""
    polled = DeviceLogin("WDJB-MJHT", CHALLENGE, "h", "s", BEGAN, ASKED.expires, polled=BEGAN)
    assert login.heard(polled, now=BEGAN + timedelta(seconds=2)) == "slow_down"
    assert login.heard(polled, now=BEGAN + timedelta(seconds=5)) == "pending"


def test_a_user_code_is_no_word_and_is_found_however_it_is_typed() -> None:
    """OIDC-18: at least eight characters, no vowels"""
    for _ in range(100):
        code = login.new_user_code()
        letters = code.replace("-", "")
        assert len(letters) == 8
        assert not set(letters) & set("AEIOUY0123456789")
        for typed in (code, code.lower(), letters, f" {letters[:4]} {letters[4:].lower()} "):
            assert login.typed_user_code(typed) == code


@given(st.text(max_size=20))
def test_what_is_typed_is_a_code_or_nothing(text: str) -> None:
    code = login.typed_user_code(text)
    assert code is None or login.typed_user_code(code) == code


def test_the_challenge_is_that_of_the_rfc() -> None:
    """RFC 7636, appendix B"""
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert login.challenge_of(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    assert login.proves(verifier, login.challenge_of(verifier))
    assert not login.proves(verifier + "x", login.challenge_of(verifier))


def test_the_check_word_is_short_and_says_the_same_on_both_sides() -> None:
    assert len(login.check_word(CHALLENGE)) == 4
    assert login.check_word(CHALLENGE) == login.check_word(CHALLENGE)
    assert login.check_word(CHALLENGE) != login.check_word(login.challenge_of("w" * 43))
