"""Traces and metrics of a request through every process, at a receiver of the test's own; never a prompt or a key."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enginehouse.v1 import admin_pb2, common_pb2
from tests.support.caller import Caller, chat_body, generate_request
from tests.support.mesh import UserMesh
from tests.support.operator import Operator, operate

SHARED = Path(__file__).with_name("mesh.yaml")
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"
PROMPT = "promptthatnobodymaysee"
_COLLECTOR = "opentelemetry.proto.collector"


class Receiver:
    """An OTLP receiver, which keeps what it gets."""

    def __init__(self) -> None:
        self.received: list[Message] = []
        self.endpoint = ""

    def spans(self) -> dict[str, list[Span]]:
        """The spans by the service they are of."""
        spans: dict[str, list[Span]] = {}
        for request in self.received:
            if isinstance(request, traces.ExportTraceServiceRequest):
                for resource in request.resource_spans:
                    of_service = spans.setdefault(_service(resource.resource.attributes), [])
                    of_service += [span for scope in resource.scope_spans for span in scope.spans]
        return spans

    def metrics(self) -> dict[str, set[str]]:
        """The names of the metrics by the service they are of."""
        names: dict[str, set[str]] = {}
        for request in self.received:
            if isinstance(request, metrics.ExportMetricsServiceRequest):
                for resource in request.resource_metrics:
                    of_service = names.setdefault(_service(resource.resource.attributes), set())
                    of_service |= {one.name for scope in resource.scope_metrics for one in scope.metrics}
        return names

    def handler(self, service: str, request: type[Message], response: type[Message]) -> grpc.GenericRpcHandler:
        """One of the receiver's services."""

        async def export(message: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Message:
            self.received.append(message)
            return response()

        method = grpc.unary_unary_rpc_method_handler(export, request.FromString, response.SerializeToString)
        return grpc.method_handlers_generic_handler(f"{_COLLECTOR}.{service}", {"Export": method})


def _service(attributes: Iterable[KeyValue]) -> str:
    return next((one.value.string_value for one in attributes if one.key == "service.name"), "")


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on a free port."""
    receiver, server = Receiver(), grpc.aio.server()
    server.add_generic_rpc_handlers(
        (
            receiver.handler(
                "trace.v1.TraceService", traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse
            ),
            receiver.handler(
                "metrics.v1.MetricsService", metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse
            ),
        )
    )
    receiver.endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield receiver
    finally:
        await server.stop(grace=None)


async def ask_in_every_lane(operator: Operator) -> list[Caller]:
    """One chat in the direct lane, one in the adapter lane, one by gRPC; all of one trace."""
    callers = [
        await operator.caller(policy=admin_pb2.Policy(lane=lane))
        for lane in (common_pb2.LANE_DIRECT, common_pb2.LANE_ADAPTER)
    ]
    for caller in callers:
        body = chat_body("echo", PROMPT)
        reply = await caller.post(f"/v1/chat/completions?key={caller.secret}", body, {"traceparent": TRACEPARENT})
        assert PROMPT.encode() in reply.body
    metadata = (*callers[0].metadata, ("traceparent", TRACEPARENT))
    assert [step async for step in callers[0].grpc.Generate(generate_request("echo", PROMPT), metadata=metadata)]
    return callers


async def test_traces_and_metrics_reach_the_receiver_without_prompts_and_keys(
    new_mesh: Callable[[str], UserMesh],
) -> None:
    async with receiving() as receiver:
        mesh = new_mesh(SHARED.read_text() + f"telemetry: {{otlp_endpoint: {receiver.endpoint}}}\n")
        await asyncio.to_thread(mesh.start)
        async with operate(mesh) as operator:
            callers = await ask_in_every_lane(operator)
        await asyncio.to_thread(mesh.stop)  # which sends what was not sent yet
        spans = receiver.spans()
        for service in ("enginehouse-gateway", "enginehouse-router", "enginehouse-node"):
            assert TRACE_ID in {span.trace_id.hex() for span in spans[service]}, service
        named = {span.name for span in spans["enginehouse-node"]}
        assert "chat echo" in named
        assert "gen_ai.client.token.usage" in receiver.metrics()["enginehouse-node"]
        everything = b"".join(message.SerializeToString() for message in receiver.received)
        for secret in (PROMPT, *(caller.secret for caller in callers)):
            assert secret.encode() not in everything
