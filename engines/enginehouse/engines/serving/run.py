"""Running one of our own engine servers as a process."""

import asyncio
import logging
import signal
import sys

from aiohttp import web

_LOG = logging.getLogger(__name__)
# Supervision drains before it signals. What is left then is cut: a broken transport, which no client takes for an end.
_SHUTDOWN_S = 0.1


def log_to_stdout() -> None:
    """Sends log records to standard output, where supervision keeps them."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")


def run_server(app: web.Application, host: str, port: int) -> None:
    """Serves `app` until SIGTERM or SIGINT. A client that leaves cancels its handler at once."""
    asyncio.run(_serve(app, host, port))


async def _serve(app: web.Application, host: str, port: int) -> None:
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        _LOG.info("listening on %s:%d", host, port)
        asked = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, asked.set)
        await asked.wait()
        _LOG.info("asked to end")
    finally:
        await runner.cleanup()
