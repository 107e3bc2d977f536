"""The database: one engine for SQLite and PostgreSQL, short transactions, foreign errors mapped to ours."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import structlog
from google.protobuf.message import Message
from sqlalchemy import Connection, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from enginehouse.contract import DependencyError, InternalError, Reason
from enginehouse.services.control.events import EventSink
from enginehouse.services.control.migrations import upgrade

_log = structlog.get_logger(__name__)

WAITING_MAX = 1024
"""Transactions that run or wait. More than a moment's worth of them would only be answered too late."""

UNLOADED: Mapping[str, object] = {"synchronize_session": False}
"""Execution options of a bulk statement whose rows no session has loaded: nothing has to be told of it."""

_ATTEMPTS = 5
_LOCK_TIMEOUT_MS = 5_000
_STATEMENT_TIMEOUT_MS = 20_000
_CONNECTIONS = 10
_DEADLOCK, _SERIALIZATION, _UNIQUE = "40P01", "40001", "23505"
_READ_ONLY = "enginehouse_read_only"
_URL_FORMS = "write sqlite:///path or postgresql://user@host/name"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Event:
    """An event to be sent once its transaction is committed."""

    kind: str
    subject_id: str
    what: str
    payload: Message


@dataclass(slots=True)
class Transaction:
    """One transaction, and what is to happen when it is committed."""

    session: AsyncSession
    events: list[Event] = field(default_factory=list)
    desired_changed: bool = False

    def announce(self, kind: str, subject_id: str, what: str, payload: Message) -> None:
        """Has an event sent after the commit."""
        self.events.append(Event(kind, subject_id, what, payload))


class Database:
    """Runs work in transactions.

    Args:
        url: ``sqlite:///path`` or ``postgresql://...``.
        events: takes the events of committed transactions.
        desired_changed: called after a commit that changed desired state.
    """

    def __init__(self, url: str, *, events: EventSink, desired_changed: Callable[[], None]) -> None:
        self._url = _parsed(url)
        self._engine = _engine(self._url)
        self._events = events
        self._desired_changed = desired_changed
        self._writers = async_sessionmaker(self._engine, expire_on_commit=False)
        readers = self._engine.execution_options(**{_READ_ONLY: True})
        self._readers = async_sessionmaker(readers, expire_on_commit=False)
        # SQLite has one writer. Waiting here is fair and wakes at once; its own wait is a sleep that grows.
        self._turn: asyncio.Lock | None = asyncio.Lock() if self._is_sqlite else None
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def engine(self) -> AsyncEngine:
        """The engine, for migrations and inspection."""
        return self._engine

    @property
    def _is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    async def prepare(self) -> None:
        """Brings the schema up to date.

        Raises:
            DependencyError: the database cannot be reached, or is newer than this program.
        """
        try:
            if self._is_sqlite and self._url.database:
                await asyncio.to_thread(_make_file, Path(self._url.database))
            async with self._mapped_errors(), self._engine.begin() as connection:
                await connection.run_sync(upgrade)
        except (OSError, _LostRaceError, DependencyError) as error:
            where = self._url.render_as_string(hide_password=True)
            what = error.message if isinstance(error, DependencyError) else str(error)
            raise DependencyError(f"database {where}: {what}") from error

    async def close(self) -> None:
        """Waits for running transactions and closes every connection."""
        if self._running:
            await asyncio.wait(self._running)
        await self._engine.dispose()

    async def write(self, work: Callable[[Transaction], Awaitable[_T]]) -> _T:
        """Runs `work` in a transaction and commits it.

        A caller that is cancelled leaves the transaction to finish: a connection is never cut in the middle of a
        commit. `work` runs again after a deadlock or a lost race for a new row, so it must do nothing but SQL.

        Raises:
            DependencyError: the database cannot be reached, is locked for too long, or too many calls wait. After a
                lost connection the outcome is unknown.
        """
        if len(self._running) >= WAITING_MAX:
            raise DependencyError("control has too many calls waiting; try again", Reason.UNAVAILABLE, retry_after_s=1)
        task = asyncio.create_task(self._write(work), name="transaction")
        self._running.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def announce(self, event: Event) -> None:
        """Has an event sent about something that changed nothing here."""
        self._send([event])

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session that only reads, beside any writer."""
        async with self._mapped_errors(), self._readers() as session, session.begin():
            yield session

    async def _write(self, work: Callable[[Transaction], Awaitable[_T]]) -> _T:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with self._mapped_errors():
                    result, transaction = await self._attempt(work)
            except _LostRaceError:
                if attempt == _ATTEMPTS:
                    raise DependencyError("the database is too busy; try again", retry_after_s=1) from None
                continue
            self._tell(transaction)
            return result
        raise AssertionError("unreachable")

    async def _attempt(self, work: Callable[[Transaction], Awaitable[_T]]) -> tuple[_T, Transaction]:
        async with self._taken_turn(), self._writers() as session:
            transaction = Transaction(session)
            async with session.begin():
                result = await work(transaction)
            return result, transaction

    @asynccontextmanager
    async def _taken_turn(self) -> AsyncIterator[None]:
        if self._turn is None:
            yield
        else:
            async with self._turn:
                yield

    def _tell(self, transaction: Transaction) -> None:
        self._send(transaction.events)
        if transaction.desired_changed:
            self._desired_changed()

    def _send(self, events: Iterable[Event]) -> None:
        for told in events:
            try:
                self._events.publish(told.kind, told.subject_id, told.what, told.payload)
            except Exception:  # noqa: BLE001 (what is committed is committed, whoever hears of it)
                _log.exception("event not sent", kind=told.kind, what=told.what)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # seen, even when the caller has gone

    @asynccontextmanager
    async def _mapped_errors(self) -> AsyncIterator[None]:
        try:
            yield
        except DBAPIError as error:
            if _sqlstate(error) in {_DEADLOCK, _SERIALIZATION, _UNIQUE} or _is_sqlite_race(error):
                raise _LostRaceError from error
            if isinstance(error, IntegrityError):
                raise InternalError(f"the database refused a row: {type(error.orig).__name__}") from error
            raise _unreachable(error) from error
        except (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise _unreachable(error) from error


class _LostRaceError(Exception):
    """The same work will succeed when it runs again."""


def _unreachable(error: Exception) -> DependencyError:
    _log.warning("database unavailable", error=type(error).__qualname__)
    return DependencyError("control cannot reach its database; try again", Reason.UNAVAILABLE, retry_after_s=1)


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def _is_sqlite_race(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlite_errorname", None) in {"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"}


def _make_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)  # which the files beside it take over


_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}


def _parsed(text: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise DependencyError(
            "the database URL cannot be read; write sqlite:///path or postgresql://host/name"
        ) from error
    driver = _DRIVERS.get(url.get_backend_name())
    if driver is None:
        raise DependencyError(f"no database of the kind {url.get_backend_name()!r}; {_URL_FORMS}")
    return url.set(drivername=driver)


def _engine(url: URL) -> AsyncEngine:
    if url.get_backend_name() == "sqlite":
        engine = create_async_engine(url, connect_args={"timeout": _LOCK_TIMEOUT_MS / 1000})
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    settings = {
        "application_name": "enginehouse-control",
        "lock_timeout": str(_LOCK_TIMEOUT_MS),
        "statement_timeout": str(_STATEMENT_TIMEOUT_MS),
        "idle_in_transaction_session_timeout": str(_STATEMENT_TIMEOUT_MS),
    }
    return create_async_engine(
        url,
        pool_size=_CONNECTIONS,
        max_overflow=0,
        pool_timeout=_LOCK_TIMEOUT_MS / 1000,
        pool_pre_ping=True,
        connect_args={"server_settings": settings, "timeout": _LOCK_TIMEOUT_MS / 1000},
    )


def _prepare_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401 (the driver's connection)
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # an answered grant must survive a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that reads and then writes fails when another wrote in between; an immediate one waits.
    is_read = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if is_read else "BEGIN IMMEDIATE")
