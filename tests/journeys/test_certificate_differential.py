"""
One certificate, five readers: ssh-keygen, a real sshd, asyncssh, cryptography, and ours, never the most lenient.

Each row is a certificate by a CA that all of them trust, and what each says to it. A client of our own sends the
bytes as they are, because ``ssh`` would not load most of them. The columns of the others are asserted, too: when a
new version of one of them changes its mind, we want to know.
"""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import pytest_asyncio
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from ca import sshcert
from ca.sshcert import CertificateError, CertKind
from recordings.sshkey import as_line
from recordings.sshwire import string
from tests.ca import forge
from tests.ca.forge import Forged, Signer, option
from tests.sshd import LOGIN, Sshd, openssh_version, running_sshd

CA, RSA_CA, STRANGER = forge.ed25519(), forge.rsa_key(), forge.ed25519()
PERSON = forge.ed25519()
ME = LOGIN.encode()
START = int(datetime.now(UTC).timestamp())
GOOD = Forged(subject=PERSON, principals=[ME], valid_after=START - 60, valid_before=START + 3600)

ACCEPT, DENY = True, False


@dataclass(frozen=True)
class Row:
    """A certificate, and who takes it. ``ours`` is the code of our refusal, None where we take it too."""

    blob: Callable[[], bytes]
    sshd: bool
    asyncssh: bool
    cryptography: bool
    """Its parser and the signature; it has no policy."""
    ours: str | None
    keygen: bool = True
    """Whether ``ssh-keygen -L`` can read it; it checks no signature and no policy."""


def signed(ca: Signer = CA, algorithm: str | None = None, **change: Any) -> Callable[[], bytes]:
    return lambda: replace(GOOD, **change).signed(ca, algorithm)


def options(*pairs: tuple[bytes, bytes]) -> Callable[[], bytes]:
    return signed(options=pairs)


def many(count: int) -> list[bytes]:
    return [b"u%d" % number for number in range(count - 1)] + [ME]


SOURCE, COMMAND = partial(option, "source-address"), partial(option, "force-command")

TABLE: dict[str, Row] = {
    "good": Row(signed(), ACCEPT, ACCEPT, ACCEPT, None),
    "principals = []": Row(signed(principals=()), DENY, ACCEPT, ACCEPT, "principals_empty"),
    "principal root,foo": Row(signed(principals=[ME + b",foo"]), DENY, DENY, ACCEPT, "principal_invalid"),
    "principal *": Row(signed(principals=[b"*"]), DENY, DENY, ACCEPT, "principal_invalid"),
    "principal in another case": Row(signed(principals=[ME.title()]), DENY, DENY, ACCEPT, "principal_invalid"),
    "host cert used by user": Row(signed(kind=2), DENY, DENY, ACCEPT, "kind"),
    "cert type 0": Row(signed(kind=0), DENY, DENY, DENY, "parse", keygen=False),
    'source-address=""': Row(options(SOURCE("")), DENY, ACCEPT, ACCEPT, "source_address"),
    "source-address with host bits": Row(options(SOURCE("127.0.0.1/8")), DENY, DENY, ACCEPT, "source_address"),
    "source-address negated": Row(options(SOURCE("!127.0.0.1,0.0.0.0/0")), DENY, DENY, ACCEPT, "source_address"),
    "two source-address": Row(options(SOURCE("10.0.0.0/8"), SOURCE("127.0.0.0/8")), DENY, ACCEPT, DENY, "parse"),
    "two force-command": Row(options(COMMAND("false"), COMMAND("true")), DENY, ACCEPT, DENY, "parse"),
    'force-command=""': Row(options(COMMAND("")), ACCEPT, ACCEPT, ACCEPT, None),
    "force-command as extension": Row(signed(extensions=[COMMAND("false")]), ACCEPT, ACCEPT, ACCEPT, None),
    "options not sorted": Row(options(SOURCE("127.0.0.0/8"), COMMAND("true")), ACCEPT, ACCEPT, DENY, "parse"),
    "unknown critical option": Row(options(option("x@example.org")), DENY, DENY, ACCEPT, "option_unknown"),
    "unknown extension": Row(signed(extensions=[option("x@example.org")]), ACCEPT, ACCEPT, ACCEPT, None),
    "permit-pty with data": Row(
        signed(extensions=[option("permit-pty", "x")]), DENY, DENY, ACCEPT, "parse", keygen=False
    ),
    "verify-required, plain key": Row(options(option("verify-required")), ACCEPT, DENY, ACCEPT, "option_unknown"),
    "expired": Row(signed(valid_before=START - 30), DENY, DENY, ACCEPT, "expired"),
    "not yet valid": Row(signed(valid_after=START + 1800), DENY, DENY, ACCEPT, "not_yet_valid"),
    "after > before": Row(signed(valid_after=START + 60, valid_before=START - 60), DENY, DENY, ACCEPT, "validity"),
    "RSA CA, rsa-sha2-512": Row(signed(RSA_CA), ACCEPT, ACCEPT, ACCEPT, None),
    "RSA CA, SHA-1": Row(signed(RSA_CA, "ssh-rsa"), DENY, ACCEPT, ACCEPT, "ca_alg"),
    "CA key is a certificate": Row(
        lambda: replace(GOOD, ca_blob=replace(GOOD, subject=CA).signed(CA)).signed(CA),
        DENY,
        DENY,
        DENY,
        "key_type",
        keygen=False,
    ),
    "trailing byte": Row(signed(tail=b"\0"), DENY, DENY, DENY, "parse", keygen=False),
    "256 principals": Row(signed(principals=many(256)), ACCEPT, ACCEPT, ACCEPT, None),
    "257 principals": Row(signed(principals=many(257)), DENY, ACCEPT, ACCEPT, "parse", keygen=False),
    "key id with ESC and newline": Row(signed(key_id=b"me\x1b[2J\n"), ACCEPT, ACCEPT, ACCEPT, "key_id"),
    "key id not UTF-8": Row(signed(key_id=b"\xff\xfe"), ACCEPT, DENY, ACCEPT, "parse"),
    "serial 0": Row(signed(serial=0), ACCEPT, ACCEPT, ACCEPT, "serial"),
    "bad CA signature": Row(
        lambda: replace(GOOD, ca_blob=CA.blob).signed(STRANGER),
        DENY,
        DENY,
        DENY,
        "sig_bad",
        keygen=False,
    ),
}

ROWS = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())


# --- ours ---------------------------------------------------------------------------------------------------------


def ours(blob: bytes) -> str | None:
    try:
        sshcert.verify(
            blob,
            trusted=[CA.public, RSA_CA.public],
            kind=CertKind.USER,
            now=datetime.now(UTC),
            principal=LOGIN,
            source="127.0.0.1",
        )
    except CertificateError as error:
        return error.code
    return None


@ROWS
def test_we_are_the_strictest(row: Row) -> None:
    """CV-01: what one of them refuses, we refuse."""
    assert ours(row.blob()) == row.ours
    if not (row.sshd and row.asyncssh and row.cryptography):
        assert row.ours is not None


def test_a_forced_command_in_the_wrong_section_forces_nothing_here_either() -> None:
    """CA-24: sshd and asyncssh ignore it, so the issuer never writes it there."""
    row = TABLE["force-command as extension"]
    certificate = sshcert.verify(row.blob(), trusted=[CA.public], kind=CertKind.USER, now=datetime.now(UTC))
    assert "force-command" not in certificate.critical_options


# --- ssh-keygen and cryptography ----------------------------------------------------------------------------------


@ROWS
def test_ssh_keygen_reads_what_we_think_it_reads(row: Row, tmp_path: Path) -> None:
    blob = row.blob()
    (tmp_path / "id-cert.pub").write_text(as_line("ssh-ed25519-cert-v01@openssh.com", blob) + "\n")
    shown = subprocess.run(
        ["ssh-keygen", "-L", "-f", tmp_path / "id-cert.pub"], capture_output=True, timeout=10, check=False
    )
    assert (shown.returncode == 0) is row.keygen, shown.stderr
    if row.ours is None:
        certificate = sshcert.parse(blob)
        lines = [line.strip() for line in shown.stdout.decode().splitlines()]
        assert f'Key ID: "{certificate.key_id}"' in lines
        assert f"Serial: {certificate.serial}" in lines
        assert set(certificate.principals) <= set(lines)


@ROWS
def test_cryptography_reads_what_we_think_it_reads(row: Row) -> None:
    line = as_line("ssh-ed25519-cert-v01@openssh.com", row.blob())
    try:
        certificate = load_ssh_public_identity(line.encode())
        assert isinstance(certificate, SSHCertificate)
        certificate.verify_cert_signature()
        accepted = True
    except (ValueError, InvalidSignature, UnsupportedAlgorithm):
        accepted = False
    assert accepted is row.cryptography


# --- two servers --------------------------------------------------------------------------------------------------


class Shown(asyncssh.SSHKeyPair):
    """Shows any bytes as its certificate and signs with the person's key."""

    def __init__(self, blob: bytes, signer: Signer) -> None:
        name = b"ssh-ed25519-cert-v01@openssh.com"
        super().__init__(name, b"ssh-ed25519", (b"ssh-ed25519",), (name,), blob, None)
        self._signer = signer

    def set_sig_algorithm(self, sig_algorithm: bytes) -> None:
        """The public key algorithm stays the certificate's."""

    def sign(self, data: bytes) -> bytes:
        return self._signer.sign(data)


async def lets_in(port: int, blob: bytes, signer: Signer = PERSON) -> bool:
    """Whether the server at *port* takes *blob* as a certificate of ours."""
    try:
        async with asyncssh.connect(
            "127.0.0.1",
            port,
            username=LOGIN,
            known_hosts=None,
            client_keys=[Shown(blob, signer)],
            agent_path=None,
            preferred_auth="publickey",
            config=[],
            login_timeout=20,
        ):
            return True
    except asyncssh.PermissionDenied:
        return False


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    folder = tmp_path_factory.mktemp("sshd")
    with running_sshd(folder, target_ca=f"{CA.public.line()}\n{RSA_CA.public.line()}") as server:
        yield server


@ROWS
async def test_sshd_says_what_we_think_it_says(sshd: Sshd, row: Row) -> None:
    blob = row.blob()
    accepted = await lets_in(sshd.port, blob)
    said = sshd.log.read_text().splitlines()[-6:]
    assert not (row.ours is None and not accepted), said  # we are never the more lenient
    if openssh_version() == (9, 2):  # the version whose column this is
        assert accepted is row.sshd, said


class TrustsTheCA(asyncssh.SSHServer):
    """asyncssh's own check of certificates, as an application would use it."""

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_ca_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return username == LOGIN and key.public_data in (CA.blob, RSA_CA.blob)


@pytest_asyncio.fixture
async def asyncssh_server() -> AsyncIterator[int]:
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.create_server(
        TrustsTheCA, "127.0.0.1", 0, server_host_keys=[host_key], config=[], gss_host=None
    )
    async with server:
        yield server.get_port()


@ROWS
async def test_asyncssh_says_what_we_think_it_says(asyncssh_server: int, row: Row) -> None:
    assert await lets_in(asyncssh_server, row.blob()) is row.asyncssh


# --- what we issue ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ca", forge.every_kind(), ids=lambda signer: signer.algorithm)
async def test_what_any_ca_of_ours_signs_is_taken_by_all(
    ca: Signer, tmp_path: Path, asyncssh_server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CA-32 from the other side: each kind of CA key, hardware keys included."""
    assert isinstance(PERSON.private, Ed25519PrivateKey)
    to_be_signed = sshcert.encode(
        kind=CertKind.USER,
        public_key=PERSON.public,
        serial=1,
        key_id="v1;u=me;n=1",
        principals=[LOGIN],
        valid_after=START - 60,
        valid_before=START + 600,
        critical_options={"source-address": "127.0.0.0/8"},
        extensions=["permit-pty"],
        ca_key=ca.public,
        nonce=bytes(32),
    )
    blob = sshcert.with_signature(to_be_signed, ca.sign(to_be_signed))
    monkeypatch.setattr(TrustsTheCA, "validate_ca_key", lambda _self, _user, key: key.public_data == ca.blob)
    assert await lets_in(asyncssh_server, blob)
    with running_sshd(tmp_path / "sshd", target_ca=ca.public.line()) as server:
        assert await lets_in(server.port, blob), server.log.read_text()


def test_a_thousand_ecdsa_signatures_are_read_by_ssh_keygen(tmp_path: Path) -> None:
    """KEY-04: leading zeros and high bits, between DER and mpint. ssh-keygen checks the CA's signature as it reads."""
    ca = forge.ecdsa()
    lengths = set()
    lines = []
    for serial in range(1, 1001):
        to_be_signed = replace(GOOD, serial=serial).to_be_signed(ca)
        signature = ca.sign(to_be_signed)
        lengths.add(len(signature))
        lines.append(as_line("ssh-ed25519-cert-v01@openssh.com", to_be_signed + string(signature)))
    (tmp_path / "many-cert.pub").write_text("\n".join(lines) + "\n")
    shown = subprocess.run(
        ["ssh-keygen", "-L", "-f", tmp_path / "many-cert.pub"], capture_output=True, text=True, timeout=60, check=False
    )
    assert shown.stdout.count("Serial: ") == 1000, shown.stderr[-500:]
    assert len(lengths) >= 3
