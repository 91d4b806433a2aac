"""ca/allowance.py: strangers may try so often and no more, each on their own account."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest

from ca.allowance import MOST_KEYS, Allowance, Doors
from ca.errors import AccessDenied, NotSignedIn, TooMany
from tests.ca.house import BEGAN

MINUTE = timedelta(minutes=1)


def test_what_is_used_up_comes_back_after_the_window() -> None:
    allowance = Allowance(3, MINUTE)
    for at in range(3):
        allowance.use("a", now=BEGAN + timedelta(seconds=at))
    with pytest.raises(TooMany):
        allowance.use("a", now=BEGAN + timedelta(seconds=3))
    allowance.use("b", now=BEGAN)
    allowance.use("a", now=BEGAN + MINUTE)


def test_a_clock_that_is_set_back_shuts_nobody_out() -> None:
    allowance = Allowance(1, MINUTE)
    allowance.use("a", now=BEGAN)
    allowance.use("a", now=BEGAN - timedelta(days=1))


def test_many_keys_do_not_fill_memory() -> None:
    allowance = Allowance(1, MINUTE)
    for number in range(MOST_KEYS + 10):
        allowance.take(str(number), now=BEGAN)
    assert not allowance.spent("0", now=BEGAN)
    assert allowance.spent(str(MOST_KEYS), now=BEGAN)


def test_an_ipv6_line_is_one_source_with_all_its_addresses() -> None:
    allowance = Allowance(1, MINUTE)
    allowance.use("2001:db8:1:2::5", now=BEGAN)
    with pytest.raises(TooMany):
        allowance.use("2001:db8:1:2:ffff::9", now=BEGAN)
    allowance.use("2001:db8:1:3::5", now=BEGAN)


def test_who_shares_the_machine_is_spared_where_that_is_said() -> None:
    for source in ("127.0.0.1", "::1", "local"):
        allowance = Allowance(1, MINUTE, spares_neighbours=True)
        for _ in range(3):
            allowance.use(source, now=BEGAN)
        strict = Allowance(1, MINUTE)
        strict.use(source, now=BEGAN)
        assert strict.spent(source, now=BEGAN)


def test_a_sign_in_counts_until_it_is_known_not_to_be_wrong() -> None:
    doors = Doors()
    doors.failing = Allowance(2, MINUTE)
    with doors.signing_in("a", now=BEGAN), doors.signing_in("a", now=BEGAN):
        assert doors.failing.spent("a", now=BEGAN), "two are under way"
    for kind in (NotSignedIn, AccessDenied, NotSignedIn):
        with suppress(kind), doors.signing_in("a", now=BEGAN):
            raise kind("no")
    assert doors.failing.spent("a", now=BEGAN), "two that were wrong"
