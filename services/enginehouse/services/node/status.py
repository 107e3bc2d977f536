"""What the node says of itself: in the registry again and again, and at once to everyone who watches."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable

import structlog

from enginehouse.contract import DependencyError
from enginehouse.services.background import Background
from enginehouse.services.bus import REGISTRATION_TTL_S, REGISTRATIONS, BucketStore, Bus
from enginehouse.services.node.sight import RouterSight
from enginehouse.v1 import common_pb2, node_pb2

_log = structlog.get_logger(__name__)
_RENEW_S = REGISTRATION_TTL_S / 3
_JITTER_S = REGISTRATION_TTL_S / 15
_LOAD_S = 1.0
_RETRY_S = 0.5


class NodeStatus:
    """The node's registration.

    Args:
        node, place, address: as registered; `address` is host:port of the node's gRPC server.
        chip: what the node runs on.
        replicas: every replica as it is now.
        bus: where the registry is.
        sight: told which routers watch.
    """

    def __init__(
        self,
        *,
        node: str,
        place: str,
        address: str,
        chip: common_pb2.Chip,
        replicas: Callable[[], list[node_pb2.Replica]],
        bus: Bus,
        sight: RouterSight,
    ) -> None:
        self.incarnation = str(uuid.uuid4())
        self.is_draining = False
        self._node = node
        self._place = place
        self._address = address
        self._chip = chip
        self._replicas = replicas
        self._sight = sight
        self._bus = bus
        self._store = BucketStore(bus, REGISTRATIONS)
        self._changed = asyncio.Event()
        self._watchers: set[asyncio.Event] = set()
        self._is_over = False
        self._background = Background()

    async def start(self) -> None:
        """Begins to register."""
        self._background.start(self._register(), "register")
        self._background.start(self._report_load(), "report load")

    async def stop(self) -> None:
        """Takes the registration back, if the registry is there, and ends."""
        await self._background.stop()
        try:
            await self._store.delete(f"nodes.{self._node}")
        except DependencyError as error:
            _log.debug("registration left to expire", error=error.message)

    def changed(self) -> None:
        """Says that something is different now."""
        self._changed.set()
        for watcher in self._watchers:
            watcher.set()

    def registration(self) -> node_pb2.Registration:
        """The node as it is now."""
        message = node_pb2.Registration(
            node=self._node,
            place=self._place,
            address=self._address,
            chip=self._chip,
            incarnation=self.incarnation,
            replicas=self._replicas(),
            draining=self.is_draining,
        )
        message.registered_at.GetCurrentTime()
        return message

    async def watch(self, router: str = "") -> AsyncIterator[node_pb2.Registration]:
        """The registration now, and at every change, until the node ends.

        Args:
            router: id of the router that watches. Empty: it is none.
        """
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            with self._sight.watching(router):
                while not self._is_over:
                    changed.clear()
                    yield self.registration()
                    await changed.wait()
        finally:
            self._watchers.discard(changed)

    def end_watches(self) -> None:
        """Lets those who watch go; they would hold up the end of the server."""
        self._is_over = True
        self.changed()

    async def _register(self) -> None:
        while True:
            generation = await self._bus.connected()
            self._changed.clear()
            try:
                await self._store.put(f"nodes.{self._node}", self.registration().SerializeToString())
            except DependencyError as error:
                _log.debug("not registered yet", error=error.message)
                await asyncio.sleep(_RETRY_S)
                continue
            await self._until_due(generation)

    async def _until_due(self, generation: int) -> None:
        """Waits for a change, for the time to renew, or for the registry to come back after it was away."""
        wait_s = _RENEW_S + random.uniform(-_JITTER_S, _JITTER_S)  # noqa: S311 (jitter is no secret)
        lost = asyncio.create_task(self._bus.lost(generation))
        changed = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait((lost, changed), timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            changed.cancel()

    async def _report_load(self) -> None:
        while True:
            await asyncio.sleep(_LOAD_S)
            for watcher in self._watchers:
                watcher.set()
