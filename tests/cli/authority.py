"""A stand-in for the authority: real TLS under a root of its own, and a diary of what it was asked."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cli.client import pin_of

HERE = [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")]


@dataclass
class Stand:
    """What it answers (by method and path; status and body, or a function that gives both) and what it heard."""

    url: str
    root: str
    context: ssl.SSLContext
    answers: dict[str, tuple[int, Any] | Callable[[Any], tuple[int, Any]]] = field(default_factory=dict)
    diary: list[tuple[str, Any]] = field(default_factory=list)
    ahead: timedelta = timedelta(0)
    """How far its clock is ahead of this machine's."""

    @property
    def pin(self) -> str:
        return pin_of(self.root)

    def heard(self, call: str) -> list[Any]:
        return [body for asked, body in self.diary if asked == call]


@contextmanager
def standing(folder: Path) -> Iterator[Stand]:
    folder.mkdir(parents=True, exist_ok=True)
    root, chain = _certificates(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    stand = Stand(f"https://127.0.0.1:{server.server_address[1]}", root, context)
    server.stand = stand  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield stand
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        stand: Stand = self.server.stand  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        call = f"{self.command} {self.path}"
        stand.diary.append((call, json.loads(body) if body else None))
        if call == "GET /v1/tls-root":
            status, answer = 200, stand.root
        else:
            found = stand.answers.get(call, (404, {"error": "not_found", "message": "no such thing"}))
            status, answer = found(stand.diary[-1][1]) if callable(found) else found
        if callable(answer):
            answer = answer(stand.diary[-1][1])
        text = answer if isinstance(answer, str | bytes) else json.dumps(answer)
        content = text if isinstance(text, bytes) else text.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815

    def date_time_string(self, timestamp: float | None = None) -> str:
        stand: Stand = self.server.stand  # type: ignore[attr-defined]
        return format_datetime((datetime.now(UTC) + stand.ahead), usegmt=True)

    def log_message(self, *_: object) -> None:
        pass


def _certificates(folder: Path) -> tuple[str, Path]:
    """A root and a certificate of it for 127.0.0.1 and localhost; the second with its key in one file."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
    now = datetime.now(UTC)

    def build(name: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder().subject_name(name).issuer_name(root_name).public_key(public)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(hours=1))
        return made.not_valid_after(now + timedelta(days=1))

    ski = x509.SubjectKeyIdentifier.from_public_key(root_key.public_key())
    root = (
        build(root_name, root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(ski, critical=False)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        build(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]), key.public_key())
        .add_extension(x509.SubjectAlternativeName(HERE), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    chain = folder / "chain.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain.write_bytes(private + leaf.public_bytes(Encoding.PEM))
    return root.public_bytes(Encoding.PEM).decode(), chain
