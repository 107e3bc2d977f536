"""One connection to NATS that outlives the server: it connects in the background and says when it is new."""

import asyncio
import contextlib

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext

from enginehouse.services.background import Background

_log = structlog.get_logger(__name__)
_RECONNECT_WAIT_S = 0.25


class Bus:
    """A connection to the event plane.

    Nothing here raises because the server is away: those who need it wait for `connected`, and rebuild what they
    mirrored whenever `generation` has grown.

    Args:
        url: "nats://host:port".
        name: shown in the server's monitoring.
    """

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.generation = 0
        self._name = name
        self._client = Client()
        self._connected = asyncio.Event()
        self._changed = asyncio.Event()
        self._background = Background()
        self._is_closing = False

    async def start(self) -> None:
        """Begins to connect; returns at once."""
        self._background.start(self._connect(), "connect to NATS")

    async def stop(self) -> None:
        """Closes the connection. What is not acknowledged stays with whoever published it."""
        self._is_closing = True
        await self._background.stop()
        if not self._client.is_closed:
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._client.close()

    @property
    def is_connected(self) -> bool:
        """Whether the server answers now."""
        return self._connected.is_set()

    @property
    def client(self) -> Client:
        """The client, for subscriptions that may be lost with the server."""
        return self._client

    @property
    def jetstream(self) -> JetStreamContext:
        """JetStream on this connection."""
        return self._client.jetstream()

    async def connected(self) -> int:
        """Waits for the server and returns the generation of the connection."""
        await self._connected.wait()
        return self.generation

    async def lost(self, generation: int) -> None:
        """Waits until the connection of `generation` is gone."""
        while self.generation == generation and self.is_connected:
            self._changed.clear()
            await self._changed.wait()

    async def _connect(self) -> None:
        while True:
            try:
                await self._client.connect(
                    self.url,
                    name=self._name,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=_RECONNECT_WAIT_S,  # type: ignore[arg-type]  # it sleeps that long
                    connect_timeout=2,
                    ping_interval=5,
                    max_outstanding_pings=2,
                    disconnected_cb=self._on_disconnected,
                    reconnected_cb=self._on_connected,
                    error_cb=_on_error,
                )
            except (OSError, nats.errors.Error, TimeoutError):
                await asyncio.sleep(_RECONNECT_WAIT_S)
            else:
                await self._on_connected()
                return

    async def _on_connected(self) -> None:
        self.generation += 1
        self._connected.set()
        self._changed.set()
        _log.info("connected to nats", url=self.url, generation=self.generation)

    async def _on_disconnected(self) -> None:
        if self._connected.is_set() and not self._is_closing:
            _log.warning("lost nats; going on without it", url=self.url)
        self._connected.clear()
        self._changed.set()


async def _on_error(error: Exception) -> None:
    _log.debug("nats", error=str(error), kind=type(error).__name__)
