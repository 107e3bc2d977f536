"""Tasks that run for as long as their owner does."""

import asyncio
from collections.abc import Coroutine
from typing import Any

_ASKED_AGAIN_S = 0.1


class Background:
    """Starts tasks and ends them together.

    A task that fails is nobody's to catch: the event loop's exception handler is told, and a process of ours ends by
    it and is started again, rather than going on without one of its parts.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Runs `work` until it ends, or until `stop`."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def stop(self) -> None:
        """Cancels what still runs and waits for it.

        It asks again of a task that goes on: before Python 3.12, `asyncio.wait_for`, which nats-py is built on, loses a
        cancellation that comes together with its result.
        """
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=_ASKED_AGAIN_S)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            task.get_loop().call_exception_handler(
                {"message": f"background task {task.get_name()!r} failed", "exception": task.exception(), "task": task}
            )
