"""bastion/enrol.py: nothing is believed, and the token goes nowhere, before the pin has been checked."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from bastion.enrol import enrol
from ca import tls
from ca.errors import AccessDenied, BartizanError, Unavailable

TOKEN = "bzb_the-token-that-nobody-may-see"


class Impostor(HTTPServer):
    """Sits between bastion and authority with a root of its own, and tells whatever root it is given."""

    says = ""
    heard = b""


class _Answers(BaseHTTPRequestHandler):
    server: Impostor

    def do_GET(self) -> None:
        self._send(self.server.says.encode())

    def do_POST(self) -> None:
        self.server.heard += self.rfile.read(int(self.headers["content-length"]))
        self._send(b"{}")

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        pass


@contextmanager
def impostor(folder: Path, root: tls.Root) -> Iterator[Impostor]:
    key, chain = tls.web_certificate(root, ("127.0.0.1",), datetime.now(UTC))
    file = folder / "web.pem"
    file.write_bytes(tls.private_pem(key) + chain.encode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with Impostor(("127.0.0.1", 0), _Answers) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("says", "error"),
    [("{true}{false}", Unavailable), ("{false}{true}", AccessDenied), ("{false}", AccessDenied), ("", Unavailable)],
    ids=["the pinned root and another", "another and the pinned root", "another", "nothing"],
)
def test_who_shows_the_pinned_root_and_another_one_gets_no_token(
    tmp_path: Path, says: str, error: type[BartizanError]
) -> None:
    """The pinned root is no secret: to know it proves nothing, and what stands beside it is not trusted."""
    true, false = (tls.Root.make(name, datetime.now(UTC)) for name in ("true", "false"))
    with impostor(tmp_path, false) as server:
        server.says = says.format(true=true.pem, false=false.pem)
        url = f"https://127.0.0.1:{server.server_port}"
        with pytest.raises(error):
            enrol(tmp_path / "state", authority=url, pin=true.pin, token=TOKEN, name="edge", egress=[])
        assert server.heard == b""
    assert not (tmp_path / "state" / "identity.json").exists()
