"""
Runs the authority: ``python -m ca.serve --data D --web HOST:PORT --public-ssh HOST:PORT``.

Two doors on one app: HTTPS, which asks for a bastion's client certificate and does without, and a Unix socket in the
data folder. One process per data folder. SIGTERM stops taking requests, answers the waiting ones, and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import uvicorn
import uvloop
from cryptography import x509
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ca import audit, tls
from ca import settings as settings_
from ca.api import create_app
from ca.api.door import PEER, UNIX
from ca.app import Authority, opened
from ca.errors import BartizanError, Conflict, InvalidInput
from ca.settings import Settings
from ca.web_certificate import WebCertificate

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

LONGEST_SOCKET_PATH = 107
GRACE_SECONDS = 5
HEAD_SECONDS = 20.0
"""How long a caller may take to say what they want; uvicorn itself would wait for ever."""
log = structlog.get_logger()


class PeerProtocol(HttpToolsProtocol):
    """Tells the app whose key the client certificate held; the TLS layer has checked the certificate itself."""

    _peer: str | None = None
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()
        channel = transport.get_extra_info("ssl_object")
        der = None if channel is None else channel.getpeercert(binary_form=True)
        if der:
            self._peer = tls.key_digest(x509.load_der_x509_certificate(der))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._wait_for_head()
        if self._peer is not None:
            self.scope[PEER] = self._peer  # type: ignore[literal-required]  # a key of our own

    def on_headers_complete(self) -> None:
        self._wait_no_more()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._wait_no_more()
        self._patience = self.loop.call_later(HEAD_SECONDS, self._lose_patience)

    def _lose_patience(self) -> None:
        if not getattr(self.cycle, "response_complete", True):
            self._wait_for_head()  # an answer to what was asked before is still due
        else:
            self.transport.abort()

    def _wait_no_more(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


class _Server(uvicorn.Server):
    """Leaves signals to the one who runs both, and says when its door is open."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.opened = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.opened.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main(arguments: list[str] | None = None) -> int:
    """Run until told to stop; exit status 1 with one sentence when it cannot."""
    options = _parser().parse_args(arguments)
    _log_to_stderr()
    os.umask(0o077)
    try:
        settings = _settings(options)
        with locked(settings.data):
            uvloop.run(serve(settings))
    except BartizanError as error:
        return _last_words(error)
    except BaseExceptionGroup as failures:
        expected = _only_expected(failures)
        if expected is None:
            raise
        return _last_words(expected)
    return 0


async def serve(settings: Settings, *, ready: Callable[[], None] = lambda: None) -> None:
    """Open everything, serve until SIGTERM or SIGINT, close everything in reverse."""
    async with opened(settings, clock=lambda: datetime.now(UTC)) as authority:
        app = create_app(authority)
        with _web_socket(settings) as web, _unix_socket(settings.socket) as unix:
            context = tls_context(authority)
            servers = [
                _server(app, tls_context=context),
                _server(_through_socket(app)),
            ]
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, _stop, authority, servers)
            async with asyncio.TaskGroup() as group:
                group.create_task(servers[0].serve(sockets=[web]))
                group.create_task(servers[1].serve(sockets=[unix]))
                group.create_task(_keep_certificate(authority, context))
                for server in servers:
                    await server.opened.wait()
                log.info("authority ready", web=settings.web_url, socket=str(settings.socket), pin=authority.root.pin)
                ready()
    log.info("authority stopped")


def tls_context(authority: Authority) -> ssl.SSLContext:
    """TLS 1.2 and up with our certificate, and the operator's own under the public name if there is one.

    A client certificate must be a bastion's, or absent.
    """

    def blank() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=authority.bastion_root.pem)
        context.set_alpn_protocols(["http/1.1"])
        return context

    context, settings = blank(), authority.settings
    authority.load_web_certificate(context)
    if settings.web_certificate is not None and settings.web_key is not None:
        own = WebCertificate(settings.web_address.host, settings.web_certificate, settings.web_key, blank=blank)
        context.sni_callback = own.choose
    return context


async def _keep_certificate(authority: Authority, context: ssl.SSLContext) -> None:
    """A new web certificate long before the present one ends, for an authority that is never restarted."""
    while not authority.stopping.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout((tls.WEB_LIFE / 3).total_seconds()):
                await authority.stopping.wait()
                return
        authority.load_web_certificate(context)


@contextlib.contextmanager
def locked(data: Path) -> Iterator[None]:
    """Hold the data folder: a second authority on it would give serial numbers twice."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (data / "authority.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                f"another authority is running on {data}", hint="stop it first, or choose another --data folder"
            ) from error
        yield


def _last_words(error: BartizanError) -> int:
    print(f"bartizan: error: {error}", file=sys.stderr)  # noqa: T201  # a program's last words
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)  # noqa: T201
    return 1


def _only_expected(failures: BaseExceptionGroup[BaseException]) -> BartizanError | None:
    """The expected error in a group that holds nothing else."""
    matched, rest = failures.split(BartizanError)
    if matched is None or rest is not None:
        return None
    first: BaseException = matched
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first if isinstance(first, BartizanError) else None


def _stop(authority: Authority, servers: list[_Server]) -> None:
    authority.stopping.set()
    authority.live.release()
    for server in servers:
        server.should_exit = True


def _server(app: ASGIApp, *, tls_context: ssl.SSLContext | None = None) -> _Server:
    config = uvicorn.Config(
        app,
        http=PeerProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=65_536,
        ssl_context_factory=None if tls_context is None else (lambda _config, _default: tls_context),
    )
    return _Server(config)


def _through_socket(app: ASGIApp) -> ASGIApp:
    async def marked(scope: Scope, receive: Receive, send: Send) -> None:
        scope[UNIX] = True
        await app(scope, receive, send)

    return marked


@contextlib.contextmanager
def _web_socket(settings: Settings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.web.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.web.host, settings.web.port), family=family, backlog=2048)
    except OSError as error:
        raise InvalidInput(f"cannot listen on {settings.web}: {error.strerror}", code="bind") from error
    with listener:
        yield listener


@contextlib.contextmanager
def _unix_socket(path: Path) -> Iterator[socket.socket]:
    """The socket with mode 0600 from its first moment. What a crash left there is removed: we hold the lock."""
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise InvalidInput(
            f"{path}: longer than the {LONGEST_SOCKET_PATH} bytes that a socket's path may have",
            hint="choose a --data folder with a shorter path",
        )
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(128)
        listener.setblocking(False)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ca.serve", description="Run the authority.")
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds everything")
    parser.add_argument("--web", help="HOST:PORT of the HTTPS door")
    parser.add_argument("--public-web", help="HOST[:PORT] where people find it")
    parser.add_argument("--public-ssh", help="HOST:PORT where people's ssh finds the bastion")
    parser.add_argument("--cluster", help="the cluster's name")
    parser.add_argument("--recordings", help="the folder of recordings")
    parser.add_argument("--web-certificate", type=Path, help="the operator's own certificate chain, a PEM file")
    parser.add_argument("--web-key", type=Path, help="its private key, a PEM file")
    parser.add_argument("--recordings-keep-days", type=int, help="delete recordings after this many days")
    secret = parser.add_mutually_exclusive_group()
    secret.add_argument("--passphrase-file", type=Path, help="a credential file with the passphrase of the keys")
    secret.add_argument("--passphrase-fd", type=int, help="a file descriptor to read it from")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    data: Path = options.data.absolute()
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = {
        name: getattr(options, name)
        for name in (
            "web",
            "public_web",
            "public_ssh",
            "cluster",
            "recordings",
            "recordings_keep_days",
            "web_certificate",
            "web_key",
        )
    }
    return settings_.load(data, flags, os.environ, passphrase=_passphrase(options))


def _passphrase(options: argparse.Namespace) -> bytes | None:
    try:
        if options.passphrase_file is not None:
            content = options.passphrase_file.read_bytes()
        elif options.passphrase_fd is not None:
            with os.fdopen(options.passphrase_fd, "rb") as stream:
                content = stream.read()
        else:
            return None
    except OSError as error:
        raise InvalidInput(f"the passphrase cannot be read: {error.strerror}") from error
    secret = content.rstrip(b"\r\n")
    if not secret:
        raise InvalidInput("the passphrase is empty")
    return bytes(secret)


def _log_to_stderr() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            audit.harmless,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="level=%(levelname)s event=%(message)s")


if __name__ == "__main__":
    sys.exit(main())
