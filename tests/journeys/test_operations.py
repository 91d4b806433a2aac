"""
What an operator meets: nodes that join, people who come and go, stops and starts, backups, files that were touched.
"""

from __future__ import annotations

import getpass
import html
import os
import re
import secrets
import shutil
import sqlite3
import ssl
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ca.wire import LoginRequest
from recordings import sshsig
from recordings.sshkey import PublicKey
from tests.journeys import stage
from tests.journeys.stage import live_session
from tests.product import BIN, ROLES, Person, Product, Site, environment, run, start_product
from tests.sshd import LOGIN, Sshd, free_port, running_sshd, stop

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="the configuration that is written is for an sshd of root")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- nodes ----------------------------------------------------------------------------------------------------------


@AS_ROOT
def test_a_host_joins_by_one_command_and_people_get_in(alice: Person, product: Product) -> None:
    """The token works once; what is written, sshd takes; a second host of that name needs the operator's word."""
    with joining(product, "fresh1") as server:
        token = product.bartizan("nodes", "join-token", "--label", "env=dev", "--name", "fresh*").stdout.strip()
        told = join(product, server, "fresh1", token)
        assert told.returncode == 0, told.stderr
        assert "joined as fresh1" in told.stderr
        snippet = (server.folder / "sshd_config.d" / "bartizan.conf").read_text()
        assert re.search(r"^AuthorizedPrincipalsCommand /bin/echo %u@n-\w+$", snippet, flags=re.MULTILINE)
        assert (server.folder / "bartizan" / "revoked_keys").read_bytes() == b""
        server.reload()
        alice.bart("ls")  # writes the new name down for ssh
        entered = alice.ssh("fresh1", "echo", "in")
        assert (entered.returncode, entered.stdout) == (0, b"in\n"), entered.stderr

        again = join(product, server, "fresh1", token)
        assert again.returncode == 1
        assert "token" in again.stderr

        plain = product.bartizan("nodes", "join-token", "--label", "env=dev").stdout.strip()
        taken = join(product, server, "fresh1", plain)
        assert taken.returncode == 1
        assert "fresh1" in taken.stderr
        for suffix in ("", ".pub", "-cert.pub"):
            (server.folder / f"ssh_host_ed25519_key{suffix}").unlink()
        subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", server.host_key], check=True)
        words = ["--name", "fresh1", "--label", "env=dev", "--replace"]
        replacing = product.bartizan("nodes", "join-token", *words).stdout.strip()
        assert join(product, server, "fresh1", replacing).returncode == 0
        server.reload()
        assert alice.ssh("fresh1", "echo", "in").stdout == b"in\n"
        renew: list[str | Path] = [BIN / "bartizan", "node", "renew", "--ssh-dir", server.folder]
        renewed = run(renew, environment(product.folder), stdin="", check=True)
        assert "renewed until" in renewed.stderr


@contextmanager
def joining(product: Product, name: str) -> Iterator[Sshd]:
    """A host with an ordinary sshd that reads ``sshd_config.d``; its node is gone afterwards."""
    folder = product.folder / "nodes" / name
    (folder / "sshd_config.d").mkdir(parents=True)
    try:
        with running_sshd(folder, lines=[f"Include {folder}/sshd_config.d/*.conf"]) as server:
            yield server
    finally:
        with stage.operator(product) as door:
            door.delete(f"/v1/nodes/{name}")


def join(product: Product, server: Sshd, name: str, token: str) -> subprocess.CompletedProcess[str]:
    where = ["--authority", f"https://{product.web}", "--pin", product.pin, "--token", "-", "--name", name]
    where += ["--address", server.address, "--ssh-dir", str(server.folder)]
    command: list[str | Path] = [BIN / "bartizan", "node", "join", *where]
    return run(command, environment(product.folder), stdin=f"{token}\n", check=False)


def test_a_configuration_that_sshd_would_not_take_is_not_left_behind(product: Product, tmp_path: Path) -> None:
    """A failed step leaves no half state, and the token is still good."""
    folder = tmp_path / "ssh"
    (folder / "sshd_config.d").mkdir(parents=True)
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", folder / "ssh_host_ed25519_key"], check=True)
    (folder / "sshd_config").write_text(
        f"Include {folder}/sshd_config.d/*.conf\nHostKey {folder}/ssh_host_ed25519_key\n"
    )
    (folder / "sshd_config.d" / "zz.conf").write_text("NoSuchKeyword yes\n")
    before = sorted(folder.rglob("*"))
    server = Sshd(1, folder, subprocess.Popen(["true"]))
    server.process.wait()
    refused = join(product, server, "fresh2", "not-a-token")
    assert refused.returncode == 1
    assert "sshd -t refuses" in refused.stderr
    (folder / "sshd_config.d" / "zz.conf").unlink()
    wrong = join(product, server, "fresh2", "not-a-token")
    assert (wrong.returncode, "token" in wrong.stderr) == (1, True)
    (folder / "sshd_config.d" / "zz.conf").touch()
    assert sorted(folder.rglob("*")) == before


def test_a_node_without_a_certificate_is_entered_by_its_pinned_key_alone(
    alice: Person, product: Product, tmp_path: Path
) -> None:
    """CV-24: no trust on first use. Another key at that address gets nothing, and both fingerprints are told."""
    folder = tmp_path / "pinned1"
    with running_sshd(folder, target_ca=product.bartizan("ca", "export", "target").stdout) as server:
        pin = ["--host-key", str(server.host_key.with_suffix(".pub"))]
        product.bartizan("nodes", "add", "pinned1", "--address", server.address, "--label", "env=dev", *pin)
        try:
            with stage.operator(product) as door:
                id = next(one for one in door.get("/v1/nodes").json() if one["name"] == "pinned1")["id"]
            (folder / "principals").write_text(f"{LOGIN}@{id}\n")
            server.reload(f"AuthorizedPrincipalsFile {folder}/principals")
            alice.bart("ls")
            assert alice.ssh("pinned1", "echo", "in").stdout == b"in\n"

            registered = fingerprint(server.host_key)
            for suffix in ("", ".pub"):
                (folder / f"ssh_host_ed25519_key{suffix}").unlink()
            subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", server.host_key], check=True)
            server.reload()
            refused = alice.ssh("pinned1", "echo", "in")
            assert (refused.returncode, refused.stdout) == (255, b"")
            for shown in (registered, fingerprint(server.host_key)):
                assert shown in refused.stderr.decode()
            assert "Accepted" not in server.log.read_text().rpartition("Server listening")[2]
            stage.eventually(lambda: stage.events(product, "upstream.hostkey_failed", node="pinned1"))
        finally:
            product.bartizan("nodes", "remove", "pinned1")


def fingerprint(key: Path) -> str:
    return subprocess.run(["ssh-keygen", "-lf", key], capture_output=True, text=True, check=True).stdout.split()[1]


# --- people ---------------------------------------------------------------------------------------------------------


def test_a_wrong_pin_stops_everything_before_a_password_leaves(product: Product, tmp_path: Path) -> None:
    person = Person(product, "alice", "never sent", tmp_path / "laptop")
    person.folder.mkdir()
    where = ["--authority", f"https://{product.web}", "--user", "alice", "--password-stdin"]
    refused = person.bart("login", *where, "--pin", "sha256:" + "0" * 64, stdin="never sent\n", check=False)
    assert refused.returncode == 1
    assert product.pin in refused.stderr
    assert not (person.home / "id").exists()
    assert not stage.events(product, "login.failed", user="alice")


def test_five_wrong_passwords_close_the_door_for_that_person_from_that_source(product: Product) -> None:
    """Nobody locks others out: from elsewhere the right password still works, and so does an administrator's reset."""
    name, password = "mallory", "a right password"
    with stage.operator(product) as door, web(product) as here, web(product, source="127.0.0.9") as elsewhere:
        door.post("/v1/users", json={"name": name, "roles": ["developer"], "password": password}).raise_for_status()
        for _ in range(5):
            assert sign_in(here, name, "a wrong password") == (401, "login_failed")
        assert sign_in(here, name, password) == (403, "locked_out")
        assert sign_in(here, "nobody", password) == (401, "login_failed")
        assert sign_in(elsewhere, name, password)[0] == 200
        assert stage.events(product, "login.locked_out", user=name, source="127.0.0.1")
        new = "another password"
        door.post(f"/v1/users/{name}/password", json={"password": new}).raise_for_status()
        assert sign_in(here, name, new)[0] == 200


@contextmanager
def web(product: Product, *, source: str | None = None) -> Iterator[httpx.Client]:
    """A stranger at the web door."""
    context = ssl.create_default_context(cafile=str(product.data / "root.pem"))
    transport = httpx.HTTPTransport(verify=context, local_address=source)
    with httpx.Client(base_url=f"https://{product.web}", transport=transport, timeout=30) as client:
        yield client


def sign_in(http: httpx.Client, user: str, password: str) -> tuple[int, str]:
    key = Ed25519PrivateKey.generate()
    nonce = http.post("/v1/login/challenge").json()["nonce"]
    request = LoginRequest(
        user=user,
        password=password,
        public_key=PublicKey.of(key.public_key()).line(),
        nonce=nonce,
        possession=sshsig.sign(key, nonce.encode(), namespace="bartizan-enrol"),
    )
    answer = http.post("/v1/login", json=request.model_dump(mode="json", exclude_none=True))
    return answer.status_code, answer.json().get("error", "")


def test_an_invitation_is_a_link_that_works_once(product: Product) -> None:
    added = product.bartizan("users", "add", "ivy", "--role", "developer")
    link = added.stdout.strip().removeprefix(f"https://{product.web}")
    password = secrets.token_urlsafe(12)
    with web(product) as browser:
        page = browser.get(link)
        assert page.status_code == 200
        assert browser.get(link).status_code == 200, "looking does not use it up: mail scanners look"
        (form,) = re.findall(r'name="form" value="([^"]+)"', page.text)
        fields = {"form": html.unescape(form), "password": password, "again": password}
        assert browser.post(link, data=fields | {"form": "made up"}).status_code == 403
        assert browser.post(link, data=fields | {"password": "short", "again": "short"}).status_code == 400
        assert browser.post(link, data=fields).status_code == 200
        assert browser.get(link).status_code == 404
        assert browser.post(link, data=fields).status_code in (403, 404)
        assert sign_in(browser, "ivy", password)[0] == 200
    assert stage.events(product, "user.password_set", user="ivy")


def test_after_logout_nothing_is_left_to_steal(product: Product) -> None:
    """And the token that somebody copied before is worth nothing."""
    leaver = stage.guest(product, "leaver", "developer")
    assert leaver.ssh("web1", "true").returncode == 0
    token = (leaver.home / "token").read_text().strip()
    with web(product) as http:
        headers = {"Authorization": f"Bearer {token}"}
        assert http.get("/v1/me", headers=headers).status_code == 200
        leaver.bart("logout")
        assert http.get("/v1/me", headers=headers).status_code == 401
    assert not [path for path in leaver.home.rglob("*") if path.is_file() and path.stat().st_size]
    assert leaver.bart("ls", check=False).returncode == 1


def test_what_is_written_for_ssh_is_for_the_owner_and_names_what_it_trusts(alice: Person) -> None:
    """CLI-03: never ``*``. CLI-04: 0600, in a folder 0700. CLI-02: no word in it but those that we write."""
    assert mode(alice.home) == 0o700
    files = [path for path in alice.home.rglob("*") if path.is_file()]
    assert {"id", "id-cert.pub", "token", "ssh_config", "known_hosts"} <= {path.name for path in files}
    assert {path.name: mode(path) for path in files} == {path.name: 0o600 for path in files}
    for line in (alice.home / "known_hosts").read_text().splitlines():
        marker, names, kind, *_ = line.split()
        assert (marker, kind) == ("@cert-authority", "ssh-ed25519")
        assert "*" not in names
    words = {line.split()[0] for line in alice.config.read_text().splitlines() if line.strip() and line[:1] != "#"}
    assert not words & {"LocalCommand", "RemoteCommand", "PermitLocalCommand", "SendEnv", "LocalForward"}
    for node, host_key_alias in (("web1", "web1"), ("web1.bartizan", "web1"), ("bartizan", "bartizan")):
        options = alice_options(alice, node)
        assert options["hostkeyalias"] == host_key_alias
        assert options["stricthostkeychecking"] == "true"
        assert options["forwardagent"] == "no"
        assert options["identityagent"] == "none"
    assert "proxycommand" not in alice_options(alice, "somewhere.example.org")


def alice_options(person: Person, name: str) -> dict[str, str]:
    """What stock ssh makes of the written configuration."""
    shown = subprocess.run(
        ["ssh", "-G", "-F", person.config, name], env=person.environment, capture_output=True, text=True, check=True
    ).stdout
    return dict(line.partition(" ")[::2] for line in shown.splitlines())


# --- secrets --------------------------------------------------------------------------------------------------------


def test_no_secret_is_in_any_log_argument_environment_or_recording(site: Site) -> None:
    """LOG-02: a canary grep over everything that somebody might read without being meant to."""
    product, alice = site.product, site.alice
    alice.ssh("web1", "true")
    token = product.bartizan("bastions", "token").stdout.strip()
    joined = product.bartizan("nodes", "join-token").stdout.strip()
    invited = product.bartizan("users", "add", f"canary-{secrets.token_hex(3)}").stdout.strip().rpartition("/")[2]
    canaries = {
        "password": alice.password,
        "login token": (alice.home / "token").read_text().strip(),
        "operator's token": (product.data / "admin.token").read_text().strip(),
        "bastion token": token,
        "join token": joined,
        "invitation": invited,
        "person's key": heart(alice.home / "id"),
        "bastion's host key": heart(product.data / "bastion" / "host_key"),
        "recording key": heart(product.data / "bastion" / "recording_key"),
        "TLS key": heart(product.data / "bastion" / "tls.key"),
        "master key": (product.data / "secrets" / "master.key").read_text().strip(),
    }
    assert all(len(secret) >= 16 for secret in canaries.values())
    places = {
        "log": product.log,
        "audit log": product.bartizan("audit", "export", "--json").stdout,
        "database": "".join(path.read_bytes().decode("latin-1") for path in product.data.glob("bartizan.db*")),
        "outbox": "".join(path.read_text() for path in (product.data / "bastion" / "outbox").glob("*")),
        "web1's log": site.web1.log.read_text(),
        "recording": stage.sealed_tape(product, stage.newest(alice)).text().decode(),
    }
    for pid in [product.process.pid, *stage.children(product, "")]:
        places[f"argv of {pid}"] = " ".join(stage.argv(pid))
        places[f"environ of {pid}"] = Path(f"/proc/{pid}/environ").read_text()
    found = [
        f"{what} in {where}" for what, secret in canaries.items() for where, text in places.items() if secret in text
    ]
    assert not found
    for path in (product.data, product.data / "secrets", product.data / "bastion", product.data / "recordings"):
        assert mode(path) == 0o700, path
    wide = [path.name for path in product.data.rglob("*") if path.is_file() and mode(path) & 0o077]
    assert wide == ["root.pem"]  # what every browser is shown


def heart(key: Path) -> str:
    """A line out of the middle of a private key file."""
    lines = key.read_text().splitlines()
    return lines[len(lines) // 2]


# --- stops and starts -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class House:
    """A product of this module's own, stopped and started again on the same ports."""

    folder: Path
    web1: Sshd
    product: Product
    people: dict[str, Person] = field(default_factory=dict)

    @property
    def alice(self) -> Person:
        return self.people["alice"]

    def start(self) -> Product:
        if self.product.process.poll() is not None:
            address = {"web": self.product.web, "ssh": self.product.ssh}
            self.product.process = start_product(self.folder, "--workers", "1", **address).process
        return self.product

    def stop(self) -> int:
        stop(self.product.process, within=30)
        return self.product.process.returncode

    def up(self, *other: str) -> subprocess.CompletedProcess[str]:
        """``bartizan up`` to its end, for those that must not start."""
        doors = ["--web", self.product.web, "--ssh", self.product.ssh]
        return refused_start(self.product.data, *(list(other) or doors))


def refused_start(data: Path, *doors: str) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [BIN / "bartizan", "up", "--data", data, *doors]
    return run(command, environment(data.parent), stdin="", check=False)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("own")
    product = start_product(folder, "--workers", "1")
    try:
        with running_sshd(folder / "nodes" / "web1") as web1:
            product.apply_roles(ROLES)
            product.trust("web1", web1, env="dev")
            made = House(folder, web1, product)
            for name, role in (("alice", "developer"), ("carol", "auditor")):
                made.people[name] = stage.guest(product, name, role)
            yield made
    finally:
        stop(product.process, within=30)


def test_a_second_start_on_the_same_folder_is_refused_clearly(own: House) -> None:
    own.start()
    second = own.up()
    assert second.returncode == 1
    assert "listen on" in second.stderr or "already running" in second.stderr
    third = own.up("--web", f"127.0.0.1:{free_port()}", "--ssh", f"127.0.0.1:{free_port()}")
    assert third.returncode == 1
    assert f"`bartizan up` is already running on {own.product.data}" in third.stderr
    assert "hint: stop it first" in third.stderr
    assert own.alice.ssh("web1", "true").returncode == 0


def test_sigterm_tells_people_seals_and_leaves_nothing_running(own: House) -> None:
    product = own.start()
    pids = stage.children(product, "")
    with live_session(own.alice) as live:
        assert own.stop() == 0
        assert live.ends() == 255
        assert "the bastion is shutting down: connect again in a moment" in live.said
    kept = stage.tape(product, live.id)
    assert kept.sealed
    assert kept.manifest["how"] == "bastion_stopping"
    assert not (own.folder / "ready").exists()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert not (product.data / "authority.sock").exists()
    own.start()
    assert own.alice.ssh("web1", "echo", "again").stdout == b"again\n"
    assert stage.sessions(product)[1]["how"] == "bastion_stopping"


def test_an_authority_that_is_killed_comes_back_and_still_reaches_what_is_live(own: House) -> None:
    """Sessions outlive it by their lease, and none of them is forgotten."""
    product = own.start()
    with stage.operator(product) as door, live_session(own.alice) as live:
        (pid,) = stage.children(product, "ca.serve")
        before = product.log.count("authority ready")
        stage.killed(pid)
        live.send(b"still there\n")
        stage.eventually(lambda: b"still there" in live.output)
        stage.eventually(lambda: product.log.count("authority ready") > before, what="the authority is back")
        assert [one["id"] for one in stage.sessions(product, live="true")] == [live.id]
        door.post(f"/v1/sessions/{live.id}/termination", json={"reason": "lunch"}).raise_for_status()
        assert live.ends() == 255
        assert "ended by an administrator: lunch" in live.said
    assert stage.sealed_tape(product, live.id).manifest["how"] == "terminated"
    assert "the chain holds" in product.bartizan("audit", "verify").stdout
    assert "the authority ended (signal SIGKILL); it is started again" in product.log


def test_a_copy_of_the_folder_is_a_backup(own: House) -> None:
    """docs/how-to/backup-and-restore.md, "Back up at rest": the restored one knows people, nodes and evidence."""
    product = own.start()
    own.alice.ssh("web1", "true")
    session = stage.sealed_tape(product, stage.newest(own.alice)).folder.name
    own.stop()
    restored = own.folder.with_name(f"{own.folder.name}-restored")
    subprocess.run(["cp", "-a", own.folder, restored], check=True)
    product.data.rename(own.folder / "lost")
    try:
        again = start_product(restored, "--workers", "1", web=product.web, ssh=product.ssh)
        try:
            assert own.alice.ssh("web1", "echo", "again").stdout == b"again\n"
            assert "the chain holds" in again.bartizan("audit", "verify").stdout
            assert "verified" in own.people["carol"].bart("recordings", "verify", session).stdout
            assert again.pin == product.pin
        finally:
            stop(again.process, within=30)
    finally:
        (own.folder / "lost").rename(product.data)


def test_keys_that_others_could_read_are_not_used(own: House) -> None:
    """KEY-01: mode, link and plain text, each with a message that names the file and says what to do."""
    own.stop()
    data = own.product.data
    sealed = data / "secrets" / "user-ca.sealed"
    assert sealed.exists(), sorted(data.joinpath("secrets").iterdir())
    for path in (sealed, data / "secrets" / "master.key"):
        path.chmod(0o644)
        refused = own.up()
        assert refused.returncode == 1
        assert f"{path}: mode is 0644, must be 0600" in refused.stderr
        assert f"hint: chmod 600 {path}" in refused.stderr
        path.chmod(0o600)

    away = sealed.with_name("away")
    sealed.rename(away)
    sealed.symlink_to(away)
    refused = own.up()
    assert (refused.returncode, f"{sealed}: is a symbolic link" in refused.stderr) == (1, True)
    sealed.unlink()
    sealed.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    sealed.chmod(0o600)
    refused = own.up()
    assert (refused.returncode, f"{sealed}: is not encrypted" in refused.stderr) == (1, True)
    shutil.copy(data / "secrets" / "host-ca.sealed", sealed)
    refused = own.up()
    assert (refused.returncode, "altered, or another file's" in refused.stderr) == (1, True)
    away.replace(sealed)

    if getpass.getuser() == "root":
        os.chown(sealed, 65534, -1)
        refused = own.up()
        assert (refused.returncode, "belongs to user 65534" in refused.stderr) == (1, True)
        os.chown(sealed, 0, -1)
    own.start()
    assert own.alice.ssh("web1", "true").returncode == 0


def test_a_bastion_whose_key_others_could_read_does_not_run(own: House) -> None:
    own.stop()
    key = own.product.data / "bastion" / "recording_key"
    key.chmod(0o640)
    refused = own.up()
    assert refused.returncode == 1
    assert f"{key} can be read by others (mode 640)" in refused.stderr
    key.chmod(0o600)
    own.start()


SWAP = """
UPDATE audit SET seq = -1 WHERE seq = :bad;
UPDATE audit SET seq = :bad WHERE seq = :bad + 1;
UPDATE audit SET seq = :bad + 1 WHERE seq = -1
"""


@pytest.mark.parametrize(
    ("tamper", "bad"),
    [
        ("UPDATE audit SET fields = replace(fields, 'alice', 'carol') WHERE seq = :bad", "first with alice"),
        ("UPDATE audit SET actor = 'somebody' WHERE seq = :bad", "6"),
        ("UPDATE audit SET at = '2020-01-01T00:00:00.000000Z' WHERE seq = :bad", "7"),
        ("DELETE FROM audit WHERE seq = :bad", "8"),
        (SWAP, "9"),
    ],
    ids=["field", "actor", "time", "deleted", "reordered"],
)
def test_an_audit_row_that_somebody_touched_is_named(own: House, tamper: str, bad: str) -> None:
    """LOG-03: delete, alter or reorder one row; verify names the first bad sequence number, exit status 1."""
    product = own.start()
    assert product.bartizan("audit", "verify").returncode == 0
    with closing(sqlite3.connect(product.data / "bartizan.db", timeout=30)) as db:
        if not bad.isdigit():
            (first,) = db.execute("SELECT min(seq) FROM audit WHERE fields LIKE '%alice%'").fetchone()
            bad = str(first)
        kept = db.execute("SELECT * FROM audit WHERE seq IN (?, ? + 1) ORDER BY seq", (bad, bad)).fetchall()
        with db:
            for statement in tamper.split(";"):
                db.execute(statement, {"bad": int(bad)})
        try:
            found = product.bartizan("audit", "verify", check=False)
        finally:
            with db:
                db.execute("DELETE FROM audit WHERE seq IN (?, ? + 1)", (bad, bad))
                db.executemany("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?)", kept)
    assert found.returncode == 1
    assert f"the chain is broken at event {bad}:" in found.stdout
    assert product.bartizan("audit", "verify").returncode == 0
