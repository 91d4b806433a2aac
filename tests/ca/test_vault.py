"""ca/vault.py: secrets at rest open only with what sealed them, and only from files that nobody else can read."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from ca.errors import Conflict, Unavailable
from ca.vault import Vault, read_private, write_private

SECRET = b"the private key of a certificate authority"


def sealed(folder: Path, passphrase: bytes | None = None) -> Vault:
    vault = Vault.open(folder, passphrase)
    assert vault.load_or_make("user-ca", lambda: SECRET) == SECRET
    return vault


@pytest.mark.parametrize("passphrase", [None, b"a long passphrase"])
def test_what_was_sealed_opens_again(tmp_path: Path, passphrase: bytes | None) -> None:
    sealed(tmp_path / "s", passphrase)
    assert Vault.open(tmp_path / "s", passphrase).load_or_make("user-ca", lambda: b"never") == SECRET


def test_nothing_on_the_disk_is_the_secret(tmp_path: Path) -> None:
    sealed(tmp_path / "s", b"a long passphrase")
    for file in (tmp_path / "s").iterdir():
        assert SECRET not in file.read_bytes()
        assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700


def test_a_wrong_passphrase_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    """KEY-02"""
    sealed(tmp_path / "s", b"a long passphrase")
    before = {file: file.read_bytes() for file in (tmp_path / "s").iterdir()}
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            Vault.open(tmp_path / "s", b"another passphrase")
        assert caught.value.code == "passphrase_wrong"
    assert {file: file.read_bytes() for file in (tmp_path / "s").iterdir()} == before


def test_a_passphrase_is_asked_for_exactly_where_there_is_one(tmp_path: Path) -> None:
    sealed(tmp_path / "with", b"a long passphrase")
    sealed(tmp_path / "without")
    with pytest.raises(Conflict, match="sealed with a passphrase, and none was given"):
        Vault.open(tmp_path / "with", None)
    with pytest.raises(Conflict, match="not with a passphrase"):
        Vault.open(tmp_path / "without", b"a long passphrase")


def loosened(file: Path) -> str:
    file.chmod(0o644)
    return f"{file}: mode is 0644, must be 0600"


def linked(file: Path) -> str:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")
    return f"{file}: is a symbolic link"


def bare(file: Path) -> str:
    file.write_bytes(b"-----BEGIN OPENSSH PRIVATE KEY-----\n")
    return f"{file}: is not encrypted, or not by bartizan"


def made_a_folder(file: Path) -> str:
    file.unlink()
    file.mkdir()
    return f"{file}: is not a plain file"


def given_away(file: Path) -> str:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(file, 12_345, -1)
    return f"{file}: belongs to user 12345, not to 0"


@pytest.mark.parametrize("harm", [loosened, linked, bare, made_a_folder, given_away])
def test_a_key_file_that_others_may_have_touched_is_refused_with_its_name_and_reason(
    tmp_path: Path, harm: object
) -> None:
    """KEY-01"""
    vault = sealed(tmp_path / "s")
    message = harm(tmp_path / "s" / "user-ca.sealed")  # type: ignore[operator]
    with pytest.raises(Unavailable) as caught:
        vault.load_or_make("user-ca", lambda: b"never")
    assert str(caught.value) == message


@pytest.mark.parametrize("harm", [loosened, linked, given_away])
def test_the_master_key_is_held_to_the_same(tmp_path: Path, harm: object) -> None:
    """KEY-01"""
    sealed(tmp_path / "s")
    message = harm(tmp_path / "s" / "master.key")  # type: ignore[operator]
    with pytest.raises(Unavailable) as caught:
        Vault.open(tmp_path / "s", None)
    assert str(caught.value) == message


def test_sealed_files_cannot_change_places(tmp_path: Path) -> None:
    """KEY-12: the key of one CA does not become that of another."""
    vault = sealed(tmp_path / "s")
    vault.load_or_make("host-ca", lambda: b"another")
    shutil.copy(tmp_path / "s" / "host-ca.sealed", tmp_path / "s" / "user-ca.sealed")
    with pytest.raises(Unavailable, match="does not open"):
        vault.load_or_make("user-ca", lambda: b"never")


def test_an_altered_file_does_not_open(tmp_path: Path) -> None:
    vault = sealed(tmp_path / "s")
    file = tmp_path / "s" / "user-ca.sealed"
    content = bytearray(file.read_bytes())
    for at in range(0, len(content), 7):
        altered = bytes(content[:at]) + bytes([content[at] ^ 1]) + bytes(content[at + 1 :])
        file.write_bytes(altered)
        with suppress(Unavailable):
            assert vault.load_or_make("user-ca", lambda: b"never") == SECRET  # an unused bit of base64


def test_no_new_master_key_is_made_beside_old_sealed_files(tmp_path: Path) -> None:
    sealed(tmp_path / "s")
    (tmp_path / "s" / "master.key").unlink()
    for passphrase in (None, b"a long passphrase"):
        with pytest.raises(Unavailable, match="what opens them is gone"):
            Vault.open(tmp_path / "s", passphrase)


def test_a_private_file_is_never_overwritten(tmp_path: Path) -> None:
    write_private(tmp_path / "f", b"one")
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "f", b"two")
    assert read_private(tmp_path / "f") == b"one"
    assert [file.name for file in tmp_path.iterdir()] == ["f"]
