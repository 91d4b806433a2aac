"""recordings/keyfile.py: a private key lies in a file that is ours alone, or is not used."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recordings.keyfile import KeyFileError, load_private, write_private
from recordings.sshkey import PublicKey


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def test_what_is_written_is_what_is_loaded(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    write_private(tmp_path / "key", key)
    assert load_private(tmp_path / "key").private_bytes_raw() == key.private_bytes_raw()
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_it_is_private_whatever_the_umask(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    """CLI-04."""
    before = os.umask(0)
    try:
        write_private(tmp_path / "key", key)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_ssh_keygen_reads_it(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    write_private(tmp_path / "key", key)
    shown = subprocess.run(
        ["ssh-keygen", "-yf", tmp_path / "key"], check=True, capture_output=True, text=True, timeout=10
    )
    assert PublicKey.from_line(shown.stdout) == PublicKey.of(key.public_key())


def test_we_read_what_ssh_keygen_makes(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True, timeout=10)
    key = PublicKey.of(load_private(tmp_path / "key").public_key())
    assert key == PublicKey.from_line((tmp_path / "key.pub").read_text())


def test_no_file_is_overwritten(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    """CLI-04: O_EXCL; a link to nowhere is not followed either."""
    write_private(tmp_path / "key", key)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("key", "link"):
        with pytest.raises(FileExistsError):
            write_private(tmp_path / name, key)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o700])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, key: Ed25519PrivateKey, mode: int) -> None:
    """KEY-01."""
    write_private(tmp_path / "key", key)
    (tmp_path / "key").chmod(mode)
    with pytest.raises(KeyFileError, match=f"mode {mode:04o}, expected 0600"):
        load_private(tmp_path / "key")


def test_a_key_of_another_user_is_refused(
    tmp_path: Path, key: Ed25519PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KEY-01."""
    write_private(tmp_path / "key", key)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(KeyFileError, match="another user"):
        load_private(tmp_path / "key")


def test_a_link_a_folder_and_a_pipe_are_refused(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    """KEY-01; and nothing waits for a pipe that nobody writes to."""
    write_private(tmp_path / "key", key)
    (tmp_path / "link").symlink_to(tmp_path / "key")
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir()
    with pytest.raises(KeyFileError, match="symbolic link"):
        load_private(tmp_path / "link")
    for name in ("pipe", "folder"):
        with pytest.raises(KeyFileError, match="not a plain file"):
            load_private(tmp_path / name)
    with pytest.raises(KeyFileError, match="cannot be opened"):
        load_private(tmp_path / "missing")


def test_what_is_not_a_plain_ed25519_key_is_refused(tmp_path: Path) -> None:
    for kind, words in (("ecdsa", "not an Ed25519 key"), ("ed25519", "unencrypted")):
        passphrase = "secret" if kind == "ed25519" else ""
        path = tmp_path / kind
        subprocess.run(["ssh-keygen", "-qt", kind, "-N", passphrase, "-f", path], check=True, timeout=20)
        with pytest.raises(KeyFileError, match=words):
            load_private(path)
    for name, data in (("text", b"hello"), ("long", b"x" * 100_000), ("empty", b"")):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)
        with pytest.raises(KeyFileError):
            load_private(tmp_path / name)
