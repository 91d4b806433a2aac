"""
No outside call: the product works where there is no network but this machine's own, and offers itself to nobody else.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journeys import stage
from tests.product import ROLES, Product, running_product
from tests.sshd import running_sshd

HOUSE = Path(__file__).parents[2]
SET_FLAGS, UP_AND_RUNNING = 0x8914, 0x41  # netdevice(7)


def in_a_cut_off_room(*command: str) -> list[str]:
    """The argv that runs *command* in a network namespace of its own, which begins with ``lo``, down, and no route."""
    return ["unshare", "-n" if os.geteuid() == 0 else "-rn", *command]


def whole_way(folder: Path) -> dict[str, object]:
    """Up, sign in, enter in all three ways, play, verify. Runs in the room; what happened is told by its answer."""
    with socket.socket() as probe:
        fcntl.ioctl(probe, SET_FLAGS, struct.pack("16sH14x", b"lo", UP_AND_RUNNING))
    routes = Path("/proc/net/route").read_text().splitlines()[1:]
    with running_product(folder, "--workers", "1") as product, running_sshd(folder / "nodes" / "web1") as web1:
        product.apply_roles(ROLES)
        product.trust("web1", web1, env="dev")
        alice, carol = stage.guest(product, "alice", "developer"), stage.guest(product, "carol", "auditor")
        said = [alice.ssh("web1", "echo", way, way=way).stdout.decode() for way in ("config", "jump", "username")]
        session = stage.sealed_tape(product, stage.newest(alice)).folder.name
        return {
            "routes": routes,
            "interfaces": [name for _, name in socket.if_nameindex()],
            "said": said,
            "played": carol.bart("play", session).stdout,
            "verified": carol.bart("recordings", "verify", session).returncode,
        }


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare (util-linux) is not installed here")
def test_the_whole_way_works_without_any_network(tmp_path: Path) -> None:
    tried = subprocess.run(in_a_cut_off_room("true"), capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"network namespaces are not permitted here: {tried.stderr.strip()}")
    command = in_a_cut_off_room(sys.executable, "-m", "tests.journeys.test_air_gap", str(tmp_path / "own"))
    done = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["interfaces"], told["routes"]) == (["lo"], [])
    assert told["said"] == ["config\n", "jump\n", "username\n"]
    assert (told["played"], told["verified"]) == ("username\n", 0)


def test_nothing_listens_beyond_what_was_asked_for(product: Product) -> None:
    """Two doors, both on loopback as they were bound; no other port, no datagrams."""
    own = {product.process.pid, *stage.children(product, "")}
    assert len(own) == 4
    mine = {inode for pid in own for inode in _sockets(pid)}
    listening = {address for kind in ("tcp", "tcp6") for address in _bound(kind, mine, state="0A")}
    assert listening == {product.web, product.ssh}
    assert not {address for kind in ("udp", "udp6", "raw", "raw6") for address in _bound(kind, mine, state=None)}


def test_every_connection_of_ours_stays_on_this_machine(product: Product) -> None:
    own = {product.process.pid, *stage.children(product, "")}
    mine = {inode for pid in own for inode in _sockets(pid)}
    peers = {address for kind in ("tcp", "tcp6") for address in _bound(kind, mine, state="01", column=2)}
    assert peers
    assert all(peer.startswith("127.0.0.1:") for peer in peers), peers


def _sockets(pid: int) -> set[str]:
    """The inodes of the sockets that a process holds."""
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(fd.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def _bound(kind: str, inodes: set[str], *, state: str | None, column: int = 1) -> set[str]:
    """The addresses of these sockets in /proc/net/*kind* (proc(5)); column 1 is the local side, 2 the other."""
    found = set()
    for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
        words = line.split()
        if words[9] in inodes and state in (None, words[3]):
            host, _, port = words[column].partition(":")
            found.add(f"{_address(host)}:{int(port, 16)}")
    return found


def _address(text: str) -> str:
    """Words of four bytes, each in this machine's own order."""
    data = b"".join(struct.pack("=I", int(text[at : at + 8], 16)) for at in range(0, len(text), 8))
    return socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data)


if __name__ == "__main__":
    print(json.dumps(whole_way(Path(sys.argv[1]))))
