"""ca/sshcert.py: a certificate is believed in one spelling only, and never more than the strictest reader would."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca import sshcert
from ca.errors import NotSignedIn
from ca.sshcert import Certificate, CertificateError, CertKind
from recordings.sshkey import PublicKey
from recordings.sshwire import mpint, string
from tests.ca import forge
from tests.ca.forge import FORK, NOW, Forged, Signer, option

CA = forge.ed25519()
GOOD = Forged().signed(CA)


def believe(blob: bytes, *, ca: Signer = CA, kind: CertKind = CertKind.USER, **more: Any) -> Certificate:
    return sshcert.verify(blob, trusted=[ca.public], kind=kind, now=NOW, **more)


def refused(blob: bytes, **more: Any) -> CertificateError:
    with pytest.raises(CertificateError) as caught:
        believe(blob, **more)
    return caught.value


# --- the codec ----------------------------------------------------------------------------------------------------

times = st.integers(min_value=0, max_value=2**64 - 1)
values = st.text(st.characters(codec="utf-8"), max_size=40)
kinds = st.sampled_from(CertKind)
subjects = st.sampled_from(forge.every_kind())
options = st.fixed_dictionaries(
    {}, optional={"force-command": values, "source-address": values, "verify-required": st.just("")}
)
claims = st.fixed_dictionaries(
    {
        "kind": kinds,
        "serial": times,
        "key_id": values,
        "principals": st.lists(values.filter(bool), min_size=1, max_size=5).map(tuple),
        "valid_after": times,
        "valid_before": times,
        "critical_options": options,
        "extensions": st.sets(st.sampled_from(sorted(sshcert.FLAGS))),
        "nonce": st.binary(min_size=32, max_size=32),
    }
)


@given(claims, subjects)
def test_what_is_written_is_what_is_read(claim: dict[str, Any], subject: Signer) -> None:
    to_be_signed = sshcert.encode(**claim, public_key=subject.public, ca_key=CA.public)
    certificate = sshcert.parse(sshcert.with_signature(to_be_signed, CA.sign(to_be_signed)))
    read = {
        "kind": certificate.kind,
        "serial": certificate.serial,
        "key_id": certificate.key_id,
        "principals": certificate.principals,
        "valid_after": certificate.valid_after,
        "valid_before": certificate.valid_before,
        "critical_options": dict(certificate.critical_options),
        "extensions": set(certificate.extensions),
        "nonce": claim["nonce"],
    }
    assert read == claim
    assert certificate.public_key == subject.public
    assert certificate.public_key.application == subject.public.application
    assert certificate.ca_key == CA.public
    assert sshcert.from_line(certificate.line("a comment")) == certificate


@given(claims, subjects)
def test_two_encoders_write_the_same_bytes(claim: dict[str, Any], subject: Signer) -> None:
    ours = sshcert.encode(**claim, public_key=subject.public, ca_key=CA.public)
    forged = Forged(
        subject=subject,
        serial=claim["serial"],
        kind=claim["kind"],
        key_id=claim["key_id"].encode(),
        principals=[name.encode() for name in claim["principals"]],
        valid_after=claim["valid_after"],
        valid_before=claim["valid_before"],
        options=[
            option(name, None if name == "verify-required" else value)
            for name, value in sorted(claim["critical_options"].items())
        ],
        extensions=[option(name) for name in sorted(claim["extensions"])],
        nonce=claim["nonce"],
    )
    assert forged.to_be_signed(CA) == ours


@given(st.integers(min_value=0, max_value=len(GOOD) - 1), st.integers(min_value=1, max_value=255))
def test_any_changed_byte_is_refused(at: int, change: int) -> None:
    changed = bytearray(GOOD)
    changed[at] ^= change
    refused(bytes(changed))


@given(st.integers(min_value=0, max_value=len(GOOD) - 1))
def test_a_cut_certificate_is_refused(length: int) -> None:
    assert refused(GOOD[:length]).code in ("parse", "key_invalid")


@given(st.binary(max_size=300), st.sampled_from([b"", GOOD[:90], GOOD[:200]]))
def test_no_bytes_can_crash_the_reader(data: bytes, front: bytes) -> None:
    with suppress(CertificateError):
        sshcert.parse(front + data)


@given(st.text(max_size=100))
def test_no_line_can_crash_the_reader(text: str) -> None:
    with suppress(CertificateError):
        sshcert.from_line(text)


def test_a_line_that_names_another_type_is_refused() -> None:
    line = sshcert.parse(GOOD).line().replace("ssh-ed25519-cert", "ssh-rsa-cert", 1)
    with pytest.raises(CertificateError) as caught:
        sshcert.from_line(line)
    assert caught.value.code == "parse"


@pytest.mark.parametrize(
    "change",
    [
        {"principals": ()},
        {"principals": ("",)},
        {"principals": tuple(f"u{number}" for number in range(257))},
        {"extensions": ["force-command"]},
        {"extensions": ["permit-everything@example.org"]},
        {"extensions": ["permit-pty", "permit-pty"]},
        {"critical_options": {"permit-pty": ""}},
        {"critical_options": {"no-such@example.org": ""}},
        {"critical_options": {"verify-required": "yes"}},
        {"nonce": b"short"},
    ],
    ids=str,
)
def test_what_would_be_refused_cannot_be_written(change: dict[str, Any]) -> None:
    """CA-01, CA-02, CA-23, CA-24: not even by a caller that forgot to check."""
    good: dict[str, Any] = {
        "kind": CertKind.USER,
        "public_key": forge.ed25519().public,
        "serial": 1,
        "key_id": "v1;u=alice;n=1",
        "principals": ("alice",),
        "valid_after": FORK,
        "valid_before": FORK + 60,
        "critical_options": {},
        "extensions": (),
        "ca_key": CA.public,
        "nonce": bytes(32),
    }
    sshcert.encode(**good)
    with pytest.raises(ValueError):
        sshcert.encode(**{**good, **change})


# --- believing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ca", forge.every_kind(), ids=lambda signer: signer.algorithm)
@pytest.mark.parametrize("subject", forge.every_kind(), ids=lambda signer: signer.algorithm)
def test_a_good_certificate_is_believed(ca: Signer, subject: Signer) -> None:
    """CA-32: a hardware key's certificate keeps its type and application."""
    certificate = believe(Forged(subject=subject).signed(ca), ca=ca, principal="alice", source="192.0.2.1")
    assert certificate.principals == ("alice",)
    assert certificate.type == f"{subject.algorithm.removesuffix('@openssh.com')}-cert-v01@openssh.com"
    assert certificate.public_key.application == (None if subject.application is None else "ssh:")


def test_an_error_tells_a_user_what_to_do_and_belongs_to_the_tree() -> None:
    error = refused(Forged(valid_after=FORK - 120, valid_before=FORK - 60).signed(CA))
    assert isinstance(error, NotSignedIn)
    assert str(error) == "certificate expired at 2026-06-01 11:59:00 UTC"
    assert error.certificate is not None
    assert error.certificate.principals == ("alice",)


def test_words_are_not_handed_out_before_the_signature_is_checked() -> None:
    """Whoever shows an expired certificate that we did not sign learns nothing and is told nothing."""
    forged = Forged(valid_after=FORK - 120, valid_before=FORK - 60)
    for blob in (forged.signed(forge.ed25519()), replace(forged, ca_blob=CA.blob).signed(forge.ed25519())):
        error = refused(blob)
        assert error.code in ("ca_untrusted", "sig_bad")
        assert error.certificate is None


CASES: dict[str, tuple[Forged, str]] = {
    "no principals": (Forged(principals=()), "principals_empty"),
    "two names in one": (Forged(principals=[b"root,alice"]), "principal_invalid"),
    "a pattern": (Forged(principals=[b"*"]), "principal_invalid"),
    "a pattern beside the name": (Forged(principals=[b"alice", b"?"]), "principal_invalid"),
    "an empty name": (Forged(principals=[b"alice", b""]), "principal_invalid"),
    "another case": (Forged(principals=[b"Alice"]), "principal_invalid"),
    "another person": (Forged(principals=[b"bob"]), "principal_mismatch"),
    "a name that begins alike": (Forged(principals=[b"alicea"]), "principal_mismatch"),
    "newline after the name": (Forged(principals=[b"alice\n"]), "principal_invalid"),
    "257 principals": (Forged(principals=[b"u%d" % number for number in range(256)] + [b"alice"]), "parse"),
    "a host certificate": (Forged(kind=2), "kind"),
    "type 0": (Forged(kind=0), "parse"),
    "type 3": (Forged(kind=3), "parse"),
    "serial 0": (Forged(serial=0), "serial"),
    "key id with escape and newline": (Forged(key_id=b"alice\x1b[2J\n"), "key_id"),
    "key id with a blank": (Forged(key_id=b"alice smith"), "key_id"),
    "key id not UTF-8": (Forged(key_id=b"\xff\xfe"), "parse"),
    "key id empty": (Forged(key_id=b""), "key_id"),
    "key id of 257": (Forged(key_id=b"a" * 257), "key_id"),
    "expired": (Forged(valid_after=FORK - 120, valid_before=FORK - 1), "expired"),
    "ends now": (Forged(valid_before=FORK), "expired"),
    "not yet": (Forged(valid_after=FORK + 1), "not_yet_valid"),
    "ends before it begins": (Forged(valid_after=FORK + 60, valid_before=FORK - 60), "validity"),
    "never valid": (Forged(valid_after=FORK, valid_before=FORK), "validity"),
    "forever": (Forged(valid_after=0, valid_before=2**64 - 1), "life_too_long"),
    "a second too long": (Forged(valid_after=FORK - 60, valid_before=FORK + 86_401), "life_too_long"),
    "unknown critical option": (Forged(options=[option("no-such@example.org")]), "option_unknown"),
    "extension as critical option": (Forged(options=[option("permit-pty")]), "option_unknown"),
    "empty source address": (Forged(options=[option("source-address", "")]), "source_address"),
    "source with host bits": (Forged(options=[option("source-address", "192.0.2.1/8")]), "source_address"),
    "negated source": (Forged(options=[option("source-address", "!192.0.2.9,0.0.0.0/0")]), "source_address"),
    "source mask as address": (Forged(options=[option("source-address", "192.0.2.0/255.255.255.0")]), "source_address"),
    "source mask too long": (Forged(options=[option("source-address", "192.0.2.1/33")]), "source_address"),
    "source with a hole": (Forged(options=[option("source-address", "192.0.2.0/24,,10.0.0.0/8")]), "source_address"),
    "source with a blank": (Forged(options=[option("source-address", "192.0.2.0/24, 10.0.0.0/8")]), "source_address"),
    "source elsewhere": (Forged(options=[option("source-address", "10.0.0.0/8")]), "source_address"),
    "two source addresses": (
        Forged(options=[option("source-address", "10.0.0.0/8"), option("source-address", "192.0.2.0/24")]),
        "parse",
    ),
    "two forced commands": (
        Forged(options=[option("force-command", "a"), option("force-command", "b")]),
        "parse",
    ),
    "options not sorted": (
        Forged(options=[option("source-address", "192.0.2.0/24"), option("force-command", "a")]),
        "parse",
    ),
    "extensions not sorted": (Forged(extensions=[option("permit-user-rc"), option("permit-pty")]), "parse"),
    "extension twice": (Forged(extensions=[option("permit-pty"), option("permit-pty")]), "parse"),
    "flag with data": (Forged(extensions=[option("permit-pty", "yes")]), "parse"),
    "bytes behind an option": (Forged(options=[option("force-command", string(b"a") + b"b")]), "parse"),
    "option without its string": (Forged(options=[option("force-command")]), "parse"),
    "verify-required with data": (Forged(options=[option("verify-required", "")]), "parse"),
    "verify-required, plain key": (Forged(options=[option("verify-required")]), "option_unknown"),
    "reserved field": (Forged(reserved=b"x"), "parse"),
    "short nonce": (Forged(nonce=b""), "parse"),
    "bytes at the end": (Forged(tail=b"\0"), "parse"),
    "type of another key": (Forged(type="ecdsa-sha2-nistp256-cert-v01@openssh.com"), "key_invalid"),
    "old format": (Forged(type="ssh-ed25519-cert-v00@openssh.com"), "parse"),
    "plain key": (Forged(type="ssh-ed25519"), "parse"),
    "DSA": (Forged(type="ssh-dss-cert-v01@openssh.com"), "parse"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_with_its_own_code(case: str) -> None:
    """CV-01: what the differential journey shows to sshd, and more that an attacker would think of."""
    forged, code = CASES[case]
    assert refused(forged.signed(CA), principal="alice", source="192.0.2.1").code == code


def test_an_unknown_extension_is_ignored() -> None:
    certificate = believe(Forged(extensions=[option("log-id@example.org", b"\1\2"), option("permit-pty")]).signed(CA))
    assert certificate.extensions == {"log-id@example.org": b"\1\2", "permit-pty": b""}


def test_a_forced_command_is_handed_to_the_caller_even_if_it_is_empty() -> None:
    for command in ("", "uptime"):
        certificate = believe(Forged(options=[option("force-command", command)]).signed(CA))
        assert certificate.critical_options == {"force-command": command}


def test_256_principals_are_the_most() -> None:
    names = [b"u%d" % number for number in range(256)]
    assert len(believe(Forged(principals=names).signed(CA)).principals) == 256


def test_a_certificate_by_another_ca_is_refused() -> None:
    """CV-26 after the old CA was retired; while both are trusted, both are believed."""
    old = forge.ed25519()
    blob = Forged().signed(old)
    assert refused(blob).code == "ca_untrusted"
    sshcert.verify(blob, trusted=[CA.public, old.public], kind=CertKind.USER, now=NOW)
    assert refused(blob, ca=CA).code == "ca_untrusted"


def test_nobody_is_trusted_when_no_ca_is_named() -> None:
    with pytest.raises(CertificateError) as caught:
        sshcert.verify(GOOD, trusted=[], kind=CertKind.USER, now=NOW)
    assert caught.value.code == "ca_untrusted"


def test_a_signature_by_another_key_is_refused() -> None:
    """CV-03, CA-37: the CA is named, but did not sign."""
    assert refused(Forged(ca_blob=CA.blob).signed(forge.ed25519())).code == "sig_bad"


@pytest.mark.parametrize("algorithm", ["ssh-rsa", "rsa-sha2-1024"])
def test_a_ca_that_signs_with_sha1_is_refused(algorithm: str) -> None:
    """CV-13."""
    ca = forge.rsa_key()
    assert refused(Forged().signed(ca, algorithm), ca=ca).code == "ca_alg"
    believe(Forged().signed(ca, "rsa-sha2-256"), ca=ca)


def test_a_signature_that_borrows_another_keys_algorithm_is_refused() -> None:
    to_be_signed = Forged().to_be_signed(CA)
    signature = CA.sign(to_be_signed).replace(b"ssh-ed25519", b"sk-ed-25519", 1)
    assert refused(sshcert.with_signature(to_be_signed, signature)).code == "ca_alg"


def test_a_ca_that_is_itself_a_certificate_is_refused() -> None:
    """CA-29 in its other form: nested certificates (CVE-2025-49825)."""
    nested = Forged(subject=CA).signed(CA)
    assert refused(Forged(ca_blob=nested).signed(CA)).code == "key_type"


@pytest.mark.parametrize(
    ("blob", "code"),
    [
        (forge.rsa_blob(65537, (1 << 1023) + 1), "key_weak"),
        (forge.rsa_blob(65537, (1 << 16383) + 1), "key_weak"),
        (forge.rsa_blob(1, (1 << 3071) + 1), "key_weak"),
        (string(b"ssh-rsa") + mpint(65537) + string(b"\x7f" * 60_000), "parse"),
    ],
    ids=["RSA 1024", "RSA 16384", "exponent 1", "RSA 480000"],
)
def test_a_weak_key_in_a_certificate_is_refused_before_any_arithmetic(blob: bytes, code: str) -> None:
    """CA-30, DOS-11: the signature is not even looked at."""
    subject = Signer("ssh-rsa", forge.rsa_key().private, blob)
    error = refused(Forged(subject=subject).signed(CA))
    assert error.code in (code, "key_invalid")
    assert refused(Forged(ca_blob=blob).signed(CA)).code in (code, "key_invalid")


def test_a_hardware_key_for_a_web_site_is_refused() -> None:
    """CV-20."""
    assert refused(Forged(subject=forge.ed25519(application=b"web.example")).signed(CA)).code == "sk_application"


def test_a_certificate_of_two_mebibytes_is_refused_unread() -> None:
    """CA-34."""
    assert refused(Forged(reserved=bytes(2 << 20)).signed(CA)).code == "parse"


@pytest.mark.parametrize(
    ("listed", "source", "good"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.0/24,2001:db8::/32", "2001:db8::7", True),
        ("192.0.2.0/24", "::ffff:192.0.2.9", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("192.0.2.0/24", "192.0.3.1", False),
        ("192.0.2.0/24", None, False),
        ("192.0.2.0/24", "localhost", False),
        ("0.0.0.0/0", "2001:db8::7", False),
        (",".join(["192.0.2.0/24"] * 257), "192.0.2.1", False),
    ],
)
def test_a_certificate_bound_to_addresses_is_good_there_alone(listed: str, source: str | None, good: bool) -> None:
    """CV-11: an IPv4 address in IPv6 clothes is the IPv4 address. No address known: bound means refused."""
    blob = Forged(options=[option("source-address", listed)]).signed(CA)
    if good:
        believe(blob, source=source)
    else:
        assert refused(blob, source=source).code == "source_address"


def test_a_caller_may_ask_for_a_shorter_life() -> None:
    """A target certificate lives for a minute; one that lives for an hour is not one of ours."""
    assert refused(GOOD, max_life=timedelta(minutes=2)).code == "life_too_long"


# --- hosts --------------------------------------------------------------------------------------------------------

HOST = Forged(kind=2, key_id=b"v1;h=web1;n=1", principals=[b"web1", b"n0123"], extensions=())


def host_refused(forged: Forged, **more: Any) -> str:
    return refused(forged.signed(CA), kind=CertKind.HOST, **{"principal": "web1", **more}).code


def test_a_host_certificate_is_believed_for_its_own_names() -> None:
    """CV-23."""
    believe(HOST.signed(CA), kind=CertKind.HOST, principal="web1")
    assert host_refused(HOST, principal="web2") == "principal_mismatch"
    assert host_refused(replace(HOST, principals=())) == "principals_empty"
    assert host_refused(replace(HOST, kind=1)) == "kind"
    assert host_refused(replace(HOST, valid_before=FORK)) == "expired"
    assert host_refused(replace(HOST, options=[option("force-command", "x")])) == "option_unknown"
    assert host_refused(replace(HOST, principals=[b"WEB1"])) == "principal_invalid"
    assert host_refused(replace(HOST, valid_before=FORK + 366 * 86_400)) == "life_too_long"


@pytest.mark.parametrize(
    ("pattern", "host", "good"),
    [
        ("*.example.com", "a.example.com", True),
        ("web?", "web1", True),
        ("web1", "web1", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "a.b.example.com", False),
        ("*.example.com", "evilexample.com", False),
        ("*.example.com", "a.example.com.evil.org", False),
        ("*", "web1", False),
        ("*.*", "a.example", False),
        ("?", "a", False),
        ("web?", "web", False),
        ("a.b", "axb", False),
    ],
)
def test_a_pattern_stands_for_part_of_one_label(pattern: str, host: str, good: bool) -> None:
    """CV-25, CA-08: and only where the caller asked for patterns."""
    forged = replace(HOST, principals=[pattern.encode()])
    if good:
        believe(forged.signed(CA), kind=CertKind.HOST, principal=host, host_pattern=True)
        assert pattern == host or host_refused(forged, principal=host) == "principal_mismatch"
    else:
        assert host_refused(forged, principal=host, host_pattern=True) == "principal_mismatch"


def test_patterns_are_never_for_users() -> None:
    """CA-06."""
    assert refused(Forged(principals=[b"web*"]).signed(CA), principal="web1", host_pattern=True).code == (
        "principal_invalid"
    )


def test_a_user_ca_cannot_vouch_for_a_host() -> None:
    """KEY-12: the caller trusts other keys for hosts."""
    user_ca = forge.ed25519()
    assert refused(HOST.signed(user_ca), kind=CertKind.HOST).code == "ca_untrusted"


def test_expiry_is_told_as_a_time_even_for_a_certificate_that_never_ends() -> None:
    assert sshcert.parse(Forged(valid_before=2**64 - 1).signed(CA)).expires.year == 9999


def test_the_public_key_of_a_certificate_is_a_plain_key() -> None:
    subject = forge.rsa_key()
    assert sshcert.parse(Forged(subject=subject).signed(CA)).public_key == PublicKey.parse(subject.blob)
