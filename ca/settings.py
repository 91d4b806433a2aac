"""
How the authority is told what to be: one frozen value, read once from flags, the environment and one TOML file.

An unknown key is an error. Nothing else reads the environment. A passphrase never comes from the environment.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from ca.errors import InvalidInput
from ca.model import LABEL

PREFIX = "BARTIZAN_"
FILE = "bartizan.toml"
KEYS = frozenset(
    {
        "web",
        "public_web",
        "public_ssh",
        "cluster",
        "recordings",
        "recordings_keep_days",
        "disk_warning_percent",
        "web_certificate",
        "web_key",
    }
)


@dataclass(frozen=True, slots=True)
class Address:
    """A host (name or bare IP address) and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, field_name: str = "address", default_port: int | None = None) -> Address:
        """``HOST:PORT`` or ``[IPV6]:PORT``."""
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+))(?::([0-9]{1,5}))?", text)
        port = default_port if match is None or match[3] is None else int(match[3])
        if match is None or port is None or port > 65_535:
            raise InvalidInput(f"{field_name}: expected HOST:PORT, got {text!r}")
        return cls((match[1] or match[2]).lower(), port)

    @property
    def is_ip(self) -> bool:
        try:
            ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def unspecified(self) -> bool:
        """Whether this binds every interface, so that it names none."""
        return self.is_ip and ip_address(self.host).is_unspecified

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one authority runs with."""

    data: Path
    web: Address
    """Where HTTPS is bound."""
    public_ssh: Address
    """Where people's ``ssh`` finds the bastion."""
    public_web: Address | None = None
    """Where people find the web door, when it is not the bound address."""
    cluster: str = "bartizan"
    recordings: Path | None = None
    recordings_keep_days: int | None = None
    """Recordings older than this are deleted. None keeps them for ever."""
    disk_warning_percent: int = 85
    """From this fill on, the log and /metrics warn about the recordings' disk."""
    web_certificate: Path | None = None
    """A PEM file with the operator's own certificate chain, shown under the name of ``public_web``."""
    web_key: Path | None = None
    """The PEM file with its private key, not sealed. Both files are read again when they change."""
    passphrase: bytes | None = field(default=None, repr=False)
    """Opens the sealed keys; without it the key file in the data folder does."""

    def __post_init__(self) -> None:
        if not LABEL.match(self.cluster):
            raise InvalidInput(f"cluster: expected one lower-case DNS label, got {self.cluster!r}")
        if self.recordings_keep_days is not None and self.recordings_keep_days < 1:
            raise InvalidInput("recordings_keep_days: expected a whole number of days, at least 1")
        if not 1 <= self.disk_warning_percent <= 100:
            raise InvalidInput("disk_warning_percent: expected 1 to 100")
        if (self.web_certificate is None) != (self.web_key is None):
            raise InvalidInput("web_certificate and web_key: expected both, or neither")
        if self.web_certificate is not None and (self.web_address.is_ip or self.web_address.host == "localhost"):
            raise InvalidInput(
                "web_certificate: it is shown under a public host name, and the public address has none",
                hint="give --public-web NAME[:PORT]",
            )

    @property
    def recordings_folder(self) -> Path:
        return self.recordings or self.data / "recordings"

    @property
    def socket(self) -> Path:
        return self.data / "authority.sock"

    @property
    def web_address(self) -> Address:
        """What people type: the public address, else the bound one."""
        return self.public_web or self.web

    @property
    def web_url(self) -> str:
        return f"https://{self.web_address}"

    @property
    def web_names(self) -> tuple[str, ...]:
        """Host names and addresses that the web certificate carries and the Host header may show."""
        names = ["localhost", "127.0.0.1", "::1"]
        for address in (self.web, self.public_web):
            if address is not None and not address.unspecified and address.host not in names:
                names.append(address.host)
        if self.public_ssh.host not in names:
            names.append(self.public_ssh.host)
        return tuple(names)

    @property
    def bastion_names(self) -> tuple[str, ...]:
        """Names on the bastion's own host certificate."""
        return tuple(dict.fromkeys((self.public_ssh.host, self.cluster)))


def load(data: Path, flags: Mapping[str, object], environ: Mapping[str, str], *, passphrase: bytes | None) -> Settings:
    """Settings from ``DATA/bartizan.toml``, then the environment, then flags: the later one wins."""
    values = written(data, environ) | {name: value for name, value in flags.items() if value is not None}
    for name in ("web", "public_ssh"):
        if name not in values:
            raise InvalidInput(f"{name}: not set", hint=f"give --{name.replace('_', '-')} HOST:PORT")
    public_web = _text(values, "public_web")
    return Settings(
        data=data,
        web=Address.parse(_text(values, "web") or "", field_name="web"),
        public_ssh=Address.parse(_text(values, "public_ssh") or "", field_name="public_ssh", default_port=22),
        public_web=None if public_web is None else Address.parse(public_web, field_name="public_web", default_port=443),
        cluster=_text(values, "cluster") or "bartizan",
        recordings=_path(values, "recordings"),
        recordings_keep_days=_number(values, "recordings_keep_days"),
        disk_warning_percent=_number(values, "disk_warning_percent") or 85,
        web_certificate=_path(values, "web_certificate"),
        web_key=_path(values, "web_key"),
        passphrase=passphrase,
    )


def written(data: Path, environ: Mapping[str, str]) -> dict[str, object]:
    """What ``DATA/bartizan.toml`` says, and over it the environment. A relative folder counts from *data*."""
    values = _from_file(data / FILE)
    for name, value in environ.items():
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).lower() in KEYS:
            values[name.removeprefix(PREFIX).lower()] = value
    recordings = _text(values, "recordings")
    return values if recordings is None else values | {"recordings": str(data / recordings)}


def _from_file(file: Path) -> dict[str, object]:
    try:
        values = tomllib.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, OSError) as error:
        raise InvalidInput(f"{file}: {error}") from error
    unknown = sorted(set(values) - KEYS)
    if unknown:
        raise InvalidInput(f"{file}: unknown key {unknown[0]!r}", hint=f"known keys: {', '.join(sorted(KEYS))}")
    return values


def _text(values: Mapping[str, object], name: str) -> str | None:
    value = values.get(name)
    if value is None or isinstance(value, str):
        return value
    raise InvalidInput(f"{name}: expected text")


def _path(values: Mapping[str, object], name: str) -> Path | None:
    value = values.get(name)
    return value if isinstance(value, Path) else None if (text := _text(values, name)) is None else Path(text)


def _number(values: Mapping[str, object], name: str) -> int | None:
    value = values.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise InvalidInput(f"{name}: expected a whole number")
