"""What a word on the command line may be: spans of time, addresses, labels. Each is parsed here, once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import click

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPAN = re.compile(r"(\d{1,6})([smhd])\Z")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?\Z")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]{2,45}\Z")


class Duration(click.ParamType[timedelta]):
    """``90s``, ``30m``, ``8h``, ``7d``."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        match = _SPAN.match(str(value))
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is not a span of time: write 90s, 30m, 8h or 7d", param, ctx)
        return timedelta(seconds=int(match[1]) * UNITS[match[2]])


class Address(click.ParamType[str]):
    """``HOST:PORT``; an IPv6 address stands in brackets."""

    name = "host:port"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            split_address(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


class Network(click.ParamType[str]):
    """``10.0.0.0/8`` or one address."""

    name = "network"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return str(ip_network(str(value)))
        except ValueError:
            self.fail(f"{str(value)!r} is not a network: write 10.0.0.0/8 or one address", param, ctx)


DURATION = Duration()
ADDRESS = Address()
NETWORK = Network()
FOLDER = click.Path(path_type=Path, file_okay=False, readable=False)
"""Whether it may be read is not asked here: who opens it says better whose it is."""


def split_address(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``. Raises ValueError with a sentence."""
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ValueError(f"{text!r} is not an address: write HOST:PORT")
    if not is_host(bare) or (":" in bare) != (bare != host):
        raise ValueError(f"{text!r} is not an address: write HOST:PORT, and brackets round an IPv6 address")
    return bare, int(port)


def is_host(text: str) -> bool:
    """A DNS name or an IP address, and nothing that a shell or ssh_config would read otherwise."""
    return bool(_HOST.match(text) or (":" in text and _IPV6.match(text)))


def labels(words: Iterable[str]) -> dict[str, str]:
    """``env=dev`` … as a mapping. Raises a usage error for anything else, doubles included."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name or not value:
            raise click.BadParameter(f"{word!r} is not a label: write KEY=VALUE", param_hint="--label")
        if name in found:
            raise click.BadParameter(f"the label {name!r} stands here twice", param_hint="--label")
        found[name] = value
    return found
