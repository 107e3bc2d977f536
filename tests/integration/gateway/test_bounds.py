"""How long a request may take."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from tests.integration.gateway import stub_engine, stub_node
from tests.integration.gateway.mesh import Mesh, running_mesh
from tests.integration.gateway.stub_router import adapter, direct

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """A mesh with short bounds."""
    folder = tmp_path_factory.mktemp("gateway")
    async with running_mesh(folder, engines=1, longest_request_s=2, stream_idle_s=1) as mesh:
        yield mesh


async def test_engine_that_does_not_begin_is_504(mesh: Mesh) -> None:
    mesh.engines[0].serve = stub_engine.hang
    mesh.answer(direct(mesh.engines[0].address))
    reply = await mesh.request()
    assert (reply.status, reply.json["error"]["code"]) == (504, "engine_timeout")


@pytest.mark.parametrize("headers", [{}, {"grpc-timeout": "1H"}])
async def test_no_stream_outlives_the_longest_request_whatever_the_caller_asks(
    mesh: Mesh, headers: dict[str, str]
) -> None:
    mesh.engines[0].serve = stub_engine.endless
    mesh.answer(direct(mesh.engines[0].address))
    async with mesh.client.post(f"{mesh.url}/v1/chat/completions", json={}, headers=headers) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    line = await mesh.line_of(response.headers["x-request-id"])
    assert "max_duration" in line["response_code_details"]


async def test_stream_of_a_node_that_stalls_is_cancelled(mesh: Mesh) -> None:
    endless = stub_node.Stepped()
    for _ in range(3):
        endless.make_next()
    mesh.nodes[0].serve = endless.serve
    mesh.answer(adapter(mesh.nodes[0].address))
    async with mesh.client.post(f"{mesh.url}/v1/chat/completions", json={}) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    await endless.wait_cancelled()
