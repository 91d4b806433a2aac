"""
The database: one file per noun, plain functions over a transaction (``Db``); ``Store`` opens the transactions.

Import ``Store`` and ``Db`` from here and the nouns as modules. Start reading at ``Store.write``: whatever changes,
changes together with its audit event in one transaction, and one writer runs at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Executable, QueuePool, Row, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError

from ca import migrations
from ca.errors import Unavailable

T = TypeVar("T")
READERS = 4


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
    """Reads side by side, writes one at a time. What a closure raises rolls its transaction back.

    A whole transaction runs in one worker thread: handing over every single statement would cost more than SQLite does.
    """

    def __init__(self, engines: tuple[Engine, Engine], clock: Callable[[], datetime], threads: ExitStack) -> None:
        self._reader, self._writer = engines
        self._clock = clock
        self._readers = threads.enter_context(ThreadPoolExecutor(READERS, "store-read"))
        self._one = threads.enter_context(ThreadPoolExecutor(1, "store-write"))

    async def read(self, work: Callable[[Db], T]) -> T:
        """*work* on a snapshot."""
        try:
            return await self._run(self._readers, self._reader, work)
        except DBAPIError as error:
            raise Unavailable("the database cannot be read", code="store_unavailable") from error

    async def write(self, work: Callable[[Db], T]) -> T:
        """*work* in a transaction of its own: all of it is kept, or nothing. Not kept: ``audit_unavailable``."""
        try:
            return await self._run(self._one, self._writer, work)
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise Unavailable(
                "the audit log cannot be written, so nothing was done", code="audit_unavailable"
            ) from error

    async def _run(self, threads: ThreadPoolExecutor, engine: Engine, work: Callable[[Db], T]) -> T:
        def transaction() -> T:
            with engine.begin() as connection:
                return work(Db(connection, self._clock()))

        return await asyncio.get_running_loop().run_in_executor(threads, transaction)


@asynccontextmanager
async def opened(file: Path, clock: Callable[[], datetime]) -> AsyncIterator[Store]:
    """The store in *file*, migrated to this version."""
    file.touch(mode=0o600)
    with ExitStack() as stack:
        writer = _engine(file, begin="BEGIN IMMEDIATE", size=1)
        stack.callback(writer.dispose)
        reader = _engine(file, begin="BEGIN", size=READERS)
        stack.callback(reader.dispose)
        with writer.begin() as connection:
            migrations.upgrade(connection)
        yield Store((reader, writer), clock, stack)


def _engine(file: Path, *, begin: str, size: int) -> Engine:
    """An engine whose transactions begin as said: SQLite's driver would begin too late on its own."""
    engine = create_engine(
        f"sqlite:///{file}",
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=10,
        connect_args={"check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin_now(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
