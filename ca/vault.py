"""
Secrets at rest: files in ``DATA/secrets``, each sealed with AES-256-GCM under one key that comes from the 0600 file
``master.key`` or from a passphrase (argon2id). A sealed file names itself, so that files cannot be swapped.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ca.errors import Conflict, Unavailable

MAGIC = "bartizan-sealed-1"
MASTER = "master.key"
DERIVATION = "passphrase.json"


class Vault:
    """The sealed files of one data folder, opened."""

    def __init__(self, folder: Path, key: bytes) -> None:
        self._folder = folder
        self._cipher = AESGCM(key)

    @classmethod
    def open(cls, folder: Path, passphrase: bytes | None) -> Vault:
        """Open the vault, making it at the first start. A passphrase that is not the right one is refused here."""
        folder.mkdir(mode=0o700, exist_ok=True)
        master, derivation = folder / MASTER, folder / DERIVATION
        if passphrase is None:
            if os.path.lexists(derivation):
                raise Conflict(
                    "the keys are sealed with a passphrase, and none was given",
                    hint="start with --passphrase-file FILE or --passphrase-fd N",
                    code="passphrase_needed",
                )
            if not os.path.lexists(master):
                _refuse_orphans(folder)
                write_private(master, base64.b64encode(secrets.token_bytes(32)) + b"\n")
            vault = cls(folder, _master_key(master))
        else:
            if os.path.lexists(master):
                raise Conflict(
                    f"the keys are sealed with {master}, not with a passphrase",
                    hint="start without a passphrase",
                    code="passphrase_unexpected",
                )
            if not os.path.lexists(derivation):
                _refuse_orphans(folder)
                write_private(derivation, _new_derivation())
            vault = cls(folder, _derived(derivation, passphrase))
        vault.load_or_make("check", lambda: b"open")
        return vault

    def load_or_make(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The secret called *name*, made now if there is none."""
        file = self._folder / f"{name}.sealed"
        if not os.path.lexists(file):
            write_private(file, self._seal(name, make()))
        return self._open(name, file)

    def has(self, name: str) -> bool:
        return os.path.lexists(self._folder / f"{name}.sealed")

    def _seal(self, name: str, secret: bytes) -> bytes:
        nonce = secrets.token_bytes(12)
        sealed = self._cipher.encrypt(nonce, secret, _bound_to(name))
        document = {"format": MAGIC, "name": name, "nonce": _text(nonce), "data": _text(sealed)}
        return json.dumps(document).encode() + b"\n"

    def _open(self, name: str, file: Path) -> bytes:
        try:
            document = json.loads(read_private(file))
            if document["format"] != MAGIC:
                raise ValueError("another format")
            nonce, data = base64.b64decode(document["nonce"]), base64.b64decode(document["data"])
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"{file}: is not encrypted, or not by bartizan", code="key_file") from error
        try:
            return self._cipher.decrypt(nonce, data, _bound_to(name))
        except (InvalidTag, ValueError) as error:
            if name == "check":
                raise Unavailable(
                    f"the passphrase or key does not open {self._folder}", code="passphrase_wrong"
                ) from error
            raise Unavailable(f"{file}: does not open: altered, or another file's", code="key_file") from error


def read_private(file: Path) -> bytes:
    """What is in *file*, if it is a plain file of ours that nobody else can read."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if file.is_symlink():
            raise Unavailable(f"{file}: is a symbolic link", code="key_file") from error
        raise Unavailable(f"{file}: {error.strerror}", code="key_file") from error
    try:
        found = os.fstat(handle)
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISREG(found.st_mode):
            raise Unavailable(f"{file}: is not a plain file", code="key_file")
        if found.st_uid != os.geteuid():
            raise Unavailable(f"{file}: belongs to user {found.st_uid}, not to {os.geteuid()}", code="key_file")
        if mode & 0o077:
            raise Unavailable(f"{file}: mode is {mode:04o}, must be 0600", hint=f"chmod 600 {file}", code="key_file")
        with os.fdopen(os.dup(handle), "rb") as stream:
            return stream.read()
    finally:
        os.close(handle)


def write_private(file: Path, content: bytes) -> None:
    """Make *file* with mode 0600, whole or not at all. One that exists is left alone: FileExistsError."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(draft, file)
    finally:
        draft.unlink()
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _master_key(file: Path) -> bytes:
    try:
        key = base64.b64decode(read_private(file).strip(), validate=True)
    except ValueError as error:
        raise Unavailable(f"{file}: is not a bartizan key file", code="key_file") from error
    if len(key) != 32:
        raise Unavailable(f"{file}: is not a bartizan key file", code="key_file")
    return key


def _refuse_orphans(folder: Path) -> None:
    """Sealed files without what opens them: never make a new key beside them."""
    if any(folder.glob("*.sealed")):
        raise Unavailable(
            f"{folder}: the sealed keys are here, but what opens them is gone",
            hint=f"bring back {MASTER} or {DERIVATION} from a backup",
            code="key_file",
        )


def _new_derivation() -> bytes:
    salt = _text(secrets.token_bytes(16))
    return json.dumps({"kdf": "argon2id", "salt": salt, "time": 3, "memory_kib": 65_536, "lanes": 1}).encode() + b"\n"


def _derived(file: Path, passphrase: bytes) -> bytes:
    try:
        document = json.loads(read_private(file))
        salt = base64.b64decode(document["salt"])
        time, memory, lanes = int(document["time"]), int(document["memory_kib"]), int(document["lanes"])
    except (ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"{file}: is damaged", code="key_file") from error
    return hash_secret_raw(
        passphrase, salt, time_cost=time, memory_cost=memory, parallelism=lanes, hash_len=32, type=Type.ID
    )


def _bound_to(name: str) -> bytes:
    return f"{MAGIC}\0{name}".encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
