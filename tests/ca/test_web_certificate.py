"""ca/web_certificate.py: browsers see the operator's certificate, whoever holds our pin sees ours."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import NameOID

from ca import tls
from ca.errors import InvalidInput
from ca.serve import tls_context
from ca.settings import Address
from tests.ca.house import BEGAN, House, house

NAME = "bartizan.example.org"


def write_certificate(folder: Path, issuer: str, *, password: bytes | None = None) -> tuple[Path, Path]:
    """A certificate for NAME that says who issued it, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(BEGAN - timedelta(days=1))
        .not_valid_after(BEGAN + timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / "web.pem", folder / "web.key"
    chain.write_bytes(certificate.public_bytes(Encoding.PEM))
    if password is None:
        private.write_bytes(tls.private_pem(key))
    else:
        sealing = BestAvailableEncryption(password)
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealing))
    return chain, private


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    (tmp_path / "data").mkdir()
    chain, key = write_certificate(tmp_path, "first")
    change = {"web_certificate": chain, "web_key": key, "public_web": Address(NAME, 443)}
    async with house(tmp_path / "data", **change) as made:
        yield made


def shown(server: ssl.SSLContext, name: str | None) -> str:
    """The common name of the certificate that *server* shows to whoever asks for *name*."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(back, there, server_hostname=name)
    answering = server.wrap_bio(there, back, server_side=True)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for side in (asking, answering):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
    der = asking.getpeercert(binary_form=True)
    assert der is not None
    names = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value)


async def test_the_public_name_shows_the_operators_certificate_and_nothing_else_does(home: House) -> None:
    context = tls_context(home.authority)
    assert shown(context, NAME) == "first"
    assert shown(context, NAME.upper()) == "first"
    for other in ("localhost", "127.0.0.1", "elsewhere.example.org", None):
        assert shown(context, other) == "localhost"


async def test_new_files_are_taken_up_and_broken_ones_are_not(home: House, tmp_path: Path) -> None:
    context = tls_context(home.authority)
    write_certificate(tmp_path, "second")
    assert shown(context, NAME) == "second"
    (tmp_path / "web.pem").write_text("half a file")
    assert shown(context, NAME) == "second"
    (tmp_path / "web.key").unlink()
    assert shown(context, NAME) == "second"
    write_certificate(tmp_path, "third")
    os.utime(tmp_path / "web.pem")
    assert shown(context, NAME) == "third"


async def test_what_is_no_certificate_and_key_stops_the_start_with_a_sentence(home: House, tmp_path: Path) -> None:
    write_certificate(tmp_path, "sealed", password=b"a passphrase")
    with pytest.raises(InvalidInput, match="sealed with a passphrase"):
        tls_context(home.authority)
    (tmp_path / "web.pem").write_text("nothing")
    with pytest.raises(InvalidInput, match="no certificate and its key"):
        tls_context(home.authority)
    (tmp_path / "web.pem").unlink()
    with pytest.raises(InvalidInput, match="cannot be read"):
        tls_context(home.authority)


async def test_half_of_the_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="both, or neither"):
        async with house(tmp_path, web_certificate=tmp_path / "x"):
            pass
    with pytest.raises(InvalidInput, match="a public host name"):
        async with house(tmp_path, web_certificate=tmp_path / "x", web_key=tmp_path / "y"):
            pass
