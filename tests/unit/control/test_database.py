"""Transactions: all or nothing, seen through to their end, and events only of what is committed."""

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from google.protobuf.message import Message
from structlog.testing import capture_logs

from enginehouse.contract import DependencyError, InternalError, Reason, RequestError
from enginehouse.services.control import database as database_module
from enginehouse.services.control.database import Database, Transaction
from enginehouse.services.control.rows import insert_missing, next_number
from enginehouse.services.control.schema import LimitRow, OrganizationRow
from enginehouse.v1 import events_pb2


class Sink:
    """Keeps what is told, or fails."""

    def __init__(self, *, fails: bool = False) -> None:
        self.told: list[str] = []
        self.fails = fails

    def publish(self, kind: str, subject_id: str, what: str, payload: Message) -> None:
        self.told.append(what)
        if self.fails:
            raise OSError("no bus")


@asynccontextmanager
async def opened(folder: Path, sink: Sink | None = None) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{folder}/state/c.db", events=sink or Sink(), desired_changed=lambda: None)
    await database.prepare()
    yield database
    await database.close()


async def organizations(database: Database) -> list[str]:
    async with database.read() as session:
        return list(await session.scalars(sa.select(OrganizationRow.id).order_by(OrganizationRow.id)))


def add(transaction: Transaction, name: str) -> None:
    transaction.session.add(OrganizationRow(id=name, create_ms=0))
    transaction.announce("resource", name, f"added {name}", events_pb2.ResourceChanged(name=name))


async def test_work_that_fails_leaves_nothing_and_tells_nothing(tmp_path: Path) -> None:
    sink = Sink()
    async with opened(tmp_path, sink) as database:

        async def work(transaction: Transaction) -> None:
            add(transaction, "a")
            await transaction.session.flush()
            raise RequestError("no")

        with pytest.raises(RequestError):
            await database.write(work)
        assert await organizations(database) == []
    assert sink.told == []


async def test_a_sink_that_fails_does_not_undo_what_is_committed(tmp_path: Path) -> None:
    async with opened(tmp_path, Sink(fails=True)) as database:

        async def work(transaction: Transaction) -> str:
            add(transaction, "a")
            return "done"

        with capture_logs() as logs:
            assert await database.write(work) == "done"
        assert await organizations(database) == ["a"]
    assert [log["event"] for log in logs] == ["event not sent"]


async def test_a_caller_that_leaves_does_not_cut_the_transaction(tmp_path: Path) -> None:
    sink = Sink()
    async with opened(tmp_path, sink) as database:
        entered, leave = asyncio.Event(), asyncio.Event()

        async def work(transaction: Transaction) -> None:
            add(transaction, "a")
            await transaction.session.flush()
            entered.set()
            await leave.wait()

        caller = asyncio.create_task(database.write(work))
        await entered.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        leave.set()
        await database.close()
        assert sink.told == ["added a"]
    async with opened(tmp_path) as database:
        assert await organizations(database) == ["a"]


async def test_work_that_lost_a_race_for_a_row_runs_again(tmp_path: Path) -> None:
    sink = Sink()
    async with opened(tmp_path, sink) as database:
        names = iter(("a", "b"))

        async def work(transaction: Transaction) -> None:
            add(transaction, next(names))

        async def first(transaction: Transaction) -> None:
            transaction.session.add(OrganizationRow(id="a", create_ms=0))

        await database.write(first)
        await database.write(work)
        assert await organizations(database) == ["a", "b"]
    assert sink.told == ["added b"]


async def test_work_that_loses_every_race_is_given_up(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:

        async def work(transaction: Transaction) -> None:
            add(transaction, "a")

        await database.write(work)
        with pytest.raises(DependencyError, match="too busy"):
            await database.write(work)


async def test_a_row_that_breaks_a_rule_is_our_own_fault(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:

        async def work(transaction: Transaction) -> None:
            transaction.session.add(
                LimitRow(id="l", scope="s", unit=1, window_kind=1, cap=0, time_zone="UTC", declared=False)
            )

        with pytest.raises(InternalError):
            await database.write(work)


async def test_a_reader_sees_one_moment_beside_a_writer(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:

        async def work(transaction: Transaction) -> None:
            add(transaction, "a")

        async with database.read() as session:
            query = sa.select(sa.func.count()).select_from(OrganizationRow)
            assert await session.scalar(query) == 0
            await database.write(work)
            assert await session.scalar(query) == 0
        assert await organizations(database) == ["a"]


async def test_too_many_who_wait_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "WAITING_MAX", 2)
    async with opened(tmp_path) as database:
        leave = asyncio.Event()

        async def work(transaction: Transaction) -> None:
            await leave.wait()

        waiting = [asyncio.create_task(database.write(work)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(DependencyError, match="too many calls") as caught:
            await database.write(work)
        assert caught.value.retry_after_s == 1
        leave.set()
        await asyncio.gather(*waiting)


async def test_writers_wait_for_their_turn_in_order(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        order: list[int] = []

        async def write(number: int) -> None:
            async def work(transaction: Transaction) -> int:
                await transaction.session.flush()
                order.append(number)
                return await next_number(transaction.session, "turn")

            assert await database.write(work) == number + 1

        await asyncio.gather(*(write(number) for number in range(10)))
        assert order == list(range(10))


async def test_two_processes_over_one_file_wait_for_each_other(tmp_path: Path) -> None:
    async with opened(tmp_path) as first, opened(tmp_path) as second:

        async def work(transaction: Transaction) -> int:
            # reads, and then writes on the strength of it
            await transaction.session.scalar(sa.select(sa.func.count()).select_from(OrganizationRow))
            return await next_number(transaction.session, "turn")

        numbers = await asyncio.gather(*(database.write(work) for _ in range(10) for database in (first, second)))
    assert sorted(numbers) == list(range(1, 21))


async def test_a_row_is_inserted_unless_it_is_there(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:

        async def work(transaction: Transaction) -> list[bool]:
            return [
                await insert_missing(transaction.session, OrganizationRow(id="a", create_ms=moment))
                for moment in range(2)
            ]

        assert await database.write(work) == [True, False]


async def test_the_database_waits_for_the_disk_and_keeps_its_keys(tmp_path: Path) -> None:
    async with opened(tmp_path) as database, database.read() as session:
        settings = [
            await session.scalar(sa.text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert settings == ["wal", 2, 1]


async def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    async with opened(tmp_path):
        files = sorted((tmp_path / "state").iterdir())
        assert [file.name for file in files][:1] == ["c.db"]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


@pytest.mark.parametrize("url", ["mysql://host/name", "no url", "sqlite:////proc/no/such.db"])
async def test_a_database_that_cannot_be_opened_is_a_dependency_that_failed(url: str) -> None:
    with pytest.raises(DependencyError):
        await Database(url, events=Sink(), desired_changed=lambda: None).prepare()


async def test_a_server_that_is_not_there_is_a_dependency_that_failed(tmp_path: Path) -> None:
    database = Database(f"postgresql://u:hidden@/name?host={tmp_path}", events=Sink(), desired_changed=lambda: None)
    with pytest.raises(DependencyError, match=r"postgresql.*name") as caught:
        await database.prepare()
    assert "hidden" not in caught.value.message

    async def work(transaction: Transaction) -> None:
        await transaction.session.flush()
        add(transaction, "a")

    with pytest.raises(DependencyError, match="cannot reach its database") as caught:
        await database.write(work)
    assert caught.value.reason is Reason.UNAVAILABLE
    await database.close()
