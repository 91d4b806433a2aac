"""An identity provider without a network, which keeps a diary: what it was asked, and whom it vouches for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from ca import provider_file
from ca.errors import BartizanError
from ca.identity import registry
from ca.identity.provider import Attempt, Probe, Proven
from ca.provider import Provider
from tests.ca.house import House
from tests.ca.web.visiting import Visitor

FILE = """\
name: {name}
title: {title}
kind: oidc
issuer: https://{name}.example
client: bartizan
user: preferred_username
allow: "*"
roles:
  - {{when: "*", roles: [developer]}}
"""


@dataclass
class Stand:
    """What it will say next, and the attempts that it was shown."""

    name: str
    user: str = "erin"
    renewal: str | None = None
    error: BartizanError | None = None
    proved: list[tuple[Attempt, Mapping[str, str]]] = field(default_factory=list)
    asked_again: int = 0

    async def address(self, attempt: Attempt) -> str:
        if self.error is not None:
            raise self.error
        asked = {"state": attempt.state, "nonce": attempt.nonce, "redirect_uri": attempt.redirect_uri}
        return f"https://{self.name}.example/authorize?{urlencode(asked)}"

    async def prove(self, attempt: Attempt, answer: Mapping[str, str], *, now: datetime) -> Proven:
        self.proved.append((attempt, answer))
        return self._proven()

    async def ask_again(self, renewal: str, *, subject: str, now: datetime) -> Proven:
        self.asked_again += 1
        return self._proven()

    async def probe(self, *, now: datetime) -> list[Probe]:
        return []

    async def read_token(self, token: str, *, now: datetime) -> Proven:
        raise NotImplementedError

    async def close(self) -> None:
        pass

    def _proven(self) -> Proven:
        if self.error is not None:
            raise self.error
        return Proven(
            f"https://{self.name}.example", f"sub-{self.user}", {"preferred_username": self.user}, self.renewal
        )


async def provided(house: House, monkeypatch: pytest.MonkeyPatch, *names: str) -> dict[str, Stand]:
    """The house knows these providers, and each of them is a stand."""
    stands = {name: Stand(name) for name in names}

    def opened(text: str, _secret: str | None) -> tuple[Provider, Stand]:
        file = provider_file.parse(text)
        return file, stands[file.name]

    monkeypatch.setattr(registry, "opened", opened)
    for name in names:
        body = {"text": FILE.format(name=name, title=name.title()), "secret": "a client secret"}
        (await house.operator.put("/v1/idp", json=body)).raise_for_status()
    return stands


async def sent_off(visitor: Visitor, name: str, next: str = "/you") -> str:
    """Somebody goes off to the provider; the state they carry."""
    answer = await visitor.http.get(f"/sign-in/with/{name}", params={"next": next})
    assert answer.status_code == 303, answer.text
    return parse_qs(urlsplit(answer.headers["location"]).query)["state"][0]
