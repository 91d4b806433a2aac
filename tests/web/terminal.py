"""
A terminal without ``bart``: what any program on a laptop could do with stock parts to be let in by the browser.

It listens on a loopback address, opens the page, takes the grant that the browser brings, exchanges it for a
certificate, and hands that to stock ssh.
"""

from __future__ import annotations

import queue
import secrets
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

from ca.login import challenge_of, check_word
from tests.product import Product, environment
from tests.sshd import LOGIN


@dataclass
class Terminal:
    """One sign-in, from its verifier to its certificate."""

    product: Product
    folder: Path
    port: int = 0
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    state: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    host: str = "laptop-of-alice"
    heard: queue.Queue[dict[str, str]] = field(default_factory=queue.Queue)

    @property
    def word(self) -> str:
        return check_word(challenge_of(self.verifier))

    @property
    def page(self) -> str:
        asked = {"challenge": challenge_of(self.verifier), "port": self.port, "state": self.state, "host": self.host}
        return f"/sign-in/terminal?{urlencode(asked)}"

    def answer(self) -> dict[str, str]:
        """What the browser brought."""
        told = self.heard.get(timeout=30)
        assert told.pop("state") == self.state
        return told

    @property
    def key(self) -> Path:
        return self.folder / "id"

    def device(self) -> tuple[str, str]:
        """Ask for a device code instead: the grant, and the code that a person types."""
        body = {"challenge": challenge_of(self.verifier), "host": self.host}
        begun = self._post("/v1/login/device", **body).raise_for_status().json()
        return begun["grant"], begun["user_code"]

    def state_of(self, grant: str) -> str:
        said: str = self._post("/v1/login/device/poll", grant=grant).raise_for_status().json()["state"]
        return said

    def exchange(self, grant: str) -> httpx.Response:
        """A certificate for a fresh key; it lies beside the key, as ssh wants it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.key.unlink(missing_ok=True)
        subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", self.key], check=True, timeout=30)
        nonce = self._post("/v1/login/challenge").json()["nonce"]
        signed = subprocess.run(
            ["ssh-keygen", "-Y", "sign", "-q", "-f", self.key, "-n", "bartizan-enrol"],
            input=nonce, capture_output=True, text=True, check=True, timeout=30,
        ).stdout  # fmt: skip
        answer = self._post(
            "/v1/login/exchange",
            grant=grant,
            verifier=self.verifier,
            public_key=self.key.with_suffix(".pub").read_text().strip(),
            nonce=nonce,
            possession=signed,
        )
        if answer.is_success:
            told = answer.json()
            self.key.with_name("id-cert.pub").write_text(told["certificate"] + "\n")
            authority = f"@cert-authority * {told['cluster']['bastion_ca'][0]}\n"
            self.key.with_name("known_hosts").write_text(authority)
        return answer

    def ssh(self, node: str, *command: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.ssh_command(node, *command), env=environment(self.folder), capture_output=True, timeout=60, check=False
        )

    def ssh_command(self, node: str, *command: str) -> list[str]:
        """Stock ssh, which knows nothing of the product but a key, a certificate and a CA."""
        host, _, port = self.product.ssh.rpartition(":")
        known = self.key.with_name("known_hosts")
        options = ["-F", "none", "-i", str(self.key), "-oIdentitiesOnly=yes", "-oBatchMode=yes"]
        options += [f"-oUserKnownHostsFile={known}", "-oStrictHostKeyChecking=yes", "-oGlobalKnownHostsFile=/dev/null"]
        return ["ssh", *options, "-p", port, f"{LOGIN}+{node}@{host}", *command]

    def _post(self, path: str, **body: str) -> httpx.Response:
        trust = ssl.create_default_context(cafile=str(self.product.data / "root.pem"))
        with httpx.Client(verify=trust, base_url=f"https://{self.product.web}", timeout=30) as http:
            return http.post(path, json=body) if body else http.post(path)


@contextmanager
def waiting(product: Product, folder: Path) -> Iterator[Terminal]:
    """A terminal that listens for its answer."""
    terminal = Terminal(product, folder)

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "state=" in self.path:  # and not for a picture beside the address
                terminal.heard.put(dict(parse_qsl(urlsplit(self.path).query)))
            self.send_response(200)
            self.send_header("content-type", "text/plain")
            self.end_headers()
            self.wfile.write(b"go back to the terminal")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        terminal.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield terminal
        finally:
            server.shutdown()
            thread.join()
