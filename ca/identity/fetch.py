"""
The only way out to an identity provider. Whatever is asked of one goes through ``WayOut``, and so does whatever it
answers: from the origins that the operator wrote down, https but on this machine, no redirect, 1 MiB, 5 s in all.

Proxies and credentials of the environment are not used. All that goes wrong is ``Unreachable``, with a sentence that
names the host and never what was sent.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import httpx

from ca.audit import visible
from ca.identity.provider import Unreachable
from ca.strictjson import read_list, read_object

MOST_BYTES = 1 << 20
SECONDS = 5.0
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: where something lies, and whom TLS speaks with."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{shown}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. ``headers`` by their lower-case names."""

    host: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Mapping[str, object]:
        """The JSON object that was sent. Raises Unreachable when it is something else."""
        try:
            return read_object(self.body)
        except ValueError as error:
            raise self._other_than("a JSON object") from error

    def json_list(self) -> list[Mapping[str, object]]:
        """The list of JSON objects that was sent. Raises Unreachable when it is something else."""
        try:
            return read_list(self.body)
        except ValueError as error:
            raise self._other_than("a JSON list of objects") from error

    def _other_than(self, expected: str) -> Unreachable:
        said = visible(self.headers.get("content-type", ""))[:40] or "something"
        return Unreachable(f"{self.host} answered {said} with status {self.status}, not {expected}")


class WayOut:
    """Asks one provider, and nobody else. ``seconds`` is for tests."""

    def __init__(self, origins: Iterable[str], *, seconds: float = SECONDS) -> None:
        self._origins = frozenset(origin(url) for url in origins)
        self._seconds = seconds
        self._client = httpx.AsyncClient(
            verify=ssl.create_default_context(),
            trust_env=False,
            follow_redirects=False,
            timeout=seconds,
            headers={"User-Agent": "bartizan", "Accept": "application/json", "Accept-Encoding": "identity"},
        )

    def permit(self, url: str) -> str:
        """*url*, when we may ask it. Raises Unreachable."""
        if (found := origin(url)) not in self._origins:
            raise Unreachable(
                f"the provider points to {found}, which its file does not list",
                hint=f"if that is the provider's too: `also: [{found}]`",
                code="provider_origin",
            )
        return url

    async def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        return await self._ask("GET", url, headers, None)

    async def post(self, url: str, form: Mapping[str, str], *, headers: Mapping[str, str] | None = None) -> Answer:
        return await self._ask("POST", url, headers, form)

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(
        self, method: str, url: str, headers: Mapping[str, str] | None, form: Mapping[str, str] | None
    ) -> Answer:
        host = origin(self.permit(url)).host
        if self._client.is_closed:
            raise Unreachable("the provider's file was changed a moment ago: try again")
        try:
            async with asyncio.timeout(self._seconds):
                await _refuse_false_localhost(url)
                async with self._client.stream(method, url, headers=headers, data=form) as response:
                    return await _read(host, response)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise Unreachable(f"{host} did not answer within {self._seconds:g} s") from error
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise Unreachable(f"{host} cannot be asked: {_why(error)}") from error
        finally:
            self._client.cookies.clear()  # no answer changes the next question


def _why(error: Exception) -> str:
    """What the system says, without its number."""
    said = re.sub(r"^\[Errno -?\d+\] ", "", visible(str(error)))[:200]
    return said or type(error).__name__


def origin(url: str) -> Origin:
    """Where *url* lies. Raises Unreachable for what we never ask: plain http elsewhere, user names, odd characters."""
    try:
        parsed = httpx.URL(url)
        port = _PORTS.get(parsed.scheme, 0) if parsed.port is None else parsed.port
    except (httpx.InvalidURL, ValueError) as error:
        raise Unreachable(f"{_shown(url)} is not a web address", code="provider_address") from error
    plain = url.isascii() and url.isprintable() and not set(url) & set(" \\@#")
    if not plain or not parsed.host or parsed.scheme not in _PORTS or not 0 < port < 65_536:
        raise Unreachable(f"{_shown(url)} is not a plain web address", code="provider_address")
    if parsed.scheme != "https" and not _is_this_machine(parsed.host):
        raise Unreachable(f"{_shown(url)} is not https", code="provider_address")
    return Origin(parsed.scheme, parsed.host, port)


def _shown(url: str) -> str:
    return repr(visible(url.partition("?")[0])[:100])


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _refuse_false_localhost(url: str) -> None:
    """``localhost`` is a name: over plain http it has to mean this machine."""
    parsed = httpx.URL(url)
    if parsed.scheme == "http" and parsed.host == "localhost":
        found = await asyncio.get_running_loop().getaddrinfo("localhost", parsed.port, type=socket.SOCK_STREAM)
        if not all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found):
            raise Unreachable("localhost is not this machine here", code="provider_address")


async def _read(host: str, response: httpx.Response) -> Answer:
    if 300 <= response.status_code < 400:
        raise Unreachable(f"{host} answered with a redirect, which is not followed")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise Unreachable(f"{host} answered compressed, which was not asked for")
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > MOST_BYTES:
            raise Unreachable(f"{host} answered more than {MOST_BYTES >> 20} MiB")
    return Answer(host, response.status_code, dict(response.headers), bytes(body))
