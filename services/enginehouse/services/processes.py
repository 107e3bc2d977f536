"""Makes each process from the settings: the one place where settings meet the parts."""

from collections.abc import Callable

import structlog
from enginehouse.contract import RequestError
from enginehouse.services.access_log import read_line
from enginehouse.services.background import Background
from enginehouse.services.bus import DESIRED, BucketStore, Bus, EventPublisher, ensure_stream
from enginehouse.services.control import Control, ControlSettings, DeclaredResources, SystemClock
from enginehouse.services.gateway import Address, Gateway, GatewaySettings, RouterEndpoint
from enginehouse.services.node import Node, NodeSettings
from enginehouse.services.router import Router, RouterSettings
from enginehouse.services.runner import Process
from enginehouse.services.settings import Settings, resources
from enginehouse.services.telemetry import start_telemetry

_log = structlog.get_logger(__name__)
_SQLITE = "sqlite:///{}"


class ControlProcess:
    """Control with its event plane: the stream is there, desired state is published, events are sent.

    Args:
        settings: of the mesh.
        say_admin_key: takes the admin key that the first start made; it is shown there or nowhere.
    """

    def __init__(self, settings: Settings, say_admin_key: Callable[[str], None]) -> None:
        self._settings = settings
        self._say_admin_key = say_admin_key
        self._bus = Bus(_nats_url(settings), "control")
        self._events = EventPublisher(self._bus, source="/control", place=settings.place)
        self._background = Background()
        self._control = Control(
            ControlSettings(
                database_url=settings.control.database_url or _SQLITE.format(settings.state / "control.db"),
                host=settings.host,
                port=settings.control.port,
                socket_path=settings.state / "control.sock",
                term_s=settings.control.allowance_term_s,
                longest_request_s=settings.door.longest_request_s,
            ),
            clock=SystemClock(),
            events=self._events,
            desired=BucketStore(self._bus, DESIRED),
            read_line=read_line,
        )

    async def start(self) -> None:
        """Serves, with the declared resources in place."""
        await self._bus.start()
        await self._events.start()
        started = await self._control.start()
        if started.admin_secret:
            self._say_admin_key(started.admin_secret)
        await self._control.apply_declared(
            DeclaredResources(
                tenants=resources.tenants(self._settings),
                limits=resources.limits(self._settings),
                deployments=resources.deployments(self._settings),
            )
        )
        self._background.start(self._keep_stream(), "keep the event stream")

    async def stop(self) -> None:
        """Ends."""
        await self._background.stop()
        await self._control.stop()
        await self._events.stop()
        await self._bus.stop()

    async def _keep_stream(self) -> None:
        nats = self._settings.nats
        while True:
            generation = await self._bus.connected()
            await ensure_stream(self._bus, age_s=nats.events_age_s, bytes_max=nats.events_bytes_max)
            self._control.store_returned()
            await self._bus.lost(generation)


def make_process(kind: str, settings: Settings, name: str, say_admin_key: Callable[[str], None]) -> Process:
    """One process of the mesh.

    Args:
        kind: "control", "router", "node" or "gateway".
        settings: with every port set.
        name: which router or node.
        say_admin_key: see `ControlProcess`.

    Raises:
        RequestError: there is no such kind, or no router or node of that name.
    """
    match kind:
        case "control":
            return ControlProcess(settings, say_admin_key)
        case "router":
            return _router(settings, name)
        case "node":
            return _node(settings, name)
        case "gateway":
            return Gateway(_gateway_settings(settings))
    raise RequestError(f"there is no process {kind!r}; there are control, router, node and gateway")


def start_process_telemetry(kind: str, settings: Settings, name: str) -> None:
    """Sends this process's traces and metrics where the settings say, if they do."""
    places = {node.name: node.place for node in settings.nodes}
    start_telemetry(
        service=kind,
        instance=name or kind,
        place=places.get(name, settings.place),
        endpoint=settings.telemetry.otlp_endpoint,
    )


def _router(settings: Settings, name: str) -> Router:
    found = next((router for router in settings.routers if router.name == name), None)
    if found is None:
        raise RequestError(f"the settings declare no router {name!r}")
    return Router(
        RouterSettings(
            id=name,
            places=(settings.place,),
            host=settings.host,
            http_port=found.http_port,
            grpc_port=found.grpc_port,
            control=f"{settings.host}:{settings.control.port}",
            nats_url=_nats_url(settings),
            folder=settings.state / "routers" / name,
            jurisdictions=settings.jurisdictions(),
            longest_request_s=settings.door.longest_request_s,
            check_timeout_ms=settings.door.check_timeout_ms,
        )
    )


def _node(settings: Settings, name: str) -> Node:
    found = next((node for node in settings.nodes if node.name == name), None)
    if found is None:
        raise RequestError(f"the settings declare no node {name!r}")
    return Node(
        NodeSettings(
            name=name,
            place=found.place,
            chip_class=resources.chip_class(found.chip),
            host=settings.host,
            port=found.port,
            nats_url=_nats_url(settings),
            folder=settings.state / "nodes" / name,
            jurisdictions=settings.jurisdictions(),
            drain_grace_s=found.drain_grace_s,
        )
    )


def _gateway_settings(settings: Settings) -> GatewaySettings:
    host, door = settings.host, settings.door
    return GatewaySettings(
        id="gateway",
        listen=Address(host, door.port),
        admin_port=door.admin_port,
        state_folder=settings.state / "gateway",
        routers=tuple(
            RouterEndpoint(router.name, Address(host, router.http_port), Address(host, router.grpc_port))
            for router in settings.routers
        ),
        control=Address(host, settings.control.port),
        envoy=door.envoy_binary,
        request_body_bytes_max=door.body_bytes_max,
        longest_request_s=door.longest_request_s,
        check_timeout_ms=door.check_timeout_ms,
        otlp_endpoint=Address.parse(settings.telemetry.otlp_endpoint) if settings.telemetry.otlp_endpoint else None,
        concurrency=door.worker_threads,
        drain_grace_s=door.drain_grace_s,
    )


def _nats_url(settings: Settings) -> str:
    return f"nats://{settings.host}:{settings.nats.port}"
