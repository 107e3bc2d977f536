"""A small service whose methods fail in every way, spoken to over a real channel."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import grpc.aio

SERVICE = "enginehouse.test.Probe"
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


@dataclass
class Probe:
    """What each method does. Messages are bytes as they are."""

    unary: Callable[[bytes, Context], Awaitable[bytes]] | None = None
    streaming: Callable[[bytes, Context], AsyncIterator[bytes] | Awaitable[None]] | None = None
    collect: Callable[[AsyncIterator[bytes], Context], Awaitable[bytes]] | None = None
    both: Callable[[AsyncIterator[bytes], Context], AsyncIterator[bytes]] | None = None


def add_to_server(probe: Probe, server: grpc.aio.Server) -> None:
    """What generated code does for a service from a .proto file."""
    made: list[tuple[str, Any, Any]] = [
        ("Unary", grpc.unary_unary_rpc_method_handler, probe.unary),
        ("Streaming", grpc.unary_stream_rpc_method_handler, probe.streaming),
        ("Collect", grpc.stream_unary_rpc_method_handler, probe.collect),
        ("Both", grpc.stream_stream_rpc_method_handler, probe.both),
    ]
    methods = {name: build(serve) for name, build, serve in made if serve is not None}
    server.add_registered_method_handlers(SERVICE, methods)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))


def unary_of(channel: grpc.aio.Channel) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]":
    """The client's side of Unary."""
    return channel.unary_unary(f"/{SERVICE}/Unary")


def streaming_of(channel: grpc.aio.Channel) -> "grpc.aio.UnaryStreamMultiCallable[bytes, bytes]":
    """The client's side of Streaming."""
    return channel.unary_stream(f"/{SERVICE}/Streaming")


async def messages(*parts: bytes) -> AsyncIterator[bytes]:
    """A request stream."""
    for part in parts:
        yield part
