"""
The operator's own certificate for the web door: shown to whoever asks for the public name, read again when its files
change. Whoever comes by address or by another name (bastions, pinned clients) sees the certificate of our own root.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import structlog

from ca.errors import InvalidInput

logger = structlog.get_logger()


class WebCertificate:
    """Certificate chain and key in PEM files, and the TLS context made of them."""

    def __init__(self, name: str, chain: Path, key: Path, *, blank: Callable[[], ssl.SSLContext]) -> None:
        """*name* is the host name it is shown for; *blank* makes a server context without a certificate.

        Raises InvalidInput when the files do not hold a certificate and its key.
        """
        self._name = name
        self._chain = chain
        self._key = key
        self._blank = blank
        self._seen = self._marks()
        self._context = self._read()

    def choose(self, connection: ssl.SSLObject | ssl.SSLSocket, asked: str | None, _context: ssl.SSLContext) -> None:
        """TLS's server name callback (RFC 6066 §3)."""
        if asked is not None and asked.lower() == self._name:
            connection.context = self._current()

    def _current(self) -> ssl.SSLContext:
        """The context for the files as they are now; the one before while they do not fit together."""
        marks = self._marks()
        if marks != self._seen:
            self._seen = marks
            try:
                self._context = self._read()
                logger.info("web certificate read again", file=str(self._chain))
            except InvalidInput as error:
                logger.error("the new web certificate cannot be used; the one before stays", problem=str(error))
        return self._context

    def _read(self) -> ssl.SSLContext:
        context = self._blank()
        try:
            context.load_cert_chain(self._chain, self._key, password=_no_password)
        except ssl.SSLError as error:
            why = str(error.reason or error).lower().replace("_", " ")
            raise InvalidInput(f"{self._chain} and {self._key} are no certificate and its key: {why}") from error
        except (OSError, ValueError) as error:
            raise InvalidInput(f"the web certificate cannot be read: {error}") from error
        return context

    def _marks(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(_mark(file) for file in (self._chain, self._key))


def _mark(file: Path) -> tuple[int, int, int]:
    try:
        found = file.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _no_password() -> str:
    raise ValueError("the key is sealed with a passphrase, which nobody is there to type")
