"""The tour from its first stop to its last."""

from rich.console import Console

from enginehouse.cli.running import RunningMesh, plain_errors
from enginehouse.cli.tour.budget import budget
from enginehouse.cli.tour.chat import chat
from enginehouse.cli.tour.choice import choice
from enginehouse.cli.tour.decision import decision
from enginehouse.cli.tour.guide import open_tour
from enginehouse.cli.tour.happenings import happenings
from enginehouse.cli.tour.residency import residency
from enginehouse.v1 import admin_pb2, router_pb2

_TENANTS = {
    "anywhere": admin_pb2.Policy(),
    "europe": admin_pb2.Policy(residency=router_pb2.Residency(allow=["eu"])),
    "picky": admin_pb2.Policy(weights=admin_pb2.ScorerWeights(quality=1)),
    "tiny": admin_pb2.Policy(),
}


async def take_tour(mesh: RunningMesh, console: Console) -> None:
    """Takes the tour. Whatever does not hold raises.

    Raises:
        EnginehouseError: the mesh did not do what the tour came to show.
    """
    with plain_errors():
        async with open_tour(mesh, console) as tour:
            for name, policy in _TENANTS.items():
                await tour.make_tenant(name, policy)
            for name in _TENANTS:
                await tour.until_known(name)
            for stop in (chat, decision, residency, budget, choice, happenings):
                await stop(tour)
    console.print("\nThat was the tour.", style="bold green")
