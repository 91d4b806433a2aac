"""
What a bastion that has been taken over can do: nothing that a person did not just ask for.

The attacker has the bastion's identity, everything on its disk and its client certificate, lets people sign in with
stock ``ssh``, and talks to the real authority by its HTTP API. docs/explanation/threat-model.md makes the promises.
"""

from __future__ import annotations

import asyncio
import base64
import getpass
import re
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bastion import state as states
from bastion.authority import HttpAuthority
from bastion.enrol import enrol
from ca import sshcert, wire
from recordings import keyfile
from recordings.sshkey import PublicKey
from tests.ca import forge
from tests.ca.house import BastionKeys, Clock, House, house
from tests.ca.visit import Visit
from tests.journeys import stage
from tests.journeys.thief import OverHttp, Thief, client, own_state, thief, with_own_key
from tests.product import Person, Product, Site, Way, environment
from tests.sshd import LOGIN

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def loot(product: Product, tmp_path: Path) -> Path:
    """Everything on the bastion's disk."""
    return Path(shutil.copytree(product.data / "bastion", tmp_path / "loot"))


@pytest.fixture
async def api(product: Product, loot: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The authority's API, with the stolen client certificate."""
    async with client(loot, product.web) as made:
        yield made


@pytest.fixture
async def evil(product: Product, loot: Path, tmp_path: Path) -> AsyncIterator[Thief]:
    """A server with the stolen identity, to which people connect unsuspectingly."""
    state = states.load(loot)
    authority = HttpAuthority(f"https://{product.web}", state)
    async with thief(tmp_path / "evil", state, authority) as running:
        yield running
    await authority.close()


async def caught(evil: Thief, person: Person, node: str = "web1", *, way: Way = "config", login: str = LOGIN) -> Any:
    """What *person* signed when she thought that she went to *node*."""
    port = person.product.ssh.rpartition(":")[2]
    config, hosts = person.folder / f"evil-{evil.port}", person.folder / f"evil-{evil.port}.hosts"
    hosts.write_text((person.home / "known_hosts").read_text().replace(f":{port}", f":{evil.port}"))
    text = person.config.read_text().replace(str(person.home / "known_hosts"), str(hosts))
    config.write_text(re.sub(rf"\b{port}\b", str(evil.port), text))
    argv = person.ssh_command(node, "true", way=way, login=login)
    argv[argv.index("-F") + 1] = str(config)
    return await evil.catch(argv, person.environment)


async def submit(api: httpx.AsyncClient, request: dict[str, Any]) -> tuple[int, str]:
    """Status, and decision or code."""
    answer = await api.post("/v1/sessions", json=request)
    said = answer.json()
    return answer.status_code, said.get("error") or said["decision"]


async def submitted(api: httpx.AsyncClient, request: wire.SessionRequest) -> dict[str, Any]:
    """The answer to a proof that holds."""
    answer = await api.post("/v1/sessions", json=request.model_dump(mode="json"))
    said: dict[str, Any] = answer.raise_for_status().json()
    return said


def target_certificates(product: Product) -> int:
    with stage.operator(product) as door:
        found = door.get("/v1/certificates").raise_for_status().json()
    return sum(one["ca"] == "target" for one in found)


# --- without a person's signature -----------------------------------------------------------------------------------


async def test_the_stolen_identity_alone_gets_no_certificate_for_a_node(
    product: Product, alice: Person, api: httpx.AsyncClient, loot: Path
) -> None:
    """DESIGN "Proof": no target certificate without a user's signature, whatever is put in its place."""
    before = target_certificates(product)
    alices = sshcert.from_line((alice.home / "id-cert.pub").read_text()).blob
    shown = await api.post("/v1/bastions/shown-certificates", json={"names": ["web1"]})
    host = sshcert.from_line(shown.json()["certificates"][0]).blob
    beacon = (await api.post("/v1/bastions/sync", json={"worker": "thief"})).json()["beacon"]
    own = keyfile.load_private(loot / "host_key")
    key = forge.Signer("ssh-ed25519", own, PublicKey.of(own.public_key()).blob)
    bastion = BastionKeys("b", "local", key, keyfile.load_private(loot / "recording_key"), api)
    selfmade = forge.Forged(subject=key, principals=(b"alice",)).signed(key)
    for certificate, code in [
        (alices, "proof_signature"),  # everybody who saw her connect has it
        (host, "proof_certificate"),
        (selfmade, "proof_certificate"),
        (key.blob, "proof_certificate"),
    ]:
        for way in ("config", "jump", "username"):
            forged = Visit(bastion, key, certificate, host, beacon, login=LOGIN, way=way)
            assert await submit(api, forged.request()) == (403, code)
    assert target_certificates(product) == before


async def test_no_other_route_is_open_to_the_stolen_identity(product: Product, api: httpx.AsyncClient) -> None:
    """Neither people's routes nor the operator's: a client certificate is no sign-in."""
    for method, path, body in [
        ("GET", "/v1/me", None),
        ("GET", "/v1/users", None),
        ("POST", "/v1/users", {"name": "eve", "roles": ["admin"]}),
        ("POST", "/v1/users/alice/password", {}),
        ("PUT", "/v1/roles", {"text": "roles: []"}),
        ("GET", "/v1/nodes", None),
        ("POST", "/v1/nodes/web1/certificate", {"public_key": forge.ed25519().public.line()}),
        ("GET", "/v1/certificates", None),
        ("POST", "/v1/bastion-tokens", None),
        ("POST", "/v1/join-tokens", {}),
        ("POST", "/v1/locks", {"reason": "x", "user": "alice"}),
        ("GET", "/v1/sessions", None),
        ("GET", "/v1/recordings", None),
        ("GET", "/v1/audit", None),
    ]:
        answer = await api.request(method, path, json=body)
        assert (answer.status_code, answer.json()["error"]) == (401, "not_signed_in"), path


async def test_the_certificates_that_a_bastion_shows_enter_no_node(
    site: Site, api: httpx.AsyncClient, loot: Path, tmp_path: Path
) -> None:
    """KEY-12: the bastion CA's host certificate, and a name that would be a principal, at a real sshd."""
    with stage.operator(site.product) as door:
        node = next(one for one in door.get("/v1/nodes").json() if one["name"] == "web1")
    (tmp_path / "id").write_bytes((loot / "host_key").read_bytes())
    (tmp_path / "id").chmod(0o600)
    for name in (node["name"], node["id"]):
        answer = await api.post("/v1/bastions/shown-certificates", json={"names": [name]})
        (tmp_path / "id-cert.pub").write_text(answer.json()["certificates"][0] + "\n")
        assert site.web1.run(tmp_path / "id", "true").returncode == 255
    principal = f"{LOGIN}@{node['id']}"
    answer = await api.post("/v1/bastions/shown-certificates", json={"names": [principal]})
    assert (answer.status_code, answer.json()["error"]) == (400, "principal_invalid")


def test_what_people_hold_enters_no_node_by_itself(site: Site) -> None:
    """Nobody walks around the recorder: a user certificate is of another CA than nodes trust."""
    direct = site.web1.run(site.alice.home / "id", "echo", "in")
    assert (direct.returncode, direct.stdout) == (255, "")
    assert site.alice.ssh("web1", "echo", "in").stdout == b"in\n"


# --- with a person's signature --------------------------------------------------------------------------------------


def other_byte(text: str, at: int = -1) -> str:
    """Base64 with one bit of one byte changed."""
    data = bytearray(base64.b64decode(text))
    data[at] ^= 1
    return base64.b64encode(data).decode()


def within(name: str, at: int = -1) -> Change:
    def change(request: dict[str, Any]) -> None:
        request["transcript"][name] = other_byte(request["transcript"][name], at)

    return change


def field(name: str, value: str | None = None) -> Change:
    def change(request: dict[str, Any]) -> None:
        request[name] = other_byte(request[name]) if value is None else value

    return change


def kex(name: str) -> Change:
    def change(request: dict[str, Any]) -> None:
        request["transcript"]["kex"] = name

    return change


def asking(old: bytes, new: bytes) -> Change:
    """Other words of the same length in what was signed."""

    def change(request: dict[str, Any]) -> None:
        asked = base64.b64decode(request["auth_request"])
        assert old in asked
        request["auth_request"] = base64.b64encode(asked.replace(old, new, 1)).decode()

    return change


ALTERED: dict[str, tuple[Change, set[str]]] = {
    "another node": (field("node", "db1"), {"proof_host_key", "proof_user"}),
    "a node that is not there": (field("node", "nowhere"), {"proof_host_key", "proof_user"}),
    "another login": (field("login", "daemon"), {"proof_user"}),
    "another exchange": (kex("ecdh-sha2-nistp521"), {"proof_kex", "proof_transcript"}),
    "an unknown exchange": (kex("none"), {"proof_kex"}),
    "client's version": (within("v_c"), {"proof_signature"}),
    "another beacon": (within("v_s"), {"proof_beacon"}),
    "client's proposal": (within("i_c", 3), {"proof_signature"}),
    "server's proposal": (within("i_s", 3), {"proof_signature"}),
    "host key": (within("k_s"), {"proof_host_key"}),
    "client's share": (within("q_c"), {"proof_signature"}),
    "server's share": (within("q_s"), {"proof_signature"}),
    "secret": (within("k"), {"proof_signature"}),
    "user name": (asking(LOGIN.encode(), LOGIN[::-1].encode()), {"proof_user"}),
    "service": (asking(b"ssh-connection", b"ssh-connectioN"), {"proof_request"}),
    "certificate's person": (asking(b"alice", b"carol"), {"proof_certificate"}),
    "signature": (field("signature"), {"proof_signature"}),
    "session key": (field("session_key", forge.ed25519().public.line()), {"proof_possession"}),
    "possession": (field("possession"), {"proof_possession"}),
}


@pytest.mark.parametrize("way", ["config", "jump", "username"])
async def test_a_proof_is_good_once_and_only_as_it_was_signed(
    product: Product, alice: Person, api: httpx.AsyncClient, evil: Thief, way: Way
) -> None:
    """DESIGN "Proof" 1 and 2: replayed, or altered in any field, it is refused with the code of what is wrong."""
    signed = (await caught(evil, alice, way=way)).model_dump(mode="json")
    before = target_certificates(product)
    for what, (change, codes) in ALTERED.items():
        altered = {**signed, "transcript": dict(signed["transcript"])}
        change(altered)
        status, code = await submit(api, altered)
        assert (status, code in codes) == (403, True), f"{what}: {status} {code}"
    crossed = {**signed, "way": "username" if way != "username" else "config"}
    assert (await submit(api, crossed))[0] == 403
    assert target_certificates(product) == before

    assert await submit(api, signed) == (200, "allow"), "what was refused has not used it up"
    for _ in range(2):
        assert await submit(api, signed) == (403, "proof_replayed")
        assert await submit(api, with_own_key_of(signed)) == (403, "proof_replayed")
    assert target_certificates(product) == before + 1
    assert stage.events(product, "session.proof_failed", reason="proof_replayed", source="127.0.0.1")


def with_own_key_of(signed: dict[str, Any]) -> dict[str, Any]:
    return with_own_key(wire.SessionRequest.model_validate(signed))[0]


async def test_of_fifty_submissions_at_once_one_gets_a_certificate(
    product: Product, alice: Person, api: httpx.AsyncClient, evil: Thief
) -> None:
    signed = await caught(evil, alice)
    before = target_certificates(product)
    answers: list[tuple[int, str]] = []

    async def once() -> None:
        answers.append(await submit(api, with_own_key(signed)[0]))

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(once())
    assert sorted(answers) == [(200, "allow"), *[(403, "proof_replayed")] * 49]
    assert target_certificates(product) == before + 1


async def test_a_second_bastion_cannot_use_what_the_first_one_saw(
    product: Product, alice: Person, api: httpx.AsyncClient, evil: Thief, tmp_path: Path
) -> None:
    """REC-11: nor may it read or report how far the other's recordings are, or end them."""
    signed = await caught(evil, alice)
    with stage.operator(product) as door:
        token = door.post("/v1/bastion-tokens").raise_for_status().json()["token"]
    folder = tmp_path / "other"
    enrolment = {"authority": f"https://{product.web}", "pin": product.pin, "token": token}
    await asyncio.to_thread(lambda: enrol(folder, **enrolment, name=f"other-{secrets.token_hex(4)}", egress=[]))
    async with client(folder, product.web) as other:
        assert await submit(other, signed.model_dump(mode="json")) == (403, "proof_host_key")
        assert await submit(other, with_own_key(signed)[0]) == (403, "proof_host_key")
        assert (await submit(other, signed.model_dump(mode="json") | {"worker": "w1"}))[0] == 403
        # Nor may it speak of the first one's sessions (REC-11).
        session = (await submitted(api, signed))["session"]
        chain = {"session": session, "closed": 0, "chain": "0" * 64, "open": {}}
        for answer in (
            await other.get(f"/v1/sessions/{session}/head"),
            await other.post(f"/v1/sessions/{session}/end", json={"manifest": "", "how": "closed"}),
            await other.post("/v1/bastions/sync", json={"worker": "w1", "heads": [chain]}),
        ):
            assert (answer.status_code, answer.json()["error"]) == (403, "not_own_session")


@pytest.mark.parametrize("way", ["config", "username"])
async def test_what_was_signed_for_a_foreign_server_opens_nothing_here(
    product: Product, alice: Person, api: httpx.AsyncClient, loot: Path, tmp_path: Path, way: Way
) -> None:
    """CV-21: the person uses the same key at a server of the thief's, which passes her signature on with our beacon."""
    authority = HttpAuthority(f"https://{product.web}", states.load(loot))
    foreign = own_state(tmp_path, Ed25519PrivateKey.generate())
    async with thief(tmp_path / "foreign", foreign, authority, foreign=True) as server:
        request = (await server.catch(anywhere(server.port, alice.home / "id"), alice.environment)).model_dump(
            mode="json"
        )
    await authority.close()
    assert await submit(api, request | {"way": way, "node": "web1", "login": LOGIN}) == (403, "proof_host_key")
    own = PublicKey.of(keyfile.load_private(loot / "host_key").public_key()).blob
    request["transcript"]["k_s"] = base64.b64encode(own).decode()  # the bastion's own key, put in afterwards
    assert (await submit(api, request))[1] in ("proof_host_key", "proof_signature")


def anywhere(port: int, key: Path) -> list[str]:
    """A person who asks no server for its name, with the key that she uses here."""
    fixed = ["-F/dev/null", "-oBatchMode=yes", "-oIdentityAgent=none", "-oIdentitiesOnly=yes"]
    fixed += ["-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-i", str(key)]
    return ["ssh", *fixed, "-p", str(port), f"{LOGIN}+web1@127.0.0.1", "true"]


@pytest.mark.parametrize(("beacon", "code"), [("", "proof_beacon"), ("0" * 32, "proof_beacon")])
async def test_a_connection_without_a_beacon_of_ours_proves_nothing(
    product: Product, alice: Person, api: httpx.AsyncClient, loot: Path, tmp_path: Path, beacon: str, code: str
) -> None:
    """Signatures cannot be gathered beforehand: each is over a word that the authority gave out just now."""
    state = states.load(loot)
    authority = HttpAuthority(f"https://{product.web}", state)
    async with thief(tmp_path / "early", state, authority, beacon=beacon) as early:
        signed = await caught(early, alice)
    await authority.close()
    assert await submit(api, signed.model_dump(mode="json")) == (403, code)


# --- what a certificate for a node is good for ----------------------------------------------------------------------


async def test_the_certificate_for_one_node_is_refused_by_every_other(
    site: Site, api: httpx.AsyncClient, evil: Thief, tmp_path: Path
) -> None:
    """DESIGN "Proof" 3: one principal, one node, one login, 60 s; and sshd's log names person and session."""
    request, private = with_own_key(await caught(evil, site.alice))
    said = (await api.post("/v1/sessions", json=request)).json()
    keyfile.write_private(tmp_path / "id", private)
    (tmp_path / "id-cert.pub").write_text(said["target_certificate"] + "\n")

    entered = site.web1.run(tmp_path / "id", "echo", "in")
    assert (entered.returncode, entered.stdout) == (0, "in\n"), site.web1.log.read_text()
    refused = site.db1.run(tmp_path / "id", "echo", "in")
    assert (refused.returncode, refused.stdout) == (255, "")
    assert "Certificate does not contain an authorized principal" in site.db1.log.read_text()
    if getpass.getuser() == "root":  # only root's sshd has other accounts to try
        assert site.web1.run(tmp_path / "id", "true", login="daemon").returncode == 255

    assert f'ID "u=alice;s={said["session"]}"' in site.web1.log.read_text()
    certificate = sshcert.from_line(said["target_certificate"])
    lasts = certificate.valid_before - datetime.now(UTC).timestamp()
    assert 0 < lasts <= 60
    shown = printed(tmp_path / "id-cert.pub")
    assert f"{LOGIN}@{said['node_id']}" in shown
    assert shown.count("permit-") == 1  # permit-pty, since a shell was granted
    assert "permit-pty" in shown


def printed(certificate: Path) -> str:
    """A certificate in the words of stock ssh-keygen."""
    return subprocess.run(["ssh-keygen", "-L", "-f", certificate], capture_output=True, text=True, check=True).stdout


def test_an_honest_session_is_named_in_the_nodes_own_log(site: Site) -> None:
    """Certificates that name the human: who reads sshd's log finds the recording."""
    assert site.alice.ssh("web1", "true").returncode == 0
    session = stage.newest(site.alice)
    line = next(line for line in site.web1.log.read_text().splitlines() if session in line)
    assert f"Accepted publickey for {LOGIN}" in line or f'ID "u=alice;s={session}"' in line


# --- held back ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    """An authority whose clock the test turns."""
    (tmp_path / "house").mkdir()
    async with house(tmp_path / "house", clock=Clock(datetime.now(UTC))) as made:
        await made.roles(ROLES_OF_HOME)
        await made.user("alice", "developer")
        await made.node("web1", env="dev")
        yield made


ROLES_OF_HOME = f"""
roles:
  - name: developer
    allow:
      - {{nodes: {{env: [dev]}}, logins: ["{LOGIN}"], actions: [exec]}}
"""


@pytest.mark.parametrize(("seconds", "said"), [(85, (200, "allow")), (121, (403, "proof_stale"))])
async def test_a_proof_held_back_is_soon_worth_nothing(
    home: House, tmp_path: Path, seconds: int, said: tuple[int, str]
) -> None:
    """DESIGN "Proof" 2: fresh. The signature is real ``ssh``'s, the two minutes are not. (A beacon serves for 30 s.)"""
    bastion = await home.bastion()
    assert isinstance(bastion.host_key.private, Ed25519PrivateKey)
    key = forge.ed25519()
    answer = await home.login("alice", key)
    assert isinstance(key.private, Ed25519PrivateKey)
    keyfile.write_private(tmp_path / "id", key.private)
    (tmp_path / "id-cert.pub").write_text(answer.json()["certificate"] + "\n")
    state = own_state(tmp_path, bastion.host_key.private, id=bastion.id)
    async with thief(tmp_path / "evil", state, OverHttp(bastion.http)) as evil:
        signed = await evil.catch(anywhere(evil.port, tmp_path / "id"), environment(tmp_path))
    home.clock.turn(seconds=seconds)
    assert await submit(bastion.http, signed.model_dump(mode="json")) == said
