"""The smallest run of `make guarantees`, in the suite."""

from tests.guarantees.configuration import Configuration, Database, Kill, MeshKind
from tests.guarantees.series import run_series


async def test_guarantees_are_kept_on_the_smallest_mesh() -> None:
    configuration = Configuration(MeshKind(Database.SQLITE, routers=1), requests=10, kill=Kill.NOTHING)
    (row,) = await run_series(configuration.mesh, [configuration])
    assert row.faults == []
    assert (row.served, row.refused) == (2, 8)
    assert (row.ledger_excess, row.drift) == (0, 0)
    assert row.use_excess <= 0
