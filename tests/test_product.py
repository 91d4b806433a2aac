"""The stage on which the journeys play: it stands, and each of its people can do what it says."""

from __future__ import annotations

import json

import pytest

from tests.product import Person, Product, Way
from tests.sshd import LOGIN


@pytest.mark.parametrize("way", ["config", "jump", "username"])
def test_alice_reaches_web1_in_all_three_ways(alice: Person, way: Way) -> None:
    result = alice.ssh("web1", "echo", "welcome", way=way)
    assert (result.returncode, result.stdout) == (0, b"welcome\n"), result.stderr


def test_alice_does_not_reach_db1(alice: Person) -> None:
    result = alice.ssh("db1", "echo", "welcome", way="username")
    assert result.returncode == 255
    assert b"welcome" not in result.stdout


def test_carol_sees_what_alice_did(alice: Person, carol: Person) -> None:
    alice.ssh("web1", "true")
    assert {"user": "alice", "node": "web1", "login": LOGIN}.items() <= carol.recordings()[0].items()


def test_an_administrator_works_from_elsewhere_too(root: Person) -> None:
    listed = root.bart("ls", "--json")
    assert json.loads(listed.stdout) == []


def test_the_operator_reads_the_audit_log(product: Product) -> None:
    assert product.audit()[0]["code"] == "cluster.created"
