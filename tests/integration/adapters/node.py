"""A node's OpenAI face over a real socket, with one engine behind it and a router that takes reports."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
from google.api.httpbody_pb2 import HttpBody

from enginehouse.engines import READY
from enginehouse.router import Jurisdictions
from enginehouse.services.access_log import ticket_text
from enginehouse.services.node.calls import TICKET_METADATA, Calls
from enginehouse.services.node.openai import OpenAIServicer
from enginehouse.services.node.replicas import NodeReplicas
from enginehouse.services.server import GrpcServer, Listen, channel
from enginehouse.v1 import admin_pb2, common_pb2, openai_pb2_grpc, router_pb2
from tests.support.waiting import DEADLINE_S, until

REPLICA = "any-node-1-0"


@dataclass(frozen=True)
class Answer:
    """What came of one call: bytes, their type, the status at the end and the usage in the trailers."""

    data: bytes
    content_type: str
    status: grpc.StatusCode
    usage: dict[str, str]


class TakesReports:
    """A router that remembers which calls nodes report."""

    def __init__(self) -> None:
        self.reports: dict[str, common_pb2.Usage] = {}

    async def settle(self, request: router_pb2.SettleRequest, context: object) -> router_pb2.SettleResponse:
        """Takes a report."""
        self.reports[request.ticket.request_id] = request.usage
        return router_pb2.SettleResponse()


@dataclass
class NodeUnderTest:
    """Asks the node, and hears what it reports."""

    address: str
    channel: grpc.aio.Channel
    served_model: str = "served"
    router: TakesReports = field(default_factory=TakesReports)

    async def ask(self, request_id: str, body: bytes, *, choices: int = 1) -> Answer:
        """Sends a chat as Envoy does, and reads whatever comes."""
        ticket = router_pb2.Ticket(
            request_id=request_id,
            router_address=self.address,
            attempts=[router_pb2.Attempt(replica=REPLICA, served_model=self.served_model)],
            output_tokens_max=64,
            operation=common_pb2.OPERATION_CHAT,
            choices=choices,
            requested_model="public",
        )
        metadata = ((TICKET_METADATA, ticket_text(ticket)), ("x-request-id", request_id))
        stub = openai_pb2_grpc.OpenAIServiceStub(self.channel)
        call = stub.CreateChatCompletion(HttpBody(data=body), metadata=metadata, timeout=DEADLINE_S)
        bodies: list[HttpBody] = []
        try:
            async for piece in call:
                bodies.append(piece)  # noqa: PERF401 (what came before an error counts)
        except grpc.aio.AioRpcError:
            pass
        trailers = {name: str(value) for name, value in await call.trailing_metadata() or ()}
        usage = {name: value for name, value in trailers.items() if name.startswith("x-usage-")}
        content_type = bodies[0].content_type if bodies else ""
        return Answer(b"".join(piece.data for piece in bodies), content_type, await call.code(), usage)

    async def reported(self, request_id: str) -> common_pb2.Usage:
        """The usage in the report of a call, once it is there."""
        await until(lambda: request_id in self.router.reports, f"a report of {request_id}")
        return self.router.reports[request_id]


@asynccontextmanager
async def node(
    engine_url: str,
    session: aiohttp.ClientSession,
    folder: Path,
    *,
    engine: str = "external",
    api: admin_pb2.EngineApi.ValueType = admin_pb2.ENGINE_API_UNSPECIFIED,
    model: str = "served",
) -> AsyncIterator[NodeUnderTest]:
    """Serves a node in front of the engine at `engine_url`, which is of that kind, once it is ready."""
    replicas = NodeReplicas("node-1", folder, session, lambda replica, transition: None, drain_grace_s=0)
    calls = Calls(place="eu/de", jurisdictions=Jurisdictions(), replicas=replicas, session=session)
    server, router = GrpcServer(Listen()), TakesReports()
    server.add(
        "enginehouse.v1.OpenAIService", openai_pb2_grpc.add_OpenAIServiceServicer_to_server, OpenAIServicer(calls)
    )
    settle = grpc.unary_unary_rpc_method_handler(
        router.settle, router_pb2.SettleRequest.FromString, router_pb2.SettleResponse.SerializeToString
    )
    server.add_handler(grpc.method_handlers_generic_handler("enginehouse.v1.RouterService", {"Settle": settle}))
    address = f"127.0.0.1:{await server.start()}"
    try:
        replicas.apply([_deployment(engine_url, engine, api, model)])
        async with channel(address) as opened:
            supervisor = replicas.find(REPLICA).supervisor
            await supervisor.wait_until(READY)
            yield NodeUnderTest(address, opened, supervisor.spec.served_model, router)
    finally:
        await server.stop(grace_s=0)
        await calls.stop()
        await replicas.stop()


def _deployment(engine_url: str, engine: str, api: admin_pb2.EngineApi.ValueType, model: str) -> admin_pb2.Deployment:
    return admin_pb2.Deployment(
        name="deployments/any",
        model=model,
        engine=engine,
        revision=1,
        settings=admin_pb2.EngineSettings(external_url=engine_url, api=api),
        placements=[admin_pb2.Placement(node="node-1")],
    )
