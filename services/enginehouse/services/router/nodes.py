"""Follows each node's status stream. A stream that breaks is the first sign that a node is gone."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
import structlog

from enginehouse.services.background import Background
from enginehouse.services.router.fleet import Fleet
from enginehouse.v1 import node_pb2, node_pb2_grpc

_log = structlog.get_logger(__name__)
_RETRY_S = 0.25
_CONFIRM_TIMEOUT_S = 2.0
_CONFIRM_AGAIN_S = 5.0
_OPTIONS = (
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


@dataclass(slots=True)
class _Confirmation:
    """What a node is to be told: the ids of its replicas that requests go to."""

    replicas: frozenset[str] = frozenset()
    changed: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class _Watch:
    """A node that is followed."""

    address: str
    task: asyncio.Task[None]
    confirmation: _Confirmation


class NodeWatcher:
    """One status stream for each node of the fleet. The nodes are told in turn where this router sends requests.

    Args:
        fleet: is told of every status and of every break.
        router: id of this router.
    """

    def __init__(self, fleet: Fleet, router: str) -> None:
        self._fleet = fleet
        self._router = router
        self._watching: dict[str, _Watch] = {}
        self._background = Background()

    def follow(self, addresses: dict[str, str]) -> None:
        """Follows exactly these nodes, by name and address."""
        for node, watch in list(self._watching.items()):
            if addresses.get(node) != watch.address:
                watch.task.cancel()
                del self._watching[node]
                self._fleet.unreachable(node)
        for node, address in addresses.items():
            if node not in self._watching and address:
                confirmation = _Confirmation()
                task = self._background.start(self._watch(node, address, confirmation), f"watch node {node}")
                self._watching[node] = _Watch(address, task, confirmation)

    def confirm(self, replicas: Mapping[str, frozenset[str]]) -> None:
        """Tells each node which of its replicas requests go to from now on. To be called when that is so."""
        for node, watch in self._watching.items():
            said = replicas.get(node, frozenset())
            if said != watch.confirmation.replicas:
                watch.confirmation.replicas = said
                watch.confirmation.changed.set()

    async def stop(self) -> None:
        """Ends every stream."""
        self._watching.clear()
        await self._background.stop()

    async def _watch(self, node: str, address: str, confirmation: _Confirmation) -> None:
        async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
            stub = node_pb2_grpc.NodeServiceStub(channel)
            while True:
                confirming: asyncio.Task[None] | None = None
                try:
                    async for answer in stub.WatchStatus(node_pb2.WatchStatusRequest(router=self._router)):
                        if answer.registration.node == node:
                            self._fleet.status(answer.registration)
                            confirming = confirming or asyncio.create_task(self._confirm(stub, confirmation))
                except grpc.aio.AioRpcError as error:
                    _log.debug("node out of reach", node=node, address=address, code=error.code().name)
                finally:
                    if confirming is not None:
                        confirming.cancel()
                self._fleet.unreachable(node)
                await asyncio.sleep(_RETRY_S)

    async def _confirm(self, stub: "node_pb2_grpc.NodeServiceAsyncStub", confirmation: _Confirmation) -> None:
        """Says it at every change, and now and then: a node that did not hear would wait for it."""
        while True:
            confirmation.changed.clear()
            request = node_pb2.ConfirmReplicasRequest(router=self._router, replicas=sorted(confirmation.replicas))
            try:
                await stub.ConfirmReplicas(request, timeout=_CONFIRM_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                _log.debug("confirmation not taken", code=error.code().name)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CONFIRM_AGAIN_S):
                    await confirmation.changed.wait()
