"""An emulator as a process: start-up phases, the port, and SIGTERM."""

import asyncio
import logging
import math
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from enginehouse.engines.emulators.core.controls import add_controls
from enginehouse.engines.emulators.core.emulation import Emulation
from enginehouse.engines.emulators.core.engine import Phase
from enginehouse.engines.emulators.core.errors import BrokenBy
from enginehouse.engines.emulators.core.front import Front
from enginehouse.engines.emulators.core.options import Face

_LOG = logging.getLogger(__name__)
# What is left when an engine ends is cut: a broken transport, which no client takes for an end.
_CUT_S = 0.1
# Long enough for an error frame to reach a client that reads.
_SAY_S = 1.0


class HttpFront(Front):
    """An HTTP server."""

    def __init__(self, emulation: Emulation) -> None:
        self._emulation = emulation
        app = emulation.app()
        if emulation.options.controls:
            add_controls(app, emulation.engine)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_CUT_S)
        self._site: web.SockSite | None = None

    async def open(self) -> int:
        """Opens the port; its number."""
        options = self._emulation.options
        await self._runner.setup()
        listener = socket.create_server((options.host, options.port), backlog=1024)
        self._site = web.SockSite(self._runner, listener)
        await self._site.start()
        number: int = listener.getsockname()[1]
        return number

    async def refuse_connections(self) -> None:
        """Takes no connection on any more; those that are at work go on, and idle ones are closed."""
        if self._site is not None:
            await self._site.stop()
            self._site = None
        if self._runner.server is not None:
            self._runner.server.pre_shutdown()

    async def close(self) -> None:
        """Cuts what is left."""
        await self._runner.cleanup()


class Life:
    """An emulator from its start to its end.

    Args:
        front: its port.
    """

    def __init__(self, emulation: Emulation, front: Front) -> None:
        self._emulation = emulation
        self._engine = emulation.engine
        self._front = front
        self._loading: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Starts it as its engine starts; the port's number once the port is open."""
        options, startup = self._emulation.options, self._emulation.startup
        if not startup.listens_while_loading:
            await asyncio.sleep(options.load_s)
        number = await self._front.open()
        _LOG.info("%s listens on %s:%d", self._emulation.kind, options.host, number)
        self._loading = asyncio.create_task(self._load(), name="loading")
        return number

    async def _load(self) -> None:
        options, startup = self._emulation.options, self._emulation.startup
        if startup.loads_on_request:
            await self._engine.wait_for_request()
        if startup.listens_while_loading:
            await asyncio.sleep(options.load_s)
        await asyncio.sleep(options.warmup_s)
        self._engine.become(Phase.READY)
        _LOG.info("%s is ready", self._emulation.kind)

    async def end(self) -> None:
        """Ends it as its engine ends on SIGTERM."""
        shutdown = self._emulation.shutdown
        self._engine.become(Phase.ENDING)
        if shutdown.closes_port:
            await self._front.refuse_connections()
        if shutdown.stalls:
            self._engine.stall()
        await self._drain(shutdown.drain_s)
        if shutdown.says_error and self._engine.abort(BrokenBy.SHUTDOWN):
            await self._drain(_SAY_S)
        await self.close()

    async def close(self) -> None:
        """Ends it at once."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait({self._loading})
        await self._front.close()

    async def _drain(self, deadline_s: float) -> None:
        try:
            async with asyncio.timeout(None if math.isinf(deadline_s) else deadline_s):
                await self._engine.wait_for_idle()
        except TimeoutError:
            _LOG.info("%d requests did not end in %s s", len(self._engine.at_work), deadline_s)


def make_front(emulation: Emulation) -> Front:
    """The port that the options ask for.

    Raises:
        RequestError: the engine has no such face.
        DependencyError: its protos are not installed.
    """
    if emulation.options.face is Face.GRPC:
        from enginehouse.engines.emulators.core.grpc_front import GrpcFront

        return GrpcFront(emulation)
    return HttpFront(emulation)


@asynccontextmanager
async def running(emulation: Emulation) -> AsyncIterator[str]:
    """The emulator in this process, cut at the end; host:port."""
    life = Life(emulation, make_front(emulation))
    try:
        yield f"{emulation.options.host}:{await life.start()}"
    finally:
        await life.close()


async def serve(emulation: Emulation) -> None:
    """Runs the emulator until SIGTERM or SIGINT."""
    asked = asyncio.Event()
    life = Life(emulation, make_front(emulation))
    starting = asyncio.create_task(life.start(), name="starting")
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    ending = asyncio.create_task(asked.wait(), name="asked to end")
    await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():  # nothing is at work yet, so nothing is drained
        starting.cancel()
        await asyncio.wait({starting})
        await life.close()
        return
    try:
        await starting
        await ending
        _LOG.info("asked to end")
        await life.end()
    finally:
        ending.cancel()
        await life.close()
