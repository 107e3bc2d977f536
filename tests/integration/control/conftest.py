"""One PostgreSQL server for all tests of a worker, with a template that holds the schema."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.message import Message

from enginehouse.services.control.database import Database
from enginehouse.services.control.schema import Base
from tests.integration.control.postgresql import Postgresql, postgresql_server

SUITES = (
    "ledger",
    "allowances",
    "access_log",
    "admin",
    "declared",
    "policy",
    "publisher",
    "schema",
    "concurrency",
    "crash",
)
pytest.register_assert_rewrite(
    "tests.integration.control.support", *(f"tests.integration.control.{name}_suite" for name in SUITES)
)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    with postgresql_server() as server:
        asyncio.run(_prepare(server.template_url))
        yield server


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'control.db'}"


@pytest.fixture
def fresh_postgresql_url(postgresql: Postgresql) -> str:
    """A database of one's own, for tests that change the schema."""
    return postgresql.new_database()


@pytest.fixture(scope="session")
def shared_postgresql_url(postgresql: Postgresql) -> str:
    """A database that many tests use, one after the other."""
    return postgresql.new_database()


@pytest.fixture
async def postgresql_url(shared_postgresql_url: str) -> str:
    """A database that is empty. To empty one takes a tenth of the time of making one."""
    database = Database(shared_postgresql_url, events=Nobody(), desired_changed=lambda: None)
    async with database.engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            await connection.execute(table.delete())
    await database.close()
    return shared_postgresql_url


async def _prepare(url: str) -> None:
    database = Database(url, events=Nobody(), desired_changed=lambda: None)
    await database.prepare()
    await database.close()


class Nobody:
    """Takes no events."""

    def publish(self, kind: str, subject_id: str, what: str, payload: Message) -> None:
        """Forgets it."""
