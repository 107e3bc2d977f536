"""`enginehouse up`: the whole mesh on this machine, until Ctrl-C."""

import asyncio
import signal
import sys
from typing import Annotated

import typer
from rich.console import Console, RenderableType
from rich.live import Live

from enginehouse.cli.options import ConfigOption, PortOption, StateOption, flags
from enginehouse.cli.running import RunningMesh
from enginehouse.cli.screen import screen
from enginehouse.cli.trial import TrialKey
from enginehouse.cli.watch import MeshWatcher
from enginehouse.services.local import Mesh
from enginehouse.services.local.ready import http_answers
from enginehouse.services.settings import find_file, load
from enginehouse.services.telemetry import configure_logs

_REFRESH_PER_S = 4
_DOOR_POLL_S = 0.05


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
                self._say_admin_key(self._mesh.take_admin_key())
                await (self._show(watcher, key) if self._has_screen else self._log(watcher, key))
        finally:
            await watcher.stop()
            self._console.print("draining and stopping …  (Ctrl-C again forces)", style="dim")
            await self._mesh.stop()

    async def _show(self, watcher: MeshWatcher, key: str) -> None:
        def render() -> RenderableType:
            return screen(self._mesh.members.values(), watcher.picture)

        with Live(get_renderable=render, console=self._console, refresh_per_second=_REFRESH_PER_S):
            await self._until_complete(watcher)
            self._say_ready(key)
            await self._ending.wait()

    async def _log(self, watcher: MeshWatcher, key: str) -> None:
        await self._until_complete(watcher)
        self._say_ready(key)
        await self._ending.wait()

    async def _until_complete(self, watcher: MeshWatcher) -> None:
        complete = asyncio.create_task(self._complete(watcher))
        ending = asyncio.create_task(self._ending.wait())
        await asyncio.wait((complete, ending), return_when=asyncio.FIRST_COMPLETED)
        complete.cancel()
        ending.cancel()

    async def _complete(self, watcher: MeshWatcher) -> None:
        """Returns once every replica is ready and the door knows of one: before that its first answers would be 503."""
        await watcher.complete.wait()
        settings = self._mesh.settings
        is_open = http_answers(settings.host, settings.door.port, "/ready")
        while not await is_open():
            await asyncio.sleep(_DOOR_POLL_S)

    def _interrupted(self) -> None:
        if self._ending.is_set():
            self._mesh.kill()
        self._ending.set()

    def _say_admin_key(self, key: str) -> None:
        if key:
            self._console.print("admin key, shown this once (only its hash is kept):", style="bold")
            self._console.print(key, style="bold yellow", markup=False, soft_wrap=True)

    def _say_ready(self, key: str) -> None:
        if self._ending.is_set():
            return
        for line, style in _banner(self._mesh, key):
            self._console.print(line, style=style, markup=False, soft_wrap=True)


def _banner(mesh: Mesh, key: str) -> list[tuple[str, str]]:
    lines = [(f"Enginehouse is up: {mesh.door_url}", "bold green")]
    if mesh.settings.deployments and key:
        model = mesh.settings.deployments[0].public_model
        body = f'{{"model":"{model}","max_tokens":32,"messages":[{{"role":"user","content":"Hello!"}}]}}'
        lines += [
            ("Paste into another terminal (the key lasts until the mesh stops):", "dim"),
            (f"export OPENAI_BASE_URL={mesh.door_url}/v1 OPENAI_API_KEY={key}", "cyan"),
            (
                f"curl $OPENAI_BASE_URL/chat/completions -H \"authorization: Bearer $OPENAI_API_KEY\" -d '{body}'",
                "cyan",
            ),
            (f"enginehouse explain {model}", "cyan"),
            ("enginehouse events tail", "cyan"),
            ("enginehouse demo", "cyan"),
        ]
    return [*lines, ("Ctrl-C drains and stops.", "dim")]
