"""Which addresses the authority may be told to ask. Pure: https, or plain http on this machine alone."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\Z")


def wrong_url(url: str) -> str | None:
    """What is wrong with an address that we would ask; None when nothing is."""
    if "\\" in url or not url.isascii() or not url.isprintable() or " " in url or len(url) > 255:
        return "expected an address in plain ASCII, at most 255 characters"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "expected an address such as https://id.example.com"
    if parts.scheme not in ("https", "http") or not (_HOST.match(host) or ":" in host) or port == 0:
        return "expected an address such as https://id.example.com"
    if "@" in parts.netloc:
        return "expected no user or password in it"
    if "?" in url or "#" in url:
        return "expected neither ? nor # in it"
    if parts.scheme == "http" and not is_loopback(host):
        return "expected https (http is for this machine alone)"
    return None


def wrong_origin(origin: str) -> str | None:
    if wrong := wrong_url(origin):
        return wrong
    return "expected no path after the host" if origin.count("/") > 2 else None


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
