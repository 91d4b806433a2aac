"""ca/proof.py: nothing opens without a person's own signature over this connection, this node and this login."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import asyncssh
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ca import proof, sshcert, wire
from ca.proof import HOSTBOUND, POSSESSION, PUBLICKEY, ProofError, Proven
from recordings.keyfile import write_private
from recordings.sshkey import PublicKey, sign_ed25519
from recordings.sshwire import mpint, string, uint32
from tests.ca import forge
from tests.ca.forge import FORK, NOW, Forged, Signer, option
from tests.sshd import openssh_version

USER_CA, BASTION_CA, BASTION = forge.ed25519(), forge.ed25519(), forge.ed25519()
SESSION = Ed25519PrivateKey.generate()
BEACON = "0123456789abcdef0123456789abcdef"
VERSION = f"SSH-2.0-Bartizan_0.1 b={BEACON}".encode()


def proposal(*kex: str) -> bytes:
    lists = [",".join(kex).encode(), b"ssh-ed25519", *[b"aes256-gcm@openssh.com"] * 2, *[b""] * 6]
    return b"\x14" + bytes(16) + b"".join(string(names) for names in lists) + b"\0" + uint32(0)


def shown(*principals: str, key: Signer = BASTION, **change: Any) -> bytes:
    """A host certificate as the bastion shows it."""
    names = [name.encode() for name in principals]
    forged = Forged(subject=key, kind=2, key_id=b"v1;b=bastion1;n=1", principals=names, extensions=())
    return replace(forged, **change).signed(BASTION_CA)


ALICE = forge.ed25519()
ALICE_CERTIFICATE = Forged(subject=ALICE).signed(USER_CA)


@dataclass(frozen=True)
class Scene:
    """One connection of alice to web1 as root, with whatever is to be wrong with it."""

    way: Literal["config", "jump", "username"] = "config"
    node: str = "web1"
    login: str = "root"
    user: str | None = None
    method: str = HOSTBOUND
    service: str = "ssh-connection"
    algorithm: str = "ssh-ed25519-cert-v01@openssh.com"
    key_blob: bytes = ALICE_CERTIFICATE
    signer: Signer = ALICE
    signature_algorithm: str | None = None
    k_s: bytes = field(default_factory=lambda: shown("web1"))
    hostbound_to: bytes | None = None
    source: str = "192.0.2.1"
    session: Ed25519PrivateKey = SESSION
    session_key: str | None = None
    possession_of: bytes | None = None
    transcript: dict[str, Any] = field(default_factory=dict)

    def request(self) -> wire.SessionRequest:
        """As an honest bastion would hand it in."""
        exchanged = {
            "kex": "curve25519-sha256",
            "v_c": b"SSH-2.0-OpenSSH_9.2",
            "v_s": VERSION,
            "i_c": proposal("curve25519-sha256", "ext-info-c"),
            "i_s": proposal("curve25519-sha256"),
            "k_s": self.k_s,
            "q_c": bytes(range(32)),
            "q_s": bytes(range(32, 64)),
            "k": mpint(2**254 + 12345),
        }
        transcript = wire.Transcript(**{**exchanged, **self.transcript})
        try:
            h = proof.exchange_hash(transcript)
        except ProofError:
            h = bytes(32)
        asked = self.auth_request()
        return wire.SessionRequest(
            worker="bastion1",
            way=self.way,
            node=self.node,
            login=self.login,
            source=self.source,
            transcript=transcript,
            auth_request=asked,
            signature=self.signer.sign(string(h) + asked, self.signature_algorithm),
            session_key=self.session_key or PublicKey.of(self.session.public_key()).line(),
            possession=sign_ed25519(self.session, POSSESSION + (self.possession_of or h)),
        )

    def auth_request(self) -> bytes:
        separator = {"config": None, "jump": None, "username": "+"}[self.way]
        user = self.login if separator is None else f"{self.login}{separator}{self.node}"
        names = (self.user if self.user is not None else user, self.service, self.method)
        data = b"\x32" + b"".join(string(name.encode()) for name in names) + b"\1"
        data += string(self.algorithm.encode()) + string(self.key_blob)
        if self.method == HOSTBOUND:
            data += string(self.k_s if self.hostbound_to is None else self.hostbound_to)
        return data


def ages(beacon: str) -> timedelta | None:
    return timedelta(seconds=20) if beacon == BEACON else None


def check(request: wire.SessionRequest, **change: Any) -> Proven:
    with_what: dict[str, Any] = {
        "bastion_key": BASTION.public,
        "user_cas": [USER_CA.public],
        "bastion_cas": [BASTION_CA.public],
        "beacon": ages,
        "now": NOW,
    }
    return proof.check(request, **{**with_what, **change})


def refused(scene: Scene, **change: Any) -> str:
    with pytest.raises(ProofError) as caught:
        check(scene.request(), **change)
    return caught.value.code


def altered(request: wire.SessionRequest, **change: Any) -> wire.SessionRequest:
    return request.model_copy(update=change)


# --- what is proven -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["config", "jump"])
def test_a_person_proves_who_she_is_and_what_she_asked_for(way: Literal["config", "jump"]) -> None:
    request = Scene(way=way).request()
    proven = check(request)
    assert proven.user == "alice"
    assert proven.user_certificate.serial == 1
    assert proven.h == proof.exchange_hash(request.transcript)
    assert (proven.beacon, proven.beacon_age) == (BEACON, timedelta(seconds=20))
    assert proven.session_key == PublicKey.of(SESSION.public_key())
    assert proven.bound


def test_a_client_that_names_no_host_key_is_not_bound() -> None:
    """The policy decides: only a grant with ``unsafe_unbound_client`` admits it."""
    assert not check(Scene(method=PUBLICKEY).request()).bound


@pytest.mark.parametrize("method", [PUBLICKEY, HOSTBOUND])
@pytest.mark.parametrize("k_s", [BASTION.blob, shown("bastion.example.com", "bartizan")], ids=["key", "certificate"])
@pytest.mark.parametrize("separator", ["+", "%"])
def test_in_the_third_way_the_user_name_binds(method: str, k_s: bytes, separator: str) -> None:
    scene = Scene(way="username", method=method, k_s=k_s, user=f"root{separator}web1")
    assert check(scene.request()).bound


@pytest.mark.parametrize("signer", forge.every_kind(), ids=lambda signer: signer.algorithm)
def test_people_may_have_any_kind_of_key(signer: Signer) -> None:
    name = f"{signer.algorithm.removesuffix('@openssh.com')}-cert-v01@openssh.com".replace("ssh-rsa", "rsa-sha2-512")
    scene = Scene(signer=signer, algorithm=name, key_blob=Forged(subject=signer).signed(USER_CA))
    assert check(scene.request()).user == "alice"


# --- 1. the transcript --------------------------------------------------------------------------------------------


@given(st.sampled_from(["v_c", "v_s", "i_c", "i_s", "k_s", "q_c", "q_s", "k"]), st.data())
def test_any_changed_byte_of_the_transcript_is_refused(part: str, data: st.DataObject) -> None:
    request = SCENE
    value = bytearray(getattr(request.transcript, part))
    value[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ProofError):
        check(altered(request, transcript=request.transcript.model_copy(update={part: bytes(value)})))


SCENE = Scene().request()


@given(st.data())
def test_any_changed_byte_of_the_request_its_signature_or_the_possession_is_refused(data: st.DataObject) -> None:
    part = data.draw(st.sampled_from(["auth_request", "signature", "possession"]))
    value = bytearray(getattr(SCENE, part))
    value[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ProofError):
        check(altered(SCENE, **{part: bytes(value)}))


@pytest.mark.parametrize(
    "kex",
    ["diffie-hellman-group14-sha1", "diffie-hellman-group14-sha256", "none", "", "ecdh-sha2-nistp256,", "\x1b[2J"],
)
def test_other_key_exchanges_are_refused(kex: str) -> None:
    assert refused(Scene(transcript={"kex": kex})) == "proof_kex"


@pytest.mark.parametrize(
    "change",
    [
        {"kex": "ecdh-sha2-nistp256"},
        {"kex": "curve25519-sha256@libssh.org"},
        {"q_c": bytes(31)},
        {"q_s": bytes(33)},
        {"q_c": b""},
        {"k": mpint(0)},
        {"k": mpint(2**256)},
        {"k": mpint(5) + b"\0"},
        {"k": string(b"\0\0\x80")},
        {"k": string(b"\x80" + bytes(31))},
        {"k": mpint(5)[:-1]},
        {"k": b""},
        {"i_c": b""},
        {"i_c": proposal("curve25519-sha256")[:-1]},
        {"i_s": proposal("curve25519-sha256") + b"\0"},
        {"i_s": b"\x15" + proposal("curve25519-sha256")[1:]},
        {"i_s": proposal("ecdh-sha2-nistp256")},
        {"v_c": b"SSH-2.0-x\r\n"},
        {"v_c": b"SSH-1.99-x"},
        {"v_c": b"SSH-2.0-"},
        {"v_c": b"SSH-2.0-" + b"x" * 250},
        {"v_c": "SSH-2.0-ä".encode()},
    ],
    ids=str,
)
def test_a_malformed_transcript_is_refused(change: dict[str, Any]) -> None:
    assert refused(Scene(transcript=change)) == "proof_transcript"


SIZES = {
    "curve25519-sha256": (32, 32, mpint(7)),
    "curve25519-sha256@libssh.org": (32, 32, mpint(7)),
    "ecdh-sha2-nistp256": (65, 65, mpint(2**256 - 1)),
    "ecdh-sha2-nistp384": (97, 97, mpint(2**384 - 1)),
    "ecdh-sha2-nistp521": (133, 133, mpint(2**521 - 1)),
    "mlkem768x25519-sha256": (1216, 1120, string(bytes(32))),
    "sntrup761x25519-sha512": (1190, 1071, string(bytes(64))),
    "sntrup761x25519-sha512@openssh.com": (1190, 1071, string(bytes(64))),
}


@pytest.mark.parametrize("kex", SIZES)
def test_each_key_exchange_has_its_own_sizes(kex: str) -> None:
    client, server, secret = SIZES[kex]
    offers = {"i_c": proposal(kex), "i_s": proposal(kex)}
    right = {"kex": kex, "q_c": bytes(client), "q_s": bytes(server), "k": secret, **offers}
    assert len(check(Scene(transcript=right).request()).h) in (32, 48, 64)
    assert refused(Scene(transcript={**right, "q_c": bytes(client + 1)})) == "proof_transcript"
    assert refused(Scene(transcript={**right, "q_s": bytes(server - 1)})) == "proof_transcript"
    assert refused(Scene(transcript={**right, "k": secret + b"\0"})) == "proof_transcript"
    assert refused(Scene(transcript={**right, "k": string(b"")})) == "proof_transcript"


def test_a_proof_of_another_connection_is_refused() -> None:
    """A bastion that replays what was signed, around another transcript."""
    old = Scene(transcript={"q_s": bytes(32)}).request()
    new = Scene().request()
    assert_refused(altered(new, signature=old.signature), "proof_signature")
    assert_refused(altered(new, possession=old.possession), "proof_possession")


def assert_refused(request: wire.SessionRequest, code: str) -> None:
    with pytest.raises(ProofError) as caught:
        check(request)
    assert caught.value.code == code


# --- 2. the beacon ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "version",
    [
        b"SSH-2.0-Bartizan_0.1",
        b"SSH-2.0-Bartizan_0.1 b=" + b"0" * 31,
        b"SSH-2.0-Bartizan_0.1 b=" + b"0" * 33,
        b"SSH-2.0-Bartizan_0.1 b=" + b"A" * 32,
        b"SSH-2.0-Bartizan_0.1 b=" + b"0" * 32,
        b"SSH-2.0-OpenSSH_9.2 b=" + BEACON.encode(),
        b"SSH-2.0-Bartizan_0.1 x b=" + BEACON.encode(),
        VERSION + b" ",
    ],
)
def test_a_version_line_without_a_beacon_of_ours_is_refused(version: bytes) -> None:
    assert refused(Scene(transcript={"v_s": version})) == "proof_beacon"


@pytest.mark.parametrize(("seconds", "good"), [(0, True), (120, True), (121, False), (86_400, False)])
def test_a_connection_that_was_made_long_ago_proves_nothing(seconds: int, good: bool) -> None:
    age = timedelta(seconds=seconds)
    if good:
        assert check(SCENE, beacon=lambda _: age).beacon_age == age
    else:
        assert refused(Scene(), beacon=lambda _: age) == "proof_stale"


# --- 3. the bastion -----------------------------------------------------------------------------------------------

OTHER = forge.ed25519()


@pytest.mark.parametrize(
    "k_s",
    [
        BASTION.blob,
        OTHER.blob,
        b"",
        shown("web2"),
        shown("web1", "web2"),
        shown("web*"),
        shown("web1", key=OTHER),
        shown("web1", kind=1),
        shown("web1", valid_before=FORK - 1),
        shown("web1", valid_after=FORK + 1),
        Forged(subject=BASTION, kind=2, principals=[b"web1"], extensions=()).signed(OTHER),
        Forged(subject=BASTION, kind=2, principals=[b"web1"], extensions=()).signed(USER_CA),
        Forged(subject=BASTION, kind=2, principals=[], extensions=()).signed(BASTION_CA),
    ],
    ids=[
        "a plain key",
        "another plain key",
        "nothing",
        "another node",
        "two nodes",
        "a pattern",
        "another bastion",
        "a user certificate",
        "expired",
        "not yet",
        "another CA",
        "the user CA",
        "no node",
    ],
)
@pytest.mark.parametrize("way", ["config", "jump"])
def test_the_host_key_that_was_shown_names_bastion_and_node(way: Literal["config", "jump"], k_s: bytes) -> None:
    """CV-21, KEY-12."""
    assert refused(Scene(way=way, k_s=k_s)) == "proof_host_key"
    assert refused(Scene(way=way, k_s=k_s, method=PUBLICKEY)) == "proof_host_key"


@pytest.mark.parametrize(
    "k_s",
    [OTHER.blob, shown("bartizan", key=OTHER), shown("bartizan", valid_before=FORK - 1)],
    ids=["another key", "another bastion", "expired"],
)
def test_in_the_third_way_the_host_key_is_still_the_bastions(k_s: bytes) -> None:
    """CV-21."""
    assert refused(Scene(way="username", k_s=k_s)) == "proof_host_key"


def test_a_signature_that_names_another_host_key_is_refused() -> None:
    """CV-21: also one that names the same key in another certificate."""
    for blob in (OTHER.blob, BASTION.blob, shown("web1"), b""):
        assert refused(Scene(hostbound_to=blob)) == "proof_host_key"


# --- 4. the request -----------------------------------------------------------------------------------------------


def test_what_was_asked_for_one_node_opens_no_other() -> None:
    assert_refused(altered(SCENE, node="web2"), "proof_host_key")
    username = Scene(way="username", k_s=BASTION.blob).request()
    assert_refused(altered(username, node="web2"), "proof_user")


def test_what_was_asked_for_one_login_opens_no_other() -> None:
    assert_refused(altered(SCENE, login="alice"), "proof_user")
    username = Scene(way="username", k_s=BASTION.blob).request()
    assert_refused(altered(username, login="alice"), "proof_user")


def test_one_way_is_not_taken_for_another() -> None:
    """A bastion says which way it was; the signed bytes must agree."""
    assert_refused(altered(SCENE, way="username"), "proof_user")
    username = Scene(way="username", k_s=shown("web1")).request()
    assert_refused(altered(username, way="config"), "proof_user")
    assert_refused(altered(username, way="jump", login="root+web1"), "proof_user")
    assert check(altered(SCENE, way="jump")).bound  # the same bytes are signed in both


@pytest.mark.parametrize(
    ("user", "login", "node"),
    [
        ("", "root", "web1"),
        ("Root", "root", "web1"),
        ("root ", "root", "web1"),
        ("root\0", "root", "web1"),
        ("root+web1", "root", "web1"),
        ("", "", "web1"),
    ],
)
def test_the_signed_name_is_the_login_to_the_letter(user: str, login: str, node: str) -> None:
    assert refused(Scene(user=user, login=login, node=node)) == "proof_user"


@pytest.mark.parametrize("user", ["root", "root+web1+web2", "root@web1", "root%web1%", "+web1", "root+", "root++web1"])
def test_in_the_third_way_the_signed_name_is_login_and_node_to_the_letter(user: str) -> None:
    assert refused(Scene(way="username", k_s=BASTION.blob, user=user)) == "proof_user"


def test_a_signature_for_another_service_is_refused() -> None:
    for service in ("ssh-userauth", "ssh-connection2", ""):
        assert refused(Scene(service=service)) == "proof_request"


@pytest.mark.parametrize("method", ["password", "hostbased", "keyboard-interactive", "none", "publickey2", ""])
def test_another_method_is_no_proof(method: str) -> None:
    assert refused(Scene(method=method)) == "proof_request"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"\x33" + data[1:],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data.replace(b"\1" + string(b"ssh-ed25519-cert"), b"\0" + string(b"ssh-ed25519-cert"), 1),
        lambda data: data.replace(b"root", b"\xff\xfe\xfd\xfc", 1),
    ],
    ids=["nothing", "another message", "cut", "prolonged", "unsigned", "not UTF-8"],
)
def test_a_malformed_request_is_refused(spoil: Any) -> None:
    asked = spoil(SCENE.auth_request)
    if asked != SCENE.auth_request:
        assert_refused(altered(SCENE, auth_request=asked), "proof_request")


def test_a_request_that_only_asks_whether_a_key_would_do_is_no_proof() -> None:
    """CV-05: the flag that says *signed* is false."""
    asked = SCENE.auth_request
    at = asked.index(b"\1" + string(b"ssh-ed25519-cert-v01@openssh.com"))
    assert_refused(altered(SCENE, auth_request=asked[:at] + b"\0" + asked[at + 1 :]), "proof_request")


@given(st.binary(max_size=200))
def test_no_bytes_can_crash_the_reader(data: bytes) -> None:
    with suppress(ProofError):
        proof.parse_auth_request(b"\x32" + data)


# --- 5. the person ------------------------------------------------------------------------------------------------

PERSON = Forged(subject=ALICE)


@pytest.mark.parametrize(
    "forged",
    [
        replace(PERSON, kind=2),
        replace(PERSON, principals=()),
        replace(PERSON, principals=[b"alice", b"bob"]),
        replace(PERSON, valid_after=FORK + 1),
        replace(PERSON, valid_before=FORK + 2 * 86_400),
        replace(PERSON, serial=0),
        replace(PERSON, options=[option("source-address", "198.51.100.0/24")]),
        replace(PERSON, options=[option("force-command", "uptime")]),
        replace(PERSON, options=[option("verify-required")]),
        replace(PERSON, tail=b"\0"),
    ],
)
def test_the_certificate_must_hold_in_every_word(forged: Forged) -> None:
    """CV-01; a forced command would have to be carried out, so it opens nothing."""
    assert refused(Scene(key_blob=forged.signed(USER_CA))) == "proof_certificate"


def test_an_expired_certificate_is_told_apart() -> None:
    """The bastion tells the person when it ended and what to do."""
    expired = replace(PERSON, valid_after=FORK - 120, valid_before=FORK - 60).signed(USER_CA)
    with pytest.raises(ProofError) as caught:
        check(Scene(key_blob=expired).request())
    assert caught.value.code == "proof_certificate_expired"
    assert caught.value.certificate is not None
    assert str(caught.value) == "certificate expired at 2026-06-01 11:59:00 UTC"


def test_a_certificate_of_another_ca_proves_nobody() -> None:
    """CV-26, KEY-12: not the bastion CA's either."""
    for ca in (forge.ed25519(), BASTION_CA):
        assert refused(Scene(key_blob=PERSON.signed(ca))) == "proof_certificate"


def test_a_plain_key_proves_nobody() -> None:
    assert refused(Scene(key_blob=ALICE.blob, algorithm="ssh-ed25519")) == "proof_certificate"


def test_a_certificate_for_an_address_is_good_from_there() -> None:
    """CV-11."""
    bound = replace(PERSON, options=[option("source-address", "192.0.2.0/24")]).signed(USER_CA)
    assert check(Scene(key_blob=bound, source="::ffff:192.0.2.7").request()).user == "alice"


# --- 6. the signature ---------------------------------------------------------------------------------------------


def test_somebody_elses_signature_is_refused() -> None:
    """CV-03: the certificate alone is public."""
    assert refused(Scene(signer=forge.ed25519())) == "proof_signature"


@pytest.mark.parametrize(
    ("algorithm", "signature", "code"),
    [
        ("rsa-sha2-256-cert-v01@openssh.com", "rsa-sha2-256", None),
        ("rsa-sha2-512-cert-v01@openssh.com", "rsa-sha2-512", None),
        ("rsa-sha2-512-cert-v01@openssh.com", "rsa-sha2-256", "proof_signature"),
        ("rsa-sha2-512-cert-v01@openssh.com", "ssh-rsa", "proof_signature"),
        ("ssh-rsa-cert-v01@openssh.com", "ssh-rsa", "proof_algorithm"),
        ("ssh-rsa-cert-v01@openssh.com", "rsa-sha2-512", "proof_algorithm"),
        ("rsa-sha2-512", "rsa-sha2-512", "proof_algorithm"),
        ("ssh-ed25519-cert-v01@openssh.com", "rsa-sha2-512", "proof_algorithm"),
    ],
)
def test_the_signature_is_of_the_kind_that_was_named(algorithm: str, signature: str, code: str | None) -> None:
    """CV-13, KEY-05: SHA-1 never."""
    signer = forge.rsa_key()
    certificate = Forged(subject=signer).signed(USER_CA)
    scene = Scene(signer=signer, key_blob=certificate, algorithm=algorithm, signature_algorithm=signature)
    if code is None:
        assert check(scene.request()).user == "alice"
    else:
        assert refused(scene) == code


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (forge.PRESENT | forge.VERIFIED, None),
        (forge.PRESENT, "proof_verify_required"),
        (forge.VERIFIED, "proof_signature"),
        (0, "proof_signature"),
    ],
)
def test_a_hardware_key_verifies_its_user_where_that_is_required(flags: int, code: str | None) -> None:
    """CV-19."""
    signer = forge.ed25519(application=b"ssh:", flags=flags)
    blob = Forged(subject=signer, options=[option("verify-required")]).signed(USER_CA)
    scene = Scene(signer=signer, key_blob=blob, algorithm="sk-ssh-ed25519-cert-v01@openssh.com")
    if code is None:
        assert check(scene.request()).user == "alice"
    else:
        assert refused(scene) == code


# --- 7. the session's key -----------------------------------------------------------------------------------------


def test_whoever_hands_in_the_proof_holds_the_sessions_key() -> None:
    assert refused(Scene(session_key=forge.ed25519().public.line())) == "proof_possession"
    assert refused(Scene(possession_of=bytes(32))) == "proof_possession"
    bare = altered(SCENE, possession=SESSION.sign(POSSESSION + proof.exchange_hash(SCENE.transcript)))
    assert_refused(bare, "proof_possession")
    without_context = sign_ed25519(SESSION, proof.exchange_hash(SCENE.transcript))
    assert_refused(altered(SCENE, possession=without_context), "proof_possession")


@pytest.mark.parametrize("signer", [ALICE, BASTION, USER_CA, BASTION_CA], ids=["person", "bastion", "CA", "CA"])
def test_the_sessions_key_is_nobody_elses(signer: Signer) -> None:
    """CA-28: above all not the person's, so that she never holds a certificate that a node accepts."""
    assert isinstance(signer.private, Ed25519PrivateKey)
    assert refused(Scene(session=signer.private)) == "proof_possession"


@pytest.mark.parametrize(
    "line",
    ["hello", "ssh-rsa AAAA", forge.rsa_key().public.line(), forge.ecdsa().public.line()],
    ids=["no key", "cut", "RSA", "ECDSA"],
)
def test_the_sessions_key_is_of_the_one_kind(line: str) -> None:
    assert refused(Scene(session_key=line)) == "proof_possession"


# --- the real thing -----------------------------------------------------------------------------------------------


class Listening(asyncssh.SSHServerConnection):
    """A server that keeps the transcript and the signed request."""

    kept: list[tuple[wire.Transcript, bytes, bytes, bytes]]

    def public_key_auth_supported(self) -> bool:
        return True

    def send_newkeys(self, k: bytes, h: bytes) -> None:
        kex: Any = self._kex
        self.transcript = wire.Transcript(
            kex=kex.algorithm.decode(),
            v_c=self._client_version,
            v_s=self._server_version,
            i_c=self._client_kexinit,
            i_s=self._server_kexinit,
            k_s=self.get_server_host_key().public_data,  # type: ignore[union-attr]
            q_c=kex._client_pub,
            q_s=kex._server_pub,
            k=k,
        )
        super().send_newkeys(k, h)

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        if b"-cert-v01@openssh.com" not in key_data:  # ssh also tries the key without its certificate
            return False
        if msg:
            self.kept.append((self.transcript, self._session_id, msg, signature))
        return True


class HostboundAuth(asyncssh.auth._ServerPublicKeyAuth):
    """OpenSSH's PROTOCOL §3.1: as ``publickey``, but the signature also covers the server's host key."""

    async def _start(self, packet: Any) -> None:
        signed, algorithm, key_data, _ = (
            packet.get_boolean(),
            packet.get_string(),
            packet.get_string(),
            packet.get_string(),
        )
        message = packet.get_consumed_payload() if signed else b""
        signature = packet.get_string() if signed else b""
        packet.check_end()
        assert isinstance(self._conn, Listening)
        if not await self._conn.validate_public_key(self._username, key_data, message, signature):
            self.send_failure()
        elif signed:
            await self.send_success()
        else:
            self.send_packet(60, string(algorithm), string(key_data))


@dataclass(frozen=True)
class Person:
    """Alice with files as ``bart login`` writes them, and a CA for what the server shows."""

    folder: Path
    certificate: bytes
    host_key: Path


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Person:
    monkeypatch.setitem(asyncssh.auth._server_auth_handlers, HOSTBOUND.encode(), HostboundAuth)
    now = int(datetime.now(UTC).timestamp())
    alice, bastion = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    for name, key in (("id", alice), ("host", bastion)):
        write_private(tmp_path / name, key)
    lively: dict[str, Any] = {"valid_after": now - 60, "valid_before": now + 600}
    subject = Signer("ssh-ed25519", alice, PublicKey.of(alice.public_key()).blob)
    certificate = Forged(subject=subject, **lively).signed(USER_CA)
    (tmp_path / "id-cert.pub").write_text(sshcert.parse(certificate).line() + "\n")
    host = Signer("ssh-ed25519", bastion, PublicKey.of(bastion.public_key()).blob)
    named = Forged(subject=host, kind=2, key_id=b"x", principals=[b"web1"], extensions=(), **lively).signed(BASTION_CA)
    (tmp_path / "host-cert.pub").write_text(sshcert.parse(named).line() + "\n")
    (tmp_path / "host.pub").write_text(host.public.line() + "\n")
    (tmp_path / "known_hosts").write_text(f"@cert-authority web1 {BASTION_CA.public.line()}\n")
    return Person(tmp_path, certificate, tmp_path / "host")


OPENSSH_KEX = subprocess.run(
    ["ssh", "-Q", "kex"], capture_output=True, text=True, check=True, timeout=10
).stdout.split()
ASYNCSSH_KEX = [name.decode() for name in asyncssh.kex.get_kex_algs()]


@pytest.mark.parametrize("kex", [name for name in proof.EXCHANGES if name in OPENSSH_KEX and name in ASYNCSSH_KEX])
async def test_a_connection_of_stock_ssh_is_proven_from_its_transcript(person: Person, kex: str) -> None:
    transcript, session_id, asked, signature = await _connection(person, kex)
    assert proof.exchange_hash(transcript) == session_id
    request = proof.parse_auth_request(asked)
    assert (request.user, request.service) == ("root", "ssh-connection")
    assert request.method in (PUBLICKEY, HOSTBOUND)
    handed_in = wire.SessionRequest(
        worker="bastion1",
        way="config",
        node="web1",
        login="root",
        source="127.0.0.1",
        transcript=transcript,
        auth_request=asked,
        signature=signature,
        session_key=PublicKey.of(SESSION.public_key()).line(),
        possession=sign_ed25519(SESSION, POSSESSION + session_id),
    )
    bastion_key = PublicKey.from_line((person.folder / "host.pub").read_text())
    proven = check(handed_in, now=datetime.now(UTC), bastion_key=bastion_key)
    assert proven.user == "alice"
    assert proven.bound is (request.method == HOSTBOUND)
    if openssh_version() >= (8, 9):
        assert proven.bound


@pytest.mark.parametrize("kex", ["mlkem768x25519-sha256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521"])
async def test_the_session_identifier_of_an_asyncssh_client_is_computed_from_its_transcript(
    person: Person, kex: str
) -> None:
    listener, kept = await _listen(person, kex)
    async with listener:
        connection = await asyncssh.connect(
            "127.0.0.1",
            listener.sockets[0].getsockname()[1],
            username="root",
            kex_algs=[kex],
            known_hosts=None,
            client_keys=[str(person.folder / "id")],
            agent_path=None,
            config=[],
        )
        connection.abort()
        await connection.wait_closed()
    transcript, session_id, _, _ = kept[-1]
    assert transcript.kex == kex
    assert proof.exchange_hash(transcript) == session_id


async def _listen(person: Person, kex: str) -> tuple[asyncio.Server, list[Any]]:
    kept: list[Any] = []
    options = await asyncssh.SSHServerConnectionOptions.construct(
        None,
        server_factory=asyncssh.SSHServer,
        server_host_keys=[(str(person.host_key), str(person.folder / "host-cert.pub"))],
        server_version=VERSION.decode().removeprefix("SSH-2.0-"),
        kex_algs=[kex],
        config=[],
        gss_host=None,
    )
    loop = asyncio.get_running_loop()

    def accept() -> Listening:
        connection = Listening(loop, options)
        connection.kept = kept
        connection._extensions_to_send[b"publickey-hostbound@openssh.com"] = b"0"
        return connection

    return await loop.create_server(accept, "127.0.0.1", 0, family=socket.AF_INET), kept


async def _connection(person: Person, kex: str) -> Any:
    listener, kept = await _listen(person, kex)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        options = [
            "-oBatchMode=yes",
            "-oIdentitiesOnly=yes",
            "-oIdentityAgent=none",
            "-oStrictHostKeyChecking=yes",
            f"-oUserKnownHostsFile={person.folder}/known_hosts",
            "-oGlobalKnownHostsFile=/dev/null",
            "-oHostKeyAlias=web1",
            f"-oKexAlgorithms={kex}",
        ]
        command = ["ssh", "-F/dev/null", *options, "-i", str(person.folder / "id"), "-p", str(port), "root@127.0.0.1"]
        ssh = await asyncio.to_thread(
            subprocess.run, [*command, "true"], stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False
        )
    assert kept, ssh.stderr.decode()
    return kept[-1]
