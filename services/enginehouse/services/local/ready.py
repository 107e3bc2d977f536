"""Asks a process whether it serves."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import aiohttp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

IsReady = Callable[[], Awaitable[bool]]
_TIMEOUT_S = 2.0


def nats_answers(host: str, port: int) -> IsReady:
    """Whether nats-server greets with INFO."""

    async def ask() -> bool:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(host, port)
                greeting = await reader.readline()
        except (OSError, TimeoutError):
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return greeting.startswith(b"INFO ")

    return ask


def tcp_accepts(host: str, port: int) -> IsReady:
    """Whether somebody takes connections."""

    async def ask() -> bool:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                _, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True

    return ask


def grpc_is_serving(host: str, port: int) -> IsReady:
    """Whether the server's own health check says SERVING."""

    async def ask() -> bool:
        async with grpc.aio.insecure_channel(f"{host}:{port}") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S)
            except grpc.aio.AioRpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    return ask


def http_answers(host: str, port: int, path: str) -> IsReady:
    """Whether GET `path` is answered with 200."""

    async def ask() -> bool:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session,
                session.get(f"http://{host}:{port}{path}") as answer,
            ):
                return answer.status == HTTPStatus.OK
        except (aiohttp.ClientError, TimeoutError):
            return False

    return ask
