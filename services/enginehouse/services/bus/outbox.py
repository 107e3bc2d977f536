"""Messages on their way to JetStream: published in the background, in order, again until each is acknowledged."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import nats.errors
import nats.js.errors
import structlog

from enginehouse.services.background import Background
from enginehouse.services.bus.connection import Bus

_IN_FLIGHT_MAX = 64
_QUEUE_MAX = 10_000
_RETRY_S = 0.5
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message: `headers` hold a `Nats-Msg-Id`, by which the stream drops what was published twice."""

    subject: str
    headers: Mapping[str, str]
    payload: bytes


class Outbox:
    """Publishes in order of arrival.

    While the server is away up to 10,000 wait; past that the oldest is dropped and counted, because no message of this
    kind is ever worth a request.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._queue: deque[Outgoing] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._background = Background()
        self.dropped = 0

    async def start(self) -> None:
        """Begins to publish; returns at once."""
        self._background.start(self._run(), "publish")

    async def stop(self, *, grace_s: float = 2.0) -> None:
        """Publishes what waits, for at most `grace_s` seconds, and ends."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s if self._bus.is_connected else 0):
                await self._idle.wait()
        await self._background.stop()

    def put(self, message: Outgoing) -> None:
        """Queues a message and returns at once; it never raises and never waits."""
        if len(self._queue) >= _QUEUE_MAX:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(message)
        self._idle.clear()
        self._wake.set()

    async def _run(self) -> None:
        while True:
            if not self._queue:
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
            await self._bus.connected()
            batch = [self._queue[index] for index in range(min(_IN_FLIGHT_MAX, len(self._queue)))]
            results = await asyncio.gather(*(self._send(message) for message in batch))
            done = results.index(False) if False in results else len(results)
            for message in batch[:done]:
                if self._queue and self._queue[0] is message:  # else it was dropped meanwhile
                    self._queue.popleft()
            if done < len(batch):
                await asyncio.sleep(_RETRY_S)

    async def _send(self, message: Outgoing) -> bool:
        try:
            await self._bus.jetstream.publish(message.subject, message.payload, headers=dict(message.headers))
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
            _log.debug("not published yet", subject=message.subject, error=repr(error))
            return False
        return True
