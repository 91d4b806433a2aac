"""ca/settings.py: flags beat the environment, which beats the file; what is not understood is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from ca.errors import InvalidInput
from ca.settings import Address, Settings, load

FLAGS = {"web": "127.0.0.1:8443", "public_ssh": "bastion.example.com:2222"}


def loaded(data: Path, flags: dict[str, object] | None = None, environ: dict[str, str] | None = None) -> Settings:
    return load(data, {**FLAGS, **(flags or {})}, environ or {}, passphrase=None)


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    assert loaded(tmp_path).cluster == "bartizan"
    (tmp_path / "bartizan.toml").write_text('cluster = "file"\nrecordings_keep_days = 30\n')
    assert loaded(tmp_path).cluster == "file"
    assert loaded(tmp_path).recordings_keep_days == 30
    assert loaded(tmp_path, environ={"BARTIZAN_CLUSTER": "environment"}).cluster == "environment"
    assert loaded(tmp_path, {"cluster": "flag"}, {"BARTIZAN_CLUSTER": "environment"}).cluster == "flag"


@pytest.mark.parametrize(
    "text",
    [
        "clutser = 'x'",
        "cluster = 1",
        "recordings_keep_days = 'soon'",
        "recordings_keep_days = 0",
        "cluster = 'A B'",
        "=",
    ],
)
def test_what_is_not_understood_in_the_file_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "bartizan.toml").write_text(text)
    with pytest.raises(InvalidInput):
        loaded(tmp_path)


def test_a_relative_folder_in_the_file_counts_from_the_data_folder(tmp_path: Path) -> None:
    (tmp_path / "bartizan.toml").write_text('recordings = "elsewhere"\n')
    assert loaded(tmp_path).recordings == tmp_path / "elsewhere"
    (tmp_path / "bartizan.toml").write_text('recordings = "/srv/recordings"\n')
    assert loaded(tmp_path).recordings == Path("/srv/recordings")


def test_a_missing_address_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="web: not set"):
        load(tmp_path, {}, {}, passphrase=None)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("web1:22", "web1", 22), ("192.0.2.1:2222", "192.0.2.1", 2222), ("[2001:db8::1]:22", "2001:db8::1", 22)],
)
def test_an_address_reads_and_writes_itself(text: str, host: str, port: int) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, str(address)) == (host, port, text)


@pytest.mark.parametrize("text", ["", "web1", ":22", "web1:", "web1:70000", "2001:db8::1:22", "a b:22", "web1:22\n"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Address.parse(text)


def test_certificates_name_what_people_type(tmp_path: Path) -> None:
    settings = loaded(tmp_path, {"web": "0.0.0.0:443", "public_web": "ca.example.com"})
    assert settings.web_url == "https://ca.example.com:443"
    assert "ca.example.com" in settings.web_names
    assert "0.0.0.0" not in settings.web_names
    assert settings.bastion_names == ("bastion.example.com", "bartizan")


def test_a_passphrase_is_never_shown(tmp_path: Path) -> None:
    """LOG-02"""
    assert "hunter2" not in repr(load(tmp_path, FLAGS, {}, passphrase=b"hunter2"))
