"""The router process: wires the parts together and keeps the view new."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from enginehouse.router import Jurisdictions
from enginehouse.services.background import Background
from enginehouse.services.bus import DESIRED, REGISTRATIONS, Bus, EventPublisher, Mirror, Outbox
from enginehouse.services.router.access_log import AccessLogSink
from enginehouse.services.router.admission import Admission
from enginehouse.services.router.affinity import Affinity
from enginehouse.services.router.check import Checker
from enginehouse.services.router.counting import TokenCounter
from enginehouse.services.router.deliberation import Deliberation
from enginehouse.services.router.desired import Desired, read_desired
from enginehouse.services.router.endpoints import CLUSTER_ADAPTERS, CLUSTER_ENGINES, EndpointDiscovery
from enginehouse.services.router.fleet import Fleet, registrations
from enginehouse.services.router.handover import Handover
from enginehouse.services.router.http import HttpServer, RouterApp
from enginehouse.services.router.keys import KeyRing
from enginehouse.services.router.models import list_models
from enginehouse.services.router.nodes import NodeWatcher
from enginehouse.services.router.recorder import Recorder
from enginehouse.services.router.service import RouterServicer
from enginehouse.services.router.settlement import Settler
from enginehouse.services.router.snapshot import read_snapshot, write_snapshot
from enginehouse.services.router.waiting import SharedAllowances, WaitingRoom
from enginehouse.services.server import GrpcServer, Listen, channel
from enginehouse.v1 import admin_pb2, ledger_pb2_grpc, router_pb2_grpc

_log = structlog.get_logger(__name__)
_REBUILD_S = 0.005
_SWEEP_S = 1.0
_CLOCK_DRIFT_MS = 1000
_WAIT_PERCENT_MAX = 37
"""Of the check's timeout. Envoy gives up a try after half of it (retry_back_off in deploy/envoy/filters.yaml.j2) and
asks again; our answer must be there before."""
_START_GRACE_MS = 10_000


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """Everything a router needs to know.

    Attributes:
        id: of this router.
        places: labels of the places that every request passes: Envoy's and this router's.
        host, http_port, grpc_port: where it listens; 0 takes a free port.
        control, nats_url: where the ledger and the event plane are.
        folder: where the last view is kept.
        longest_request_s, check_timeout_ms: Envoy's bounds; the ledger counts on both.
        is_alone: there is no other router that Envoys could follow.
    """

    id: str
    places: tuple[str, ...]
    host: str
    http_port: int
    grpc_port: int
    control: str
    nats_url: str
    folder: Path
    jurisdictions: Jurisdictions
    longest_request_s: int = 600
    check_timeout_ms: int = 2000
    is_alone: bool = False


class Router:
    """One router. Start it, stop it once."""

    def __init__(self, settings: RouterSettings) -> None:
        self._settings = settings
        self._bus = Bus(settings.nats_url, settings.id)
        self._events = EventPublisher(self._bus, source=f"/router/{settings.id}", place=settings.places[0])
        self._records = Outbox(self._bus)
        self._desired = Desired()
        self._has_desired = False
        self._keys = KeyRing()
        self._is_deciding = False
        self._began_ms = boot_ms()
        self._dirty = asyncio.Event()
        self._fleet = Fleet(settings.jurisdictions, settings.places, self._dirty.set)
        self._endpoints = EndpointDiscovery(self._dirty.set, self._follow_envoy, awaits_envoy=settings.is_alone)
        self._fleet.require_published(
            partial(self._endpoints.is_published, CLUSTER_ENGINES),
            partial(self._endpoints.is_published, CLUSTER_ADAPTERS),
        )
        self._nodes = NodeWatcher(self._fleet, settings.id)
        self._channel = channel(settings.control)
        self._allowances = SharedAllowances(
            ledger_pb2_grpc.LedgerServiceStub(self._channel),
            router=settings.id,
            boot_ms=boot_ms,
            margin_ms=settings.check_timeout_ms + _CLOCK_DRIFT_MS,
        )
        self._handover = Handover(self._allowances.client, router=settings.id)
        self._settler = Settler(
            self._allowances,
            publish=self._events.publish,
            boot_ms=boot_ms,
            longest_ms=settings.longest_request_s * 1000 + settings.check_timeout_ms,
            foreign=self._handover.take,
        )
        self._mirrors = (
            Mirror(self._bus, DESIRED, self._on_desired),
            Mirror(self._bus, REGISTRATIONS, self._on_registrations),
        )
        self._grpc = GrpcServer(Listen(settings.host, settings.grpc_port))
        self._background = Background()
        self._counter = TokenCounter(settings.id)
        self._allowances.room = WaitingRoom()
        self._deliberation = Deliberation(
            allowances=self._allowances,
            in_flight=self._settler.in_flight,
            loads=self._fleet.loads,
            affinity=Affinity(now_ms=boot_ms),
            counter=self._counter,
            room=self._allowances.room,
            wait_ms_max=settings.check_timeout_ms * _WAIT_PERCENT_MAX // 100,
            now_ms=boot_ms,
        )
        self._recorder = Recorder(router=settings.id, place=settings.places[0], put=self._records.put, now_ms=unix_ms)
        self._admission = Admission(
            router=settings.id,
            address=f"{settings.host}:{settings.grpc_port}",
            deliberation=self._deliberation,
            allowances=self._allowances,
            settler=self._settler,
            recorder=self._recorder,
            publish=self._events.publish,
            now_ms=unix_ms,
        )
        self._http = HttpServer(self._app(), settings.host, settings.http_port)

    async def start(self) -> None:
        """Serves as soon as there is a view: NATS's, or the last one on disk."""
        self._fleet.terms.restore(read_snapshot(self._snapshot_file("terms")))
        self._on_desired(read_snapshot(self._snapshot_file("desired")), is_new=False)
        self._on_registrations(read_snapshot(self._snapshot_file("registrations")), is_new=False)
        self._renew_view()
        servicer = RouterServicer(self._admission, self._settler, self._settings.jurisdictions)
        self._grpc.add("enginehouse.v1.RouterService", router_pb2_grpc.add_RouterServiceServicer_to_server, servicer)
        self._grpc.add_handler(self._endpoints.handler())
        self._grpc.add_handler(AccessLogSink(self._settler.logged).handler())
        await self._grpc.start()
        await self._bus.start()
        await self._events.start()
        await self._records.start()
        await self._allowances.start()
        self._background.start(self._handover.run(), "hand over foreign ends")
        for mirror in self._mirrors:
            await mirror.start()
        self._background.start(self._rebuild(), "rebuild the view")
        self._background.start(self._sweep(), "sweep requests")
        await self._http.start()

    async def stop(self) -> None:
        """Answers what it was asked, gives its allowances back, and ends."""
        await self._http.stop()
        await self._grpc.stop(grace_s=1.0)
        await self._background.stop()
        for mirror in self._mirrors:
            await mirror.stop()
        await self._nodes.stop()
        await self._counter.stop()
        await self._allowances.stop()
        await self._handover.stop()
        await self._channel.close()
        self._settler.stop()
        await self._events.stop()
        await self._records.stop()
        await self._bus.stop()

    def _follow_envoy(self, envoy: str) -> None:
        self._allowances.follow_envoy(envoy)

    def _app(self) -> RouterApp:
        checker = Checker(
            router=self._settings.id,
            admission=self._admission,
            keys=lambda: self._keys,
            jurisdictions=self._settings.jurisdictions,
            now_ms=unix_ms,
        )
        return RouterApp(
            checker,
            abandoned=self._settler.release,
            list_models=lambda key: list_models(self._admission.view, key, unix_ms() // 1000),
            ready=self._ready,
        )

    def _ready(self) -> tuple[int, int] | None:
        # Without the ledger next to nothing can be admitted, and another router may have its allowances already. But a
        # ledger that stays away must not keep this one from saying so to its callers.
        awaits_ledger = not self._allowances.is_enrolled and boot_ms() - self._began_ms < _START_GRACE_MS
        if not self._is_deciding or awaits_ledger:
            return None
        every = [replica for group in self._admission.view.replicas.values() for replica in group]
        return sum(1 for replica in every if not replica.unavailable), len(every)

    def _on_desired(self, entries: Mapping[str, bytes], *, is_new: bool = True) -> None:
        self._desired = read_desired(entries, self._settings.jurisdictions)
        self._recorder.rules(self._desired.version, entries)
        self._has_desired = self._has_desired or bool(entries)
        self._fleet.declared(self._desired)
        if is_new:
            write_snapshot(self._snapshot_file("desired"), entries)
            write_snapshot(self._snapshot_file("terms"), self._fleet.terms.entries())
        self._dirty.set()

    def _on_registrations(self, entries: Mapping[str, bytes], *, is_new: bool = True) -> None:
        self._fleet.registered(registrations(entries))
        if is_new and entries:
            write_snapshot(self._snapshot_file("registrations"), entries)

    async def _rebuild(self) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(_REBUILD_S)  # changes come in bursts
            self._dirty.clear()
            self._nodes.follow(self._fleet.node_addresses)
            self._endpoints.set_endpoints(CLUSTER_ENGINES, self._fleet.engine_addresses)
            self._endpoints.set_endpoints(CLUSTER_ADAPTERS, self._fleet.node_addresses.values())
            self._renew_view()
            self._nodes.confirm(self._fleet.usable())
            self._fleet.forget(_placed(self._desired.deployments.values()))
            self._counter.keep(frozenset(self._fleet.node_addresses.values()))

    def _renew_view(self) -> None:
        """Takes over keys, policies and limits together: a key never works before the rules that came with it."""
        self._deliberation.view = self._fleet.view(self._desired)
        self._allowances.retain({limit.id: limit.uid for limit in self._desired.limits})
        self._keys = self._desired.keys
        self._is_deciding = self._has_desired
        if self._is_deciding:
            self._endpoints.begin()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            self._settler.sweep()
            if boot_ms() - self._began_ms >= _START_GRACE_MS:
                self._endpoints.stop_waiting()

    def _snapshot_file(self, name: str) -> Path:
        return self._settings.folder / f"{name}.snapshot"


def boot_ms() -> int:
    """Milliseconds since boot, counting through suspension, so that an allowance's term cannot be slept through."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1_000_000


def unix_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def _placed(deployments: Iterable[admin_pb2.Deployment]) -> set[str]:
    return {placement.node for deployment in deployments for placement in deployment.placements}
