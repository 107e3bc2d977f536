"""The node process: engines under supervision, their adapters, and the node's entry in the registry."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from enginehouse.adapters.openai import open_session
from enginehouse.engines import CONTAINERS_FILE, Inventory, Transition, state_name
from enginehouse.engines.launch import EngineHost, end_orphan_containers, end_orphans
from enginehouse.router import Jurisdictions
from enginehouse.services.bus import DESIRED, REGISTRATIONS, Bus, EventPublisher, Mirror
from enginehouse.services.node.anthropic import AnthropicServicer
from enginehouse.services.node.calls import Calls
from enginehouse.services.node.folder import FolderLock
from enginehouse.services.node.inference import InferenceServicer
from enginehouse.services.node.neighbours import elsewhere
from enginehouse.services.node.openai import OpenAIServicer
from enginehouse.services.node.replacement import Replacement
from enginehouse.services.node.replicas import NodeReplicas, read_deployments
from enginehouse.services.node.service import NodeServicer
from enginehouse.services.node.sight import RouterSight
from enginehouse.services.node.status import NodeStatus
from enginehouse.services.server import GrpcServer, Listen
from enginehouse.v1 import (
    admin_pb2,
    anthropic_pb2_grpc,
    common_pb2,
    events_pb2,
    inference_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    openai_pb2_grpc,
)

_log = structlog.get_logger(__name__)
_STOP_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Everything a node needs to know.

    Attributes:
        name: of the node.
        place: its label. Empty: unlabelled, so it serves nobody.
        chip_class: what it runs on; the rest of the chip is detected.
        host, port: where it listens; 0 takes a free port.
        nats_url: where the event plane is.
        folder: takes the engines' output.
        drain_grace_s: how long replicas let their requests end.
        longest_request_s: how long one may take: replicas that another has taken the place of wait that long.
    """

    name: str
    place: str
    chip_class: common_pb2.ChipClass.ValueType
    host: str
    port: int
    nats_url: str
    folder: Path
    jurisdictions: Jurisdictions
    drain_grace_s: float = 10.0
    longest_request_s: float = 600.0


class Node:
    """One node. Start it, stop it once."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._deployments: dict[str, admin_pb2.Deployment] = {}
        self._bus = Bus(settings.nats_url, f"node {settings.name}")
        self._events = EventPublisher(self._bus, source=f"/node/{settings.name}", place=settings.place)
        self._registrations: Mapping[str, bytes] = {}
        self._sight = RouterSight()
        self._mirrors = (
            Mirror(self._bus, REGISTRATIONS, self._on_registrations),
            Mirror(self._bus, DESIRED, self._on_desired),
        )
        self._server = GrpcServer(Listen(settings.host, settings.port))

    async def start(self) -> None:
        """Serves, registers, and starts what the desired state places here."""
        settings = self._settings
        self._lock = FolderLock(settings.folder)
        host, chip = await asyncio.to_thread(self._look_at_host)
        self._session = open_session()
        self._replicas = NodeReplicas(
            settings.name,
            settings.folder,
            self._session,
            self._on_change,
            drain_grace_s=settings.drain_grace_s,
            replaced_grace_s=settings.longest_request_s,
            host=host,
            sight=self._sight,
            on_replacement=self._on_replacement,
            elsewhere=lambda deployment, settings_hash: elsewhere(
                settings.name, deployment, settings_hash, self._registrations
            ),
        )
        self._calls = Calls(
            place=settings.place,
            jurisdictions=settings.jurisdictions,
            replicas=self._replicas,
            session=self._session,
        )
        self._status = NodeStatus(
            node=settings.name,
            place=settings.place,
            address=f"{settings.host}:{settings.port}",
            chip=chip,
            replicas=self._replicas.snapshots,
            bus=self._bus,
            sight=self._sight,
        )
        self._add_services()
        await self._server.start()
        await self._bus.start()
        await self._events.start()
        await self._status.start()
        for mirror in self._mirrors:
            await mirror.start()
        self._publish("joined", "started")

    async def stop(self) -> None:
        """Leaves the rotation, drains, and ends every engine."""
        self._status.is_draining = True
        self._status.changed()
        self._publish("draining", "asked to stop")
        for mirror in self._mirrors:
            await mirror.stop()
        await self._replicas.drain(self._settings.drain_grace_s)
        await self._replicas.stop()
        async with asyncio.TaskGroup() as ending:
            ending.create_task(self._server.stop(grace_s=_STOP_GRACE_S))
            self._status.end_watches()
        await self._calls.stop()
        await self._status.stop()
        self._publish("left", "stopped")
        await self._events.stop()
        await self._bus.stop()
        await self._session.close()
        self._lock.release()

    def _add_services(self) -> None:
        node = NodeServicer(
            self._replicas,
            self._status,
            lambda: self._deployments,
            self._sight,
            drain_grace_s=self._settings.drain_grace_s,
        )
        calls, add = self._calls, self._server.add
        add("enginehouse.v1.NodeService", node_pb2_grpc.add_NodeServiceServicer_to_server, node)
        add(
            "enginehouse.v1.InferenceService",
            inference_pb2_grpc.add_InferenceServiceServicer_to_server,
            InferenceServicer(calls),
        )
        add("enginehouse.v1.OpenAIService", openai_pb2_grpc.add_OpenAIServiceServicer_to_server, OpenAIServicer(calls))
        add(
            "enginehouse.v1.AnthropicService",
            anthropic_pb2_grpc.add_AnthropicServiceServicer_to_server,
            AnthropicServicer(calls),
        )

    def _look_at_host(self) -> tuple[EngineHost, common_pb2.Chip]:
        """The host as engines see it, and its chip; what an earlier node of ours left behind is ended first."""
        folder, chip_class = self._settings.folder, self._settings.chip_class
        for what, left in (
            ("processes", end_orphans(folder)),
            ("containers", end_orphan_containers(folder / CONTAINERS_FILE)),
        ):
            if left:
                _log.warning("ended what a dead node left behind", what=what, which=left)
        inventory = Inventory()
        return EngineHost.detect(folder, chip_class, inventory), inventory.chip_of(chip_class)

    def _on_desired(self, entries: Mapping[str, bytes]) -> None:
        deployments = read_deployments(entries)
        self._deployments = {one.name.removeprefix("deployments/"): one for one in deployments}
        self._replicas.apply(deployments)
        self._status.changed()

    def _on_registrations(self, entries: Mapping[str, bytes]) -> None:
        self._registrations = entries
        self._replicas.others_changed()

    def _on_replacement(self, replacement: Replacement) -> None:
        event = events_pb2.ReplacementChanged(
            deployment=replacement.deployment,
            revision=replacement.revision,
            node=self._settings.name,
            place=self._settings.place,
            reason=replacement.reason,
            old_replicas=replacement.old,
            new_replicas=replacement.new,
        )
        _log.info("replacement", step=replacement.step, deployment=replacement.deployment, reason=replacement.reason)
        self._events.publish("replacement", replacement.deployment, replacement.step, event)

    def _on_change(self, replica: node_pb2.Replica, transition: Transition) -> None:
        self._status.changed()
        event = events_pb2.ReplicaStateChanged(
            replica=replica.id,
            deployment=replica.deployment,
            revision=replica.revision,
            node=self._settings.name,
            place=self._settings.place,
            to=transition.to_state,
            reason=transition.reason,
            log_reference=transition.log_reference,
            restarts=replica.restarts,
        )
        setattr(event, "from", transition.from_state)  # a keyword of Python
        if transition.ending is not None:
            event.failure_class = transition.ending.failure_class or ""
            if transition.ending.exit_code is not None:
                event.exit_code = transition.ending.exit_code
        self._events.publish("replica", replica.id, state_name(transition.to_state), event)

    def _publish(self, what: str, reason: str) -> None:
        event = events_pb2.NodeChanged(
            node=self._settings.name,
            place=self._settings.place,
            incarnation=self._status.incarnation,
            reason=reason,
        )
        self._events.publish("node", self._settings.name, what, event)
