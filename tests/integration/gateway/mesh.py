"""A gateway with real Envoy, and stubs for everything around it."""

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio

from enginehouse.services.gateway import Address, Gateway, GatewaySettings, ShipperSettings
from enginehouse.v1 import envoy_access_log_pb2
from tests.integration.gateway.stub_control import StubControl
from tests.integration.gateway.stub_engine import StubEngine, usage_of_openai
from tests.integration.gateway.stub_node import StubNode, unary
from tests.integration.gateway.stub_router import Answer, Check, StubRouter, admitted
from tests.support.nats import free_port
from tests.support.waiting import until

STOP_DEADLINE_S = 20.0
Json = Any
Override = Any
UNKNOWN = Address("127.0.0.1", 9)
"""An address that no router has named."""
QUICK_SHIPPING = ShipperSettings(poll_s=0.02, report_s=0.05, backoff_s_max=0.1)


@dataclass(frozen=True)
class Reply:
    """What a client got. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass
class Mesh:
    """The gateway and what surrounds it."""

    settings: GatewaySettings
    gateway: Gateway
    routers: list[StubRouter]
    engines: list[StubEngine]
    nodes: list[StubNode]
    control: StubControl
    dead: Address
    """A known endpoint that refuses connections."""
    client: aiohttp.ClientSession
    channel: grpc.aio.Channel

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://{self.settings.listen}"

    @property
    def router(self) -> StubRouter:
        """The first router."""
        return self.routers[0]

    def reset(self) -> None:
        """Forgets what one test has done, before the next."""
        for router in self.routers:
            router.answer = lambda _: admitted("local")
            router.checks.clear()
            router.local.clear()
        for engine in self.engines:
            engine.serve = usage_of_openai
            engine.requests.clear()
        for node in self.nodes:
            node.serve = unary
            node.calls.clear()
            node.bodies.clear()

    def answer(self, answer: Answer | Callable[[Check], Answer]) -> None:
        """What every router answers from now on."""
        for router in self.routers:
            router.answer = answer if callable(answer) else lambda _: answer

    async def request(
        self,
        path: str = "/v1/chat/completions",
        body: bytes = b'{"model":"m"}',
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request, as a client with a key sends it."""
        sent = {"content-type": "application/json", "authorization": "Bearer sk-client", **(headers or {})}
        async with self.client.request(method, self.url + path, data=io.BytesIO(body), headers=sent) as response:
            got = {name.lower(): value for name, value in response.headers.items()}
            return Reply(response.status, got, await response.read())

    async def line(self, reply: Reply) -> Json:
        """The access log's line of one request."""
        return await self.line_of(reply.headers["x-request-id"])

    async def line_of(self, request_id: str) -> Json:
        """The access log's line of one request."""
        await until(lambda: self._find_line(request_id), f"access-log line of {request_id}")
        return self._find_line(request_id)

    async def entry_of(self, request_id: str) -> envoy_access_log_pb2.AccessLogEntry:
        """What the routers were told of one request."""

        def found() -> list[envoy_access_log_pb2.AccessLogEntry]:
            entries = [entry for router in self.routers for entry in router.entries]
            return [entry for entry in entries if entry.request.request_id == request_id]

        await until(found, f"access-log entry of {request_id}")
        (entry,) = found()
        return entry

    def lines(self) -> list[Any]:
        """Every line that Envoy has written in this and in earlier starts."""
        folder = self.settings.state_folder / "access-log"
        texts = [path.read_text() for path in sorted(folder.glob("*.jsonl"))]
        return [json.loads(line) for text in texts for line in text.splitlines()]

    def _find_line(self, request_id: str) -> Json:
        return next((line for line in self.lines() if line["request_id"] == request_id), None)


@asynccontextmanager
async def running_gateway(gateway: Gateway) -> AsyncIterator[None]:
    """A gateway that is ready, and stopped at the end."""
    await gateway.start()
    try:
        yield
    finally:
        async with asyncio.timeout(STOP_DEADLINE_S):
            await gateway.stop()


@asynccontextmanager
async def running_mesh(
    folder: Path,
    *,
    routers: int = 1,
    engines: int = 3,
    shipping: ShipperSettings = QUICK_SHIPPING,
    **settings: Override,
) -> AsyncIterator[Mesh]:
    """A mesh in which every router knows every engine and node.

    Args:
        folder: the gateway's state.
        routers: how many.
        engines: how many engines and nodes.
        shipping: how the access log is shipped.
        settings: overrides of GatewaySettings.
    """
    async with AsyncExitStack() as stack:
        dead = stack.enter_context(closing(socket.socket()))
        dead.bind(("127.0.0.1", 0))  # bound and not listening: refused, and taken by nobody else
        dead_address = Address(*dead.getsockname())
        some_routers = [await stack.enter_async_context(StubRouter(f"router-{n}")) for n in range(1, routers + 1)]
        some_engines = [await stack.enter_async_context(StubEngine()) for _ in range(engines)]
        nodes = [await stack.enter_async_context(StubNode()) for _ in range(engines)]
        control = await stack.enter_async_context(StubControl())
        for router in some_routers:
            await router.assign("engines", dead_address, *(engine.address for engine in some_engines))
            await router.assign("adapters", dead_address, *(node.address for node in nodes))
        configured = GatewaySettings(
            id="gateway",
            listen=Address("127.0.0.1", free_port()),
            admin_port=0,
            state_folder=folder,
            routers=tuple(router.endpoint for router in some_routers),
            control=control.address,
            concurrency=1,
            drain_grace_s=5.0,
        )
        configured = replace(configured, **settings)
        gateway = Gateway(configured, shipping=shipping)
        client = await stack.enter_async_context(aiohttp.ClientSession())
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(str(configured.listen)))
        await stack.enter_async_context(running_gateway(gateway))
        yield Mesh(configured, gateway, some_routers, some_engines, nodes, control, dead_address, client, channel)
