"""ca/store/: what changes, changes whole; and the audit log shows who touched it."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlmodel import SQLModel

from ca import audit
from ca.errors import Conflict, Unavailable
from ca.store import Db, bastions, opened, tokens
from ca.store import audit as log
from tests.ca.house import BEGAN, Clock


def test_the_migrations_make_exactly_the_tables(tmp_path: Path) -> None:
    async def make() -> None:
        async with opened(tmp_path / "x.db", Clock()):
            pass

    asyncio.run(make())
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        found = [one for one in compare_metadata(context, SQLModel.metadata) if "alembic" not in str(one)]
    engine.dispose()
    assert found == []


async def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path / "x.db", Clock()):
        pass
    with sqlite3.connect(tmp_path / "x.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    with pytest.raises(Conflict) as caught:
        async with opened(tmp_path / "x.db", Clock()):
            pass
    assert caught.value.code == "database_too_new"


async def test_what_a_closure_raises_takes_all_of_it_back(tmp_path: Path) -> None:
    async with opened(tmp_path / "x.db", Clock()) as store:

        def work(db: Db) -> None:
            bastions.set_mark(db, "a", "1")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await store.write(work)
        assert await store.read(lambda db: bastions.mark(db, "a")) is None


async def test_writers_take_turns(tmp_path: Path) -> None:
    async with opened(tmp_path / "x.db", Clock()) as store:

        def add(db: Db) -> None:
            bastions.set_mark(db, "n", str(int(bastions.mark(db, "n") or "0") + 1))

        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(store.write(add))
        assert await store.read(lambda db: bastions.mark(db, "n")) == "50"


async def test_a_database_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """CA-36"""
    async with opened(tmp_path / "x.db", Clock()) as store:
        await store.write(lambda db: db.run(text("PRAGMA query_only = ON")))
        with pytest.raises(Unavailable) as caught:
            await store.write(lambda db: bastions.set_mark(db, "a", "1"))
        assert caught.value.code == "audit_unavailable"


async def test_only_the_hash_of_a_token_is_kept(tmp_path: Path) -> None:
    async with opened(tmp_path / "x.db", clock := Clock()) as store:
        from datetime import timedelta

        made, _ = await store.write(lambda db: tokens.make(db, "join", life=timedelta(hours=1)))
        assert await store.read(lambda db: tokens.find(db, "login", made)) is None, "of another kind"
        assert await store.read(lambda db: tokens.find(db, "join", made)) is not None
        uses = []

        async def use() -> None:
            uses.append(await store.write(lambda db: tokens.use(db, "join", made)))

        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(use())
        assert len([one for one in uses if one is not None]) == 1
        late, _ = await store.write(lambda db: tokens.make(db, "join", life=timedelta(hours=1)))
        clock.turn(hours=1)
        assert await store.write(lambda db: tokens.use(db, "join", late)) is None
    assert made.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("harm", "first_bad"),
    [
        ("UPDATE audit SET actor = 'nobody' WHERE seq = 4", 4),
        ("UPDATE audit SET fields = replace(fields, '3', '4') WHERE seq = 3", 3),
        ("UPDATE audit SET fields = 'not json' WHERE seq = 5", 5),
        ('UPDATE audit SET fields = \'{"cluster": "c2"}\' WHERE seq = 2', 2),
        ("DELETE FROM audit WHERE seq = 2", 2),
        ("DELETE FROM audit WHERE seq = 1", 1),
        ("UPDATE audit SET seq = CASE seq WHEN 3 THEN -4 ELSE -3 END WHERE seq IN (3, 4)", 3),
        ("UPDATE audit SET at = '2026-06-01T12:00:01.000000Z' WHERE seq = 6", 6),
    ],
)
async def test_the_first_altered_record_is_named(tmp_path: Path, harm: str, first_bad: int) -> None:
    """LOG-03"""
    async with opened(tmp_path / "x.db", Clock()) as store:
        for number in range(1, 9):
            event = audit.ClusterCreated(cluster=f"c{number}")
            await store.write(lambda db, event=event: log.append(db, event, actor="authority"))  # type: ignore[misc]
        assert await store.read(log.verify) == (8, None)
        with sqlite3.connect(tmp_path / "x.db") as raw:
            raw.execute(harm)
            raw.execute("UPDATE audit SET seq = -seq WHERE seq < 0")
        raw.close()
        _, broken = await store.read(log.verify)
        assert broken is not None
        assert broken.seq == first_bad


async def test_times_come_back_as_they_went_in(tmp_path: Path) -> None:
    async with opened(tmp_path / "x.db", Clock(BEGAN.replace(microsecond=7))) as store:
        await store.write(lambda db: log.append(db, audit.ClusterStopped(), actor="authority"))
        (entry,) = await store.read(lambda db: log.records(db, after=0, limit=10))
        assert entry.at == datetime(2026, 6, 1, 12, 0, 0, 7, tzinfo=UTC)
