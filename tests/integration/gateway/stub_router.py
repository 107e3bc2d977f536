"""A router as Envoy sees it: check, endpoint discovery, access-log sink and health, all scripted by the test."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
import grpc.aio
from aiohttp import web
from google.protobuf import any_pb2
from grpc_health.v1 import health_pb2

from enginehouse.services.gateway import Address, RouterEndpoint
from enginehouse.v1 import envoy_access_log_pb2, envoy_discovery_pb2

Context = grpc.aio.ServicerContext[Any, Any]
INTERNAL = "x-enginehouse-internal-"
ASSIGNMENT_TYPE = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


@dataclass(frozen=True)
class Check:
    """What Envoy asked, or sent into the local lane. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What the router answers to a check."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def admitted(lane: str, *destination: Address, **headers: str) -> Answer:
    """An admission. Keyword `a_b` becomes the header `a-b`."""
    all_headers = {
        f"{INTERNAL}lane": lane,
        f"{INTERNAL}principal": "organizations/o/tenants/t",
        "x-md-outcome": "admitted",
        "x-md-decision": "decision-1",
        "x-md-ticket": base64.urlsafe_b64encode(b"ticket").decode(),
    }
    if destination:
        all_headers[f"{INTERNAL}destination"] = ",".join(str(address) for address in destination)
        all_headers["x-envoy-max-retries"] = str(len(destination) - 1)
    return Answer(200, all_headers | _named(headers))


def direct(*destination: Address, splices: str = "", **headers: str) -> Answer:
    """An admission to the direct lane."""
    if splices:
        headers["x_enginehouse_internal_splices"] = splices
    return admitted("direct", *destination, **headers)


def adapter(*destination: Address, **headers: str) -> Answer:
    """An admission to the adapter lane."""
    return admitted("adapter", *destination, **{f"{INTERNAL}ticket": "ticket"} | headers)


def denied(status: int, body: bytes = b"", **headers: str) -> Answer:
    """A denial that the client sees as `status`: 5xx travels as 403 with x-md-status."""
    all_headers = {"x-md-outcome": "denied", "x-md-decision": "decision-2", "content-type": "application/json"}
    if status >= 500:
        all_headers["x-md-status"] = str(status)
    return Answer(403 if status >= 500 else status, all_headers | _named(headers), body)


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


class StubRouter:
    """Both servers of one router, on ports of their own."""

    def __init__(self, router_id: str) -> None:
        self.id = router_id
        self.answer: Callable[[Check], Answer] = lambda _: admitted("local")
        self.checks: list[Check] = []
        self.local: list[Check] = []
        self.entries: list[envoy_access_log_pb2.AccessLogEntry] = []
        self.going = asyncio.Event()
        """Cleared, the router hangs: it takes requests and answers none."""
        self.going.set()
        self._assignments: dict[str, tuple[Address, ...]] = {}
        self._changed = asyncio.Condition()
        self._version = 0
        self._runner: web.AppRunner | None = None
        self._server: grpc.aio.Server | None = None
        self._http_port = 0
        self._grpc_port = 0

    @property
    def endpoint(self) -> RouterEndpoint:
        """The router as the gateway's settings name it."""
        return RouterEndpoint(self.id, Address("127.0.0.1", self._http_port), Address("127.0.0.1", self._grpc_port))

    @property
    def is_running(self) -> bool:
        """Whether it listens."""
        return self._server is not None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens, on the same ports as before if it did before."""
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application, access_log=None, auto_decompress=False, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._http_port).start()
        self._http_port = self._runner.addresses[0][1]
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((self._discovery(), self._access_log(), self._health()))
        self._grpc_port = self._server.add_insecure_port(f"127.0.0.1:{self._grpc_port}")
        await self._server.start()

    async def stop(self) -> None:
        """Gone, as after a kill: its port and open connections are closed."""
        self.going.set()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._server is not None:
            await self._server.stop(grace=None)
        self._runner = self._server = None

    async def assign(self, cluster: str, *addresses: Address) -> None:
        """Tells Envoy the endpoints of `cluster` from now on."""
        async with self._changed:
            self._assignments[cluster] = addresses
            self._version += 1
            self._changed.notify_all()

    async def _serve(self, request: web.Request) -> web.Response:
        await self.going.wait()
        if request.path == "/healthz":
            return web.Response()
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Check(request.method, request.raw_path, headers, await request.read())
        if not asked.path.startswith("/check/"):
            self.local.append(asked)
            return web.json_response({"served_by": self.id})
        self.checks.append(asked)
        answer = self.answer(asked)
        return web.Response(
            status=answer.status, headers={"x-md-router": self.id, **answer.headers}, body=answer.body or None
        )

    def _discovery(self) -> grpc.GenericRpcHandler:
        handler = grpc.stream_stream_rpc_method_handler(
            self._stream_endpoints,
            envoy_discovery_pb2.DiscoveryQuery.FromString,
            envoy_discovery_pb2.DiscoveryAnswer.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(
            "envoy.service.endpoint.v3.EndpointDiscoveryService", {"StreamEndpoints": handler}
        )

    def _access_log(self) -> grpc.GenericRpcHandler:
        handler = grpc.stream_unary_rpc_method_handler(
            self._stream_access_logs,
            envoy_access_log_pb2.AccessLogBatch.FromString,
            envoy_access_log_pb2.AccessLogReceipt.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(
            "envoy.service.accesslog.v3.AccessLogService", {"StreamAccessLogs": handler}
        )

    def _health(self) -> grpc.GenericRpcHandler:
        handler = grpc.unary_unary_rpc_method_handler(
            self._check_health,
            health_pb2.HealthCheckRequest.FromString,
            health_pb2.HealthCheckResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler})

    async def _check_health(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    async def _stream_endpoints(
        self, queries: AsyncIterator[envoy_discovery_pb2.DiscoveryQuery], context: Context
    ) -> AsyncIterator[envoy_discovery_pb2.DiscoveryAnswer]:
        first = await anext(queries)
        sent = -1
        while True:
            sent = await self._version_after(sent)
            resources = [self._packed(name) for name in first.resource_names]
            yield envoy_discovery_pb2.DiscoveryAnswer(
                version_info=str(sent), type_url=ASSIGNMENT_TYPE, nonce=str(sent), resources=resources
            )

    async def _version_after(self, sent: int) -> int:
        async with self._changed:
            await self._changed.wait_for(lambda: self._version != sent)
            return self._version

    def _packed(self, cluster: str) -> any_pb2.Any:
        assignment = envoy_discovery_pb2.EndpointAssignment(cluster_name=cluster)
        locality = assignment.endpoints.add()
        for address in self._assignments.get(cluster, ()):
            socket = locality.lb_endpoints.add().endpoint.address.socket_address
            socket.address, socket.port_value = address.host, address.port
        return any_pb2.Any(type_url=ASSIGNMENT_TYPE, value=assignment.SerializeToString())

    async def _stream_access_logs(
        self, batches: AsyncIterator[envoy_access_log_pb2.AccessLogBatch], context: Context
    ) -> envoy_access_log_pb2.AccessLogReceipt:
        async for batch in batches:
            self.entries.extend(batch.http_logs.log_entry)
        return envoy_access_log_pb2.AccessLogReceipt()
