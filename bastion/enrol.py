"""Enrols a bastion once: makes its keys here, sends the public halves with a one-use token, keeps what comes back.

The token is read from standard input, never from the command line. Running it again on an enrolled folder says so.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import ssl
import sys
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from bastion.state import complaint, write_private
from ca import wire
from ca.errors import AccessDenied, BartizanError, Conflict, Unavailable
from recordings.sshkey import PublicKey


def enrol(folder: Path, *, authority: str, pin: str, token: str, name: str, egress: list[str]) -> wire.BastionIdentity:
    """Enrol the bastion *name* in *folder*. Raises Conflict if one is there, AccessDenied for a wrong pin or token."""
    if (folder / "identity.json").exists():
        raise Conflict(f"{folder} already holds an enrolled bastion", hint="remove the folder to enrol anew")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    root = _pinned_root(authority, pin)
    host_key, recording_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    tls_key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(tls_key, hashes.SHA256())
    identity = _send(
        authority,
        root,
        wire.BastionEnrolment(
            token=token,
            name=name,
            host_key=PublicKey.of(host_key.public_key()).line(),
            recording_key=PublicKey.of(recording_key.public_key()).line(),
            tls_request=request.public_bytes(serialization.Encoding.PEM).decode("ascii"),
            egress=egress,
        ),
    )
    for file, key in (("host_key", host_key), ("recording_key", recording_key)):
        write_private(folder / file, _pem(key, serialization.PrivateFormat.OpenSSH))
    write_private(folder / "tls.key", _pem(tls_key, serialization.PrivateFormat.PKCS8))
    write_private(folder / "tls.pem", identity.tls_certificate)
    write_private(folder / "root.pem", identity.tls_root)
    # Last: a folder with identity.json is complete.
    write_private(folder / "identity.json", f'{{"id": "{identity.id}", "name": "{name}"}}\n')
    return identity


def _pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> str:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode("ascii")


def _pinned_root(authority: str, pin: str) -> str:
    """The authority's TLS root in PEM, believed only because its public key info has the SHA-256 *pin*."""
    unchecked = ssl.create_default_context()
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    try:
        pem = (
            httpx.get(f"{authority}/v1/tls-root", verify=unchecked, trust_env=False, timeout=10).raise_for_status().text
        )
    except httpx.HTTPError as error:
        raise Unavailable(f"the authority cannot be reached at {authority}: {error}") from None
    try:
        root = x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        raise Unavailable(f"what answers at {authority} is no Bartizan authority") from None
    info = root.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    seen = "sha256:" + hashlib.sha256(info).hexdigest()
    if seen != pin:
        raise AccessDenied(
            f"the authority's pin is {seen}, expected {pin}", hint="bartizan --data D pin prints the right one"
        )
    # Written anew: whatever else stood in the answer, another root above all, was not pinned.
    return root.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _send(authority: str, root: str, body: wire.BastionEnrolment) -> wire.BastionIdentity:
    context = ssl.create_default_context(cadata=root)
    try:
        with httpx.Client(verify=context, trust_env=False, timeout=20) as http:
            answer = http.post(
                f"{authority}/v1/bastions/enrolment",
                content=body.model_dump_json(),
                headers={"content-type": "application/json"},
                extensions={"sni_hostname": wire.OWN_NAME},
            )
    except httpx.HTTPError as error:
        raise Unavailable(f"the authority cannot be reached at {authority}: {error}") from None
    if answer.is_success:
        return wire.BastionIdentity.model_validate_json(answer.content)
    problem = wire.Problem.model_validate_json(answer.content)
    raise AccessDenied(problem.message, hint=problem.hint, code=problem.error)


def main(arguments: list[str] | None = None) -> int:
    """``python -m bastion.enrol < TOKEN``: exit status 0 when enrolled, 1 with one line when not."""
    parser = argparse.ArgumentParser(prog="bartizan-bastion-enrol", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder for the bastion's identity")
    parser.add_argument("--authority", required=True, help="URL of the authority")
    parser.add_argument("--pin", required=True, help="sha256:… of the authority's root, from 'bartizan pin'")
    parser.add_argument("--name", required=True, help="name of this bastion")
    parser.add_argument("--egress", action="append", default=[], help="address from which it reaches nodes")
    given = parser.parse_args(arguments)
    os.umask(0o077)
    try:
        enrol(
            given.state,
            authority=given.authority.rstrip("/"),
            pin=given.pin,
            token=sys.stdin.readline().strip(),
            name=given.name,
            egress=given.egress,
        )
    except BartizanError as error:
        sys.stderr.write(complaint(error))
        return 1
    sys.stdout.write(f"bastion {given.name} is enrolled\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
