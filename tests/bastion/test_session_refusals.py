"""What is refused, and the one line that says why and what to do next."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ca import sshcert, wire
from ca.certificate import host_plan
from recordings.sshkey import PublicKey, sign_ed25519
from recordings.sshwire import string, uint32
from tests.bastion.conftest import Node
from tests.bastion.door import Rig, Signer, certified
from tests.bastion.rawssh import key_of, key_pair, raw_ssh
from tests.ca.forge import Forged, option
from tests.ca.forge import Signer as ForgingSigner
from tests.sshd import LOGIN, running_sshd

WEB1 = f"{LOGIN}@web1"
WAYS = {"config": [WEB1], "jump": ["-J", "bartizan", WEB1], "username": [f"{LOGIN}+web1@bartizan"]}
every_way = pytest.mark.parametrize("way", WAYS)


def refused(post: Rig) -> set[object]:
    return {event.fields["request"] for event in post.events() if event.code == "session.refused"}


# --- the decision ------------------------------------------------------------------------------------------------


@every_way
async def test_a_denied_session_says_why_in_one_line_with_status_255(post: Rig, way: str) -> None:
    post.authority.denial = wire.SessionDenied(code="login_not_granted", reason="no role lets you in", hint="ask ops")
    done = await post.run("ssh", *WAYS[way], "id")

    assert (done.returncode, done.stdout) == (255, b"")
    assert done.stderr.splitlines()[:1] == [b"bartizan: no role lets you in; ask ops"]
    assert list(post.recordings.rglob("*.zst")) == []


@pytest.mark.parametrize("action", ["exec", "shell"])
async def test_an_action_that_is_not_granted_is_named(post: Rig, action: str) -> None:
    post.authority.actions = ("sftp.read",)
    done = await post.run("ssh", WEB1, *(["id"] if action == "exec" else []), input=b"")

    assert (done.returncode, done.stdout) == (255, b"")
    assert f"your roles do not allow {action} as {LOGIN} on web1; you may use: sftp.read".encode() in done.stderr
    await post.settled()
    assert refused(post) == {action}


async def test_a_strange_subsystem_is_named(post: Rig) -> None:
    done = await post.run("ssh", WEB1, "-s", "foo")
    assert (done.returncode, done.stdout) == (255, b"")
    assert b"subsystem:foo is not available" in done.stderr
    await post.settled()
    assert refused(post) == {"subsystem"}


@pytest.mark.parametrize(
    "arguments",
    [["ssh", "bartizan"], ["ssh", "-tt", "bartizan"], ["ssh", "bartizan", "id"], ["ssh", "-s", "bartizan", "sftp"]],
    ids=" ".join,
)
async def test_the_bastion_itself_has_no_shell_and_no_files(post: Rig, arguments: list[str]) -> None:
    """FIELD: the bastion's own shell or SFTP reached."""
    done = await post.run(*arguments, input=b"id\n")
    assert (done.returncode, done.stdout) == (255, b"")
    assert b"no node was named" in done.stderr
    assert post.authority.requests == []


async def test_scp_without_a_right_to_files_names_both_that_would_do(post: Rig, tmp_path: Path) -> None:
    """Today's scp speaks SFTP: which way it wants to copy is not known before it is let in."""
    post.authority.actions = ("shell",)
    (tmp_path / "up").write_bytes(b"x")
    done = await post.run("scp", str(tmp_path / "up"), f"{WEB1}:{tmp_path}/there")
    assert done.returncode != 0
    said = f"bartizan: your roles do not allow sftp.read or sftp.write as {LOGIN} on web1; you may use: shell"
    assert said.encode() in done.stderr


# --- forwards ----------------------------------------------------------------------------------------------------


class Listener:
    """A door that must stay closed: counts who came."""

    def __init__(self) -> None:
        self.nonces: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.nonces.append(await reader.read(100))
        writer.close()


async def test_a_local_forward_carries_nothing_past_the_recorder(post: Rig) -> None:
    """SSH-16; FIELD: a port forward nobody recorded."""
    seen = Listener()
    server = await asyncio.start_server(seen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    done = await post.run("ssh", "-W", f"127.0.0.1:{port}", WEB1, input=b"nonce")
    server.close()

    assert done.returncode == 255
    assert b"forward.local is not available" in done.stderr
    assert seen.nonces == []
    await post.settled()
    assert refused(post) == {"direct-tcpip"}


@every_way
async def test_a_jump_leads_to_a_node_by_name_and_nowhere_else(post: Rig, way: str) -> None:
    """SSH-09: no address is ever dialled because a user typed it."""
    seen = Listener()
    server = await asyncio.start_server(seen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    target = f"{LOGIN}+web1@bartizan" if way == "username" else "bartizan"
    done = await post.run("ssh", "-W", f"127.0.0.1:{port}", target, input=b"nonce")
    server.close()
    assert done.returncode == 255
    assert seen.nonces == []


async def test_a_remote_forward_is_refused(post: Rig) -> None:
    """SSH-16; FIELD: VS Code's tunnel."""
    done = await post.run("ssh", "-oExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", WEB1, "id")
    assert done.returncode == 255
    assert b"remote port forwarding failed" in done.stderr
    await post.settled()
    assert refused(post) == {"tcpip-forward"}


async def test_a_remote_forward_is_refused_by_name_where_there_is_a_session_to_say_it(post: Rig) -> None:
    """SSH-16: ssh itself gives no reason."""
    done = await post.run("ssh", "-R", "0:127.0.0.1:1", "-R", "0:127.0.0.1:2", WEB1, "echo here")
    assert (done.returncode, done.stdout) == (0, b"here\n")
    assert done.stderr.count(b"bartizan: forward.remote is not available in this version of Bartizan\n") == 1
    await post.settled()
    assert refused(post) == {"tcpip-forward"}


async def test_a_forwarded_agent_never_gets_a_socket_here_or_there(post: Rig, tmp_path: Path) -> None:
    """SSH-17"""
    agent = await asyncio.create_subprocess_exec(
        "ssh-agent", "-D", "-a", str(tmp_path / "agent"), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(10):
            while not (tmp_path / "agent").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        done = await post.run("ssh", "-A", f"-oIdentityAgent={tmp_path}/agent", WEB1, "echo sock=$SSH_AUTH_SOCK")
    finally:
        agent.terminate()
        await agent.wait()
    assert done.stdout == b"sock=\n"
    assert done.stderr.count(b"bartizan: forward.agent is not available in this version of Bartizan\n") == 1
    await post.settled()
    assert refused(post) == {"auth-agent-req@openssh.com"}


async def test_a_display_is_not_forwarded(post: Rig) -> None:
    async with raw_ssh(post.port, first=b"bartizan/1 web1\n") as ssh:
        await ssh.exchange()
        await ssh.sign_in(LOGIN, post.folder)
        channel = await ssh.session()
        ssh.ask(channel, b"x11-req", b"\0" + b"\0\0\0\x01x" * 2 + bytes(4))
        assert (await ssh.receive())[0] == 100
        ssh.ask(channel, b"exec", string(b"echo shown on $DISPLAY."))
        out, err, status = await ssh.output()
    assert (out, status) == (b"shown on .\n", 0)
    assert err == b"bartizan: forward.x11 is not available in this version of Bartizan\n"
    await post.settled()
    assert refused(post) == {"x11-req"}


async def test_what_was_refused_on_the_side_is_said_once_in_a_session(post: Rig) -> None:
    async with raw_ssh(post.port, first=b"bartizan/1 web1\n") as ssh:
        await ssh.exchange()
        await ssh.sign_in(LOGIN, post.folder)
        said = []
        for _ in range(2):
            channel = await ssh.session()
            ssh.ask(channel, b"auth-agent-req@openssh.com")
            ssh.ask(channel, b"exec", string(b"true"))
            _, err, _ = await ssh.output()
            ssh.send(b"\x61" + uint32(channel))
            said.append(err)
    assert [bool(err) for err in said] == [True, False]


@pytest.mark.parametrize(
    "kind", [b"direct-tcpip", b"direct-streamlocal@openssh.com", b"tun@openssh.com", b"x11", b"nope"]
)
async def test_every_other_kind_of_channel_is_refused(post: Rig, kind: bytes) -> None:
    """SSH-16"""
    rest = b"\0\0\0\x04web1" + bytes([0, 0, 0, 22]) + b"\0\0\0\x09127.0.0.1" + bytes(4)
    async with raw_ssh(post.port, first=b"bartizan/1 web1\n") as ssh:
        await ssh.exchange()
        await ssh.sign_in(LOGIN, post.folder)
        ssh.open_channel(3, kind=kind, rest=rest)
        answer = await ssh.receive()
    assert answer[:9] == bytes([92, 0, 0, 0, 3]) + (3 if kind in (b"x11", b"nope") else 1).to_bytes(4, "big")
    await post.settled()


# --- who signs in --------------------------------------------------------------------------------------------------


@every_way
async def test_an_expired_certificate_says_so_and_names_the_command(post: Rig, way: str) -> None:
    post.user(life=timedelta(hours=-1))
    done = await post.run("ssh", *WAYS[way], "id")
    assert done.returncode == 255
    assert b"certificate expired at" in done.stderr
    assert b"run bart login" in done.stderr
    assert post.authority.requests == []


async def test_a_certificate_of_the_future_asks_about_the_clock(post: Rig) -> None:
    later = int((datetime.now(UTC) + timedelta(hours=1)).timestamp())
    post.user(valid_after=later, valid_before=later + 3600)
    done = await post.run("ssh", WEB1, "id")
    assert done.returncode == 255
    assert b"clock" in done.stderr


async def test_a_certificate_of_another_cluster_is_refused_with_its_reason(post: Rig) -> None:
    ours, post.authority.user = post.authority.user, Signer()
    post.user()
    post.authority.user = ours
    done = await post.run("ssh", WEB1, "id")
    assert done.returncode == 255
    assert b"another cluster" in done.stderr
    assert [event.fields["reason"] for event in post.events() if event.code == "auth.failed"][:1] == ["ca_untrusted"]


FORGED_USERS: dict[str, dict[str, object]] = {
    "no principal": {"principals": ()},
    "two principals": {"principals": (b"alice", b"root")},
    "unknown option": {"options": (option("zzz@example", "x"),)},
    "another source": {"options": (option("source-address", "203.0.113.0/24"),)},
    "no source at all": {"options": (option("source-address", ""),)},
    "a host certificate": {"kind": 2},
    "a forced command": {"options": (option("force-command", "id"),)},
}


@pytest.mark.parametrize("case", FORGED_USERS)
async def test_a_certificate_that_is_not_quite_right_opens_nothing(post: Rig, case: str) -> None:
    """CV-01; FIELD: certificate without principals"""
    public = PublicKey.from_line((post.folder / "id.pub").read_text())
    now = int(datetime.now(UTC).timestamp())
    subject = ForgingSigner("ssh-ed25519", key_of(post.folder), public.blob)
    fields: dict[str, object] = {"subject": subject, "valid_after": now - 60, "valid_before": now + 600}
    forged = Forged(**(fields | FORGED_USERS[case]))  # type: ignore[arg-type]
    ca = ForgingSigner("ssh-ed25519", post.authority.user.key, post.authority.user.public.blob)
    line = base64.b64encode(forged.signed(ca)).decode()
    (post.folder / "id-cert.pub").write_text(f"ssh-ed25519-cert-v01@openssh.com {line}\n")
    done = await post.run("ssh", WEB1, "id")

    assert (done.returncode, done.stdout) == (255, b"")
    assert post.authority.requests == []


async def test_a_key_without_a_certificate_is_told_to_sign_in(post: Rig) -> None:
    (post.folder / "id-cert.pub").unlink()
    done = await post.run("ssh", WEB1, "id")
    assert done.returncode == 255
    assert b"run bart login" in done.stderr
    assert post.authority.requests == []


async def test_a_banner_tells_a_stranger_once(post: Rig) -> None:
    (post.folder / "id-cert.pub").unlink()
    for n in range(3):
        key_pair(post.folder / f"k{n}")
    done = await post.run("ssh", *(f"-oIdentityFile={post.folder}/k{n}" for n in range(3)), WEB1, "id")
    assert done.stderr.count(b"bart login") == 1


async def test_only_keys_are_offered_as_a_way_to_sign_in(post: Rig) -> None:
    """SSH-24"""
    (post.folder / "id-cert.pub").unlink()
    done = await post.run(
        "ssh", "-oPreferredAuthentications=gssapi-with-mic,hostbased,password,keyboard-interactive", WEB1
    )
    assert b"Permission denied (publickey)" in done.stderr.replace(b",publickey-hostbound-v00@openssh.com", b"")


async def test_a_client_that_binds_nothing_leaves_an_unbound_proof_and_the_authority_decides(post: Rig) -> None:
    done = await post.run("ssh", "-oPubkeyAuthentication=unbound", WEB1, "echo ok")
    assert done.stdout == b"ok\n"
    assert [proven.bound for proven in post.authority.proven] == [False]


async def test_the_outer_and_the_inner_person_of_a_jump_are_the_same(post: Rig, tmp_path: Path) -> None:
    """FIELD: key queried ≠ key that signed, in its jump form."""
    for name in ("id", "id.pub", "id-cert.pub"):
        (tmp_path / name).write_bytes((post.folder / name).read_bytes())
    (tmp_path / "id").chmod(0o600)
    post.user("bob")
    outer = f"ssh -F {post.config} -oCertificateFile={tmp_path}/id-cert.pub -i {tmp_path}/id -W %h:22 bartizan"
    text = post.config.read_text()
    post.config.write_text(
        text.replace(f"CertificateFile {post.folder}/id-cert.pub", f"CertificateFile {tmp_path}/id-cert.pub", 1)
    )
    done = await post.run("ssh", "-oProxyUseFdpass=no", f"-oProxyCommand={outer}", WEB1, "id")
    assert (done.returncode, done.stdout) == (255, b"")
    assert b"same person" in done.stderr
    assert post.authority.requests == []


@pytest.mark.parametrize(
    "typed",
    [
        "host$(id)+x",
        "root+host;x",
        "root+-J",
        "root+169.254.169.254",
        "root+[::1]",
        "root+",
        "+web1",
        "..",
        "$(id)",
        "a%h;",
        "-oX=y",
    ],
)
async def test_a_user_name_that_tries_something_gets_a_sentence_and_never_reaches_the_authority(
    post: Rig, typed: str
) -> None:
    """SSH-08, SSH-09"""
    async with raw_ssh(post.port) as ssh:
        await ssh.exchange()
        await ssh.sign_in(typed, post.folder)
        channel = await ssh.session()
        ssh.ask(channel, b"exec", b"\0\0\0\x02id")
        out, err, status = await ssh.output()
    assert (out, status) == (b"", 255)
    assert err.startswith(b"bartizan: ")
    assert post.authority.requests == []


@pytest.mark.parametrize("login", ["a/b", "-oProxyCommand=x", "$(id)", "a%h", "x" * 300, "root+web2"])
async def test_a_login_that_tries_something_never_reaches_the_authority(post: Rig, login: str) -> None:
    """SSH-08"""
    async with raw_ssh(post.port, first=b"bartizan/1 web1\n") as ssh:
        await ssh.exchange()
        await ssh.sign_in(login, post.folder)
        channel = await ssh.session()
        ssh.ask(channel, b"shell")
        out, err, status = await ssh.output()
    assert (out, status) == (b"", 255)
    assert b"unknown login" in err
    assert post.authority.requests == []


# --- the node ------------------------------------------------------------------------------------------------------


@every_way
async def test_a_node_that_is_not_there_is_named_with_its_address(post: Rig, way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        closed = probe.getsockname()[1]
    post.authority.nodes["web1"] = f"127.0.0.1:{closed}"
    done = await post.run("ssh", *WAYS[way], "id")
    assert done.returncode == 255
    assert f"web1 cannot be reached at 127.0.0.1:{closed}".encode() in done.stderr
    await post.settled()
    assert "upstream.failed" in {note["code"] for note in post.notes()}


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ("127.0.0.1", "the bastion itself"),
        ("::1", "the bastion itself"),
        ("::ffff:127.0.0.1", "the bastion itself"),
        ("169.254.169.254", "link-local"),
        ("fe80::1%1", "link-local"),
        ("fd00:ec2::254", "link-local"),
        ("224.0.0.1", "multicast"),
        ("0.0.0.0", "no address of any host"),
    ],
)
async def test_a_name_that_was_turned_to_a_place_of_no_node_is_not_dialled(
    post: Rig, monkeypatch: pytest.MonkeyPatch, found: str, why: str
) -> None:
    """SSH-10"""
    seen = Listener()
    server = await asyncio.start_server(seen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    answer = [(socket.AF_INET6 if ":" in found else socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    post.authority.nodes["web1"] = f"web1.example:{port}"
    async with raw_ssh(post.port, first=b"bartizan/1 web1\n") as ssh:
        await ssh.exchange()
        await ssh.sign_in(LOGIN, post.folder)
        channel = await ssh.session()
        ssh.ask(channel, b"shell")
        _, err, status = await ssh.output()
    server.close()
    assert status == 255
    assert f"web1 is not dialled: web1.example:{port} leads to {found} ({why}".encode() in err
    assert seen.nonces == []
    await post.settled()
    assert "upstream.failed" in {event.code for event in post.events()}


async def test_the_address_that_was_checked_is_the_one_that_is_dialled(
    post: Rig, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSH-10: the name is resolved once; a second answer, for another place, would never be asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, *words: Any, **more: Any) -> Any:
        asked.append(host)
        return real(host, *words, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    post.authority.nodes["web1"] = f"localhost:{node.sshd.port}"
    done = await post.run("ssh", WEB1, "echo ok")
    assert done.stdout == b"ok\n", done.stderr
    assert [host for host in asked if host == "localhost"] == ["localhost"]


def host_certificate(node: Node, key: Path, **changes: object) -> Path:
    """A host certificate for *key* that differs from a good one in *changes*."""
    signer = changes.pop("signer", node.authority.host)
    assert isinstance(signer, Signer)
    public = PublicKey.from_line(key.with_name(key.name + ".pub").read_text())
    plan = host_plan("web1", "n-web1", serial=1, public_key=public, now=datetime.now(UTC))
    fields: dict[str, object] = {
        "kind": sshcert.CertKind.HOST, "public_key": public, "serial": 1, "key_id": "k", "principals": ["n-web1"],
        "valid_after": int(plan.valid_after.timestamp()), "valid_before": int(plan.valid_before.timestamp()),
        "critical_options": {}, "extensions": [], "ca_key": signer.public, "nonce": os.urandom(32),
    } | changes  # fmt: skip
    to_be_signed = sshcert.encode(**fields)  # type: ignore[arg-type]
    blob = sshcert.with_signature(to_be_signed, sign_ed25519(signer.key, to_be_signed))
    path = key.with_name("forged-cert.pub")
    path.write_text("ssh-ed25519-cert-v01@openssh.com " + base64.b64encode(blob).decode() + "\n")
    return path


FORGED: dict[str, dict[str, object]] = {
    "other node": {"principals": ["web2", "n-web2"]},
    "name but not id": {"principals": ["web1"]},
    "other CA": {"signer": Signer()},
    "expired": {"valid_after": 1_000_000, "valid_before": 1_100_000},
    "critical option": {"critical_options": {"force-command": "id"}},
    "user certificate": {"kind": sshcert.CertKind.USER},
    "plain key": {},
    "plain key of a stranger": {},
    "not registered": {},
}


@pytest.mark.parametrize("case", FORGED)
async def test_a_node_that_shows_another_key_gets_no_credential(
    post: Rig, node: Node, tmp_path: Path, case: str
) -> None:
    """CV-23, CV-24: no trust on first use; both fingerprints are shown; the node never sees our certificate."""
    key = tmp_path / "key"
    key_pair(key)
    public = PublicKey.from_line((tmp_path / "key.pub").read_text())
    certificate = None if "plain key" in case else host_certificate(node, key, **FORGED[case])
    stranger = case in ("not registered", "plain key of a stranger")
    registered = PublicKey.of(Ed25519PrivateKey.generate().public_key()) if stranger else public
    post.authority.host_keys["web1"] = [registered.line()]
    with running_sshd(
        tmp_path / "sshd",
        target_ca=node.authority.target.public.line(),
        principals=[f"{LOGIN}@n-web1"],
        host_key=key,
        host_certificate=certificate,
    ) as forger:
        post.authority.nodes["web1"] = forger.address
        done = await post.run("ssh", WEB1, "id")
        assert (done.returncode, done.stdout) == (255, b"")
        assert b"host key of web1 not verified: " in done.stderr, done.stderr
        assert (b"it shows no certificate" in done.stderr) is ("plain key" in case)
        assert f"its key is {public.fingerprint()}, registered is {registered.fingerprint()}".encode() in done.stderr
        assert b"bartizan nodes certify web1 KEY.pub" in done.stderr
        await post.settled()
        assert f"{LOGIN} " not in forger.log.read_text(), "nobody asked to sign in"
    (failure,) = [event for event in post.events() if event.code.startswith("upstream.")]
    assert failure.code == "upstream.hostkey_failed"
    assert failure.fields["shown"] == public.fingerprint()
    assert failure.fields["expected"] == [registered.fingerprint()]


async def test_a_pinned_key_is_that_very_key(post: Rig, node: Node, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key_pair(key)
    line = (tmp_path / "key.pub").read_text().strip()
    with running_sshd(
        tmp_path / "sshd", target_ca=node.authority.target.public.line(), principals=[f"{LOGIN}@n-web1"], host_key=key
    ) as sshd:
        post.authority.nodes["web1"] = sshd.address
        post.authority.pinned = True
        post.authority.host_keys["web1"] = [line]
        done = await post.run("ssh", WEB1, "echo ok")
        assert done.stdout == b"ok\n", done.stderr
        post.authority.host_keys["web1"] = [PublicKey.of(Ed25519PrivateKey.generate().public_key()).line()]
        done = await post.run("ssh", WEB1, "echo ok")
        assert done.returncode == 255
        assert b"not verified" in done.stderr


@pytest.mark.parametrize("kind", ["ecdsa -b 256", "rsa -b 3072"])
async def test_the_registered_key_is_asked_for_whatever_else_the_node_has(
    post: Rig, node: Node, tmp_path: Path, kind: str
) -> None:
    """A stock host has keys of several types; only the registered one counts, pinned or certified."""
    key_pair(tmp_path / "unknown")
    key_pair(tmp_path / "known", *kind.split())
    post.authority.host_keys["web1"] = []
    certificate = certified(tmp_path, post.authority, "web1", tmp_path / "known")
    with running_sshd(
        tmp_path / "sshd",
        target_ca=node.authority.target.public.line(),
        principals=[f"{LOGIN}@n-web1"],
        host_key=tmp_path / "unknown",
        host_certificate=certificate,
        lines=[f"HostKey {tmp_path}/known"],
    ) as sshd:
        post.authority.nodes["web1"] = sshd.address
        for post.authority.pinned in (True, False):
            done = await post.run("ssh", WEB1, "echo ok")
            assert done.stdout == b"ok\n", done.stderr


async def test_a_node_that_does_not_believe_us_is_named_with_the_command_that_helps(
    post: Rig, node: Node, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key_pair(key)
    post.authority.host_keys["web1"] = []
    certificate = certified(tmp_path, post.authority, "web1", key)
    with running_sshd(
        tmp_path / "sshd",
        target_ca=Signer().public.line(),
        principals=[f"{LOGIN}@n-web1"],
        host_key=key,
        host_certificate=certificate,
    ) as sshd:
        post.authority.nodes["web1"] = sshd.address
        done = await post.run("ssh", WEB1, "id")
    assert done.returncode == 255
    assert b"web1 does not let login" in done.stderr
    assert b"bartizan nodes sshd-config web1" in done.stderr


async def test_what_a_node_says_before_it_hangs_up_is_shown_as_text_only(post: Rig) -> None:
    """REC-04: a node's disconnect reason reaches the user's terminal as one line without control characters."""
    reason = b"\x1b]0;owned\x07\x1b[2J" + secrets.token_hex(4).encode()
    text = b"\x01" + (11).to_bytes(4, "big") + len(reason).to_bytes(4, "big") + reason + bytes(4)
    padding = 16 - (5 + len(text)) % 8
    packet = (1 + len(text) + padding).to_bytes(4, "big") + bytes([padding]) + text + bytes(padding)

    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-evil\r\n" + packet)
        await reader.read(100)
        writer.close()

    server = await asyncio.start_server(hangs_up, "127.0.0.1", 0)
    post.authority.nodes["web1"] = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    done = await post.run("ssh", WEB1, "id")
    server.close()
    assert done.returncode == 255
    assert b"\x1b" not in done.stderr
    assert b"\x07" not in done.stderr
    await post.settled()
