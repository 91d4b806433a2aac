"""
``make demo SSO=1``: the demo, played by people whom an identity provider vouches for.

The provider is the real one of the tests, on a loopback port of its own. Their browsers are played, so that the demo
needs nobody to click; what they do is what a person's browser would do.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ca.errors import Unavailable
from cli import output
from cli.demo import Stage, play
from cli.up import python
from tests.idp import PASSWORD, Idp, running_idp
from tests.played_browser import PlayedBrowser

FILE = """\
name: corp
title: Example Corp
kind: oidc
issuer: {issuer}
client: {client}
scopes: [openid, profile, groups, offline_access]
user: preferred_username
allow:
  - {{groups: [engineering, audit]}}
roles:
  - {{when: {{groups: [engineering]}}, roles: [developer]}}
  - {{when: {{groups: [audit]}}, roles: [auditor]}}
"""


@dataclass(frozen=True, slots=True)
class Vouched:
    """alice and carol, whom the provider knows by their groups."""

    idp: Idp

    def enter(self, stage: Stage) -> None:
        output.narrate("   An identity provider, from a file: who may come in, and which group gives which role.")
        self.idp.set_account("alice", groups=["engineering"])
        self.idp.set_account("carol", groups=["audit"])
        file = stage.folder / "corp.yaml"
        file.write_text(FILE.format(issuer=self.idp.issuer, client=self.idp.client))
        output.typed(f"cat {file}")
        output.block(file.read_text())
        stage.bartizan("idp", "apply", str(file), "--secret-stdin", stdin=f"{self.idp.secret}\n")
        stage.bartizan("idp", "test", "corp")
        output.narrate("   Two people sign in there, with a browser (played here); nobody has a password of ours.")
        for person in ("alice", "carol"):
            self._sign_in(stage, person)
        stage.bartizan("users", "list")

    def finale(self, stage: Stage) -> None:
        output.narrate("5. alice is at work when her account at the provider is disabled: removed there = out here.")
        command = ["ssh", "-F", stage.config("alice"), "web1", "echo still in; exec sleep 600"]
        output.typed(shlex.join(command))
        with _talking(command, stage.of("alice")) as session:
            lines = _shown(session)
            next(lines)
            self.idp.disable("alice")
            output.narrate("   The provider is asked again every five minutes. An administrator need not wait:")
            stage.bartizan("idp", "recheck", "corp")
            output.narrate("   And in alice's terminal:")
            deque(lines)
            if session.wait(timeout=30) != 255:
                raise Unavailable("the session of a removed person went on")
        stage.bartizan("users", "list")

    def tips(self, stage: Stage, bart: str) -> list[tuple[str, str]]:
        self.idp.set_account("alice", groups=["engineering"])
        again = f"BART_HOME={stage.home('alice')} {bart} login"
        return [(f"alice, whose account is back: there she is alice with {PASSWORD!r}", again)]

    def _sign_in(self, stage: Stage, person: str) -> None:
        words = ["login", *stage.where(), "--no-open"]
        output.typed(shlex.join(["bart", *words]))
        with _talking([*python("cli.bart"), *words], stage.of(person)) as bart:
            lines = _shown(bart)
            address = next((line.strip() for line in lines if line.strip().startswith("https://")), "")
            with PlayedBrowser((stage.data / "root.pem").read_text()) as browser:
                page = browser.click(browser.go(address), "Continue with Example Corp")
                page = browser.sign_in_at_provider(page, person)
                browser.click(page, "Let bart in")
            deque(lines)
            if bart.wait(timeout=60) != 0:
                raise Unavailable(f"{person} could not sign in")


def _shown(program: subprocess.Popen[str]) -> Iterator[str]:
    """The lines that a program says, each seen as it comes."""
    assert program.stdout is not None
    for line in program.stdout:
        output.block(line)
        yield line


@contextmanager
def _talking(command: Sequence[str], env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A program that is listened to; ended on the way out by its own process id."""
    with subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def main() -> None:
    """Play."""
    with tempfile.TemporaryDirectory(prefix="bartizan-demo-idp-") as folder, running_idp(Path(folder)) as idp:
        play(Vouched(idp))


if __name__ == "__main__":
    main()
