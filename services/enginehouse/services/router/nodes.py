"""Follows each node's status stream. A stream that breaks is the first sign that a node is gone."""

import asyncio

import grpc
import structlog

from enginehouse.services.background import Background
from enginehouse.services.router.fleet import Fleet
from enginehouse.v1 import node_pb2, node_pb2_grpc

_log = structlog.get_logger(__name__)
_RETRY_S = 0.25
_OPTIONS = (
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class NodeWatcher:
    """One status stream for each node of the fleet.

    Args:
        fleet: is told of every status and of every break.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._watching: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self._background = Background()

    def follow(self, addresses: dict[str, str]) -> None:
        """Follows exactly these nodes, by name and address."""
        for node, (address, task) in list(self._watching.items()):
            if addresses.get(node) != address:
                task.cancel()
                del self._watching[node]
                self._fleet.unreachable(node)
        for node, address in addresses.items():
            if node not in self._watching and address:
                task = self._background.start(self._watch(node, address), f"watch node {node}")
                self._watching[node] = (address, task)

    async def stop(self) -> None:
        """Ends every stream."""
        self._watching.clear()
        await self._background.stop()

    async def _watch(self, node: str, address: str) -> None:
        async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
            stub = node_pb2_grpc.NodeServiceStub(channel)
            while True:
                try:
                    async for answer in stub.WatchStatus(node_pb2.WatchStatusRequest()):
                        if answer.registration.node == node:
                            self._fleet.status(answer.registration)
                except grpc.aio.AioRpcError as error:
                    _log.debug("node out of reach", node=node, address=address, code=error.code().name)
                self._fleet.unreachable(node)
                await asyncio.sleep(_RETRY_S)
