"""
The database: one file per noun, plain functions over a transaction (``Db``); ``Store`` opens the transactions.

Import ``Store`` and ``Db`` from here and the nouns as modules. Start reading at ``Store.write``: whatever changes,
changes together with its audit event in one transaction, and one writer runs at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Executable, Row, event
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ca import migrations
from ca.errors import Unavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Db:
    """One transaction and the moment it began."""

    connection: Connection
    now: datetime

    def rows(self, statement: Executable) -> list[Row[Any]]:
        return list(self.connection.execute(statement).fetchall())

    def one(self, statement: Executable) -> Row[Any] | None:
        return self.connection.execute(statement).first()

    def run(self, statement: Executable) -> int:
        """Carry out a change; the number of rows it touched."""
        return self.connection.execute(statement).rowcount


class Store:
    """Reads side by side, writes one at a time. What a closure raises rolls its transaction back."""

    def __init__(self, reader: AsyncEngine, writer: AsyncEngine, clock: Callable[[], datetime]) -> None:
        self._reader = reader
        self._writer = writer
        self._clock = clock
        self._turn = asyncio.Lock()

    async def read(self, work: Callable[[Db], T]) -> T:
        """*work* on a snapshot."""
        try:
            async with self._reader.connect() as connection:
                return await connection.run_sync(lambda sync: work(Db(sync, self._clock())))
        except DBAPIError as error:
            raise Unavailable("the database cannot be read", code="store_unavailable") from error

    async def write(self, work: Callable[[Db], T]) -> T:
        """*work* in a transaction of its own: all of it is kept, or nothing. Not kept: ``audit_unavailable``."""
        try:
            async with self._turn, self._writer.begin() as connection:
                return await connection.run_sync(lambda sync: work(Db(sync, self._clock())))
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise Unavailable(
                "the audit log cannot be written, so nothing was done", code="audit_unavailable"
            ) from error


@asynccontextmanager
async def opened(file: Path, clock: Callable[[], datetime]) -> AsyncIterator[Store]:
    """The store in *file*, migrated to this version."""
    url = f"sqlite+aiosqlite:///{file}"
    file.touch(mode=0o600)
    writer = _engine(url, begin="BEGIN IMMEDIATE", size=1)
    reader = _engine(url, begin="BEGIN", size=4)
    try:
        async with writer.begin() as connection:
            await connection.run_sync(migrations.upgrade)
        yield Store(reader, writer, clock)
    finally:
        await reader.dispose()
        await writer.dispose()


def _engine(url: str, *, begin: str, size: int) -> AsyncEngine:
    """An engine whose transactions begin as said: SQLite's driver would begin too late on its own."""
    engine = create_async_engine(url, pool_size=size, max_overflow=0, pool_timeout=10)

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin_now(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
