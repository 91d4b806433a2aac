"""bart login with a browser on this machine: the page opens, the grant comes to the loopback, ssh works."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from ca.login import check_word
from ca.wire import LoginMethods
from cli.fresh_key import NAMESPACE
from cli.login import Asked, Way, way_of
from cli.pkce import Pkce
from recordings import sshsig
from recordings.sshkey import PublicKey
from tests.cli.authority import Stand
from tests.cli.desk import METHODS, NONCE, WORDS, answer, at, refusal, run, shell
from tests.cli.terminal import terminal
from tests.sshd import free_port

BROWSER = """\
#!{python} -I
import sys, urllib.parse, urllib.request
from pathlib import Path
print("a browser's chatter")
print("and its complaints", file=sys.stderr)
Path({log!r}).write_text(sys.argv[1])
asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(sys.argv[1]).query))
query = urllib.parse.urlencode({{{answer}, "state": asked["state"]}})
urllib.request.urlopen("http://127.0.0.1:" + asked["port"] + "/?" + query, timeout=20).read()
"""


@pytest.fixture
def page(stand: Stand) -> Iterator[Stand]:
    stand.answers["GET /v1/login/methods"] = (200, METHODS)
    stand.answers["POST /v1/login/exchange"] = (200, answer())
    return stand


def browser(folder: Path, answer: str = '"code": "gr4nt"') -> str:
    """A browser in which somebody is signed in and says yes at once; what $BROWSER is for it."""
    program = folder / "browser"
    program.write_text(BROWSER.format(python=sys.executable, log=str(folder / "visited"), answer=answer))
    program.chmod(0o755)
    return str(program)


def bart(home: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [*WORDS, *words]
    return subprocess.run(command, env=shell(home, **env), capture_output=True, text=True, timeout=60, check=False)


def test_a_browser_that_is_signed_in_lets_the_terminal_in(page: Stand, home: Path, tmp_path: Path) -> None:
    result = bart(home, *at(page), BROWSER=browser(tmp_path))
    assert result.returncode == 0, result.stderr
    url = (tmp_path / "visited").read_text()
    assert url in result.stderr.splitlines()
    assert url.startswith(f"{page.url}/sign-in/terminal?")
    asked = {name: value for name, [value] in parse_qs(urlsplit(url).query).items()}
    assert set(asked) == {"challenge", "port", "state", "host"}
    assert f"shows the word {check_word(asked['challenge'])}" in result.stderr
    [sent] = page.heard("POST /v1/login/exchange")
    assert sent["grant"] == "gr4nt"
    assert Pkce(sent["verifier"]).challenge == asked["challenge"]
    proven = sshsig.verify(sent["possession"], NONCE.encode(), namespace=NAMESPACE)
    assert proven == PublicKey.from_line(sent["public_key"]).blob
    assert "signed in as alice for 12 h" in result.stderr
    assert result.stdout == ""
    assert "chatter" not in result.stderr
    assert (home / "id-cert.pub").exists()
    assert json.loads((home / "profile.json").read_text())["way"] == "browser"


def test_a_no_on_the_page_is_a_no_here(page: Stand, home: Path, tmp_path: Path) -> None:
    result = bart(home, *at(page), BROWSER=browser(tmp_path, '"error": "access_denied"'))
    assert result.returncode == 1
    assert result.stderr.endswith("bart: error: the sign-in was refused on the page\nhint: bart login\n")
    assert not home.exists()


def test_a_grant_that_is_no_good_changes_nothing(page: Stand, home: Path, tmp_path: Path) -> None:
    page.answers["POST /v1/login/exchange"] = refusal(403, "grant_invalid", "This code is used up.")
    result = bart(home, *at(page), BROWSER=browser(tmp_path))
    assert result.returncode == 1
    assert "bart: error: this code is used up\n" in result.stderr
    assert not home.exists()


def test_a_port_that_is_taken_is_told_and_another_one_used(page: Stand, home: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = bart(home, *at(page), "--callback-port", str(port), BROWSER=browser(tmp_path))
    assert result.returncode == 0
    assert f"bart: port {port} is taken; listening on " in result.stderr


def test_json_is_all_there_is_on_standard_output(page: Stand, home: Path, tmp_path: Path) -> None:
    result = bart(home, *at(page), "--json", BROWSER=browser(tmp_path))
    told = json.loads(result.stdout)
    assert (told["user"], told["way"], told["keys"], told["nodes"]) == ("alice", "browser", "files", ["web1"])


def test_without_opening_the_link_can_be_taken_to_any_browser_here(page: Stand, home: Path, tmp_path: Path) -> None:
    port = str(free_port())
    words = [*WORDS, *at(page), "--no-open", "--callback-port", port]
    env = shell(home, BROWSER="/bin/false", SSH_CONNECTION="192.0.2.1 1 192.0.2.2 22")
    with terminal(words, env) as screen:
        url = screen.reads("&host=").rpartition("https://")[2]
        assert f"&port={port}&" in url
        screen.reads("waiting for the browser (4:5")
        subprocess.run([browser(tmp_path), f"https://{url}x"], check=True, capture_output=True)
        screen.reads("signed in as alice")
        assert screen.ends() == 0


def test_ctrl_c_while_waiting_ends_cleanly(page: Stand, home: Path) -> None:
    with terminal([*WORDS, *at(page), "--no-open"], shell(home)) as screen:
        screen.reads("waiting for the browser (")
        screen.types("\x03")
        screen.reads("bart: stopped")
        assert screen.ends() == 1
        assert "Traceback" not in screen.shown
    assert not home.exists()


def test_a_dumb_terminal_gets_lines_and_no_colours(page: Stand, home: Path) -> None:
    with terminal([*WORDS, *at(page), "--no-open"], shell(home) | {"TERM": "dumb"}) as screen:
        screen.reads("bart: waiting for the browser\r\n")
        screen.types("\x03")
        screen.ends()
        assert "\x1b" not in screen.shown


def test_no_color_is_honoured(page: Stand, home: Path) -> None:
    with terminal([*WORDS, *at(page), "--no-open"], shell(home, NO_COLOR="1")) as screen:
        screen.reads("waiting for the browser (")
        screen.types("\x03")
        screen.ends()
        assert "\x1b[" not in screen.shown.replace("\x1b[K", "")


def test_waiting_stays_on_its_line_on_a_narrow_terminal(page: Stand, home: Path) -> None:
    narrow = ["sh", "-c", 'stty cols 20; exec "$@"', "sh", *WORDS, *at(page), "--no-open"]
    with terminal(narrow, shell(home)) as screen:
        screen.reads("\x1b[Kbart: waiting for t")
        screen.reads("\r\x1b[Kbart: waiting for t\r\x1b[K")
        screen.types("\x03")
        assert screen.ends() == 1


PASSWORD = [{"kind": "password", "name": "password", "title": "Password"}]
BOTH = METHODS["methods"]
SCREEN = {"DISPLAY": ":0"}


@pytest.mark.parametrize(
    ("asked", "methods", "environment", "system", "way"),
    [
        (Asked(), BOTH, SCREEN, "linux", Way.BROWSER),
        (Asked(), BOTH, {"WAYLAND_DISPLAY": "wayland-0"}, "linux", Way.BROWSER),
        (Asked(), BOTH, {"BROWSER": "lynx"}, "linux", Way.BROWSER),
        (Asked(), BOTH, {}, "darwin", Way.BROWSER),
        (Asked(), BOTH, {}, "linux", Way.DEVICE),
        (Asked(), BOTH, SCREEN | {"SSH_CONNECTION": "a 1 b 2"}, "linux", Way.DEVICE),
        (Asked(), BOTH, {"SSH_CONNECTION": "a 1 b 2"}, "darwin", Way.DEVICE),
        (Asked(opens=True), BOTH, {}, "linux", Way.BROWSER),
        (Asked(opens=False), BOTH, {}, "linux", Way.BROWSER),
        (Asked(port=2000), BOTH, {}, "linux", Way.BROWSER),
        (Asked(no_browser=True), BOTH, SCREEN, "linux", Way.DEVICE),
        (Asked(), PASSWORD, SCREEN, "linux", Way.PASSWORD),
        (Asked(no_browser=True), PASSWORD, SCREEN, "linux", Way.DEVICE),
        (Asked(user="alice"), BOTH, SCREEN, "linux", Way.PASSWORD),
        (Asked(password_stdin=True), BOTH, SCREEN, "linux", Way.PASSWORD),
    ],
)
def test_the_way_is_the_one_that_a_person_would_expect(
    asked: Asked, methods: list[object], environment: dict[str, str], system: str, way: Way
) -> None:
    shapes = LoginMethods.model_validate({"methods": methods}).methods
    assert way_of(asked, shapes, environment, system)[0] is way


@pytest.mark.parametrize(
    "words",
    [
        ("--no-browser", "--open"),
        ("--no-browser", "--callback-port", "2000"),
        ("--user", "alice", "--no-browser"),
        ("--password-stdin", "--no-open"),
    ],
)
def test_options_that_contradict_each_other_are_usage(words: tuple[str, ...]) -> None:
    assert run("login", *words).exit_code == 2
