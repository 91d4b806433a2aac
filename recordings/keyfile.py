"""Ed25519 private keys in files: written once, readable by their owner alone, and refused when they are not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)

MAX_FILE = 16_384


class KeyFileError(Exception):
    """The key file cannot be used; the message says why and which file."""


def load_private(path: Path) -> Ed25519PrivateKey:
    """The Ed25519 key in *path*: a plain file of ours, mode 0600 or less, in OpenSSH's format, not encrypted."""
    data = _read_private(path)
    try:
        key = load_ssh_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path} is not an unencrypted OpenSSH private key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path} is not an Ed25519 key")
    return key


def write_private(path: Path, key: Ed25519PrivateKey) -> None:
    """Write *key* to *path*, which must not exist yet, mode 0600."""
    data = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _read_private(path: Path) -> bytes:
    """The file's bytes, after asking the open file itself who may read it: no gap between check and use."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        reason = "is a symbolic link" if path.is_symlink() else f"cannot be opened: {error.strerror}"
        raise KeyFileError(f"{path} {reason}") from error
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise KeyFileError(f"{path} is not a plain file")
        if about.st_uid != os.geteuid():
            raise KeyFileError(f"{path} belongs to another user")
        if about.st_mode & 0o177:
            raise KeyFileError(f"{path} has mode {stat.S_IMODE(about.st_mode):04o}, expected 0600")
        data = os.read(descriptor, MAX_FILE + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_FILE:
        raise KeyFileError(f"{path} is too long for a key")
    return data
