"""What a node's sshd has to be told, as lines for its ``sshd_config``. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ca import wire
from ca.errors import InvalidInput

FOLDER = "/etc/ssh/bartizan"


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the files lie on the node."""

    trusted_ca: str = f"{FOLDER}/target_ca.pub"
    host_certificates: Sequence[str] = field(default=("/etc/ssh/ssh_host_ed25519_key-cert.pub",))
    revoked_keys: str = f"{FOLDER}/revoked_keys"
    principals_file: str | None = None
    """For an sshd that does not run as root and so cannot change user for a command."""

    def __post_init__(self) -> None:
        for path in (self.trusted_ca, *self.host_certificates, self.revoked_keys, self.principals_file):
            if path is not None and (not path or any(letter in path for letter in '"\\\n\r\0')):
                raise InvalidInput(f"sshd cannot be told of this path: {path!r}")


def lines(trust: wire.NodeTrust, paths: Paths, *, explain: bool, unused_timeout: bool) -> str:
    """The lines; with *explain* also what each file must hold, for operators who copy files by hand.

    ``UnusedConnectionTimeout`` is known to OpenSSH 9.2 and later only: elsewhere sshd would refuse to start.
    """
    text = [f"# Lets the bastions of Bartizan in as node {trust.name}: each session with a certificate of its own."]
    if explain:
        text += [f"# {paths.trusted_ca} holds:", *(f"#   {key}" for key in trust.target_ca)]
    text.append(f"TrustedUserCAKeys {_word(paths.trusted_ca)}")
    for certificate in paths.host_certificates:
        if explain:
            key = certificate.removesuffix("-cert.pub")
            text.append(f"# {certificate}: `bartizan nodes certify {trust.name} {key}.pub` writes it")
        text.append(f"HostCertificate {_word(certificate)}")
    text += _principals(trust, paths, explain=explain)
    if explain:
        text.append(f"# {paths.revoked_keys} is empty to begin with, and must exist: without it sshd refuses everybody")
    text.append(f"RevokedKeys {_word(paths.revoked_keys)}")
    text.append(f"{'' if unused_timeout else '# OpenSSH 9.2 and later: '}UnusedConnectionTimeout 60")
    return "\n".join(text) + "\n"


def _principals(trust: wire.NodeTrust, paths: Paths, *, explain: bool) -> list[str]:
    """Only ``LOGIN@NODE-ID`` enters as LOGIN: a certificate made for another node opens nothing here."""
    if paths.principals_file is None:
        return [f"AuthorizedPrincipalsCommand /bin/echo %u@{trust.id}", "AuthorizedPrincipalsCommandUser nobody"]
    about = f"# {paths.principals_file} (%u is the account) holds one line per account: ACCOUNT@{trust.id}"
    return [*([about] if explain else []), f"AuthorizedPrincipalsFile {_word(paths.principals_file)}"]


def _word(path: str) -> str:
    return f'"{path}"' if " " in path or "#" in path else path
