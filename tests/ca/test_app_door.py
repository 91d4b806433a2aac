"""ca/api/door.py and render.py: what never reaches a route, and how every error looks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ca import errors
from ca.api import door, render
from ca.errors import BartizanError
from tests.ca.house import House, house

JSON = {"content-type": "application/json"}


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        yield made


def test_every_kind_of_error_has_a_status() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BartizanError)}
    assert kinds - {BartizanError} <= set(render.STATUS)
    assert all(any(issubclass(kind, one) for one in render.STATUS) for kind in BartizanError.__subclasses__())


@pytest.mark.parametrize("body", [b'"' + b"x" * (2 << 20) + b'"', b"[" * (2 << 20)])
async def test_a_body_over_a_mebibyte_is_not_read(home: House, body: bytes) -> None:
    """CA-34"""
    answer = await home.web.post("/v1/login", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")


async def test_a_body_of_unknown_length_is_cut_off_at_the_same_size(home: House) -> None:
    """CA-34, WEB-06"""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"x" * 65_536

    answer = await home.web.post("/v1/login", content=endless(), headers=JSON)
    assert answer.status_code == 413
    answer = await home.web.post("/invitation/x", files={"f": b"x" * (2 << 20)})
    assert answer.status_code == 413


async def test_deep_and_wide_json_is_refused(home: House) -> None:
    """CA-34"""
    deep = b'{"user": ' + b"[" * 1000 + b"]" * 1000 + b"}"
    answer = await home.web.post("/v1/login", content=deep, headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (400, "too_deep")
    wide = json.dumps({"name": "bob", "roles": ["r"] * 10_000}).encode()
    assert (await home.operator.post("/v1/users", content=wide, headers=JSON)).status_code in (201, 400)
    harmless = json.dumps({"name": "carol", "roles": [], "password": "[" * 500}).encode()
    assert (await home.operator.post("/v1/users", content=harmless, headers=JSON)).status_code == 201


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"null", b"[]", b'"x"', b"{}", b'{"user": 1}'])
async def test_what_is_not_the_expected_json_is_refused_in_our_words(home: House, body: bytes) -> None:
    answer = await home.web.post("/v1/login", content=body, headers=JSON)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error", "message", "hint"}


async def test_an_unknown_field_is_named_and_its_value_never_shown(home: House) -> None:
    """CA-27"""
    answer = await home.operator.post("/v1/users", json={"name": "bob", "pasword": "hunter2hunter2"})
    assert (answer.status_code, answer.json()["error"]) == (400, "unknown_field")
    assert "pasword" in answer.json()["message"]
    assert "hunter2" not in answer.text


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data", "application/x-www-form-urlencoded", ""])
async def test_only_json_is_taken_as_json(home: House, kind: str) -> None:
    """WEB-03"""
    answer = await home.operator.post("/v1/users", content=b'{"name": "bob"}', headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error"]) == (415, "media_type")


@pytest.mark.parametrize("query", ["token=x", "access_token=x", "a=b&Token=x", "password=x"])
async def test_a_secret_in_the_url_is_refused(home: House, query: str) -> None:
    """WEB-09"""
    answer = await home.operator.get(f"/v1/users?{query}")
    assert (answer.status_code, answer.json()["error"]) == (400, "secret_in_url")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil.example:8443"])
async def test_a_host_that_is_not_ours_is_refused(home: House, host: str) -> None:
    answer = await home.web.get("/v1/cluster", headers={"host": host})
    assert (answer.status_code, answer.json()["error"]) == (421, "wrong_host")


@pytest.mark.parametrize("host", ["127.0.0.1:8443", "localhost", "[::1]:8443", "192.0.2.1:8443", "LOCALHOST:1"])
async def test_our_names_and_bare_addresses_are_answered(home: House, host: str) -> None:
    assert (await home.web.get("/v1/cluster", headers={"host": host})).status_code == 200


@pytest.mark.parametrize("method", ["TRACE", "HEAD", "OPTIONS", "__init__", "PROPFIND", "DELETE"])
async def test_other_methods_do_not_exist(home: House, method: str) -> None:
    """WEB-05"""
    assert (await home.operator.request(method, "/v1/users")).status_code == 405


@pytest.mark.parametrize(
    "path", ["/static/..%2fpage.html", "/static//etc/passwd", "//static/bartizan.css", "/static/%00", "/docs", "/v1/"]
)
async def test_what_is_not_a_route_is_not_found(home: House, path: str) -> None:
    """WEB-11"""
    assert (await home.web.get(f"https://127.0.0.1:8443{path}")).status_code == 404


async def test_every_answer_forbids_sniffing_framing_and_referring(home: House) -> None:
    for path in ("/healthz", "/v1/users", "/nowhere", "/invitation/x"):
        headers = (await home.web.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"


async def test_a_bug_shows_an_incident_and_nothing_else(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(db: object) -> None:
        raise ZeroDivisionError("a secret detail")

    monkeypatch.setattr("ca.store.users.every", bug)
    answer = await home.operator.get("/v1/users")
    assert (answer.status_code, answer.json()["error"]) == (500, "bug")
    assert "incident" in answer.json()["message"]
    assert "secret detail" not in answer.text


async def test_health_readiness_and_numbers_are_for_everyone(home: House) -> None:
    assert (await home.web.get("/healthz")).text == "ok\n"
    assert (await home.web.get("/readyz")).text == "ready\n"
    numbers = (await home.web.get("/metrics")).text
    assert "bartizan_sessions_live 0.0" in numbers
    assert 'route="/healthz"' in numbers
    home.authority.stopping.set()
    assert (await home.web.get("/readyz")).status_code == 503


async def test_a_valid_person_is_served_during_the_attack(home: House) -> None:
    """CA-34: the canary"""
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(home.web.post("/v1/login", content=b"[" * 500_000, headers=JSON))
        async with asyncio.timeout(5):
            assert (await home.web.get("/v1/cluster")).status_code == 200


async def test_a_body_that_never_ends_is_not_awaited_for_ever(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "BODY_SECONDS", 0.05)

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    async with asyncio.timeout(5):
        answer = await home.web.post("/v1/login", content=slow(), headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (408, "too_slow")
