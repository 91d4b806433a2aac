"""ca/serve.py: the real process, its two doors, and how it refuses to start."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from starlette.types import Receive, Scope, Send

from ca import serve, tls
from tests.ca.house import certificate_request
from tests.ca.test_app_join import enrolment


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def command(data: Path, port: int, *more: str) -> list[str]:
    where = ["--data", str(data), "--web", f"127.0.0.1:{port}", "--public-ssh", "127.0.0.1:2222"]
    return [sys.executable, "-m", "ca.serve", *where, *more]


@contextmanager
def running(data: Path, *more: str, pass_fds: tuple[int, ...] = ()) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    log = (data.parent / "log").open("ab")
    process = subprocess.Popen(command(data, port, *more), stderr=log, pass_fds=pass_fds)
    try:
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until and not answers(data):
            time.sleep(0.05)
        assert process.poll() is None, (data.parent / "log").read_text()
        yield process, port
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def answers(data: Path) -> bool:
    """Whether the socket's door is open."""
    with socket.socket(socket.AF_UNIX) as knock:
        try:
            knock.connect(str(data / "authority.sock"))
        except OSError:
            return False
    return over_socket(data, "/readyz").status_code == 200


def over_socket(data: Path, path: str, method: str = "GET", token: str | None = None) -> httpx.Response:
    text = token if token is not None else (data / "admin.token").read_text().strip()
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(data / "authority.sock"))) as http:
        return http.request(method, f"http://localhost{path}", headers={"Authorization": f"Bearer {text}"}, timeout=30)


def refused(data: Path, *more: str, environment: Mapping[str, str] = {}) -> str:
    done = subprocess.run(
        command(data, free_port(), *more), capture_output=True, timeout=60, env={**os.environ, **environment}
    )
    assert done.returncode == 1, done.stderr
    said = done.stderr.decode()
    assert "Traceback" not in said
    return said


def test_both_doors_open_and_a_bastion_is_known_by_its_certificate(tmp_path: Path) -> None:
    data = tmp_path / "d"
    with running(data) as (process, port):
        assert (data / "authority.sock").stat().st_mode & 0o777 == 0o600
        assert (data / "admin.token").stat().st_mode & 0o777 == 0o600
        assert over_socket(data, "/v1/me").json()["administrator"] is True
        assert over_socket(data, "/v1/me", token="wrong").status_code == 401
        root = (data / "root.pem").read_text()
        context = ssl.create_default_context(cadata=root)
        base = f"https://127.0.0.1:{port}"
        with httpx.Client(verify=context, base_url=base) as http:
            assert http.get("/v1/tls-root").text == root
            assert http.get("/v1/users").status_code == 401
            assert http.get("/v1/bastions/trust").status_code == 401
            text = over_socket(data, "/v1/bastion-tokens", "POST").json()["token"]
            key = ec.generate_private_key(ec.SECP256R1())
            made = http.post(
                "/v1/bastions/enrolment", json=enrolment(text, tls_request=certificate_request(key))
            ).json()
        assert made["tls_root"] == root
        known = mutual(root, key, made["tls_certificate"], tmp_path)
        with httpx.Client(verify=known, base_url=base) as http:
            assert http.get("/v1/bastions/trust").json()["cluster"] == "bartizan"
            answer = http.post("/v1/bastions/sync", json={"worker": "w1"})
            assert len(answer.json()["beacon"]) == 32
        stranger = tls.Root.make("not ours", datetime.now(UTC))
        forged, _ = tls.bastion_certificate(stranger, certificate_request(key), made["id"], datetime.now(UTC))
        with (
            httpx.Client(verify=mutual(root, key, forged, tmp_path), base_url=base) as http,
            pytest.raises(httpx.TransportError),
        ):
            http.get("/v1/bastions/trust")
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    assert not (data / "authority.sock").exists()


def mutual(root: str, key: ec.EllipticCurvePrivateKey, certificate: str, folder: Path) -> ssl.SSLContext:
    file = folder / "client.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.encode())
    context = ssl.create_default_context(cadata=root)
    context.load_cert_chain(file)
    return context


def test_a_second_authority_on_the_folder_is_refused_and_a_crash_leaves_no_obstacle(tmp_path: Path) -> None:
    data = tmp_path / "d"
    with running(data) as (process, _):
        pin = x509.load_pem_x509_certificate((data / "root.pem").read_bytes())
        assert "another authority is running on" in refused(data)
        process.kill()
        process.wait()
    assert (data / "authority.sock").exists(), "as a crash leaves it"
    with running(data):
        assert x509.load_pem_x509_certificate((data / "root.pem").read_bytes()) == pin
    assert "belongs to the cluster 'bartizan', not 'other'" in refused(data, "--cluster", "other")


def test_keys_under_a_passphrase_open_by_file_or_descriptor_and_not_without(tmp_path: Path) -> None:
    """KEY-02"""
    data, secret, wrong = tmp_path / "d", tmp_path / "secret", tmp_path / "wrong"
    secret.write_text("a long passphrase\n")
    wrong.write_text("another one\n")
    with running(data, "--passphrase-file", str(secret)):
        pass
    for _ in range(3):
        assert "does not open" in refused(data, "--passphrase-file", str(wrong))
    assert "sealed with a passphrase, and none was given" in refused(data)
    environment = {"BARTIZAN_PASSPHRASE": "a long passphrase"}
    assert "none was given" in refused(data, environment=environment), "never from the environment"
    reading, writing = os.pipe()
    os.write(writing, b"a long passphrase")
    os.close(writing)
    with running(data, "--passphrase-fd", str(reading), pass_fds=(reading,)):
        os.close(reading)


def test_a_loose_key_file_is_named_before_any_door_opens(tmp_path: Path) -> None:
    """KEY-01"""
    data = tmp_path / "d"
    with running(data):
        pass
    (data / "secrets" / "user-ca.sealed").chmod(0o644)
    assert f"{data}/secrets/user-ca.sealed: mode is 0644, must be 0600" in refused(data)
    (data / "secrets" / "user-ca.sealed").chmod(0o600)
    for file in (data / "secrets").iterdir():
        file.unlink()
    assert "the keys of its CAs are gone" in refused(data)


def test_settings_that_are_wrong_are_named(tmp_path: Path) -> None:
    assert "cluster: expected one lower-case DNS label" in refused(tmp_path / "d", "--cluster", "Not A Label")
    (tmp_path / "d" / "bartizan.toml").write_text("webb = 'x'\n")
    assert "unknown key 'webb'" in refused(tmp_path / "d")
    long = tmp_path / ("x" * 120)
    assert "longer than the 107 bytes" in refused(long)


def test_no_secret_stands_in_the_log(tmp_path: Path) -> None:
    """LOG-02"""
    data = tmp_path / "d"
    with running(data):
        token = (data / "admin.token").read_text().strip()
        over_socket(data, "/v1/users")
        invited = over_socket(data, "/v1/bastion-tokens", "POST").json()["token"]
    log = (tmp_path / "log").read_text()
    assert "authority ready" in log
    for secret in (token, invited, json.dumps((data / "secrets" / "master.key").read_text().strip())[1:-1]):
        assert secret not in log


async def test_who_says_nothing_or_never_ends_the_head_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a stranger could hold every connection that the authority can have; an answered one may stay."""
    monkeypatch.setattr(serve, "HEAD_SECONDS", 0.2)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.4)  # an answer may take its time
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = serve._server(app)
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[listener]))
            await server.opened.wait()
            where = listener.getsockname()
            request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
            for words in (b"", b"GET / HTTP/1.1\r\nHost: ", request + b"GET / HT"):
                reader, writer = await asyncio.open_connection(*where)
                writer.write(words)
                async with asyncio.timeout(3):
                    said = await reader.read()
                assert said.startswith(b"HTTP/1.1 204") == words.startswith(request)
                writer.close()
            reader, writer = await asyncio.open_connection(*where)
            for _ in range(2):
                writer.write(request)
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
                await asyncio.sleep(0.3)
            writer.close()
            server.should_exit = True
