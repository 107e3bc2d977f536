"""Routers that die, hang and come back, while requests go on."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from enginehouse.v1 import inference_pb2, inference_pb2_grpc
from tests.integration.gateway.mesh import Mesh, running_mesh
from tests.integration.gateway.stub_router import Answer, adapter, denied, direct
from tests.support.waiting import until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """A mesh with two routers."""
    async with running_mesh(tmp_path_factory.mktemp("gateway"), routers=2, check_timeout_ms=1000) as mesh:
        yield mesh


@pytest_asyncio.fixture(loop_scope="module")
async def pair(mesh: Mesh) -> AsyncIterator[Mesh]:
    """The mesh; afterwards both routers are back."""
    mesh.answer(direct(mesh.engines[0].address))
    yield mesh
    for router in mesh.routers:
        router.going.set()
        if not router.is_running:
            await router.start()

    async def both_are_asked() -> bool:
        await mesh.request()
        return all(router.checks for router in mesh.routers)

    for router in mesh.routers:
        router.checks.clear()
    await until_async(both_are_asked, "both routers are asked again")


async def statuses(mesh: Mesh, count: int) -> list[int]:
    replies = await asyncio.gather(*(mesh.request() for _ in range(count)))
    return [reply.status for reply in replies]


async def test_entry_reaches_the_router_that_decided_and_no_other(pair: Mesh) -> None:
    for answer in (direct(pair.engines[0].address), denied(402, b"{}")):
        pair.answer(answer)
        replies = [await pair.request() for _ in range(6)]
        for reply in replies:
            request_id = reply.headers["x-request-id"]
            await pair.entry_of(request_id)  # fails if there are two
            (owner,) = [r for r in pair.routers if any(c.headers["x-request-id"] == request_id for c in r.checks)]
            assert any(entry.request.request_id == request_id for entry in owner.entries)


async def test_no_request_fails_when_one_of_two_routers_dies(pair: Mesh) -> None:
    assert await statuses(pair, 10) == [200] * 10
    await pair.routers[0].stop()
    assert await statuses(pair, 40) == [200] * 40


async def test_no_request_fails_when_one_of_two_routers_hangs(pair: Mesh) -> None:
    assert await statuses(pair, 10) == [200] * 10
    pair.routers[0].going.clear()
    assert await statuses(pair, 10) == [200] * 10


async def test_router_that_cannot_decide_is_followed_by_the_other(pair: Mesh) -> None:
    pair.routers[0].answer = lambda _: Answer(500)
    assert await statuses(pair, 20) == [200] * 20


async def test_denial_is_final_whatever_its_status(pair: Mesh) -> None:
    pair.answer(denied(503, b"{}"))
    assert await statuses(pair, 4) == [503] * 4
    assert sum(len(router.checks) for router in pair.routers) == 4


async def test_without_routers_every_request_is_503_and_reaches_nobody(pair: Mesh) -> None:
    pair.answer(adapter(pair.nodes[0].address))
    generate = inference_pb2_grpc.InferenceServiceStub(pair.channel).Generate
    for router in pair.routers:
        await router.stop()

    openai, anthropic = await pair.request(), await pair.request("/v1/messages")
    # Twice, because the first finds open connections and the second none.
    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            async for _message in generate(inference_pb2.GenerateRequest()):
                pass
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "No router" in (error.value.details() or "")

    assert (openai.status, openai.json["error"]["code"]) == (503, "router_unavailable")
    assert (anthropic.status, anthropic.json["error"]["type"]) == (503, "api_error")
    assert openai.headers["retry-after"] == "1"
    assert [engine.requests for engine in pair.engines] == [[], [], []]
    assert [node.calls for node in pair.nodes] == [[], [], []]


async def test_hung_routers_are_503_to_grpc_clients_too(pair: Mesh) -> None:
    pair.answer(adapter(pair.nodes[0].address))
    for router in pair.routers:
        router.going.clear()
    generate = inference_pb2_grpc.InferenceServiceStub(pair.channel).Generate

    with pytest.raises(grpc.aio.AioRpcError) as error:
        async for _ in generate(inference_pb2.GenerateRequest()):
            pass

    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert pair.nodes[0].calls == []


async def test_endpoints_outlive_the_router_that_named_them_and_follow_the_one_that_is_left(pair: Mesh) -> None:
    await pair.routers[0].stop()
    assert await statuses(pair, 5) == [200] * 5

    await pair.routers[1].assign("engines", pair.engines[1].address)

    pair.answer(direct(pair.engines[0].address))

    async def is_gone() -> bool:
        return (await pair.request()).status == 503

    await until_async(is_gone, "the engine that the living router no longer names is gone")
    pair.answer(direct(pair.engines[1].address))
    assert (await pair.request()).status == 200
    await pair.routers[1].assign("engines", *(engine.address for engine in pair.engines))


async def test_entries_of_a_dead_router_are_in_the_file(pair: Mesh) -> None:
    replies = [await pair.request() for _ in range(4)]
    await pair.routers[1].stop()
    for reply in replies:
        assert (await pair.line(reply))["router"] in ("router-1", "router-2")
