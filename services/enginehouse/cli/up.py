"""`enginehouse up`: the whole mesh on this machine, until Ctrl-C."""

import asyncio
import signal
import sys
from typing import Annotated

import structlog
import typer
from enginehouse.cli.options import ConfigOption, PortOption, StateOption, flags
from enginehouse.cli.running import RunningMesh
from enginehouse.cli.screen import screen
from enginehouse.cli.trial import TrialKey
from enginehouse.cli.watch import MeshPicture, MeshWatcher
from enginehouse.services.local import Mesh
from enginehouse.services.settings import find_file, load
from enginehouse.services.telemetry import configure_logs
from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

_REFRESH_PER_S = 4
_log = structlog.get_logger("enginehouse.up")


def up(
    config: ConfigOption = None,
    state: StateOption = None,
    port: PortOption = None,
    no_ui: Annotated[bool, typer.Option("--no-ui", help="Log lines instead of the status screen.")] = False,
) -> None:
    """Start the whole mesh and stay up. Ctrl-C drains and stops it; a second Ctrl-C forces."""
    settings = load(find_file(config), flags(state, port))
    configure_logs(settings.telemetry.log_level, settings.telemetry.log_format)
    asyncio.run(_Up(Mesh(settings), has_screen=not no_ui and sys.stdout.isatty()).run())


class _Up:
    def __init__(self, mesh: Mesh, *, has_screen: bool) -> None:
        self._mesh = mesh
        self._has_screen = has_screen
        self._console = Console(highlight=False)
        self._ending = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupted)
        self._console.print("starting the mesh …", style="dim")
        starting = asyncio.create_task(self._mesh.start())
        ending = asyncio.create_task(self._ending.wait())
        await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()  # it stops what it started
            await asyncio.gather(starting, return_exceptions=True)
            return
        await starting
        await self._stay()

    async def _stay(self) -> None:
        running = RunningMesh(self._mesh.settings, self._mesh.state)
        watcher = MeshWatcher(running)
        await watcher.start()
        try:
            async with TrialKey(running) as key:
                if admin_key := self._mesh.take_admin_key():
                    self._say_admin_key(admin_key)
                banner = _banner(self._mesh, key)
                await (self._show(watcher.picture, banner) if self._has_screen else self._log(watcher, banner))
        finally:
            await watcher.stop()
            self._console.print("draining and stopping …  (Ctrl-C again forces)", style="dim")
            await self._mesh.stop()

    async def _show(self, picture: MeshPicture, banner: RenderableType) -> None:
        def render() -> RenderableType:
            return screen(self._mesh.members.values(), picture, banner)

        with Live(get_renderable=render, console=self._console, refresh_per_second=_REFRESH_PER_S, screen=False):
            await self._ending.wait()

    async def _log(self, watcher: MeshWatcher, banner: RenderableType) -> None:
        complete = asyncio.create_task(watcher.complete.wait())
        ending = asyncio.create_task(self._ending.wait())
        await asyncio.wait((complete, ending), return_when=asyncio.FIRST_COMPLETED)
        complete.cancel()
        if not ending.done():
            self._console.print(banner)
            _log.info("ready", door=self._mesh.door_url, replicas=watcher.picture.replicas_ready)
        await ending

    def _interrupted(self) -> None:
        if self._ending.is_set():
            self._mesh.kill()
        self._ending.set()

    def _say_admin_key(self, key: str) -> None:
        self._console.print("admin key, shown this once (only its hash is kept):", style="bold")
        self._console.print(key, style="bold yellow", markup=False)


def _banner(mesh: Mesh, key: str) -> Panel:
    if not mesh.settings.deployments or not key:
        return Panel(Text(f"the door is {mesh.door_url}"), title="Enginehouse is up", title_align="left")
    model = mesh.settings.deployments[0].public_model
    body = f'{{"model": "{model}", "max_tokens": 32, "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    text = Text(overflow="fold")
    text.append(f"export OPENAI_BASE_URL={mesh.door_url}/v1 OPENAI_API_KEY={key}\n", style="cyan")
    text.append(
        'curl $OPENAI_BASE_URL/chat/completions -H "authorization: Bearer $OPENAI_API_KEY" '
        f"-H 'content-type: application/json' -d '{body}'\n",
        style="cyan",
    )
    text.append(f"enginehouse explain {model}    enginehouse events tail    enginehouse demo    (in another terminal)")
    return Panel(text, title="Enginehouse is up; this key lasts until it stops", title_align="left")
