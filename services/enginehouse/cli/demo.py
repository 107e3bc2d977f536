"""`enginehouse demo`: the guided tour, of a running mesh or of one started for it."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from enginehouse.cli.options import STATE_DEFAULT, ConfigOption, StateOption, flags
from enginehouse.cli.running import RunningMesh, find_mesh
from enginehouse.contract import DependencyError
from enginehouse.services.local import Mesh
from enginehouse.services.settings import find_file, load
from enginehouse.services.telemetry import configure_logs

_LONGEST_S = 240.0


def demo(
    config: ConfigOption = None,
    state: StateOption = None,
    with_mesh: Annotated[
        bool, typer.Option("--with-mesh", help="Start a mesh for the tour, on free ports, and stop it at the end.")
    ] = False,
) -> None:
    """Take the tour: chat, decisions, residency, budgets, chips and quality, events."""
    configure_logs("error", "console")
    console = Console(highlight=False)
    if with_mesh:
        asyncio.run(_with_mesh(config, console))
    else:
        asyncio.run(_tour(find_mesh(state or STATE_DEFAULT), console))


async def _with_mesh(config: Path | None, console: Console) -> None:
    folder = Path(tempfile.mkdtemp(prefix="enginehouse-demo-"))
    settings = load(find_file(config), {**flags(folder, 0), "nats": {"port": 0}})
    mesh = Mesh(settings)
    console.print("starting nats-server, control, a router, two nodes with their engines, and Envoy …", style="dim")
    try:
        await mesh.start()
        await _tour(RunningMesh(mesh.settings, mesh.state), console)
    except BaseException:
        await mesh.stop()
        console.print(f"the logs of every process are in {mesh.state.logs}", style="dim")
        raise
    console.print("\nstopping everything …", style="dim")
    await mesh.stop()
    shutil.rmtree(folder)
    console.print("stopped; nothing is left running", style="dim")


async def _tour(mesh: RunningMesh, console: Console) -> None:
    from enginehouse.cli.tour import take_tour  # brings the OpenAI SDK with it

    try:
        async with asyncio.timeout(_LONGEST_S):
            await take_tour(mesh, console)
    except TimeoutError:
        raise DependencyError(f"the tour did not end within {_LONGEST_S:g} s; see the logs") from None
