"""Control as a whole, on SQLite: its start, its end, and what runs by itself."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from enginehouse.contract import DependencyError
from enginehouse.services.control import Control, Resolved
from enginehouse.services.control.publisher import Backoff
from enginehouse.v1 import ledger_pb2
from tests.integration.control.support import (
    SETTINGS,
    ManualClock,
    MemoryStore,
    RecordingSink,
    running,
)
from tests.support.waiting import until_async


async def test_a_start_that_fails_leaves_nothing_behind_and_takes_no_key_with_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = replace(SETTINGS, database_url=f"sqlite:///{tmp_path}/c.db", port=taken.getsockname()[1])
        control = Control(
            settings, clock=ManualClock(), events=RecordingSink(), desired=MemoryStore(), read_line=lambda _: None
        )
        with pytest.raises(DependencyError, match=f"127.0.0.1:{settings.port}"):
            await control.start()
    async with running(settings.database_url) as mesh:
        assert mesh.started.admin_secret is not None


async def test_doubt_is_resolved_without_being_asked(tmp_path: Path) -> None:
    settings = replace(SETTINGS, resolve_interval_s=0.01)
    async with running(f"sqlite:///{tmp_path}/c.db", settings=settings) as mesh:
        await mesh.limit("slots", 5, ledger_pb2.LIMIT_UNIT_IN_FLIGHT)
        await (await mesh.router()).take("slots", 5)
        mesh.clock.advance(900 + 600)

        async def is_free() -> bool:
            return (await mesh.status("slots")).allotted == 0

        await until_async(is_free, "slots of a dead router freed")


async def test_after_the_database_was_away_everybody_gets_the_time_to_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: object) -> None:
        raise DependencyError("away")

    async with running(f"sqlite:///{tmp_path}/c.db") as mesh:
        await mesh.limit("budget", 100)
        await (await mesh.router()).take("budget", 100)
        mesh.clock.advance(900 + 600 + 60)
        with monkeypatch.context() as patch:
            patch.setattr(mesh.control.database, "write", away)
            with pytest.raises(DependencyError):
                await mesh.control.ledger.resolve_doubt(mesh.clock.now)
        assert await mesh.control.ledger.resolve_doubt(mesh.clock.now) == Resolved()
        mesh.clock.advance(60)
        assert await mesh.control.ledger.resolve_doubt(mesh.clock.now) == Resolved(written_off=1)


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(first_s=0.5, longest_s=3)
    assert [backoff.pause_s(failures) for failures in (1, 2, 3, 4, 1000)] == [0.5, 1, 2, 3, 3]
