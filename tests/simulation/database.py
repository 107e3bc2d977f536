"""Control's database in memory: the same SQL through the same engine, without the thread that would break the order."""

import sqlite3
from collections.abc import Callable
from functools import cache
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool, StaticPool

from enginehouse.services.control import database
from enginehouse.services.control.migrations import upgrade


class SynchronousDialect(SQLiteDialect_pysqlite):
    """SQLite for an asynchronous engine that never waits: a transaction is one step."""

    is_async = True
    supports_statement_cache = True


registry.register("sqlite.synchronous", __name__, "SynchronousDialect")


class KeptConnection(sqlite3.Connection):
    """A connection that outlives whoever closes it, as a file would."""

    def close(self) -> None:
        """Keeps it open: the database is in memory and would be gone."""

    def close_for_good(self) -> None:
        """Closes it."""
        super().close()


class Disk:
    """Which database control finds. One per process, because the engine with its compiled statements is kept."""

    def __init__(self) -> None:
        self.connection: KeptConnection | None = None

    def connect(self, *_args: object, **_options: object) -> KeptConnection:
        """The database that is there now."""
        assert self.connection is not None, "no simulation is running"
        return self.connection


DISK = Disk()


@cache
def engine() -> AsyncEngine:
    """The engine of every simulation in this process."""
    made = create_async_engine("sqlite+synchronous://", creator=DISK.connect, poolclass=StaticPool)
    event.listen(made.sync_engine, "connect", database._prepare_sqlite)
    event.listen(made.sync_engine, "begin", database._begin_sqlite)
    return made


def engine_for(_url: URL) -> AsyncEngine:
    """Stands in for `database._engine`."""
    return engine()


def new_disk(fill: Callable[[sqlite3.Connection], None]) -> KeptConnection:
    """An empty, migrated database, filled by `fill`."""
    connection = sqlite3.connect(":memory:", factory=KeptConnection, check_same_thread=False)
    connection.deserialize(_template())
    connection.isolation_level = None
    engine().sync_engine.dispose()  # it keeps the connection to the disk before
    fill(connection)
    return connection


@cache
def _template() -> bytes:
    connection = sqlite3.connect(":memory:", factory=KeptConnection)
    migrating = create_engine("sqlite://", creator=lambda: connection, poolclass=NullPool)
    event.listen(migrating, "connect", database._prepare_sqlite)
    event.listen(migrating, "begin", database._begin_sqlite)
    with migrating.begin() as opened:
        upgrade(opened)
    content = connection.serialize()
    connection.close_for_good()
    return content


Row = tuple[Any, ...]
