"""bartizan up as an operator meets it: ready, refused, drained, and never leaving anything behind."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.bartizan import bartizan
from cli.parameters import split_address
from cli.up import up as up_command
from tests.product import BIN, Product, environment, start_product
from tests.sshd import free_port


def children(pid: int) -> dict[int, str]:
    """The processes that *pid* started, with their command lines."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and f"\nPPid:\t{pid}\n" in (folder / "status").read_text():
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            pass
    return found


def until(happened: Callable[[], object], *, within: float = 30) -> None:
    end = time.monotonic() + within
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


def up(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [BIN / "bartizan", "up", "--data", folder / "data", *options]
    return subprocess.run(
        command,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_says_what_to_type_next(own_product: Product) -> None:
    assert f"bartizan: pin {own_product.pin}" in own_product.log
    assert "users add alice --role developer" in own_product.log
    assert f"bart login --authority https://{own_product.web} --pin {own_product.pin} --user alice" in own_product.log
    assert "can read the recordings" in own_product.log


def test_no_secret_stands_in_a_command_line(own_product: Product) -> None:
    token = (own_product.data / "admin.token").read_text().strip()
    lines = children(own_product.process.pid).values()
    assert len(lines) >= 2
    assert not any(token in line or "token" in line for line in lines)


def test_a_second_one_on_the_same_folder_is_refused(own_product: Product) -> None:
    result = up(own_product.folder, "--web", f"127.0.0.1:{free_port()}", "--ssh", f"127.0.0.1:{free_port()}")
    assert result.returncode == 1
    assert f"bartizan: error: `bartizan up` is already running on {own_product.data}" in result.stderr
    assert own_product.process.poll() is None


@pytest.mark.parametrize("door", ["--web", "--ssh"])
def test_a_port_in_use_is_said_before_anything_starts(tmp_path: Path, door: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = {"--web": f"127.0.0.1:{free_port()}", "--ssh": f"127.0.0.1:{free_port()}"}
        where[door] = f"127.0.0.1:{taken.getsockname()[1]}"
        result = up(tmp_path, *(word for pair in where.items() for word in pair))
    assert result.returncode == 1
    assert f"bartizan: error: cannot listen on {where[door]}: address already in use" in result.stderr
    assert not (tmp_path / "data").exists()


def test_every_address_needs_a_public_name(tmp_path: Path) -> None:
    result = up(tmp_path, "--ssh", "0.0.0.0:2222")
    assert result.returncode == 1
    hint = f'add --public-ssh HOST:PORT, or public_ssh = "HOST:PORT" in {tmp_path}/data/bartizan.toml'
    assert result.stderr.endswith(f"names none\nhint: {hint}\n")


def test_the_file_in_the_data_folder_counts_and_an_option_beats_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "bartizan.toml").write_text(
        'web = "192.0.2.1:8443"\npublic_web = "web.example"\npublic_ssh = "ssh.example:2222"\n'
        'recordings = "kept"\ncluster = "from-file"\n'
    )
    assert "error: cannot listen on 192.0.2.1:8443" in up(tmp_path, "--ssh", f"127.0.0.1:{free_port()}").stderr
    product = start_product(tmp_path, "--cluster", "from-flag")
    try:
        assert "authority https://web.example:443   bastion ssh.example:2222" in product.log
        assert f"whoever can read {tmp_path}/data/kept can" in product.log
        lines = children(product.process.pid).values()
        assert all(f"--recordings {tmp_path}/data/kept " in f"{line} " for line in lines)
        assert any("--cluster from-flag" in line for line in lines)
    finally:
        product.process.terminate()
        product.process.wait(timeout=30)


def test_two_doors_need_two_addresses(tmp_path: Path) -> None:
    result = up(tmp_path, "--web", "127.0.0.1:1080", "--ssh", "127.0.0.1:1080")
    assert result.stderr == (
        "bartizan: error: --web and --ssh cannot both be 127.0.0.1:1080\nhint: give each a port of its own\n"
    )


HOUSE = Path(__file__).parents[2]
UNIT = HOUSE / "packaging" / "bartizan.service"
HOW_TO = HOUSE / "docs" / "how-to" / "run-under-systemd.md"


def started_words(text: str) -> list[str]:
    """The words of the last ExecStart, as systemd takes them; %d is its folder of credentials."""
    found = re.findall(r"^ *ExecStart=((?:.*\\\n)*.+)", text, flags=re.MULTILINE)
    return shlex.split(found[-1].replace("\\\n", " ").replace("%d", "/run/credentials/bartizan.service"))


@pytest.mark.parametrize("file", [UNIT, HOW_TO], ids=lambda path: path.name)
def test_what_systemd_starts_is_a_command_line_of_ours(file: Path) -> None:
    program, command, *options = started_words(file.read_text())
    assert (program, command) == ("/opt/bartizan/.venv/bin/bartizan", "up")
    given = up_command.make_context("up", options).params
    assert given["data"] == Path("/var/lib/bartizan")
    assert given["passphrase_file"] == Path("/run/credentials/bartizan.service/passphrase")
    assert split_address(given["web"])[0] == split_address(given["ssh"])[0] == "0.0.0.0"


def test_the_unit_starts_with_the_settings_of_its_how_to_and_not_without(tmp_path: Path) -> None:
    """Word by word; only the folders and ports are this test's own."""
    told = re.search(r"<<'END'\n(.+?) *END\n", HOW_TO.read_text(), flags=re.DOTALL)
    assert told
    (tmp_path / "passphrase").write_text("a passphrase for the keys\n")
    own = {
        "/var/lib/bartizan": str(tmp_path / "data"),
        "/run/credentials/bartizan.service/passphrase": str(tmp_path / "passphrase"),
    }
    options = [own.get(word, word) for word in started_words(UNIT.read_text())[2:]]
    bare = up(tmp_path, *options)
    assert bare.returncode == 1
    assert f'or public_ssh = "HOST:PORT" in {tmp_path}/data/bartizan.toml' in bare.stderr

    (tmp_path / "data").mkdir(mode=0o700, exist_ok=True)
    (tmp_path / "data" / "bartizan.toml").write_text(textwrap.dedent(told[1]))
    free = {"0.0.0.0:8443": f"127.0.0.1:{free_port()}", "0.0.0.0:2222": f"127.0.0.1:{free_port()}"}
    doors = dict(zip(("web", "ssh"), free.values(), strict=True))
    rest = [word for word in options if word not in ("--web", "--ssh", *free)]
    product = start_product(tmp_path, *rest, **doors)
    product.process.terminate()
    assert product.process.wait(timeout=30) == 0
    assert "authority https://bartizan.example:8443   bastion bartizan.example:2222" in product.log


def test_an_address_of_another_machine_is_refused_in_one_line(tmp_path: Path) -> None:
    result = up(tmp_path, "--web", "192.0.2.1:8443", "--ssh", f"127.0.0.1:{free_port()}")
    assert result.returncode == 1
    assert result.stderr.startswith("bartizan: error: cannot listen on 192.0.2.1:8443: cannot assign requested address")
    assert result.stderr.endswith("\nhint: this machine has no such address; give one of its own\n")


def test_a_balancer_that_is_no_network_is_refused_before_anything_starts(tmp_path: Path) -> None:
    result = up(tmp_path, "--balancer", "nonsense")
    assert result.returncode == 2
    assert "'nonsense' is not a network: write 10.0.0.0/8 or one address" in result.stderr
    assert not (tmp_path / "data").exists()


def test_sigterm_drains_and_leaves_nothing(tmp_path: Path) -> None:
    product = start_product(tmp_path)
    ours = children(product.process.pid)
    assert (tmp_path / "ready").exists()
    product.process.terminate()
    assert product.process.wait(timeout=30) == 0
    assert all(gone(pid) for pid in ours)
    assert not (tmp_path / "ready").exists()
    assert product.log.endswith("bartizan: stopped\n")


def test_a_worker_that_dies_is_started_again(own_product: Product) -> None:
    workers = {pid for pid, line in children(own_product.process.pid).items() if "bastion.serve" in line}
    os.kill(min(workers), signal.SIGKILL)
    until(
        lambda: len(
            {pid for pid, line in children(own_product.process.pid).items() if "bastion.serve" in line} - workers
        )
    )
    assert "ended (signal SIGKILL); it is started again" in own_product.log


def test_when_it_is_killed_what_it_started_ends_too(tmp_path: Path) -> None:
    product = start_product(tmp_path)
    ours = children(product.process.pid)
    product.process.kill()
    product.process.wait()
    until(lambda: all(gone(pid) for pid in ours))


def test_the_same_folder_starts_again_with_the_same_pin(tmp_path: Path) -> None:
    pins = []
    for _ in range(2):
        product = start_product(tmp_path)
        pins.append(product.pin)
        product.process.terminate()
        product.process.wait(timeout=30)
    assert pins[0] == pins[1]


def test_a_folder_without_an_authority_says_how_to_start_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(bartizan, ["--data", str(tmp_path), "pin"])
    assert result.exit_code == 1
    assert result.stderr == (
        f"bartizan: error: no authority has run in {tmp_path}\nhint: bartizan up --data {tmp_path}\n"
    )


def test_a_path_too_long_for_a_socket_is_refused_with_a_hint(tmp_path: Path) -> None:
    result = CliRunner().invoke(bartizan, ["--data", str(tmp_path / ("x" * 120)), "pin"])
    assert result.exit_code == 1
    assert "longer than the system allows" in result.stderr
    assert "hint: use a shorter --data" in result.stderr
