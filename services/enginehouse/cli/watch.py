"""What a person wants to see of a running mesh, kept up to date: replicas, limits, the last decisions."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import grpc

from enginehouse.cli.running import RunningMesh
from enginehouse.services.background import Background
from enginehouse.services.bus import REGISTRATIONS, Bus, Mirror
from enginehouse.services.server import channel
from enginehouse.v1 import admin_pb2, admin_pb2_grpc, node_pb2, router_pb2, router_pb2_grpc

_POLL_S = 1.0
_RETRY_S = 0.5
DECISIONS_KEPT = 8


@dataclass(slots=True)
class MeshPicture:
    """The newest of everything. Registrations by node; decisions newest first."""

    registrations: dict[str, node_pb2.Registration] = field(default_factory=dict)
    limits: list[admin_pb2.Limit] = field(default_factory=list)
    deployments: list[admin_pb2.Deployment] = field(default_factory=list)
    decisions: deque[router_pb2.Decision] = field(default_factory=lambda: deque(maxlen=DECISIONS_KEPT))

    @property
    def replicas_expected(self) -> int:
        """How many replicas the deployments place."""
        return sum(max(1, placement.replicas) for one in self.deployments for placement in one.placements)

    @property
    def replicas_ready(self) -> int:
        """How many of them are ready."""
        return sum(
            replica.state == node_pb2.REPLICA_STATE_READY
            for registration in self.registrations.values()
            for replica in registration.replicas
        )


class MeshWatcher:
    """Follows a mesh by its own means: the registry, the admin API, and the routers' decisions.

    Args:
        mesh: which.
        on_change: called after every change of the picture.
    """

    def __init__(self, mesh: RunningMesh, on_change: Callable[[], None] = lambda: None) -> None:
        self.picture = MeshPicture()
        self.complete = asyncio.Event()
        """Set while every replica that is placed is ready."""
        self._mesh = mesh
        self._tell = on_change
        self._bus = Bus(mesh.nats_url, "watch")
        self._mirror = Mirror(self._bus, REGISTRATIONS, self._registered)
        self._background = Background()

    async def start(self) -> None:
        """Begins to follow."""
        await self._bus.start()
        await self._mirror.start()
        self._background.start(self._poll(), "poll the admin API")
        for router in self._mesh.settings.routers:
            address = f"{self._mesh.settings.host}:{router.grpc_port}"
            self._background.start(self._follow(address), f"follow {router.name}")

    async def stop(self) -> None:
        """Ends following."""
        await self._background.stop()
        await self._mirror.stop()
        await self._bus.stop()

    def _on_change(self) -> None:
        expected = self.picture.replicas_expected
        (self.complete.set if expected and self.picture.replicas_ready >= expected else self.complete.clear)()
        self._tell()

    def _registered(self, entries: Mapping[str, bytes]) -> None:
        read = [node_pb2.Registration.FromString(value) for value in entries.values()]
        self.picture.registrations = {registration.node: registration for registration in read}
        self._on_change()

    async def _poll(self) -> None:
        async with channel(self._mesh.operator) as connection:
            stub = admin_pb2_grpc.AdminServiceStub(connection)
            while True:
                try:
                    limits = await stub.ListLimits(admin_pb2.ListLimitsRequest(), timeout=_POLL_S)
                    deployments = await stub.ListDeployments(admin_pb2.ListDeploymentsRequest(), timeout=_POLL_S)
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(_RETRY_S)
                    continue
                self.picture.limits = list(limits.limits)
                self.picture.deployments = list(deployments.deployments)
                self._on_change()
                await asyncio.sleep(_POLL_S)

    async def _follow(self, address: str) -> None:
        async with channel(address) as connection:
            stub = router_pb2_grpc.RouterServiceStub(connection)
            while True:
                try:
                    async for answer in stub.WatchDecisions(router_pb2.WatchDecisionsRequest()):
                        self.picture.decisions.appendleft(answer.decision)
                        self._on_change()
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(_RETRY_S)
