"""gRPC services on the protos of `smg-grpc-proto`, which is looked for only when one is asked for."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import grpc
from google.protobuf import message_factory
from grpc_health.v1 import health_pb2

from enginehouse.contract import DependencyError
from enginehouse.engines.emulators.core.engine import EmulatedEngine, Phase
from enginehouse.engines.emulators.core.errors import BrokenBy, ConnectionCut, GenerationBroken, Overloaded, Unavailable

# Messages and modules of a package that may not be installed, so nothing is known of their types.
Proto = Any
Context = Any
Unary = Callable[[Proto, Context], Awaitable[Proto]]
Streaming = Callable[[Proto, Context], AsyncIterator[Proto]]


def load_protos(name: str) -> Proto:
    """A generated module of `smg-grpc-proto`, for example "vllm_engine_pb2".

    Raises:
        DependencyError: the package is not installed.
    """
    try:
        return import_module(f"smg_grpc_proto.generated.{name}")
    except ModuleNotFoundError as error:
        raise DependencyError(
            "the gRPC faces need the protos in the package smg-grpc-proto; install it: pip install smg-grpc-proto"
        ) from error


def add_service(
    server: grpc.aio.Server,
    protos: Proto,
    service: str,
    unary: Mapping[str, Unary],
    streaming: Mapping[str, Streaming],
) -> None:
    """Registers the methods of a service that are there. Those that are not answer UNIMPLEMENTED."""
    described = protos.DESCRIPTOR.services_by_name[service]
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in described.methods:
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)
        parse, write = request.FromString, response.SerializeToString
        if method.name in unary:
            handlers[method.name] = grpc.unary_unary_rpc_method_handler(
                unary[method.name], request_deserializer=parse, response_serializer=write
            )
        elif method.name in streaming:
            handlers[method.name] = grpc.unary_stream_rpc_method_handler(
                streaming[method.name], request_deserializer=parse, response_serializer=write
            )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(described.full_name, handlers),))


@asynccontextmanager
async def statuses(
    context: Context, codes: Mapping[type[Exception], grpc.StatusCode], forgiven: Collection[BrokenBy] = ()
) -> AsyncIterator[None]:
    """Ends the call with a status when the engine refuses or breaks. `codes` is what the engine says for each.

    Raises:
        GenerationBroken: for a cause that is `forgiven`.
    """
    try:
        yield
    except (Overloaded, Unavailable, GenerationBroken) as error:
        if isinstance(error, GenerationBroken) and error.cause in forgiven:
            raise
        await context.abort(codes.get(type(error), grpc.StatusCode.INTERNAL), _detail(error))
    except ConnectionCut:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")


async def nothing() -> None:
    """For `EmulatedEngine.admitted`: nothing goes out before the first token."""


def _detail(error: Exception) -> str:
    return f"Request aborted by {error.cause}" if isinstance(error, GenerationBroken) else f"Unavailable: {error}"


class Health:
    """grpc.health.v1 without Watch: SERVING while the engine is ready, for no service and for its own."""

    def __init__(self, engine: EmulatedEngine, service: str) -> None:
        self._engine = engine
        self._services = ("", service)

    async def _check(self, request: Proto, context: Context) -> Proto:
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Unknown service: {request.service}")
        is_ready = self._engine.phase is Phase.READY
        response = health_pb2.HealthCheckResponse
        return response(status=response.SERVING if is_ready else response.NOT_SERVING)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers it."""
        add_service(server, health_pb2, "Health", {"Check": self._check}, {})
