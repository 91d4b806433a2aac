"""
The contract with asyncssh's insides, to be read after every upgrade: the names are there, and what rests on them works.

Each key exchange leaves a transcript from which H can be computed anew; OpenSSH binds its signature to the host key.
"""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import asyncssh
import pytest
from asyncssh import auth as asyncssh_auth

import bastion
from bastion import ssh_adapter
from bastion.ssh_adapter import CIPHERS, HOSTBOUND, KEX, PRIVATE_NAMES, ChannelEnd, NodeConnection, UserConnection
from ca import proof
from tests.bastion.door import BEACON, Rig
from tests.bastion.rawssh import raw_ssh
from tests.sshd import LOGIN

WEB1 = f"{LOGIN}@web1"
WAYS = {"config": [WEB1], "jump": ["-J", "bartizan", WEB1], "username": [f"{LOGIN}+web1@bartizan"]}
FILES = ("ssh_adapter.py", "fast_packets.py")
SOURCES = ("connection.py", "auth.py", "kex.py", "kex_dh.py", "encryption.py", "crypto/cipher.py")


# --- names ---------------------------------------------------------------------------------------------------------


def theirs() -> set[str]:
    """Private names of the parts of asyncssh that we build upon."""
    folder = Path(asyncssh.__file__).parent
    text = "".join((folder / name).read_text() for name in SOURCES)
    assigned = re.findall(r"\b(?:self|conn|cls)\.(_[a-z]\w*)", text) + re.findall(r"def (_[a-z]\w*)\(", text)
    return {*assigned, *re.findall(r"^    (_[a-z]\w*)\b.*=", text, re.MULTILINE)}


def used() -> set[str]:
    """Private names that our classes read, set or override, their own included."""
    names: set[str] = set()
    for file in FILES:
        tree = ast.parse((Path(bastion.__file__).parent / file).read_text())
        for whole in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
            for node in ast.walk(whole):
                if isinstance(node, ast.Attribute):
                    names.add(node.attr)
                elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    names.add(node.name)
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def test_every_private_name_we_rest_on_is_listed_and_there() -> None:
    assert theirs() >= PRIVATE_NAMES, PRIVATE_NAMES - theirs()
    ours_by_the_same_name = {"_method"}  # of another class there
    assert used() & theirs() - ours_by_the_same_name <= PRIVATE_NAMES, used() & theirs() - PRIVATE_NAMES


def test_the_version_is_the_one_that_was_read() -> None:
    assert asyncssh.__version__.split(".")[:2] == ["2", "24"]


def test_our_handlers_stand_in_our_tables_only() -> None:
    for ours, base in ((UserConnection, asyncssh.SSHServerConnection), (NodeConnection, asyncssh.SSHClientConnection)):
        assert ours._packet_handlers is not base._packet_handlers
        for kind in (80, 90, 91, 92):
            assert ours._packet_handlers[kind] is not base._packet_handlers.get(kind)
    assert set(UserConnection._packet_handlers) >= {20, 50, 192}
    assert 192 not in asyncssh.SSHServerConnection._packet_handlers
    assert asyncssh_auth._server_auth_handlers[HOSTBOUND] is ssh_adapter._HostboundAuth


def test_a_channel_of_ours_has_what_asyncssh_calls_on_those_in_its_table() -> None:
    text = (Path(asyncssh.__file__).parent / "connection.py").read_text()
    called = set(re.findall(r"\bchan\.(\w+)\(", text)) & {"process_connection_close", "close", "process_packet"}
    assert called
    for name in (*called, "process_packet", "log_received_packet"):
        assert callable(getattr(ChannelEnd, name))


@pytest.mark.parametrize("name", KEX)
def test_each_key_exchange_that_is_offered_is_one_that_the_authority_can_check(name: str) -> None:
    assert name in proof.EXCHANGES
    assert name.encode() in asyncssh.kex.get_kex_algs()


def test_no_weak_algorithm_is_offered() -> None:
    """SSH-04"""
    offered = " ".join((*KEX, *CIPHERS, *ssh_adapter.MACS, *ssh_adapter.SIGNATURES))
    for weak in ("cbc", "sha1", "md5", "arcfour", "3des", "group1", "group14", "umac", "dss", "none"):
        assert weak not in offered
    assert "ssh-rsa" not in ssh_adapter.SIGNATURES


# --- the proof -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kex", ["curve25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256"])
@pytest.mark.parametrize("way", WAYS)
async def test_h_can_be_computed_from_what_was_kept(post: Rig, way: str, kex: str) -> None:
    """``proof.check`` in the authority recomputes H and verifies the person's signature over it."""
    done = await post.run("ssh", f"-oKexAlgorithms={kex}", *WAYS[way], "echo ok")

    assert done.stdout == b"ok\n", done.stderr
    (request,), (proven,) = post.authority.requests, post.authority.proven
    if way != "jump":  # there, the option is for the inner connection alone; it is the one that counts
        assert request.transcript.kex == kex
    assert proof.exchange_hash(request.transcript) == proven.h
    assert proven.beacon == BEACON


async def test_h_of_a_hybrid_exchange_can_be_computed_too(post: Rig) -> None:
    """mlkem768x25519-sha256, which OpenSSH 9.9 and later choose first."""
    key = (str(post.folder / "id"), str(post.folder / "id-cert.pub"))
    async with asyncssh.connect(
        "127.0.0.1",
        post.port,
        username=f"{LOGIN}+web1",
        client_keys=[key],
        known_hosts=None,
        config=[],
        agent_path=None,
        kex_algs=["mlkem768x25519-sha256"],
        gss_host=None,
    ) as connection:
        done = await connection.run("echo ok")
        assert (done.stdout, done.exit_status) == ("ok\n", 0)
    (request,), (proven,) = post.authority.requests, post.authority.proven
    assert request.transcript.kex == "mlkem768x25519-sha256"
    assert proof.exchange_hash(request.transcript) == proven.h
    assert proven.bound  # the node stands in the user name


async def test_h_is_that_of_the_first_exchange_also_when_keys_change_before_it_is_used(post: Rig) -> None:
    """What our own little client computed, and what the authority computed, are one value."""
    async with raw_ssh(post.port, first=b"bartizan/1 web1\n") as ssh:
        await ssh.exchange()
        await ssh.sign_in(LOGIN, post.folder)
        await ssh.session()
        assert [proven.h for proven in post.authority.proven] == [ssh.session_id]


@pytest.mark.parametrize("way", WAYS)
async def test_openssh_binds_its_signature_to_node_and_login(post: Rig, way: str) -> None:
    await post.run("ssh", *WAYS[way], "true")
    (request,), (proven,) = post.authority.requests, post.authority.proven
    asked = proof.parse_auth_request(request.auth_request)

    assert asked.method == "publickey-hostbound-v00@openssh.com"
    assert asked.host_key_blob == request.transcript.k_s
    assert proven.bound
    assert (request.node, request.login, request.way) == ("web1", LOGIN, way)


@pytest.mark.parametrize("way", ["config", "jump"])
async def test_without_it_the_proof_names_no_node(post: Rig, way: str) -> None:
    await post.run("ssh", "-oPubkeyAuthentication=unbound", *WAYS[way], "true")
    assert [proven.bound for proven in post.authority.proven] == [False]


@pytest.mark.parametrize("kind", [["rsa", "-b", "3072"], ["ecdsa", "-b", "256"], ["ecdsa", "-b", "521"]], ids=" ".join)
async def test_people_may_have_any_kind_of_key(post: Rig, kind: list[str]) -> None:
    for name in ("id", "id.pub", "id-cert.pub"):
        (post.folder / name).unlink()
    subprocess.run(["ssh-keygen", "-q", "-t", *kind, "-N", "", "-f", post.folder / "id"], check=True)  # noqa: ASYNC221
    post.user()
    done = await post.run("ssh", WEB1, "echo ok")
    assert done.stdout == b"ok\n", done.stderr


async def test_the_transport_can_be_held_up_and_let_go(post: Rig) -> None:
    """``pause_reading`` and its kind on every transport that we meet: a socket, and a channel of ``ssh -J``."""
    for way in WAYS.values():
        done = await post.run("ssh", *way, "head -c 3000000 /dev/zero", timeout=60)
        assert len(done.stdout) == 3_000_000
