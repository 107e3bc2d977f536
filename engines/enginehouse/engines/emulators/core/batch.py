"""The latency and throughput model: a batch with so many places, a queue before it, and a pace.

A request waits for a place, first come, first served. Its prompt is then read at the engine's prefill rate, one prompt
after the other, as the compute-bound phase is. After that each of its tokens takes a decode step, which lengthens once
the batch asks for more tokens a second than the engine makes. This is the usual first-order model of continuous
batching; prefix caching, chunked prefill and preemption are left out.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from enginehouse.engines.emulators.core.errors import Overloaded

Pause = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Pace:
    """Rates in tokens per second; 0 is as fast as can be.

    Attributes:
        prefill: prompt tokens, all requests together.
        decode: generated tokens of one request that is alone.
        throughput: generated tokens of all requests together, at most.
    """

    prefill: float = 0.0
    decode: float = 0.0
    throughput: float = 0.0

    def prefill_s(self, prompt_tokens: int) -> float:
        """How long a prompt takes to read."""
        return prompt_tokens / self.prefill if self.prefill > 0 else 0.0

    def step_s(self, running: int) -> float:
        """How long one token of each running request takes."""
        alone_s = 1.0 / self.decode if self.decode > 0 else 0.0
        shared_s = running / self.throughput if self.throughput > 0 else 0.0
        return max(alone_s, shared_s)


class Batch:
    """Places for requests, and the queue for them. `running` and `waiting` are what the metrics show.

    Args:
        places: requests side by side.
        queue_max: requests that may wait; one more is refused.
    """

    def __init__(self, pace: Pace, places: int, queue_max: int) -> None:
        self.places = places
        self.running = 0
        self._pace = pace
        self._queue_max = queue_max
        self._queue: deque[asyncio.Future[None]] = deque()
        self._prefill = asyncio.Lock()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    def enter(self) -> asyncio.Future[None]:
        """A place that is given once the future is done. It must be left, whether it was given or not.

        Raises:
            Overloaded: the queue is full.
        """
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.running < self.places:
            self.running += 1
            place.set_result(None)
            return place
        if len(self._queue) >= self._queue_max:
            raise Overloaded(f"{len(self._queue)} requests wait already")
        self._queue.append(place)
        return place

    def leave(self, place: asyncio.Future[None]) -> None:
        """Gives a place back, to the first in the queue, or gives up waiting for it."""
        if not place.done():
            place.cancel()
            self._queue.remove(place)
        elif self._queue:
            self._queue.popleft().set_result(None)
        else:
            self.running -= 1

    async def prefill(self, prompt_tokens: int, pause: Pause) -> None:
        """Reads a prompt, after those that came before."""
        pause_s = self._pace.prefill_s(prompt_tokens)
        if pause_s == 0:
            return await pause(0.0)
        async with self._prefill:
            return await pause(pause_s)

    def step_s(self) -> float:
        """How long the next token takes."""
        return self._pace.step_s(self.running)
