"""Engines that serve gRPC alone, supervised: readiness by a token, load by their own account, liveness."""

import asyncio
from pathlib import Path

import pytest

from enginehouse.contract import EngineError
from enginehouse.engines import READY
from enginehouse.engines.grpc_loads import GET_LOADS, GrpcLoadsReader
from enginehouse.services.node.engine_clients import engine_client
from enginehouse.services.single import Engine
from enginehouse.v1 import admin_pb2
from tests.integration.adapters.token_engines import emulated, generated, prompt
from tests.support.waiting import until, until_async

GRPC = admin_pb2.ENGINE_API_GRPC


def attached_to(address: str) -> admin_pb2.EngineSettings:
    return admin_pb2.EngineSettings(external_url=f"http://{address}", api=GRPC)


@pytest.mark.parametrize("kind", ["vllm", "tensorrt-llm"])
async def test_an_engine_that_serves_grpc_becomes_ready_and_answers(kind: str, tmp_path: Path) -> None:
    async with (
        emulated(kind) as (address, _),
        Engine.launch(kind=kind, settings=attached_to(address), log_folder=tmp_path, grace_s=0) as engine,
    ):
        replica = engine.snapshot()
        assert (engine.state, replica.address) == (READY, address)
        assert not replica.capabilities.direct_dialects
        client = engine_client(kind, GRPC, address, None)  # type: ignore[arg-type]  # no HTTP is spoken
        assert (await generated(client, prompt("Hi"))).texts == ["Hi"]
        await client.aclose()


async def test_the_requests_at_work_are_the_load_of_vllm_by_grpc(tmp_path: Path) -> None:
    async with (
        emulated("vllm") as (address, emulator),
        Engine.launch(kind="vllm", settings=attached_to(address), log_folder=tmp_path) as engine,
    ):
        client = engine_client("vllm", GRPC, address, None)  # type: ignore[arg-type]
        emulator.gate.clear()
        waiting = asyncio.create_task(generated(client, prompt("Hi")))
        await until(lambda: engine.snapshot().load.running_requests == 1, "the load tells of the request")
        emulator.gate.set()
        assert (await waiting).texts == ["Hi"]
        await until(lambda: engine.snapshot().load.running_requests == 0, "the load tells of its end")
        await client.aclose()


async def test_loads_are_read_again_once_another_engine_listens_at_the_port() -> None:
    reader = GrpcLoadsReader()
    async with emulated("vllm") as (address, _):
        assert "loads" in await reader.read(address, GET_LOADS)
    with pytest.raises(EngineError, match="UNAVAILABLE"):
        await reader.read(address, GET_LOADS)

    async def is_read() -> bool:
        try:
            return "loads" in await reader.read(address, GET_LOADS)
        except EngineError:
            return False

    async with emulated("vllm", port=int(address.rpartition(":")[2])):
        await until_async(is_read, "the loads are read")
    await reader.close()
