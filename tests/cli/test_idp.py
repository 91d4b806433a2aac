"""bartizan idp, against the real authority: setting up, showing, removing; and the words of a trial."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ca.errors import Conflict
from cli.client import Authority
from cli.idp import idp
from cli.way_in import WayIn
from tests.cli.authority import Stand, standing
from tests.product import Product

FILE = """\
name: {name}
title: Example Corp
kind: oidc
issuer: https://id.example.com
client: bartizan
user: preferred_username
allow: "*"
roles:
  - {{when: {{groups: sre}}, roles: [developer]}}
"""
SECRET = "canary-of-the-client"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "corp.yaml"
    path.write_text(FILE.format(name="corp"))
    return path


def listed(product: Product) -> dict[str, Any]:
    return {one["name"]: one for one in json.loads(product.bartizan("idp", "list", "--json").stdout)}


def test_a_provider_comes_is_shown_and_goes(product: Product, written: Path, tmp_path: Path) -> None:
    key = tmp_path / "secret"
    key.touch(mode=0o600)
    key.write_text(f"{SECRET}\n")
    applied = product.bartizan("idp", "apply", written, "--secret-file", key)
    assert applied.stdout == f"https://{product.web}/sign-in/callback/corp\n"
    assert applied.stderr.splitlines() == [
        "bartizan: added: corp",
        "bartizan: the provider must know this redirect URI:",
        f"hint: bartizan --data {product.data} idp test corp",
    ]
    assert "https://id.example.com" in product.bartizan("idp", "list").stdout
    shown = product.bartizan("idp", "show", "corp")
    assert shown.stdout == written.read_text()
    assert "client secret: stored; 0 people signed in with it" in shown.stderr
    assert listed(product)["corp"]["has_secret"] is True
    assert product.bartizan("idp", "apply", written).stderr.startswith("bartizan: changed: corp\n")
    everything = json.loads(product.bartizan("idp", "show", "corp", "--json").stdout)
    assert (everything["revision"], everything["has_secret"]) == (2, True)
    assert SECRET not in json.dumps(everything) + shown.stdout + product.bartizan("audit", "export").stdout
    assert product.bartizan("idp", "remove", "corp").stderr.startswith("bartizan: removed corp; ")
    gone = product.bartizan("idp", "show", "corp", check=False)
    assert (gone.returncode, gone.stderr.splitlines()[0]) == (
        1,
        "bartizan: error: there is no identity provider 'corp'",
    )
    again = product.bartizan("idp", "remove", "corp", check=False)
    assert (again.returncode, again.stderr.splitlines()[1]) == (1, f"hint: bartizan --data {product.data} idp list")


def test_the_secret_comes_over_standard_input(product: Product, written: Path) -> None:
    written.write_text(FILE.format(name="over-stdin"))
    product.bartizan("idp", "apply", written, "--secret-stdin", stdin=f"{SECRET}\n")
    assert listed(product)["over-stdin"]["has_secret"] is True
    product.bartizan("idp", "remove", "over-stdin")


def test_a_file_may_come_over_standard_input(product: Product) -> None:
    applied = product.bartizan("idp", "apply", "-", "--dry-run", "--json", stdin=FILE.format(name="piped"))
    assert json.loads(applied.stdout)["name"] == "piped"
    assert "piped" not in listed(product)
    assert (
        "would be added: piped"
        in product.bartizan("idp", "apply", "-", "--dry-run", stdin=FILE.format(name="piped")).stderr
    )


def test_mistakes_name_their_lines_and_change_nothing(product: Product, written: Path) -> None:
    written.write_text(FILE.format(name="broken") + "client_secret: canary\nalow: x\n")
    result = product.bartizan("idp", "apply", written, check=False)
    assert result.returncode == 1
    first, hint = result.stderr.splitlines()
    expected = (
        "bartizan: error: corp.yaml:10: 'client_secret': a secret never stands in the file, use --secret-file FILE"
    )
    assert first == expected
    assert hint.startswith("hint: also corp.yaml:11: unknown field 'alow', expected ")
    assert "canary" not in result.stderr.replace("client_secret", "")
    assert "broken" not in listed(product)


def test_what_a_person_should_know_is_a_warning(product: Product, written: Path) -> None:
    written.write_text(FILE.format(name="warned").replace("[developer]", "[developr]"))
    said = product.bartizan("idp", "apply", "--dry-run", written).stderr
    assert "warning: no role is named developr (yet); there are: admin, " in said
    assert "warning: there is no client secret: the provider must know this client as a public one" in said


def test_a_secret_has_one_source(product: Product, written: Path) -> None:
    for words in (
        ["--secret-stdin", "--secret-file", str(written)],
        ["--secret-stdin", "--secret-fd", "0"],
    ):
        assert product.bartizan("idp", "apply", written, *words, check=False).returncode == 2
    assert product.bartizan("idp", "apply", "-", "--secret-stdin", check=False).returncode == 2
    for stdin in ("", "\n", "café\n"):
        refused = product.bartizan("idp", "apply", written, "--secret-stdin", stdin=stdin, check=False)
        assert "a client secret is one line of 1 to 4096 printable ASCII characters" in refused.stderr


# --- trying out -----------------------------------------------------------------------------------------------


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    with standing(tmp_path / "authority") as stand:
        yield stand


def typed(stand: Stand, *words: str, stdin: str = "") -> Result:
    class Way(WayIn):
        def open(self) -> Authority:
            return Authority.over_https(stand.url, root=stand.root, token="t0ken")

    return CliRunner().invoke(idp, [*words], obj=Way(), input=stdin)


def steps(*told: tuple[str, bool | None, str]) -> list[dict[str, object]]:
    return [{"what": what, "ok": ok, "detail": detail} for what, ok, detail in told]


def test_a_trial_tells_each_step_and_the_person(stand: Stand) -> None:
    person = {
        "user": "alice",
        "roles": ["developer", "sre"],
        "traits": {"team": ["db", "\x1b[2J"]},
        "lines": ["idp.yaml:7: everybody: may sign in", "idp.yaml:9: groups has sre: roles sre"],
    }
    told = steps(("discovery", True, "found"), ("clock", None, "no time in the answer"), ("token", True, "proven"))
    stand.answers["POST /v1/idp/corp/trial"] = (200, {"ok": True, "steps": told, "person": person})
    result = typed(stand, "test", "corp", "--token-stdin", stdin="eyJh.\n  eyJi.c2ln\n")
    assert result.exit_code == 0, result.output
    assert stand.heard("POST /v1/idp/corp/trial") == [{"token": "eyJh.eyJi.c2ln", "trial": None}]
    assert result.stdout.splitlines() == [
        "ok         discovery: found",
        "not tried  clock: no time in the answer",
        "ok         token: proven",
        "",
        "user        alice",
        "roles       developer,sre",
        "trait team  db,\\x1b[2J",
        "",
        "idp.yaml:7: everybody: may sign in",
        "idp.yaml:9: groups has sre: roles sre",
    ]


def test_a_trial_that_fails_is_1(stand: Stand) -> None:
    told = steps(("discovery", False, "it does not answer"), ("keys", None, "no address"))
    stand.answers["POST /v1/idp/corp/trial"] = (200, {"ok": False, "steps": told, "person": None})
    result = typed(stand, "test", "corp")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == ["failed     discovery: it does not answer", "not tried  keys: no address"]
    assert json.loads(typed(stand, "test", "corp", "--json").stdout)["ok"] is False
    assert stand.heard("POST /v1/idp/corp/trial") == [{"token": None, "trial": None}] * 2


def test_a_trial_that_works_says_what_to_do_next(stand: Stand) -> None:
    answer = {"ok": True, "steps": steps(("discovery", True, "found")), "person": None}
    stand.answers["POST /v1/idp/corp/trial"] = (200, answer)
    assert "idp test corp --sign-in" in typed(stand, "test", "corp").stderr


PEOPLE = {
    "name": "corp",
    "title": "Example Corp",
    "kind": "oidc",
    "issuer": "https://id.example.com",
    "client": "bartizan",
    "callback_url": "https://127.0.0.1/sign-in/callback/corp",
    "has_secret": True,
    "users": 2,
    "unreachable_since": None,
    "revision": 1,
    "applied": "2026-01-01T00:00:00Z",
    "applied_by": "local",
    "text": "",
}


def test_nobody_is_signed_out_by_a_removal_that_nobody_confirmed(stand: Stand) -> None:
    stand.answers["GET /v1/idp"] = (200, [PEOPLE])
    stand.answers["DELETE /v1/idp/corp"] = (204, None)
    refused = typed(stand, "remove", "corp")
    assert isinstance(refused.exception, Conflict)
    assert refused.exception.hint == "bartizan idp remove corp --yes"
    assert stand.heard("DELETE /v1/idp/corp") == []
    assert typed(stand, "remove", "corp", "--yes").exit_code == 0
    assert len(stand.heard("DELETE /v1/idp/corp")) == 1


def test_a_secret_that_others_can_read_is_told(stand: Stand, written: Path, tmp_path: Path) -> None:
    key = tmp_path / "loose"
    key.write_text(SECRET)
    key.chmod(0o644)
    result = typed(stand, "apply", str(written), "--secret-file", str(key))
    assert f"warning: others can read {key}: chmod 600 {key}" in result.stderr


def test_a_token_is_there_or_refused(stand: Stand) -> None:
    for stdin in ("", "   \n", "x" * 70_000):
        result = typed(stand, "test", "corp", "--token-stdin", stdin=stdin)
        assert (result.exit_code, stand.diary) == (1, [])


def test_the_secret_comes_through_a_descriptor(stand: Stand, written: Path) -> None:
    answer = {"name": "corp", "created": True, "callback_url": "https://x/sign-in/callback/corp", "notes": []}
    stand.answers |= {"PUT /v1/idp": (200, answer), "GET /v1/roles": (200, {"text": "roles: [{name: developer}]"})}
    reading, writing = os.pipe()
    os.write(writing, f"{SECRET}\nmore".encode())
    os.close(writing)
    assert typed(stand, "apply", str(written), "--secret-fd", str(reading)).exit_code == 0
    assert stand.heard("PUT /v1/idp")[0]["secret"] == SECRET
    refused = typed(stand, "apply", str(written), "--secret-fd", "999")
    assert "no open file descriptor 999" in str(refused.exception)
