"""ca/allowance.py: strangers may try so often and no more, each on their own account."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ca.allowance import MOST_KEYS, Allowance
from ca.errors import TooMany
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
