"""`enginehouse deployments apply`: the deployments of a settings file, in a mesh that runs."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from nats.aio.msg import Msg

from enginehouse.cli.node import replicas_of
from enginehouse.cli.options import STATE_DEFAULT, StateOption
from enginehouse.cli.running import RunningMesh, find_mesh, plain_errors
from enginehouse.contract import EngineError, RequestError
from enginehouse.engines import READY
from enginehouse.services.bus import Bus
from enginehouse.services.server import channel
from enginehouse.services.settings import load, resources
from enginehouse.services.settings_hash import settings_hash
from enginehouse.v1 import admin_pb2, admin_pb2_grpc

Stub: TypeAlias = "admin_pb2_grpc.AdminServiceAsyncStub"  # only the type stubs have it
_LOOK_S = 0.25
_SUBJECT = "enginehouse.*.replacement.*.*"
_FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of one deployment.

    Attributes:
        sign: "+" created, "~" changed, "=" as it was.
        deployment: as it is now.
    """

    sign: str
    deployment: admin_pb2.Deployment

    @property
    def id(self) -> str:
        """Its id."""
        return self.deployment.name.removeprefix("deployments/")


def apply(
    file: Annotated[Path, typer.Argument(help="The settings; of them only the deployments are read.")],
    wait: Annotated[bool, typer.Option("--wait", help="Until every replica runs what the file says.")] = False,
    state: StateOption = None,
) -> None:
    """Make the deployments of a running mesh those of a file. Replicas whose engine changes are replaced one by one.

    A deployment that the file does not have stays as it is.
    """
    mesh = find_mesh(state or STATE_DEFAULT)
    wanted = resources.deployments(load(file))
    _check_nodes(mesh, wanted)
    asyncio.run(_apply(mesh, wanted, wait=wait))


async def _apply(mesh: RunningMesh, wanted: Sequence[admin_pb2.Deployment], *, wait: bool) -> None:
    async with channel(mesh.operator) as connection, _failures(mesh) as failures:
        with plain_errors():
            applied = await _put(admin_pb2_grpc.AdminServiceStub(connection), wanted)
        for one in applied:
            print(f"{one.sign} {one.id}, revision {one.deployment.revision}", flush=True)
        if wait:
            await _until_done(mesh, applied, failures)


async def _put(stub: Stub, wanted: Sequence[admin_pb2.Deployment]) -> list[Applied]:
    answer = await stub.ListDeployments(admin_pb2.ListDeploymentsRequest())
    known = {one.name: one for one in answer.deployments}
    applied: list[Applied] = []
    for deployment in wanted:
        before = known.get(deployment.name)
        if before is None:
            create = admin_pb2.CreateDeploymentRequest(
                deployment_id=deployment.name.removeprefix("deployments/"), deployment=deployment
            )
            applied.append(Applied("+", await stub.CreateDeployment(create)))
            continue
        after = await stub.UpdateDeployment(admin_pb2.UpdateDeploymentRequest(deployment=deployment))
        applied.append(Applied("=" if after.revision == before.revision else "~", after))
    return applied


async def _until_done(mesh: RunningMesh, applied: Sequence[Applied], failures: "asyncio.Queue[Msg]") -> None:
    """Waits until every replica runs what was applied.

    Raises:
        EngineError: an engine could not be started; what served before still does.
    """
    revisions = {one.id: one.deployment.revision for one in applied}
    while not await _are_done(mesh, [one.deployment for one in applied]):
        while not failures.empty():
            failure = json.loads(failures.get_nowait().data)
            name, revision = failure.get("deployment", ""), int(failure.get("revision", 0))
            if revisions.get(name) == revision:
                raise EngineError(
                    f"{name}, revision {revision}, on node {failure['node']}: {failure['reason']}; "
                    "apply another one, and see `enginehouse node replicas`"
                )
        await asyncio.sleep(_LOOK_S)
    print("every replica runs what the file says")


async def _are_done(mesh: RunningMesh, deployments: Sequence[admin_pb2.Deployment]) -> bool:
    here = await replicas_of(mesh)
    for deployment in deployments:
        name, hashed = deployment.name.removeprefix("deployments/"), settings_hash(deployment)
        for placement in deployment.placements:
            replicas = [one for node, one in here if (node, one.deployment) == (placement.node, name)]
            done = [one for one in replicas if one.state == READY and one.settings_hash == hashed]
            if not len(done) == len(replicas) == max(1, placement.replicas):
                return False
    return True


@asynccontextmanager
async def _failures(mesh: RunningMesh) -> "AsyncIterator[asyncio.Queue[Msg]]":
    """Events about replacements that failed, from now on."""
    failures: asyncio.Queue[Msg] = asyncio.Queue(maxsize=1000)
    bus = Bus(mesh.nats_url, "deployments apply")

    async def note(message: Msg) -> None:
        if message.subject.endswith(f".{_FAILED}") and not failures.full():
            failures.put_nowait(message)

    await bus.start()
    try:
        await bus.connected()
        await bus.client.subscribe(_SUBJECT, cb=note)
        await bus.client.flush()
        yield failures
    finally:
        await bus.stop()


def _check_nodes(mesh: RunningMesh, wanted: Sequence[admin_pb2.Deployment]) -> None:
    known = {node.name for node in mesh.settings.nodes}
    for deployment in wanted:
        for placement in deployment.placements:
            if placement.node not in known:
                raise RequestError(
                    f"{deployment.name} is placed on {placement.node}, and this mesh has no such node: it has "
                    f"{', '.join(sorted(known)) or 'none'}; start the mesh again to add one"
                )
