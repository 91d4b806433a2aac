"""recordings/sshkey.py: what is weak, malformed or not a plain key never becomes a PublicKey."""

from __future__ import annotations

import base64
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from recordings import sshkey
from recordings.sshkey import KeyFormatError, PublicKey, SignatureError
from recordings.sshwire import Reader, mpint, string
from tests.ca import forge
from tests.ca.forge import Forged, Signer

KINDS = pytest.mark.parametrize("signer", forge.every_kind(), ids=lambda signer: signer.algorithm)


def refused(blob: bytes) -> str:
    with pytest.raises(KeyFormatError) as caught:
        PublicKey.parse(blob)
    return caught.value.code


def ed25519_blob(point: bytes, name: bytes = b"ssh-ed25519") -> bytes:
    return string(name) + string(point)


# --- keys ---------------------------------------------------------------------------------------------------------


@KINDS
def test_a_key_survives_its_line(signer: Signer) -> None:
    key = PublicKey.parse(signer.blob)
    assert PublicKey.from_line(key.line()) == key
    assert PublicKey.from_line(key.line("alice@laptop") + "\n") == key
    assert key.line("alice@laptop").endswith(" alice@laptop")


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_the_fingerprint_is_the_one_that_ssh_keygen_shows(tmp_path: Path, kind: str) -> None:
    subprocess.run(["ssh-keygen", "-qt", kind, "-N", "", "-C", "me", "-f", tmp_path / "key"], check=True, timeout=60)
    shown = subprocess.run(
        ["ssh-keygen", "-lf", tmp_path / "key.pub"], check=True, capture_output=True, text=True, timeout=10
    )
    key = PublicKey.from_line((tmp_path / "key.pub").read_text())
    assert key.fingerprint() in shown.stdout
    assert key.line("me") == (tmp_path / "key.pub").read_text().strip()


@given(st.sampled_from(forge.every_kind()), st.data())
def test_a_cut_or_prolonged_key_is_refused(signer: Signer, data: st.DataObject) -> None:
    length = data.draw(st.integers(min_value=0, max_value=len(signer.blob) - 1))
    refused(signer.blob[:length])
    refused(signer.blob + b"\0")


@given(st.binary(max_size=120), st.sampled_from([b"", *(string(name.encode()) for name in sshkey.SIGNATURES)]))
def test_no_bytes_can_crash_the_reader(data: bytes, front: bytes) -> None:
    with suppress(KeyFormatError):
        PublicKey.parse(front + data)


@given(st.text(max_size=80))
def test_no_line_can_crash_the_reader(text: str) -> None:
    with suppress(KeyFormatError):
        PublicKey.from_line(text)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 !!!!",
        "ssh-ed25519 ääää",
        "ssh-ed25519 AAAA\nssh-ed25519 AAAA",
        'command="x" ssh-ed25519 AAAA',
        "ssh-rsa " + base64.b64encode(forge.every_kind()[0].blob).decode(),
        "ssh-ed25519 " + base64.b64encode(forge.every_kind()[0].blob).decode().replace("AAAA", "AAA", 1),
        "ssh-ed25519 " + "A" * 200_000,
    ],
    ids=range(9),
)
def test_another_line_is_refused(line: str) -> None:
    with pytest.raises(KeyFormatError):
        PublicKey.from_line(line)


def test_base64_has_one_spelling() -> None:
    key = forge.ed25519(application=b"ssh:").public
    name, text = key.line().split()
    assert text.endswith("=")
    loose = text.rstrip("=")[:-1] + chr(ord(text.rstrip("=")[-1]) + 1) + "=" * (len(text) - len(text.rstrip("=")))
    with pytest.raises(KeyFormatError):
        PublicKey.from_line(f"{name} {loose}")


def test_a_comment_cannot_start_another_line() -> None:
    with pytest.raises(ValueError, match="comment"):
        forge.ed25519().public.line("me\nssh-rsa AAAA")


def test_a_certificate_is_not_a_key() -> None:
    """CA-29: nested certificates (CVE-2025-49825)."""
    assert refused(Forged().signed(forge.ed25519())) == "key_type"


@pytest.mark.parametrize("name", [b"ssh-dss", b"ssh-ed448", b"ssh-xmss@openssh.com", b"", b"\xff", b"rsa-sha2-512"])
def test_other_kinds_of_keys_are_not_taken(name: bytes) -> None:
    """CA-31: DSA."""
    assert refused(string(name) + string(bytes(32))) == "key_type"


@pytest.mark.parametrize(
    "blob",
    [
        forge.rsa_blob(65537, (1 << 1023) + 1),
        forge.rsa_blob(65537, (1 << 2047) + 1),
        forge.rsa_blob(65537, (1 << 3070) + 1),
        forge.rsa_blob(65537, (1 << 8192) + 1),
        forge.rsa_blob(65537, (1 << 16383) + 1),
        forge.rsa_blob(1, (1 << 3071) + 1),
        forge.rsa_blob(3, (1 << 3071) + 1),
        forge.rsa_blob(2**65 + 1, (1 << 3071) + 1),
        forge.rsa_blob(65537, 1 << 3071),
        forge.rsa_blob(65537, 0),
    ],
    ids=["1024", "2048", "3071", "8193", "16384", "e=1", "e=3", "e=2^65+1", "even", "zero"],
)
def test_weak_rsa_keys_are_refused_at_no_cost(blob: bytes) -> None:
    """CA-30, DOS-11: less than 50 ms of CPU, in truth far less than one."""
    before = time.process_time()
    assert refused(blob) == "key_weak"
    assert time.process_time() - before < 0.05


@pytest.mark.parametrize(
    "numbers",
    [
        string(b"\0\1\0\1") + mpint((1 << 3071) + 1),
        mpint(65537) + string(b"\x80" + bytes(383)),
        mpint(65537) + string(b"\0\0\x80" + bytes(382) + b"\1"),
        mpint(65537) + string(b"\1" * 3000),
    ],
    ids=["padded exponent", "negative modulus", "padded modulus", "endless modulus"],
)
def test_rsa_numbers_have_one_spelling(numbers: bytes) -> None:
    assert refused(string(b"ssh-rsa") + numbers) == "key_invalid"


SMALL = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]


@pytest.mark.parametrize("point", SMALL)
@pytest.mark.parametrize("name", [b"ssh-ed25519", b"sk-ssh-ed25519@openssh.com"])
def test_points_with_which_anyone_can_sign_are_refused(point: str, name: bytes) -> None:
    """CA-31: all-zero and all other points of small order, and their second spellings."""
    application = string(b"ssh:") if name.startswith(b"sk-") else b""
    assert refused(ed25519_blob(bytes.fromhex(point), name) + application) == "key_invalid"


def test_a_point_that_is_not_on_the_edwards_curve_is_refused() -> None:
    """CA-31: y = 2 has no x."""
    assert refused(ed25519_blob((2).to_bytes(32, "little"))) == "key_invalid"
    assert refused(ed25519_blob(bytes(31))) == "key_invalid"
    assert refused(ed25519_blob(bytes(33))) == "key_invalid"


@pytest.mark.parametrize("curve", forge.CURVES)
def test_a_point_that_is_not_on_its_curve_is_refused(curve: str) -> None:
    """CA-31."""
    signer = forge.ecdsa(curve)
    off = bytearray(signer.blob)
    off[-1] ^= 1
    assert refused(bytes(off)) == "key_invalid"
    point = Reader(signer.blob)
    head = string(point.string()) + string(point.string())
    whole = point.string()
    compressed = bytes([2 + (whole[-1] & 1)]) + whole[1 : 1 + len(whole) // 2]
    assert refused(head + string(compressed)) == "key_invalid"
    assert refused(head + string(b"\0")) == "key_invalid"
    assert refused(string(f"ecdsa-sha2-{curve}".encode()) + string(b"nistp999") + string(whole)) == "key_invalid"


@pytest.mark.parametrize("application", [b"web.example", b"", b"SSH:", b"ssh: x", b"ssh:\n", b"ssh:" + b"x" * 300])
def test_a_hardware_key_that_was_not_made_for_ssh_is_refused(application: bytes) -> None:
    """CV-20."""
    assert refused(forge.ed25519(application=application).blob) == "sk_application"
    assert refused(forge.ecdsa(application=application).blob) == "sk_application"
    assert forge.ed25519(application=b"ssh:work").public.application == "ssh:work"


# --- signatures ---------------------------------------------------------------------------------------------------


def bad_signature(key: PublicKey, data: bytes, signature: bytes) -> str:
    with pytest.raises(SignatureError) as caught:
        key.verify(data, signature)
    return caught.value.code


def raw(signature: bytes) -> bytes:
    reader = Reader(signature)
    reader.string()
    return reader.string()


@KINDS
def test_a_signature_is_good_for_its_own_bytes_alone(signer: Signer) -> None:
    signature = signer.sign(b"data")
    signer.public.verify(b"data", signature)
    assert bad_signature(signer.public, b"other data", signature) == "invalid"
    assert bad_signature(signer.public, b"data", signature + b"\0") == "invalid"
    assert bad_signature(signer.public, b"data", signature[:-1]) == "invalid"
    assert bad_signature(signer.public, b"data", b"") == "invalid"


SIGNED = {signer: signer.sign(b"data") for signer in forge.every_kind()}


@given(st.sampled_from(forge.every_kind()), st.data())
def test_any_changed_byte_of_a_signature_is_refused(signer: Signer, data: st.DataObject) -> None:
    signature = bytearray(SIGNED[signer])
    at = data.draw(st.integers(min_value=0, max_value=len(signature) - 1))
    signature[at] ^= data.draw(st.integers(min_value=1, max_value=255))
    with pytest.raises(SignatureError):
        signer.public.verify(b"data", bytes(signature))


@given(st.sampled_from(forge.every_kind()), st.binary(max_size=200), st.booleans())
def test_no_signature_can_crash_the_reader(signer: Signer, data: bytes, named: bool) -> None:
    front = string(sshkey.SIGNATURES[signer.algorithm][0].encode()) if named else b""
    with suppress(SignatureError):
        signer.public.verify(b"data", front + data)


def test_each_key_signs_with_its_own_algorithm() -> None:
    for signer in forge.every_kind():
        for other in forge.every_kind():
            if other.algorithm != signer.algorithm:
                assert bad_signature(other.public, b"data", signer.sign(b"data")) == "algorithm"


def test_sha1_is_never_good() -> None:
    """KEY-05, CV-13."""
    signer = forge.rsa_key()
    assert bad_signature(signer.public, b"data", signer.sign(b"data", "ssh-rsa")) == "algorithm"


def test_a_caller_may_narrow_the_algorithms() -> None:
    signer = forge.rsa_key()
    signature = signer.sign(b"data", "rsa-sha2-256")
    signer.public.verify(b"data", signature)
    with pytest.raises(SignatureError) as caught:
        signer.public.verify(b"data", signature, allow=("rsa-sha2-512",))
    assert caught.value.code == "algorithm"


def test_an_rsa_signature_with_a_leading_zero_may_come_without_it() -> None:
    """OpenSSH puts it back; PuTTY used to leave it out. One of 256 signatures begins with zero."""
    signer = forge.rsa_key()
    data, value = next(
        (data, value)
        for data in (number.to_bytes(4, "big") for number in range(10_000))
        if (value := raw(signer.sign(data)))[0] == 0
    )
    for form, good in ((value, True), (value.lstrip(b"\0"), True), (b"\0" + value, False), (b"", False)):
        signature = string(b"rsa-sha2-512") + string(form)
        if good:
            signer.public.verify(data, signature)
        else:
            assert bad_signature(signer.public, data, signature) == "invalid"


def test_ecdsa_signatures_with_high_bits_and_short_numbers_verify() -> None:
    """KEY-04: between DER and mpint no zero is lost or invented."""
    signer = forge.ecdsa()
    lengths = set()
    for number in range(2_000):
        data = number.to_bytes(4, "big")
        signature = signer.sign(data)
        lengths.add(len(raw(signature)))
        signer.public.verify(data, signature)
    assert len(lengths) >= 3


def test_ecdsa_numbers_are_positive_and_in_their_shortest_form() -> None:
    signer = forge.ecdsa()
    assert not isinstance(signer.private, Ed25519PrivateKey)
    reader = Reader(signer.sign(b"data"))
    name, value = reader.string(), Reader(reader.string())
    r, s = value.mpint(), value.mpint()
    assert decode_dss_signature(encode_dss_signature(r, s)) == (r, s)
    for numbers in (
        mpint(0) + mpint(s),
        mpint(r) + mpint(0),
        string(b"\0" + r.to_bytes(33, "big")) + mpint(s),
        mpint(r) + mpint(s) + b"\0",
        mpint(r + 2**256) + mpint(s),
    ):
        assert bad_signature(signer.public, b"data", string(name) + string(numbers)) == "invalid"


@pytest.mark.parametrize("make", [forge.ed25519, forge.ecdsa])
def test_a_hardware_key_must_have_been_touched(make: type[Signer]) -> None:
    for flags, good in ((forge.PRESENT, True), (forge.PRESENT | forge.VERIFIED, True), (forge.VERIFIED, False)):
        signer = make(application=b"ssh:", flags=flags)  # type: ignore[call-arg]
        if good:
            told = signer.public.verify(b"data", signer.sign(b"data"))
            assert told == sshkey.SkFlags(present=True, verified=bool(flags & forge.VERIFIED), counter=7)
        else:
            assert bad_signature(signer.public, b"data", signer.sign(b"data")) == "invalid"


def test_a_hardware_signature_holds_its_flags() -> None:
    """Nobody adds the flag that says that the user was verified."""
    signer = forge.ed25519(application=b"ssh:")
    signature = bytearray(signer.sign(b"data"))
    signature[-5] |= forge.VERIFIED
    assert bad_signature(signer.public, b"data", bytes(signature)) == "invalid"


def test_our_own_signature_is_a_signature() -> None:
    private = Ed25519PrivateKey.generate()
    key = PublicKey.of(private.public_key())
    assert key.verify(b"data", sshkey.sign_ed25519(private, b"data")) is None


@pytest.mark.parametrize("comment", ["", "me"])
def test_a_key_is_equal_to_itself_and_usable_in_sets(comment: str) -> None:
    signer = forge.ed25519()
    assert {PublicKey.parse(signer.blob), PublicKey.from_line(signer.public.line(comment))} == {signer.public}
