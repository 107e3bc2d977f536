"""Runs one process of ours: starts it, waits for a signal or for a failure, stops it."""

import asyncio
import signal
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from enginehouse.contract import EnginehouseError

_log = structlog.get_logger(__name__)
EXIT_OK = 0
EXIT_FAILED = 1
EXIT_INTERNAL = 70  # EX_SOFTWARE of sysexits.h


class Process(Protocol):
    """What can be run."""

    async def start(self) -> None:
        """Starts; returns when it serves."""
        ...

    async def stop(self) -> None:
        """Drains and ends."""
        ...


def run_process(make: Callable[[], Process]) -> int:
    """Runs what `make` makes until SIGTERM or SIGINT, and returns the exit code.

    A background task that fails ends the process with 70, so that whoever supervises it starts it again.
    """
    import uvloop

    return uvloop.run(_run(make))


async def _run(make: Callable[[], Process]) -> int:
    loop = asyncio.get_running_loop()
    ending: asyncio.Future[int] = loop.create_future()

    def end(code: int) -> None:
        if not ending.done():
            ending.set_result(code)

    def on_exception(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        _log.critical(context["message"], exc_info=context.get("exception"))
        if isinstance(context.get("task"), asyncio.Task):
            end(EXIT_INTERNAL)

    loop.set_exception_handler(on_exception)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, EXIT_OK)
    process = make()
    try:
        await process.start()
    except EnginehouseError as error:
        _log.critical("cannot start", error=error.message)
        return EXIT_FAILED
    code = await ending
    await process.stop()
    return code
