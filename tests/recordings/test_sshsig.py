"""recordings/sshsig.py: what ``ssh-keygen -Y`` signs we check, what we sign it checks, and nothing else passes."""

from __future__ import annotations

import base64
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from recordings import sshsig
from recordings.keyfile import write_private
from recordings.sshkey import PublicKey, SignatureError
from recordings.sshwire import string, uint32
from tests.ca import forge
from tests.ca.forge import Forged, Signer

NAMESPACE = "bartizan-recording"
KEY = Ed25519PrivateKey.generate()
PUBLIC = PublicKey.of(KEY.public_key())
MESSAGE = b'{"version": 1}\n'
SIGNED = sshsig.sign(KEY, MESSAGE, namespace=NAMESPACE)


def refused(armored: str, message: bytes = MESSAGE, namespace: str = NAMESPACE) -> str:
    with pytest.raises(SignatureError) as caught:
        sshsig.verify(armored, message, namespace=namespace)
    return caught.value.code


def armor(body: bytes) -> str:
    return f"{sshsig.BEGIN}\n{base64.b64encode(body).decode()}\n{sshsig.END}\n"


def body_of(armored: str) -> bytes:
    return base64.b64decode("".join(armored.splitlines()[1:-1]))


def signed_by(signer: Signer, *, hash_name: bytes = b"sha512", algorithm: str | None = None) -> str:
    """As any client would do it."""
    digest = sshsig.HASHES[hash_name](MESSAGE).digest()
    inner = b"SSHSIG" + b"".join(string(part) for part in (NAMESPACE.encode(), b"", hash_name, digest))
    fields = (signer.blob, NAMESPACE.encode(), b"", hash_name, signer.sign(inner, algorithm))
    return armor(b"SSHSIG" + uint32(1) + b"".join(string(field) for field in fields))


@given(st.binary(max_size=300), st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30))
def test_what_we_sign_we_verify(message: bytes, namespace: str) -> None:
    assert sshsig.verify(sshsig.sign(KEY, message, namespace=namespace), message, namespace=namespace) == PUBLIC.blob


def test_ssh_keygen_verifies_what_we_sign(tmp_path: Path) -> None:
    """What an auditor does, with stock tools."""
    (tmp_path / "allowed_signers").write_text(f'bastion1 namespaces="{NAMESPACE}" {PUBLIC.line()}\n')
    (tmp_path / "manifest.json.sig").write_text(SIGNED)
    command: list[str | Path] = ["ssh-keygen", "-Y", "verify", "-f", tmp_path / "allowed_signers", "-I", "bastion1"]
    command += ["-n", NAMESPACE, "-s", tmp_path / "manifest.json.sig"]
    checked = subprocess.run(command, input=MESSAGE, capture_output=True, timeout=10, check=False)
    assert checked.returncode == 0, checked.stderr
    assert subprocess.run(command, input=MESSAGE + b" ", capture_output=True, timeout=10, check=False).returncode != 0


def test_our_armor_is_the_armor_of_ssh_keygen(tmp_path: Path) -> None:
    write_private(tmp_path / "key", KEY)
    theirs = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-f", tmp_path / "key", "-n", NAMESPACE],
        input=MESSAGE,
        capture_output=True,
        timeout=10,
        check=True,
    )
    assert theirs.stdout.decode() == SIGNED  # Ed25519 signs the same bytes the same way


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_we_verify_what_ssh_keygen_signs(tmp_path: Path, kind: str) -> None:
    subprocess.run(["ssh-keygen", "-qt", kind, "-N", "", "-f", tmp_path / "key"], check=True, timeout=60)
    theirs = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-f", tmp_path / "key", "-n", NAMESPACE],
        input=MESSAGE,
        capture_output=True,
        timeout=10,
        check=True,
    )
    key = PublicKey.from_line((tmp_path / "key.pub").read_text())
    assert sshsig.verify(theirs.stdout.decode(), MESSAGE, namespace=NAMESPACE) == key.blob


@pytest.mark.parametrize("signer", forge.every_kind(), ids=lambda signer: signer.algorithm)
@pytest.mark.parametrize("hash_name", [b"sha256", b"sha512"])
def test_people_may_have_any_kind_of_key(signer: Signer, hash_name: bytes) -> None:
    assert sshsig.verify(signed_by(signer, hash_name=hash_name), MESSAGE, namespace=NAMESPACE) == signer.blob


def test_a_signature_for_another_purpose_is_refused() -> None:
    """CA-33: what was signed for git does not enrol a key."""
    assert refused(SIGNED, namespace="git") == "namespace"
    assert refused(sshsig.sign(KEY, MESSAGE, namespace="git")) == "namespace"
    assert refused(sshsig.sign(KEY, MESSAGE, namespace=""), namespace="") == "namespace"


def test_a_signature_over_another_message_is_refused() -> None:
    """CA-33: the signature of another nonce."""
    assert refused(SIGNED, MESSAGE + b"x") == "invalid"


def test_sha1_is_refused() -> None:
    assert refused(signed_by(forge.rsa_key(), algorithm="ssh-rsa")) == "algorithm"


def test_a_certificate_or_a_weak_key_as_signer_is_refused() -> None:
    """CA-29, CA-30."""
    subject = forge.ed25519()
    certificate = Forged(subject=subject).signed(forge.ed25519())
    for blob in (certificate, forge.rsa_blob(65537, (1 << 1023) + 1), b""):
        assert refused(signed_by(Signer(subject.algorithm, subject.private, blob))) == "invalid"


@given(st.integers(min_value=0, max_value=len(body_of(SIGNED)) - 1), st.integers(min_value=1, max_value=255))
def test_any_changed_byte_is_refused(at: int, change: int) -> None:
    body = bytearray(body_of(SIGNED))
    body[at] ^= change
    refused(armor(bytes(body)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: body + b"\0",
        lambda body: body[:-1],
        lambda body: body.replace(b"sha512", b"sha384", 1),
        lambda body: b"SSHSIH" + body[6:],
        lambda body: body[:6] + uint32(2) + body[10:],
        lambda body: b"",
    ],
)
def test_another_body_is_refused(spoil: object) -> None:
    assert callable(spoil)
    refused(armor(spoil(body_of(SIGNED))))


@pytest.mark.parametrize(
    "armored",
    [
        "",
        "hello",
        f"{sshsig.BEGIN}\n{sshsig.END}\n",
        SIGNED.replace(sshsig.BEGIN, "-----BEGIN PGP SIGNATURE-----"),
        SIGNED.replace(sshsig.END, ""),
        "x" + SIGNED,
        SIGNED + "x",
        SIGNED + SIGNED,
        SIGNED.replace("U1NI", "U1N!", 1),
        SIGNED.replace("U1NI", "ääää", 1),
        f"{sshsig.BEGIN}\n{'A' * 100_000}\n{sshsig.END}\n",
    ],
    ids=range(11),
)
def test_other_armor_is_refused(armored: str) -> None:
    assert refused(armored) == "invalid"


def test_lines_may_end_as_windows_ends_them() -> None:
    assert sshsig.verify(SIGNED.replace("\n", "\r\n"), MESSAGE, namespace=NAMESPACE) == PUBLIC.blob


@given(st.text(max_size=200))
def test_no_text_can_crash_the_reader(text: str) -> None:
    with suppress(SignatureError):
        sshsig.verify(text, MESSAGE, namespace=NAMESPACE)
    with suppress(SignatureError):
        sshsig.verify(f"{sshsig.BEGIN}\n{text}\n{sshsig.END}\n", MESSAGE, namespace=NAMESPACE)
