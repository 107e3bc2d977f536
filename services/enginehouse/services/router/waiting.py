"""Requests that wait until others give back what they do not use, in the order in which they came."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from enginehouse.services.router.allowances import Allowances

WAITERS_MAX = 64
"""Of one limit. Whoever comes when so many wait is refused at once."""


class Place:
    """One request's place in the line of one limit."""

    def __init__(self, line: "deque[Place]") -> None:
        self._line = line
        self._called = asyncio.Event()

    @property
    def is_first(self) -> bool:
        """Whether nobody is in front."""
        return self._line[0] is self

    def call(self) -> None:
        """Says that it is worth trying."""
        self._called.set()

    async def turn(self, timeout_s: float) -> None:
        """Returns when it is worth trying, or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._called.wait()
        except TimeoutError:
            return
        self._called.clear()


class WaitingRoom:
    """A line for each limit that somebody waits for.

    Args:
        waiters_max: of one limit.
    """

    def __init__(self, *, waiters_max: int = WAITERS_MAX) -> None:
        self._waiters_max = waiters_max
        self._lines: dict[str, deque[Place]] = {}

    def waited_for(self, limits: Iterable[str]) -> str | None:
        """One of these limits that somebody waits for already."""
        return next((limit for limit in limits if limit in self._lines), None)

    @contextmanager
    def place(self, limit: str) -> Iterator[Place | None]:
        """A place at the end of the line, given up at the end of the block. None when the line is full."""
        line = self._lines.setdefault(limit, deque())
        if len(line) >= self._waiters_max:
            yield None
            return
        place = Place(line)
        line.append(place)
        try:
            yield place
        finally:
            line.remove(place)
            if line:
                line[0].call()  # it is first now, and what it needs may be there
            else:
                del self._lines[limit]

    def changed(self, limits: Iterable[str]) -> None:
        """There may be more room in these limits: calls the first of each line."""
        for limit in limits:
            line = self._lines.get(limit)
            if line:
                line[0].call()


class SharedAllowances(Allowances):
    """Allowances that tell those who wait when a request has given something back."""

    room: WaitingRoom | None = None

    def settle(self, request_id: str, used: Mapping[str, int], deployment: str = "") -> int:
        """See `Allowances.settle`."""
        limits = [held.limit for held in self.book.holds_of(request_id)]
        owed = super().settle(request_id, used, deployment)
        if self.room is not None:
            self.room.changed(limits)
        return owed
