"""The schema: what migrations make, and what the database itself refuses."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from enginehouse.contract import DependencyError
from enginehouse.services.control.database import Database
from enginehouse.services.control.migrations.upgrade import configuration
from enginehouse.services.control.schema import AccountRow, Base, LimitRow, ShareRow
from tests.integration.control.support import RecordingSink


def new_database(url: str) -> Database:
    return Database(url, events=RecordingSink(), desired_changed=lambda: None)


def account(**amounts: int) -> AccountRow:
    numbers = {"spent": 0, "allotted": 0, "cap_target": 10, "cap_effective": 10, "overrun": 0, "written_off": 0}
    return AccountRow(limit_id="budget", window_start_ms=0, window_end_ms=None, **(numbers | amounts))


def share(remaining: int, *, is_closed: bool = False, window_start_ms: int = 0) -> ShareRow:
    return ShareRow(
        id="s",
        router="r1",
        fence=1,
        limit_id="budget",
        window_start_ms=window_start_ms,
        remaining=remaining,
        term_end_ms=0,
        create_ms=0,
        is_closed=is_closed,
    )


class SchemaSuite:
    """Inherited by each backend, which provides `database_url`."""

    async def test_migrations_make_what_the_models_say_and_run_again_for_nothing(self, database_url: str) -> None:
        database = new_database(database_url)
        for _ in range(2):
            await database.prepare()
        async with database.engine.connect() as connection:
            differences = await connection.run_sync(
                lambda sync: compare_metadata(
                    MigrationContext.configure(sync, opts={"compare_type": True}), Base.metadata
                )
            )
        assert differences == []
        await database.close()

    async def test_migrations_can_be_taken_back_to_nothing(self, database_url: str) -> None:
        database = new_database(database_url)
        await database.prepare()

        def downgrade(connection: Connection) -> list[str]:
            config = configuration()
            config.attributes["connection"] = connection
            command.downgrade(config, "base")
            return sa.inspect(connection).get_table_names()

        async with database.engine.begin() as connection:
            assert await connection.run_sync(downgrade) == ["alembic_version"]
        await database.prepare()
        await database.close()

    async def test_a_database_of_a_newer_version_is_refused(self, database_url: str) -> None:
        database = new_database(database_url)
        await database.prepare()
        async with database.engine.begin() as connection:
            await connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(DependencyError, match="upgrade enginehouse"):
            await database.prepare()
        await database.close()

    @pytest.mark.parametrize(
        "rows",
        [
            pytest.param(lambda: [account(spent=6, allotted=5)], id="over the cap"),
            pytest.param(lambda: [account(spent=-1)], id="negative spent"),
            pytest.param(lambda: [account(allotted=-1)], id="negative allotted"),
            pytest.param(lambda: [account(overrun=-1)], id="negative overrun"),
            pytest.param(lambda: [account(written_off=-1)], id="negative written off"),
            pytest.param(lambda: [account(), share(-1)], id="negative share"),
            pytest.param(lambda: [account(), share(1, is_closed=True)], id="closed share with something left"),
            pytest.param(lambda: [account(), share(1, window_start_ms=60)], id="share without an account"),
        ],
    )
    async def test_the_database_itself_refuses_what_must_never_be(
        self, database_url: str, rows: Callable[[], list[Base]]
    ) -> None:
        database = new_database(database_url)
        await database.prepare()
        limit = LimitRow(id="budget", scope="o", unit=1, window_kind=1, cap=10, time_zone="UTC", declared=False)

        async def insert(extra: list[Base]) -> None:
            async with AsyncSession(database.engine) as session, session.begin():
                session.add(limit)
                await session.flush()
                for row in extra:
                    session.add(row)
                    await session.flush()

        with pytest.raises(IntegrityError):
            await insert(rows())
        await insert([account(spent=5, allotted=5), share(5)])
        await database.close()
