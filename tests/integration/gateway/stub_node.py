"""A node's gRPC server that does what the test says, and remembers what it was asked."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Self

import grpc
import grpc.aio
from google.api.httpbody_pb2 import HttpBody

from enginehouse.services.gateway import Address
from enginehouse.v1 import inference_pb2
from tests.support.waiting import DEADLINE_S

Context = grpc.aio.ServicerContext[Any, Any]
Serve = Callable[[HttpBody, Context], AsyncIterator[HttpBody]]

USAGE_TRAILERS = (
    ("x-usage-input", "5"),
    ("x-usage-cached-input", "2"),
    ("x-usage-output", "7"),
    ("x-enginehouse-replica", "replica-1"),
)


async def unary(request: HttpBody, context: Context) -> AsyncIterator[HttpBody]:
    """An answer in one piece, with its usage in trailers."""
    context.set_trailing_metadata(USAGE_TRAILERS)
    yield HttpBody(content_type="application/json", data=b'{"id":"c"}')


async def stream(request: HttpBody, context: Context) -> AsyncIterator[HttpBody]:
    """Server-sent events, with their usage in trailers."""
    context.set_trailing_metadata(USAGE_TRAILERS)
    yield HttpBody(content_type="text/event-stream", data=b'data: {"n":1}\n\n')
    yield HttpBody(data=b"data: [DONE]\n\n")


def answers(body: bytes) -> Serve:
    """A JSON answer in one piece."""

    async def serve(request: HttpBody, context: Context) -> AsyncIterator[HttpBody]:
        yield HttpBody(content_type="application/json", data=body)

    return serve


def engine_error(http_status: int, body: bytes) -> Serve:
    """An engine's error as a node passes it on."""

    async def serve(request: HttpBody, context: Context) -> AsyncIterator[HttpBody]:
        await context.send_initial_metadata((("x-http-status", str(http_status)),))
        yield HttpBody(content_type="application/json", data=body)

    return serve


def refuses(code: grpc.StatusCode) -> Serve:
    """A node that does not take the call."""

    async def serve(request: HttpBody, context: Context) -> AsyncIterator[HttpBody]:
        nothing: tuple[HttpBody, ...] = ()
        for message in nothing:  # which makes this a generator
            yield message
        await context.abort(code, "secret details of the node")

    return serve


class Stepped:
    """A stream that makes its next event when the test says so, and never ends by itself."""

    def __init__(self) -> None:
        self._steps: asyncio.Queue[None] = asyncio.Queue()
        self._cancelled = asyncio.Event()

    def make_next(self) -> None:
        """Lets one event go."""
        self._steps.put_nowait(None)

    async def wait_cancelled(self) -> None:
        """Returns once the call was cancelled."""
        async with asyncio.timeout(DEADLINE_S):
            await self._cancelled.wait()

    async def serve(self, request: HttpBody, context: Context) -> AsyncIterator[HttpBody]:
        """Numbers, as events."""
        try:
            for number in itertools.count():
                await self._steps.get()
                yield HttpBody(content_type="text/event-stream", data=f"data: {number}\n\n".encode())
        finally:
            self._cancelled.set()


class StubNode:
    """The server."""

    def __init__(self) -> None:
        self.serve: Serve = unary
        self.calls: list[Mapping[str, str]] = []
        self.bodies: list[bytes] = []
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address("127.0.0.1", self._port)

    async def __aenter__(self) -> Self:
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._server = grpc.aio.server(options=unlimited)
        self._server.add_generic_rpc_handlers(
            (
                self._of_http_bodies("enginehouse.v1.OpenAIService", "CreateChatCompletion"),
                self._of_http_bodies("enginehouse.v1.AnthropicService", "CreateMessage"),
                self._inference(),
            )
        )
        self._port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        await self._server.stop(grace=None)

    def _of_http_bodies(self, service: str, method: str) -> grpc.GenericRpcHandler:
        handler = grpc.unary_stream_rpc_method_handler(self._answer, HttpBody.FromString, HttpBody.SerializeToString)
        return grpc.method_handlers_generic_handler(service, {method: handler})

    def _inference(self) -> grpc.GenericRpcHandler:
        handler = grpc.unary_stream_rpc_method_handler(
            self._generate,
            inference_pb2.GenerateRequest.FromString,
            inference_pb2.GenerateResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler("enginehouse.v1.InferenceService", {"Generate": handler})

    async def _answer(self, request: HttpBody, context: Context) -> AsyncIterator[HttpBody]:
        self._remember(request.data, context)
        async for message in self.serve(request, context):
            yield message

    async def _generate(
        self, request: inference_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        self._remember(request.SerializeToString(), context)
        context.set_trailing_metadata(USAGE_TRAILERS)
        yield inference_pb2.GenerateResponse(id="g", delta=inference_pb2.Delta(text=request.prompt))
        yield inference_pb2.GenerateResponse(id="g", finished=inference_pb2.Finished())

    def _remember(self, body: bytes, context: Context) -> None:
        self.calls.append({name: str(value) for name, value in context.invocation_metadata() or ()})
        self.bodies.append(body)
