"""A mesh, and the runs on it one after the other. What one leaves in doubt ends while the others go on."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from tests.guarantees.configuration import Configuration, Database, Kill, MeshKind, settings_of
from tests.guarantees.run import Row, Run
from tests.integration.control.postgresql import postgresql_server
from tests.support.mesh import UserMesh
from tests.support.operator import Operator, operate


async def run_series(kind: MeshKind, configurations: Sequence[Configuration]) -> list[Row]:
    """Starts a mesh of a kind, runs the configurations on it, and stops it.

    Raises:
        AssertionError: the mesh did not start, did not recover or left something behind; the message has its logs.
    """
    async with operated(kind) as operator:
        canary = await operator.caller()
        runs = [Run(one, operator, canary, number) for number, one in enumerate(configurations)]
        # An Envoy that dies leaves a gap in its log, and all that is in doubt then is charged: so it dies last.
        for group in (False, True):
            await _run_group([run for run in runs if run.configuration.kill.is_of_the_door is group])
        for run in runs:
            await run.until_given_back()
        return [await run.row() for run in runs]


@asynccontextmanager
async def operated(kind: MeshKind) -> AsyncIterator[Operator]:
    """The operator of a mesh of that kind, which is up for as long as the block runs.

    Raises:
        AssertionError: from the mesh, or from the block; the message has the mesh's logs.
    """
    with tempfile.TemporaryDirectory(prefix="enginehouse-") as folder, _database_url(kind.database) as url:
        mesh = UserMesh(Path(folder) / "mesh", settings_of(kind, url))
        try:
            await asyncio.to_thread(mesh.start)
            try:
                async with operate(mesh) as operator:
                    yield operator
            except AssertionError as error:
                raise AssertionError(f"{error}\n{mesh.story()}") from error
            await asyncio.to_thread(mesh.stop)
        finally:
            mesh.abandon()


async def _run_group(runs: Sequence[Run]) -> None:
    for run in runs:
        await run.burst()
        if run.configuration.kill is Kill.NOTHING:
            await run.finish()
    for run in runs:
        if run.configuration.kill is not Kill.NOTHING:
            await run.finish()


@contextmanager
def _database_url(database: Database) -> Iterator[str]:
    """Where the ledger is. Empty: in the mesh's own folder."""
    if database is Database.SQLITE:
        yield ""
        return
    with postgresql_server() as server:
        yield server.template_url
