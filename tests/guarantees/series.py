"""A mesh, and the runs on it one after the other. What one leaves in doubt ends while the others go on."""

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.guarantees.configuration import Configuration, Database, Kill, MeshKind, settings_of
from tests.guarantees.run import Row, Run
from tests.integration.control.postgresql import postgresql_server
from tests.support.mesh import UserMesh
from tests.support.operator import operate


async def run_series(mesh: MeshKind, configurations: Sequence[Configuration]) -> list[Row]:
    """Starts a mesh of a kind, runs the configurations on it, and stops it.

    Raises:
        AssertionError: the mesh did not start, did not recover or left something behind; the message has its logs.
    """
    with tempfile.TemporaryDirectory(prefix="enginehouse-") as folder, _database_url(mesh.database) as url:
        running = UserMesh(Path(folder) / "mesh", settings_of(mesh, url))
        try:
            await asyncio.to_thread(running.start)
            try:
                rows = await _run_all(running, configurations)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{running.story()}") from error
            await asyncio.to_thread(running.stop)
            return rows
        finally:
            running.abandon()


async def _run_all(mesh: UserMesh, configurations: Sequence[Configuration]) -> list[Row]:
    async with operate(mesh) as operator:
        canary = await operator.caller()
        runs = [Run(one, operator, canary, number) for number, one in enumerate(configurations)]
        for run in runs:
            await run.burst()
            if run.configuration.kill is Kill.NOTHING:
                await run.finish()
        for run in runs:
            if run.configuration.kill is not Kill.NOTHING:
                await run.finish()
        return [await run.result() for run in runs]


@contextmanager
def _database_url(database: Database) -> Iterator[str]:
    """Where the ledger is. Empty: in the mesh's own folder."""
    if database is Database.SQLITE:
        yield ""
        return
    with postgresql_server() as server:
        yield server.template_url
