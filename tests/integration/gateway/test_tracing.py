"""Traces: only when a collector is named, joined to the caller's trace, and without anything secret."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from enginehouse.services.gateway import Address
from tests.integration.gateway.mesh import Mesh, running_mesh
from tests.integration.gateway.stub_router import direct
from tests.support.waiting import until

Context = grpc.aio.ServicerContext[Any, Any]
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


class StubCollector:
    """Takes in spans."""

    def __init__(self) -> None:
        self.spans: list[trace_pb2.Span] = []

    async def export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: Context
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """TraceService.Export."""
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def handler(self) -> grpc.GenericRpcHandler:
        """The service."""
        method = grpc.unary_unary_rpc_method_handler(
            self.export,
            trace_service_pb2.ExportTraceServiceRequest.FromString,
            trace_service_pb2.ExportTraceServiceResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(
            "opentelemetry.proto.collector.trace.v1.TraceService", {"Export": method}
        )


@pytest_asyncio.fixture
async def collector() -> AsyncIterator[tuple[StubCollector, Address]]:
    stub, server = StubCollector(), grpc.aio.server()
    server.add_generic_rpc_handlers((stub.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield stub, Address("127.0.0.1", port)
    await server.stop(grace=None)


@pytest_asyncio.fixture
async def mesh(
    tmp_path_factory: pytest.TempPathFactory, collector: tuple[StubCollector, Address]
) -> AsyncIterator[Mesh]:
    """A mesh with a collector."""
    folder = tmp_path_factory.mktemp("gateway")
    async with running_mesh(folder, engines=1, otlp_endpoint=collector[1]) as mesh:
        mesh.answer(direct(mesh.engines[0].address))
        yield mesh


async def test_trace_goes_from_the_caller_through_router_and_engine_and_holds_no_secret(
    mesh: Mesh, collector: tuple[StubCollector, Address]
) -> None:
    stub = collector[0]

    await mesh.request("/v1/chat/completions?key=secret", b'{"p":"secret"}', headers={"traceparent": TRACEPARENT})

    await until(lambda: len(stub.spans) >= 3, "three spans")
    assert {span.trace_id.hex() for span in stub.spans} == {TRACE_ID}
    assert {span.name for span in stub.spans} == {"ingress", "async router egress", "router engines egress"}
    for asked in (mesh.router.checks[0], mesh.engines[0].requests[0]):
        assert asked.headers["traceparent"].split("-")[1] == TRACE_ID
    text = str(stub.spans)
    assert "/v1/chat/completions" in text
    assert "secret" not in text
    assert "sk-client" not in text
