"""The address that the browser brings the grant to, and all who knock there without it."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import loopback
from cli.loopback import HOST, Denied, Loopback, listening

STATE = "s" * 43
GOOD = f"/?code=gr4nt&state={STATE}"


@pytest.fixture
def here() -> Iterator[Loopback]:
    with listening(STATE) as here:
        yield here


def asked(
    here: Loopback, target: str, *, method: str = "GET", host: str | None = None
) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection(HOST, here.port, timeout=10)
    try:
        connection.putrequest(method, target, skip_host=True)
        connection.putheader("Host", host or f"{HOST}:{here.port}")
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def raw(here: Loopback, text: bytes) -> bytes:
    with socket.create_connection((HOST, here.port), timeout=10) as connection:
        connection.sendall(text)
        return connection.recv(65_536)


def test_the_good_request_brings_the_grant_and_a_page_without_scripts(here: Loopback) -> None:
    status, page, headers = asked(here, GOOD)
    assert (status, here.wait(1)) == (200, "gr4nt")
    assert "You may close this window" in page
    assert "<script" not in page
    assert "gr4nt" not in page
    assert STATE not in page
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-store", "no-referrer")
    assert headers["Server"] == "bart"


@pytest.mark.parametrize(
    "target",
    [
        f"/?code=gr4nt&state={'x' * 43}",
        "/?code=gr4nt&state=",
        "/?code=gr4nt",
        f"/?state={STATE}",
        f"/?code=&state={STATE}",
        f"/?code=a%0db&state={STATE}",
        f"/?code={'x' * 257}&state={STATE}",
        f"/?code=a&code=b&state={STATE}",
        f"/?code=a&state={STATE}&state={STATE}",
        f"/?code=a&state={STATE}&more=1",
        f"/?error=server_error&state={STATE}",
        f"/?error=access_denied&state={'x' * 43}",
        f"/?code=a&state={STATE}&" + "a" * 3000,
        "/?code=a&state=" + "%ff" * 8,
        "/?&&&",
    ],
)
def test_anything_else_is_refused_and_the_wait_goes_on(here: Loopback, target: str) -> None:
    """OIDC-17: another page or process on this machine."""
    assert asked(here, target)[0] == 400
    with pytest.raises(TimeoutError):
        here.wait(0.05)
    assert asked(here, GOOD)[0] == 200
    assert here.wait(1) == "gr4nt"


@pytest.mark.parametrize("target", ["/", "/favicon.ico", f"/x{GOOD}", f"//evil{GOOD}", "/..%2f"])
def test_other_paths_are_not_there(here: Loopback, target: str) -> None:
    """OIDC-17."""
    assert asked(here, target)[0] == 404
    with pytest.raises(TimeoutError):
        here.wait(0.05)


@pytest.mark.parametrize("host", ["evil.example", "localhost", "127.0.0.1", "127.0.0.1:1", "[::1]:80"])
def test_another_name_for_this_address_is_refused(here: Loopback, host: str) -> None:
    """OIDC-17: wrong Host, as after DNS rebinding."""
    assert asked(here, GOOD, host=host)[0] == 400
    with pytest.raises(TimeoutError):
        here.wait(0.05)


def test_two_hosts_or_none_are_refused(here: Loopback) -> None:
    """OIDC-17."""
    own = f"Host: {HOST}:{here.port}\r\n"
    for lines in ("", own + "Host: evil.example\r\n", own + own):
        assert raw(here, f"GET {GOOD} HTTP/1.1\r\n{lines}\r\n".encode()).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "OPTIONS", "TRACE", "BREW"])
def test_only_get_is_understood(here: Loopback, method: str) -> None:
    """OIDC-17."""
    assert asked(here, GOOD, method=method)[0] in (400, 404)
    with pytest.raises(TimeoutError):
        here.wait(0.05)


def test_rubbish_and_silence_hold_nobody_up(here: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """OIDC-17: fifty local processes that connect and say nothing."""
    monkeypatch.setattr(loopback._Handler, "timeout", 0.5)
    silent = [socket.create_connection((HOST, here.port)) for _ in range(50)]
    raw(here, b"\x16\x03\x01\x00\xff rubbish\r\n\r\n")
    raw(here, b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n")
    assert asked(here, GOOD)[0] == 200
    assert here.wait(1) == "gr4nt"
    for one in silent:
        one.close()


def test_of_fifty_at_once_exactly_one_is_taken(here: Loopback) -> None:
    """OIDC-17: one request."""
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(asked(here, f"/?code=c{n}&state={STATE}")[0]))  # type: ignore[misc]
        for n in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [200] + [400] * 49
    here.wait(1)
    with pytest.raises(TimeoutError):
        here.wait(0.05)


def test_a_no_on_the_page_ends_the_wait(here: Loopback) -> None:
    status, page, _ = asked(here, f"/?error=access_denied&state={STATE}")
    assert status == 200
    assert "Not signed in" in page
    with pytest.raises(Denied):
        here.wait(1)


def test_it_listens_on_this_machine_alone_and_on_another_port_each_time(here: Loopback) -> None:
    """OIDC-17."""
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()]
    ours = [row[1] for row in rows if row[1].endswith(f":{here.port:04X}") and row[3] == "0A"]
    assert ours == [f"0100007F:{here.port:04X}"]
    with listening(STATE) as other:
        assert other.port != here.port


def test_a_port_that_is_taken_gives_way_to_a_free_one() -> None:
    with socket.create_server((HOST, 0)) as taken, listening(STATE, port=taken.getsockname()[1]) as here:
        assert here.port != taken.getsockname()[1]
        assert asked(here, GOOD)[0] == 200


def test_nothing_listens_any_more_afterwards() -> None:
    with listening(STATE) as here:
        pass
    time.sleep(0.05)
    with pytest.raises(ConnectionRefusedError):
        asked(here, GOOD)
