"""The shared server over real channels: errors, limits, health, sockets and its end."""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from enginehouse.contract import (
    DependencyError,
    EngineError,
    EnginehouseError,
    InternalError,
    PolicyRefusal,
    Reason,
    RequestError,
)
from enginehouse.services.server import GrpcServer, Listen, channel, error_from_rpc
from tests.unit.server.support import SERVICE, Context, Probe, add_to_server, messages, streaming_of, unary_of


@asynccontextmanager
async def served(probe: Probe, listen: Listen = Listen()) -> AsyncIterator[grpc.aio.Channel]:  # noqa: B008 (frozen)
    server = GrpcServer(listen)
    server.add(SERVICE, add_to_server, probe)
    port = await server.start()
    address = f"127.0.0.1:{port}" if port else f"unix:{listen.socket_path}"
    async with channel(address) as client:
        yield client
    await server.stop(grace_s=1)


async def error_of(call: Awaitable[object]) -> EnginehouseError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value)


async def test_an_error_of_ours_reaches_the_client_as_the_same_error() -> None:
    async def refuse(request: bytes, context: Context) -> bytes:
        raise PolicyRefusal("12 left", Reason.BUDGET_EXHAUSTED, metadata={"limit": "small"}, retry_after_s=3)

    async with served(Probe(unary=refuse)) as client:
        error = await error_of(unary_of(client)(b""))
    assert type(error) is PolicyRefusal
    assert (error.reason, error.message, error.metadata) == (Reason.BUDGET_EXHAUSTED, "12 left", {"limit": "small"})
    assert error.retry_after_s == 3


async def test_a_foreign_error_says_nothing_to_the_client_and_its_text_stays_out_of_the_log() -> None:
    async def crash(request: bytes, context: Context) -> bytes:
        raise ValueError(request.decode()) from KeyError(request.decode())

    async with served(Probe(unary=crash)) as client:
        with capture_logs() as logs:
            error = await error_of(unary_of(client)(b"marked prompt"))
    assert type(error) is InternalError
    assert error.message == "internal error"
    assert [(log["error"], log["causes"], log["method"]) for log in logs] == [
        ("ValueError", ["KeyError"], f"/{SERVICE}/Unary")
    ]
    assert "in crash" in logs[0]["frames"]
    assert "marked prompt" not in str(logs)


async def test_a_stream_delivers_what_it_sent_and_then_the_error() -> None:
    async def fail_late(request: bytes, context: Context) -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"
        raise EngineError("the engine died", Reason.ENGINE_FAILED)

    async with served(Probe(streaming=fail_late)) as client:
        call = streaming_of(client)(b"")
        assert [await call.read(), await call.read()] == [b"one", b"two"]
        assert (await error_of(call.read())).reason is Reason.ENGINE_FAILED


async def test_a_stream_that_writes_to_its_context_is_served_and_fails_alike() -> None:
    async def write(request: bytes, context: Context) -> None:
        await context.write(b"one")
        raise RequestError("no more", Reason.CONTEXT_TOO_LONG)

    async with served(Probe(streaming=write)) as client:
        call = streaming_of(client)(b"")
        assert await call.read() == b"one"
        assert (await error_of(call.read())).reason is Reason.CONTEXT_TOO_LONG


async def test_streamed_requests_fail_with_the_same_statuses() -> None:
    async def collect(request: AsyncIterator[bytes], context: Context) -> bytes:
        raise RequestError(b"".join([part async for part in request]).decode())

    async def both(request: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        async for part in request:
            yield part
        raise RequestError("the end")

    async with served(Probe(collect=collect, both=both)) as client:
        unary: Any = client.stream_unary(f"/{SERVICE}/Collect")
        stream: Any = client.stream_stream(f"/{SERVICE}/Both")
        assert (await error_of(unary(messages(b"a", b"b")))).message == "ab"
        call = stream(messages(b"a"))
        assert await call.read() == b"a"
        assert (await error_of(call.read())).message == "the end"


async def test_trailing_metadata_survives_an_error() -> None:
    async def fail(request: bytes, context: Context) -> bytes:
        context.set_trailing_metadata((("x-usage-out", "7"),))
        raise EngineError("the engine died")

    async with served(Probe(unary=fail)) as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary_of(client)(b"")
    assert ("x-usage-out", "7") in [(key, value) for key, value in caught.value.trailing_metadata()]
    assert error_from_rpc(caught.value).reason is Reason.ENGINE_FAILED


async def test_an_abort_of_grpc_itself_passes_unchanged() -> None:
    async def abort(request: bytes, context: Context) -> bytes:
        await context.abort(grpc.StatusCode.DATA_LOSS, "as it is")

    async with served(Probe(unary=abort)) as client:
        with capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary_of(client)(b"")
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS
    assert logs == []


async def test_a_client_that_leaves_ends_the_generator_at_once() -> None:
    closed = asyncio.Event()

    async def endless(request: bytes, context: Context) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"more"
                await asyncio.sleep(0)
        finally:
            closed.set()

    async with served(Probe(streaming=endless)) as client:
        call = streaming_of(client)(b"")
        assert await call.read() == b"more"
        call.cancel()
        async with asyncio.timeout(5):
            await closed.wait()


async def test_messages_of_ten_megabytes_pass_both_ways() -> None:
    async def echo(request: bytes, context: Context) -> bytes:
        return request

    async with served(Probe(unary=echo)) as client:
        body = bytes(10 * 1024 * 1024)
        assert await unary_of(client)(body) == body


async def test_headers_of_32_kilobytes_pass() -> None:
    async def measure(request: bytes, context: Context) -> bytes:
        metadata: Any = context.invocation_metadata()
        return str(len(dict(metadata)["x-ticket"])).encode()

    async with served(Probe(unary=measure)) as client:
        assert await unary_of(client)(b"", metadata=(("x-ticket", "t" * 32768),)) == b"32768"


async def test_health_tells_serving_and_reflection_lists_the_service() -> None:
    async with served(Probe()) as client:
        health: Any = health_pb2_grpc.HealthStub(client)
        answer = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub: Any = reflection_pb2_grpc.ServerReflectionStub  # its published types know threaded channels only
        call = stub(client).ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = await call.read()
        await call.done_writing()
        assert SERVICE in [service.name for service in listed.list_services_response.service]


async def test_a_unix_socket_is_for_its_owner_alone_and_is_removed_at_the_end(tmp_path: Path) -> None:
    async def peer(request: bytes, context: Context) -> bytes:
        return context.peer().encode()

    path = tmp_path / "state" / "s.sock"
    async with served(Probe(unary=peer), Listen(port=None, socket_path=path)) as client:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (await unary_of(client)(b"")).startswith(b"unix:")
    assert not path.exists()


async def test_a_socket_left_by_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    async def answer(request: bytes, context: Context) -> bytes:
        return b"here"

    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    async with served(Probe(unary=answer), Listen(port=None, socket_path=path)) as client:
        assert await unary_of(client)(b"") == b"here"


async def test_a_socket_path_that_is_too_long_is_refused_with_the_bound(tmp_path: Path) -> None:
    server = GrpcServer(Listen(port=None, socket_path=tmp_path / ("s" * 120)))
    with pytest.raises(DependencyError, match="at most 107 bytes"):
        await server.start()


async def test_a_port_in_use_is_named() -> None:
    first = GrpcServer(Listen())
    port = await first.start()
    second = GrpcServer(Listen(port=port))
    with pytest.raises(DependencyError, match=f"127.0.0.1:{port}"):
        await second.start()
    await first.stop(grace_s=0)


async def test_a_stop_lets_a_running_call_finish() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(request: bytes, context: Context) -> bytes:
        entered.set()
        await leave.wait()
        return b"finished"

    server = GrpcServer(Listen())
    server.add(SERVICE, add_to_server, Probe(unary=slow))
    async with channel(f"127.0.0.1:{await server.start()}") as client:
        call = asyncio.ensure_future(unary_of(client)(b""))
        await entered.wait()
        stopping = asyncio.create_task(server.stop(grace_s=10))
        leave.set()
        assert await call == b"finished"
        await stopping


async def test_a_server_that_is_not_there_is_a_dependency_that_failed() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        async with channel(f"127.0.0.1:{free.getsockname()[1]}") as client:
            error = await error_of(unary_of(client)(b"", timeout=5))
    assert type(error) is DependencyError
    assert error.reason is Reason.UNAVAILABLE


async def test_an_unknown_method_is_not_taken_for_an_answer_of_ours() -> None:
    async with served(Probe()) as client:
        error = await error_of(unary_of(client)(b""))
    assert type(error) is InternalError
    assert "UNIMPLEMENTED" in error.message
