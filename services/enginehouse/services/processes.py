"""Makes each process from the settings: the one place where settings meet the parts.

Imports wait until it is known which process this is: a node needs no SQL, and a router no engines.
"""

from collections.abc import Callable

from enginehouse.contract import RequestError
from enginehouse.services.runner import Process
from enginehouse.services.settings import Settings, resources


def make_process(kind: str, settings: Settings, name: str, say_admin_key: Callable[[str], None]) -> Process:
    """One process of the mesh.

    Args:
        kind: "control", "router", "node" or "gateway".
        settings: with every port set.
        name: which router or node.
        say_admin_key: takes the admin key that control's first start makes.

    Raises:
        RequestError: there is no such kind, or no router or node of that name.
    """
    match kind:
        case "control":
            return _control(settings, say_admin_key)
        case "router":
            return _router(settings, name)
        case "node":
            return _node(settings, name)
        case "gateway":
            return _gateway(settings)
    raise RequestError(f"there is no process {kind!r}; there are control, router, node and gateway")


def start_process_telemetry(kind: str, settings: Settings, name: str) -> None:
    """Sends this process's traces and metrics where the settings say, if they do."""
    places = {node.name: node.place for node in settings.nodes}
    if not settings.telemetry.otlp_endpoint:
        return
    from enginehouse.services.telemetry import start_telemetry

    start_telemetry(
        service=kind,
        instance=name or kind,
        place=places.get(name, settings.place),
        endpoint=settings.telemetry.otlp_endpoint,
    )


def _control(settings: Settings, say_admin_key: Callable[[str], None]) -> Process:
    from enginehouse.services.control_process import ControlProcess

    return ControlProcess(settings, say_admin_key)


def _router(settings: Settings, name: str) -> Process:
    from enginehouse.services.router import Router, RouterSettings

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
            nats_url=settings.nats_url,
            folder=settings.state / "routers" / name,
            jurisdictions=settings.jurisdiction_tree,
            longest_request_s=settings.door.longest_request_s,
            check_timeout_ms=settings.door.check_timeout_ms,
            is_alone=len(settings.routers) == 1,
        )
    )


def _node(settings: Settings, name: str) -> Process:
    from enginehouse.services.node import Node, NodeSettings

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
            nats_url=settings.nats_url,
            folder=settings.state / "nodes" / name,
            jurisdictions=settings.jurisdiction_tree,
            drain_grace_s=found.drain_grace_s,
            longest_request_s=settings.door.longest_request_s,
        )
    )


def _gateway(settings: Settings) -> Process:
    from enginehouse.services.gateway import Address, Gateway, GatewaySettings, RouterEndpoint

    host, door = settings.host, settings.door
    values = GatewaySettings(
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
    return Gateway(values)
