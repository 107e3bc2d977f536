"""The replicas of one node: as many as the desired state places here, each under its own supervisor."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import structlog

from enginehouse.contract import EnginehouseError, Reason, RequestError
from enginehouse.engines import EngineRegistry, EngineSpec, ReplicaSupervisor, Transition
from enginehouse.engines.launch import EngineHost
from enginehouse.services.background import Background
from enginehouse.services.node.prober import DialectProber
from enginehouse.services.replica_ids import replica_id_of
from enginehouse.v1 import admin_pb2, node_pb2

_log = structlog.get_logger(__name__)
OnChange = Callable[[node_pb2.Replica, Transition], None]


@dataclass(slots=True)
class Held:
    """A replica under supervision.

    Attributes:
        revision: of the deployment that it runs.
        in_flight: calls that pass through this node's adapters now.
        leaving: it is being drained and will go.
    """

    supervisor: ReplicaSupervisor
    revision: int
    in_flight: int = 0
    leaving: asyncio.Task[None] | None = None


class NodeReplicas:
    """Starts, replaces and ends replicas as told. Commands carry the deployment's revision; an older one is refused.

    Args:
        node: this node's name.
        folder: takes the engines' output.
        session: for probes.
        on_change: told of every edge of every replica.
        drain_grace_s: how long a replica that leaves lets its requests end.
        host: has the accelerators. None: there are none.
    """

    def __init__(
        self,
        node: str,
        folder: Path,
        session: aiohttp.ClientSession,
        on_change: OnChange,
        *,
        drain_grace_s: float,
        host: EngineHost | None = None,
    ) -> None:
        self._node = node
        self._folder = folder
        self._session = session
        self._on_change = on_change
        self._drain_grace_s = drain_grace_s
        self._host = host
        self._registry = EngineRegistry()
        self._held: dict[str, Held] = {}
        self._background = Background()
        self._is_draining = False

    def apply(self, deployments: Iterable[admin_pb2.Deployment]) -> None:
        """Makes the replicas those that are placed here: starts, replaces older revisions, ends what is not wanted."""
        wanted: dict[str, admin_pb2.Deployment] = {}
        for deployment in deployments:
            for placement in deployment.placements:
                if placement.node == self._node:
                    wanted |= {_replica_id(deployment, self._node, n): deployment for n in range(_count(placement))}
        for replica_id, held in list(self._held.items()):
            if replica_id not in wanted:
                self._leave(replica_id, held)
        for replica_id, deployment in wanted.items():
            self._want(replica_id, deployment)

    def load(self, deployment: admin_pb2.Deployment, revision: int) -> node_pb2.Replica:
        """Starts the deployment's first replica here, or finds it running.

        Raises:
            RequestError: the deployment is not placed here (RESOURCE_NOT_FOUND), or the command is older than what runs
                (STALE_REVISION).
        """
        if not any(placement.node == self._node for placement in deployment.placements):
            raise RequestError(f"{deployment.name} is not placed on node {self._node}", Reason.RESOURCE_NOT_FOUND)
        replica_id = _replica_id(deployment, self._node, 0)
        held = self._held.get(replica_id)
        newest = max(held.revision if held else 0, deployment.revision)
        if revision < newest:
            raise RequestError(
                f"revision {revision} of {deployment.name} is older than {newest}, which this node has",
                Reason.STALE_REVISION,
            )
        self._want(replica_id, deployment)
        return self._held[replica_id].supervisor.snapshot()

    async def unload(self, replica_id: str, revision: int, grace_s: float) -> node_pb2.Replica:
        """Drains and ends one replica.

        Raises:
            RequestError: there is none of that id, or the command is older than what runs.
        """
        held = self.find(replica_id)
        if revision < held.revision:
            raise RequestError(
                f"revision {revision} is older than {held.revision}, which {replica_id} runs", Reason.STALE_REVISION
            )
        await held.supervisor.drain(grace_s)
        self._held.pop(replica_id, None)
        return held.supervisor.snapshot()

    async def drain(self, grace_s: float) -> int:
        """Ends every replica. Returns how many requests were still running when the grace ended."""
        self._is_draining = True
        results = await asyncio.gather(*(held.supervisor.drain(grace_s) for held in self._held.values()))
        return sum(results)

    async def stop(self) -> None:
        """Kills what still runs and ends supervision."""
        await self._background.stop()

    def find(self, replica_id: str) -> Held:
        """The replica of that id.

        Raises:
            RequestError: there is none.
        """
        held = self._held.get(replica_id)
        if held is None:
            raise RequestError(f"node {self._node} has no replica {replica_id!r}", Reason.RESOURCE_NOT_FOUND)
        return held

    def get(self, replica_id: str) -> Held | None:
        """The replica of that id, if it is here."""
        return self._held.get(replica_id)

    def snapshots(self) -> list[node_pb2.Replica]:
        """Every replica as it is now."""
        return [held.supervisor.snapshot() for _, held in sorted(self._held.items())]

    def _want(self, replica_id: str, deployment: admin_pb2.Deployment) -> None:
        held = self._held.get(replica_id)
        if self._is_draining or (held is not None and held.revision >= deployment.revision):
            return
        if held is not None:
            self._leave(replica_id, held, then=deployment)
            return
        try:
            supervisor = self._supervisor(replica_id, deployment)
        except EnginehouseError as error:
            _log.error("replica cannot be started", replica=replica_id, error=error.message)
            return
        self._held[replica_id] = Held(supervisor, deployment.revision)
        self._background.start(supervisor.run(), f"supervise {replica_id}")

    def _leave(self, replica_id: str, held: Held, then: admin_pb2.Deployment | None = None) -> None:
        if held.leaving is None:
            held.leaving = self._background.start(self._end(replica_id, held, then), f"end {replica_id}")

    async def _end(self, replica_id: str, held: Held, then: admin_pb2.Deployment | None) -> None:
        await held.supervisor.drain(self._drain_grace_s)
        if self._held.get(replica_id) is held:
            del self._held[replica_id]
        if then is not None:
            self._want(replica_id, then)

    def _supervisor(self, replica_id: str, deployment: admin_pb2.Deployment) -> ReplicaSupervisor:
        spec = EngineSpec(
            replica_id=replica_id,
            deployment=deployment.name.removeprefix("deployments/"),
            revision=deployment.revision,
            engine=deployment.engine,
            settings=deployment.settings,
            served_model=deployment.model,
        )
        descriptor = self._registry.descriptor(deployment.engine)
        return ReplicaSupervisor(
            spec,
            descriptor,
            DialectProber(deployment.engine, self._session, features=descriptor.features(spec)),
            self._folder,
            on_change=self._on_change,
            host=self._host,
        )


def read_deployments(entries: Mapping[str, bytes]) -> list[admin_pb2.Deployment]:
    """The deployments of the bucket `desired`."""
    values = [value for key, value in sorted(entries.items()) if key.startswith("deployments.")]
    return [admin_pb2.Deployment.FromString(value) for value in values]


def _replica_id(deployment: admin_pb2.Deployment, node: str, number: int) -> str:
    return replica_id_of(deployment.name.removeprefix("deployments/"), node, number)


def _count(placement: admin_pb2.Placement) -> int:
    return max(1, placement.replicas)
