"""ca/issue.py: decide, store, sign, verify, return; when a step fails, nothing of the later ones happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from ca import sshcert
from ca.certificate import CA
from ca.store import Db, certificates
from recordings.sshkey import sign_ed25519
from tests.ca import forge
from tests.ca.house import Clock, House, house


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        await made.roles()
        await made.user("alice", "developer")
        yield made


async def states(home: House, ca: str = "user") -> list[str]:
    found = await home.authority.store.read(lambda db: certificates.recent(db, 10_000))
    return [one.state for one in sorted(found, key=lambda one: one.serial) if one.ca == ca]


async def test_serials_of_many_issues_at_once_are_unique_contiguous_and_logged(home: House) -> None:
    """CA-35, at a size that two cores carry"""
    bastion = await home.bastion()
    serials: list[int] = []

    async def ask(number: int) -> None:
        names = [f"n{number}-{index}" for index in range(40)]
        answer = await bastion.http.post("/v1/bastions/shown-certificates", json={"names": names})
        serials.extend(sshcert.from_line(line).serial for line in answer.json()["certificates"])

    async with asyncio.TaskGroup() as group:
        for number in range(25):
            group.create_task(ask(number))
    assert sorted(serials) == list(range(1, 1001))
    assert await states(home, "bastion") == ["issued"] * 1000
    logged = [one.fields["serial"] for one in await home.events("certificate.issued")]
    assert logged == list(range(1, 1001))


async def test_when_the_row_cannot_be_stored_nothing_is_signed(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """CA-36"""
    request = await home.login_request("alice")

    def full(db: Db, record: object) -> None:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    def never(self: object, plan: object, to_be_signed: bytes) -> None:
        raise AssertionError("signed what was not stored")

    with monkeypatch.context() as patch:
        patch.setattr(certificates, "store", full)
        patch.setattr("ca.keys.CertificateAuthority.sign", never)
        answer = await home.web.post("/v1/login", json=request)
    assert (answer.status_code, answer.json()["error"]) == (503, "audit_unavailable")
    assert await states(home) == []
    assert sshcert.from_line((await home.login("alice")).json()["certificate"]).serial == 1


@pytest.mark.parametrize("fault", ["garbage", "another key", "another message"])
async def test_what_the_signer_got_wrong_is_never_returned(home: House, fault: str) -> None:
    """CA-37"""
    authority = home.authority.issuer._keys.authorities[CA.USER]
    other = forge.ed25519()

    def wrong(data: bytes) -> bytes:
        assert hasattr(other.private, "sign")
        match fault:
            case "garbage":
                return b"\0" * 64
            case "another key":
                return other.sign(data)
            case _:
                return sign_ed25519(_private(honest), b"something else")

    honest = authority._sign
    authority._sign = wrong
    try:
        answer = await home.login("alice")
    finally:
        authority._sign = honest
    assert (answer.status_code, answer.json()["error"]) == (500, "signer_fault")
    assert "certificate" not in answer.json()
    assert await states(home) == ["void"]
    (voided,) = await home.events("certificate.voided")
    assert voided.fields["serial"] == 1
    assert 'bartizan_alarms_total{kind="signer_fault"} 1.0' in home.authority.metrics.text().decode()
    assert sshcert.from_line((await home.login("alice")).json()["certificate"]).serial == 2


def _private(sign: object) -> object:
    """The key inside a signer: what a test may look at and the product may not."""
    return sign.__closure__[0].cell_contents  # type: ignore[attr-defined]


async def test_a_certificate_that_was_voided_opens_nothing_and_its_sign_in_neither(home: House) -> None:
    authority = home.authority.issuer._keys.authorities[CA.USER]
    honest, authority._sign = authority._sign, lambda data: b""
    try:
        assert (await home.login("alice")).status_code == 500
    finally:
        authority._sign = honest


async def test_a_plan_for_one_ca_is_not_signed_by_another(home: House) -> None:
    """CA-43, KEY-12"""
    from ca.certificate import host_plan
    from ca.errors import SignerFault

    plan = host_plan("web1", "n-1", serial=1, public_key=forge.ed25519().public, now=home.clock.now)
    with pytest.raises(SignerFault) as caught:
        home.authority.issuer._keys.authorities[CA.USER].encode(plan)
    assert caught.value.code == "invariant"


async def test_a_certificate_of_one_ca_is_not_believed_as_anothers(home: House) -> None:
    """KEY-12"""
    user = sshcert.from_line((await home.login("alice")).json()["certificate"])
    for ca in (CA.TARGET, CA.HOST, CA.BASTION):
        with pytest.raises(sshcert.CertificateError) as caught:
            sshcert.verify(
                user.blob,
                trusted=[home.authority.issuer.public_key(ca)],
                kind=sshcert.CertKind.USER,
                now=home.clock.now,
            )
        assert caught.value.code == "ca_untrusted"


async def test_a_clock_that_jumped_back_stops_every_issue(home: House) -> None:
    """CA-19"""
    assert (await home.login("alice")).status_code == 200
    home.clock.turn(seconds=-4)
    assert (await home.login("alice")).status_code == 200, "five seconds are nothing"
    home.clock.turn(hours=-1)
    answer = await home.login("alice")
    assert (answer.status_code, answer.json()["error"]) == (503, "clock_skew")
    home.clock.turn(hours=2)
    assert (await home.login("alice")).status_code == 200


async def test_what_a_crash_left_unsigned_is_void_after_the_next_start(tmp_path: Path) -> None:
    clock = Clock()
    async with house(tmp_path, clock=clock) as home:
        await home.roles()
        await home.user("alice", "developer")
        assert (await home.login("alice")).status_code == 200
        await home.authority.store.write(lambda db: certificates.mark(db, "user", [1], "stored"))
    async with house(tmp_path, clock=clock) as again:
        assert await states(again) == ["void"]
        started = (await again.events("cluster.started"))[-1]
        assert "certificate 1 of the user CA" in str(started.fields["repaired"])
        assert len(await again.events("certificate.voided")) == 1
