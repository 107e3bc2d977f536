"""The smallest run of `make guarantees`, in the suite."""

from tests.guarantees.configuration import Configuration, Database, Kill, MeshKind
from tests.guarantees.run import Run
from tests.guarantees.series import operated


async def test_guarantees_are_kept_on_the_smallest_mesh() -> None:
    configuration = Configuration(MeshKind(Database.SQLITE, routers=1), requests=10, kill=Kill.NOTHING)
    async with operated(configuration.mesh) as operator:
        run = Run(configuration, operator, await operator.caller(), number=0)
        await run.burst()
        await run.finish()
        row = await run.row()
    assert (row.served, row.broken, row.wrong) == (2, 0, 0)
    assert (row.refused, row.false_refusals) == (8, 0)
    assert row.ledger_excess <= 0
    assert row.use_excess <= 0
    assert row.drift == 0
