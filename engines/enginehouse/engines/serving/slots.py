"""How many requests an engine works on side by side, and how many may wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from enginehouse.engines.serving.answers import ApiError


class Slots:
    """First come, first served. `running` and `waiting` are what /metrics shows.

    Args:
        parallel: requests side by side.
        waiting_max: requests that may wait; one more is refused with 503.
    """

    def __init__(self, parallel: int, waiting_max: int) -> None:
        self.running = 0
        self.waiting = 0
        self._semaphore = asyncio.Semaphore(parallel)
        self._waiting_max = waiting_max

    @asynccontextmanager
    async def wait(self) -> AsyncIterator[None]:
        """Counts the caller among those that wait.

        Raises:
            ApiError: too many wait already.
        """
        if self.waiting >= self._waiting_max:
            raise ApiError(
                f"{self.waiting} requests wait already; try again later",
                HTTPStatus.SERVICE_UNAVAILABLE,
                code="overloaded",
            )
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A slot, waited for in turn and given back at the end, however that comes.

        Raises:
            ApiError: too many wait already.
        """
        if self._semaphore.locked():
            async with self.wait():
                await self._semaphore.acquire()
        else:
            await self._semaphore.acquire()
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._semaphore.release()
