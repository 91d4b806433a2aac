"""ca/model.py: whom a source address stands for."""

from __future__ import annotations

import pytest

from ca.model import on_this_machine, source_key


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2::5", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("local", "local"),
        ("*", "*"),
        ("", ""),
    ],
)
def test_one_line_is_counted_once_whatever_addresses_it_takes(source: str, key: str) -> None:
    assert source_key(source) == key


@pytest.mark.parametrize("source", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "local"])
def test_whoever_shares_the_machine_is_told_apart(source: str) -> None:
    assert on_this_machine(source)


@pytest.mark.parametrize("source", ["192.0.2.7", "10.0.0.1", "2001:db8::1", "localhost.example", "", "*"])
def test_everybody_else_is_elsewhere(source: str) -> None:
    assert not on_this_machine(source)
