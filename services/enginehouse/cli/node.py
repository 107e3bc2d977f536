"""`enginehouse node`: what the nodes of a mesh on this machine do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import grpc
import typer
from rich.console import Console
from rich.table import Table

from enginehouse.cli.options import STATE_DEFAULT, StateOption
from enginehouse.cli.running import RunningMesh, find_mesh, plain_errors
from enginehouse.contract import RequestError
from enginehouse.engines import state_name
from enginehouse.services.server import channel
from enginehouse.v1 import node_pb2, node_pb2_grpc

app = typer.Typer(help="Nodes, and the engines that they run.", no_args_is_help=True)
_MIB = 1024 * 1024


@app.command("replicas")
def replicas(state: StateOption = None) -> None:
    """List the engines of every node, with their states and what they take."""
    mesh = find_mesh(Path(state or STATE_DEFAULT))
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("replica", "node", "engine", "state", "address", "memory MiB", "restarts"):
        table.add_column(heading, no_wrap=True)
    table.add_column("reason", overflow="fold")
    for node, replica in asyncio.run(_replicas(mesh)):
        table.add_row(
            replica.id,
            node,
            replica.engine,
            state_name(replica.state),
            replica.address,
            str(replica.load.memory_bytes // _MIB or ""),
            str(replica.restarts),
            replica.reason,
        )
    Console(highlight=False).print(table)


@app.command("logs")
def logs(
    replica: Annotated[str, typer.Argument(help="Its id, as `enginehouse node replicas` lists it.")],
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=1000, help="How many of the last ones.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Each new one, until Ctrl-C.")] = False,
    state: StateOption = None,
) -> None:
    """Print what an engine wrote."""
    mesh = find_mesh(Path(state or STATE_DEFAULT))

    async def run() -> None:
        async for line in _lines(mesh, node_pb2.LogsRequest(replica=replica, lines_max=lines, follow=follow)):
            print(line, flush=follow)

    with suppress(KeyboardInterrupt):
        asyncio.run(run())


async def _replicas(mesh: RunningMesh) -> list[tuple[str, node_pb2.Replica]]:
    """Every replica, with its node's name. A node that does not answer has none to show."""
    found: list[tuple[str, node_pb2.Replica]] = []
    for node in mesh.settings.nodes:
        async with channel(f"{mesh.settings.host}:{node.port}") as connection:
            stub = node_pb2_grpc.NodeServiceStub(connection)
            with suppress(grpc.aio.AioRpcError):
                answer = await stub.ListReplicas(node_pb2.ListReplicasRequest(), timeout=5)
                found += [(node.name, replica) for replica in answer.replicas]
    return found


async def _lines(mesh: RunningMesh, request: node_pb2.LogsRequest) -> AsyncIterator[str]:
    """The lines of the replica, from whichever node has it.

    Raises:
        RequestError: none has.
    """
    owners = {replica.id: node for node, replica in await _replicas(mesh)}
    if request.replica not in owners:
        raise RequestError(f"no node runs {request.replica!r}; running are: {', '.join(sorted(owners)) or 'none'}")
    port = next(node.port for node in mesh.settings.nodes if node.name == owners[request.replica])
    async with channel(f"{mesh.settings.host}:{port}") as connection:
        with plain_errors():
            async for answer in node_pb2_grpc.NodeServiceStub(connection).Logs(request):
                for line in answer.lines:
                    yield line
