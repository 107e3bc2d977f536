"""`enginehouse node`: what the nodes of a mesh on this machine do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, TypeAlias

import grpc
import typer
from rich.table import Table

from enginehouse.cli.options import STATE_DEFAULT, StateOption
from enginehouse.cli.running import RunningMesh, find_mesh, plain_errors
from enginehouse.cli.table import answer_console
from enginehouse.contract import RequestError
from enginehouse.engines import state_name
from enginehouse.services.server import channel
from enginehouse.v1 import node_pb2, node_pb2_grpc

app = typer.Typer(help="Nodes, and the engines that they run.", no_args_is_help=True)
_MIB = 1024 * 1024
ReplicaArgument = Annotated[str, typer.Argument(help="Its id, as `enginehouse node replicas` lists it.")]
# Only the type stubs have the asynchronous one.
Command: TypeAlias = "Callable[[node_pb2_grpc.NodeServiceAsyncStub], Awaitable[node_pb2.Replica]]"


@app.command("replicas")
def replicas(state: StateOption = None) -> None:
    """List the engines of every node, with their states and what they take."""
    mesh = find_mesh(Path(state or STATE_DEFAULT))
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("replica", "node", "engine", "state", "address", "memory MiB", "restarts"):
        table.add_column(heading, no_wrap=True)
    table.add_column("reason", overflow="fold")
    for node, replica in asyncio.run(replicas_of(mesh)):
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
    answer_console().print(table)


@app.command("logs")
def logs(
    replica: ReplicaArgument,
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


@app.command("sleep")
def sleep(
    replica: ReplicaArgument,
    level: Annotated[
        int, typer.Option("--level", min=1, help="1 keeps the weights in the host's memory; 2 does not.")
    ] = 1,
    grace_s: Annotated[float, typer.Option("--grace-s", min=0, help="What requests in flight get.")] = 30.0,
    state: StateOption = None,
) -> None:
    """Take an engine out of rotation and let it give up its accelerators' memory, until it is woken."""
    request = node_pb2.SleepRequest(replica=replica, level=level)
    request.grace.FromMilliseconds(int(grace_s * 1000))

    async def call(node: "node_pb2_grpc.NodeServiceAsyncStub") -> node_pb2.Replica:
        return (await node.Sleep(request)).replica

    print(_said(asyncio.run(_commanded(find_mesh(Path(state or STATE_DEFAULT)), replica, call))))


@app.command("wake")
def wake(replica: ReplicaArgument, state: StateOption = None) -> None:
    """Wake an engine that sleeps; it is back in rotation once it has generated a token."""

    async def call(node: "node_pb2_grpc.NodeServiceAsyncStub") -> node_pb2.Replica:
        return (await node.Wake(node_pb2.WakeRequest(replica=replica))).replica

    print(_said(asyncio.run(_commanded(find_mesh(Path(state or STATE_DEFAULT)), replica, call))))


def _said(replica: node_pb2.Replica) -> str:
    return f"{replica.id} is {state_name(replica.state)}" + (f": {replica.reason}" if replica.reason else "")


async def _commanded(mesh: RunningMesh, replica: str, call: Command) -> node_pb2.Replica:
    """The replica after a command to whichever node has it.

    Raises:
        RequestError: none has, or the node refuses.
    """
    async with channel(await _address_of(mesh, replica)) as connection:
        with plain_errors():
            return await call(node_pb2_grpc.NodeServiceStub(connection))


async def replicas_of(mesh: RunningMesh) -> list[tuple[str, node_pb2.Replica]]:
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
    async with channel(await _address_of(mesh, request.replica)) as connection:
        with plain_errors():
            async for answer in node_pb2_grpc.NodeServiceStub(connection).Logs(request):
                for line in answer.lines:
                    yield line


async def _address_of(mesh: RunningMesh, replica: str) -> str:
    """host:port of the node that has the replica.

    Raises:
        RequestError: none has.
    """
    owners = {found.id: node for node, found in await replicas_of(mesh)}
    if replica not in owners:
        raise RequestError(f"no node runs {replica!r}; running are: {', '.join(sorted(owners)) or 'none'}")
    port = next(node.port for node in mesh.settings.nodes if node.name == owners[replica])
    return f"{mesh.settings.host}:{port}"
