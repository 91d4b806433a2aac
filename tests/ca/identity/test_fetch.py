"""The way out: whom we ask, and what a provider's answer may be."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ca.identity.fetch import MOST_BYTES, Answer, WayOut, origin
from ca.identity.provider import Unreachable
from tests.ca.identity.provider import Provider, Reply, running_provider


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running_provider() as running:
        yield running


async def asked(provider: Provider, reply: Reply, *, seconds: float = 5) -> Answer:
    provider.bent["/x"] = reply
    way = WayOut([provider.issuer], seconds=seconds)
    try:
        return await way.get(f"{provider.issuer}/x")
    finally:
        await way.close()


async def refusal(provider: Provider, reply: Reply, *, seconds: float = 5) -> str:
    with pytest.raises(Unreachable) as caught:
        (await asked(provider, reply, seconds=seconds)).json()
    assert "127.0.0.1" in str(caught.value)
    return str(caught.value)


async def test_an_object_comes_back(provider: Provider) -> None:
    assert (await asked(provider, Reply({"a": 1}))).json() == {"a": 1}


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example.com",
        "http://169.254.169.254/latest",
        "http://10.0.0.1",
        "http://localhost:80@evil.example",
        "https://user:word@id.example.com",
        "https://id.example.com\\@evil.example",
        "https://id.example.com#x",
        "https://id.example.com /x",
        "https://id.exämple.com",
        "ftp://id.example.com",
        "file:///etc/passwd",
        "//id.example.com",
        "https://",
        "https:///x",
        "https://[::1",
        "https://id.example.com:0",
        "https://id.example.com:99999",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://2130706433",
        "",
    ],
)
def test_an_address_that_is_not_plain_https_is_never_asked(url: str) -> None:
    """OIDC-14"""
    with pytest.raises(Unreachable) as caught:
        origin(url)
    assert caught.value.code == "provider_address"


@pytest.mark.parametrize("url", ["http://127.0.0.1:80/x", "http://[::1]:8080", "http://localhost", "https://10.0.0.1"])
def test_plain_http_is_for_this_machine_and_https_for_where_the_operator_says(url: str) -> None:
    """OIDC-14"""
    assert str(origin(url))


def test_the_same_origin_is_written_in_one_way() -> None:
    assert origin("https://ID.example.com:443/a?b") == origin("https://id.example.com")
    assert str(origin("https://id.example.com:443")) == "https://id.example.com"


@pytest.mark.parametrize(
    "url", ["https://evil.example/jwks", "https://127.0.0.1/jwks", "http://127.0.0.1:1/jwks", "http://localhost/jwks"]
)
async def test_another_origin_than_the_file_lists_is_never_asked(provider: Provider, url: str) -> None:
    """OIDC-14"""
    way = WayOut([provider.issuer])
    with pytest.raises(Unreachable) as caught:
        await way.get(url)
    await way.close()
    assert caught.value.code == "provider_origin"
    assert "also" in (caught.value.hint or "")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(provider: Provider, status: int) -> None:
    """OIDC-14"""
    reply = Reply({}, status, {"Location": f"{provider.issuer}/elsewhere"})
    assert "redirect" in await refusal(provider, reply)
    assert provider.times_asked("/elsewhere") == 0


async def test_a_hundred_megabytes_are_not_read(provider: Provider) -> None:
    """OIDC-14"""
    assert "more than 1 MiB" in await refusal(provider, Reply(b"{", megabytes=100))


async def test_one_mebibyte_is_read(provider: Provider) -> None:
    body = b"{}" + b" " * (MOST_BYTES - 2)
    assert (await asked(provider, Reply(body))).json() == {}


async def test_a_slow_answer_is_not_waited_for(provider: Provider) -> None:
    """OIDC-14"""
    began = time.monotonic()
    assert "within 0.3 s" in await refusal(provider, Reply({}, pause=60), seconds=0.3)
    assert time.monotonic() - began < 30


async def test_an_answer_that_comes_a_drop_at_a_time_is_not_waited_for() -> None:
    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
        try:
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    place = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        way = WayOut([place], seconds=0.5)
        with pytest.raises(Unreachable, match=r"within 0\.5 s"):
            await way.get(place)
        await way.close()


async def test_what_speaks_another_protocol_is_unreachable() -> None:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    place = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        way = WayOut([place])
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1 cannot be asked"):
            await way.get(place)
        await way.close()


async def test_a_certificate_is_believed_when_the_system_believes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=self_signed(tmp_path))
    place = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        strict = WayOut([place])
        with pytest.raises(Unreachable, match="certificate verify failed"):
            await strict.get(place)
        await strict.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        trusting = WayOut([place])
        assert (await trusting.get(place)).json() == {}
        await trusting.close()


def self_signed(folder: Path) -> ssl.SSLContext:
    """A server's context with a certificate of its own for 127.0.0.1, which lies in *folder* too."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "certificate.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context


async def test_a_way_that_was_closed_meanwhile_is_unreachable(provider: Provider) -> None:
    way = WayOut([provider.issuer])
    await way.close()
    with pytest.raises(Unreachable, match="try again"):
        await way.get(provider.issuer)


async def test_a_provider_that_is_down_is_unreachable() -> None:
    with running_provider() as provider:
        issuer = provider.issuer
    way = WayOut([issuer])
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1 cannot be asked: (?!\[Errno)"):
        await way.get(issuer)
    await way.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b"\xff",
        b'{"a":' * 9_999,
        b'"\\ud800"',
        b'{"a": "\\ud800"}',
    ],
)
async def test_garbage_is_no_answer(provider: Provider, body: bytes) -> None:
    assert "not a JSON object" in await refusal(provider, Reply(body))


async def test_what_is_compressed_is_not_unpacked(provider: Provider) -> None:
    assert "compressed" in await refusal(provider, Reply(b"\x1f\x8b", headers={"Content-Encoding": "gzip"}))


async def test_the_environment_sends_nobody_through_a_proxy(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert (await asked(provider, Reply({}))).status == 200


async def test_no_cookie_is_kept(provider: Provider) -> None:
    provider.bent["/x"] = Reply({}, headers={"Set-Cookie": "who=alice"})
    way = WayOut([provider.issuer])
    for _ in range(2):
        await way.get(f"{provider.issuer}/x")
    await way.close()
    assert "cookie" not in provider.diary[-1].headers
