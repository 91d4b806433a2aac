"""Somebody at a desk: what a test of ``bart`` types, and what a stand-in for the authority answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from cli.bart import bart
from tests.cli.authority import Stand
from tests.cli.test_ssh_config import CLUSTER
from tests.product import BIN, environment

NONCE = "n0nce"


def answer(**change: Any) -> dict[str, Any]:
    node = {"name": "web1", "labels": {"env": "dev"}, "logins": ["alice", "root"], "actions": ["exec", "shell"]}
    return {
        "user": "alice",
        "roles": ["developer"],
        "certificate": "ssh-ed25519-cert-v01@openssh.com AAAA",
        "expires": (datetime.now(UTC) + timedelta(hours=12)).isoformat(),
        "token": "t0ken",
        "cluster": CLUSTER.model_dump(),
        "nodes": [node],
        "note": None,
    } | change


def me(**change: Any) -> dict[str, Any]:
    said = answer()
    kept = {name: said[name] for name in ("user", "roles", "cluster", "nodes")}
    return kept | {"administrator": False, "certificate_expires": said["expires"]} | change


def run(*words: str, stdin: str = "") -> Result:
    return CliRunner().invoke(bart, words, input=stdin)


def login(stand: Stand, *more: str, pin: str | None = None) -> Result:
    where = ["--authority", stand.url, "--pin", pin or stand.pin, "--user", "alice"]
    return run("login", *where, "--password-stdin", *more, stdin="correct horse battery\n")


def everything_in(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


METHODS = {
    "methods": [
        {"kind": "provider", "name": "corp", "title": "Example Corp"},
        {"kind": "password", "name": "password", "title": "Password"},
    ]
}
WORDS = [str(BIN / "bart"), "login"]


def at(stand: Stand) -> list[str]:
    return ["--authority", stand.url, "--pin", stand.pin]


def shell(home: Path, **more: str) -> dict[str, str]:
    """The environment of somebody who types ``bart``: nothing of this test's own."""
    return environment(home.parent / "home", BART_HOME=str(home), **more)


def refusal(status: int, code: str, message: str = "no") -> tuple[int, dict[str, str]]:
    return status, {"error": code, "message": message}
