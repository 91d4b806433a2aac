"""The way to the authority, where the operator shows browsers a certificate of their own."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from cli.client import Authority, pinned_root
from tests.cli.authority import standing

NAME = "bastion.example.org"


def test_who_has_the_pin_needs_nothing_of_the_operators_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def resolved(host: str, *more: Any, **named: Any) -> Any:
        return real("127.0.0.1" if host == NAME else host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    with standing(tmp_path / "authority") as stand, standing(tmp_path / "operator") as another:

        def choose(connection: ssl.SSLObject | ssl.SSLSocket, asked: str | None, _context: ssl.SSLContext) -> None:
            if asked == NAME:
                connection.context = another.context

        stand.context.sni_callback = choose
        url = stand.url.replace("127.0.0.1", NAME)
        with Authority.over_https(url, root=pinned_root(url, stand.pin), pin=stand.pin) as door:
            assert door.tls_root() == stand.root
