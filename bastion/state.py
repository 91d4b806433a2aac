"""What a bastion keeps on its disk: its own identity and nothing else of value. Files of mode 0600 in one folder."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import asyncssh
from asyncssh.public_key import SSHKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ca.errors import BartizanError, Unavailable
from recordings import keyfile, sshsig

RECORDING_NAMESPACE = "bartizan-recording"


@dataclass(frozen=True, slots=True)
class State:
    """An enrolled bastion: its names, where the authority is, and its three keys."""

    folder: Path
    id: str
    name: str
    host_key: SSHKey
    recording_key: Ed25519PrivateKey

    @property
    def tls_files(self) -> tuple[Path, Path, Path]:
        """Root, certificate chain and private key of mutual TLS."""
        return self.folder / "root.pem", self.folder / "tls.pem", self.folder / "tls.key"

    def sign(self, message: bytes) -> str:
        """SSHSIG over *message* with the recording key."""
        return sshsig.sign(self.recording_key, message, namespace=RECORDING_NAMESPACE)


def load(folder: Path) -> State:
    """The bastion enrolled in *folder*. Raises Unavailable when it is not, or its files are readable by others."""
    identity = folder / "identity.json"
    if not identity.exists():
        raise Unavailable(f"no bastion is enrolled in {folder}", hint="python -m bastion.enrol --help")
    for name in ("identity.json", "host_key", "recording_key", "tls.key"):
        check_private(folder / name)
    words = json.loads(identity.read_text())
    return State(
        folder=folder,
        id=words["id"],
        name=words["name"],
        host_key=asyncssh.read_private_key(folder / "host_key"),
        recording_key=keyfile.load_private(folder / "recording_key"),
    )


def check_private(path: Path) -> None:
    """Refuse a private file that is a link, somebody else's, or readable by others."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        raise Unavailable(f"{path} is missing", hint="enrol the bastion anew") from None
    if not stat.S_ISREG(info.st_mode):
        raise Unavailable(f"{path} is not a plain file")
    if info.st_uid != os.geteuid():
        raise Unavailable(f"{path} belongs to another user (uid {info.st_uid})")
    if info.st_mode & 0o077:
        raise Unavailable(f"{path} can be read by others (mode {info.st_mode & 0o777:o})", hint=f"chmod 600 {path}")


def complaint(error: BartizanError) -> str:
    """*error* as the one line, or two, that an operator reads."""
    hint = f"hint: {error.hint}\n" if error.hint else ""
    return f"bartizan: error: {error}\n{hint}"


def write_private(path: Path, text: str) -> None:
    """Write *path* anew with mode 0600, in one step."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
