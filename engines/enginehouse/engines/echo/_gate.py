"""A gate for tests: while it is closed, every request waits before its first token."""

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class _Watcher:
    waiting_min: int
    reached: asyncio.Event


class Gate:
    """Open at first."""

    def __init__(self) -> None:
        self.waiting = 0
        self._open = asyncio.Event()
        self._open.set()
        self._watchers: set[_Watcher] = set()

    @property
    def is_closed(self) -> bool:
        """Requests wait."""
        return not self._open.is_set()

    def close(self) -> None:
        """Lets no request pass from now on."""
        self._open.clear()

    def open(self) -> None:
        """Lets all pass."""
        self._open.set()

    async def pass_through(self) -> None:
        """Returns once the gate is open."""
        if self._open.is_set():
            return
        self.waiting += 1
        for watcher in self._watchers:
            if self.waiting >= watcher.waiting_min:
                watcher.reached.set()
        try:
            await self._open.wait()
        finally:
            self.waiting -= 1

    async def wait_for_waiting(self, waiting_min: int, timeout_s: float) -> None:
        """Returns once `waiting_min` requests wait at the gate, or after `timeout_s`."""
        if self.waiting >= waiting_min:
            return
        watcher = _Watcher(waiting_min, asyncio.Event())
        self._watchers.add(watcher)
        try:
            async with asyncio.timeout(timeout_s):
                await watcher.reached.wait()
        except TimeoutError:
            pass
        finally:
            self._watchers.discard(watcher)
