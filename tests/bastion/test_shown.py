"""Host certificates that a bastion shows: kept while they live, fetched at a bounded rate, never for guessing names."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncssh
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bastion import shown
from bastion.shown import ShownKeys
from ca import wire
from ca.errors import Unavailable
from recordings.sshkey import PublicKey
from tests.bastion.door import MemoryAuthority, _pem


@dataclass
class Counted(MemoryAuthority):
    """Counts what it is asked for."""

    asked: list[list[str]] = field(default_factory=list)
    life: timedelta = timedelta(hours=1)

    async def shown(self, names: list[str]) -> wire.ShownCertificates:
        self.asked.append(names)
        answer = await super().shown(names)
        return answer.model_copy(update={"expires": datetime.now(UTC) + self.life})


@pytest.fixture
def authority() -> Counted:
    key = Ed25519PrivateKey.generate()
    made = Counted(PublicKey.of(key.public_key()))
    made.key = asyncssh.import_private_key(_pem(key))  # type: ignore[attr-defined]
    return made


@pytest.fixture
def keys(authority: Counted) -> ShownKeys:
    return ShownKeys(authority, authority.key)  # type: ignore[attr-defined]


async def test_a_certificate_is_fetched_once(keys: ShownKeys, authority: Counted) -> None:
    assert keys.ready("web1") is None
    first = await keys.fetch("web1")
    assert keys.ready("web1") is first
    assert await keys.fetch("web1") is first
    assert authority.asked == [["web1"]]


async def test_the_bastions_own_names_are_asked_for_with_no_name(keys: ShownKeys, authority: Counted) -> None:
    own, node = await keys.fetch(""), await keys.fetch("web1")
    assert authority.asked == [[], ["web1"]]
    assert [pair.algorithm for pair in node.pairs] == [b"ssh-ed25519-cert-v01@openssh.com"]
    assert b"ssh-ed25519" in [pair.algorithm for pair in own.pairs]  # for clients that know the bare key


async def test_a_certificate_about_to_end_is_fetched_anew_and_serves_while_nobody_answers(
    keys: ShownKeys, authority: Counted
) -> None:
    authority.life = timedelta(minutes=5)
    first = await keys.fetch("web1")
    assert keys.ready("web1") is None
    authority.down = True
    assert await keys.fetch("web1") is first
    authority.down = False
    assert await keys.fetch("web1") is not first


async def test_a_certificate_that_has_ended_serves_nobody(keys: ShownKeys, authority: Counted) -> None:
    authority.life = timedelta(seconds=-1)
    await keys.fetch("web1")
    authority.down = True
    with pytest.raises(Unavailable):
        await keys.fetch("web1")


async def test_guessing_names_is_bounded_and_does_not_touch_known_ones(
    keys: ShownKeys, authority: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys._bucket, "burst", 3.0)
    monkeypatch.setattr(keys._bucket, "level", 3.0)
    monkeypatch.setattr(keys._bucket, "rate", 0.0)
    for n in range(3):
        await keys.fetch(f"n{n}")
    with pytest.raises(Unavailable, match="too many"):
        await keys.fetch("n3")
    assert await keys.fetch("n0") is keys.ready("n0")
    await keys.fetch("")
    assert len(authority.asked) == 4


async def test_what_is_kept_is_bounded(keys: ShownKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "KEPT", 3)
    await keys.fetch("")
    for n in range(5):
        await keys.fetch(f"n{n}")
    assert keys.ready("") is not None
    assert sum(keys.ready(f"n{n}") is not None for n in range(5)) == 2
