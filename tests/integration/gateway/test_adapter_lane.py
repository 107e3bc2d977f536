"""The adapter lane for REST clients: transcoded to a node's gRPC and back."""

import json

import grpc
import pytest

from tests.integration.gateway import stub_node
from tests.integration.gateway.mesh import UNKNOWN, Mesh
from tests.integration.gateway.stub_router import adapter

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_node_gets_the_clients_bytes_and_the_ticket_but_no_key(mesh: Mesh) -> None:
    mesh.answer(adapter(mesh.nodes[0].address))
    sent = {"x-api-key": "sk-2", "cookie": "a=b", "x-enginehouse-residency": "eu"}

    reply = await mesh.request(body=b'{"model": "m" }', headers=sent)

    assert (reply.status, reply.body) == (200, b'{"id":"c"}')
    assert mesh.nodes[0].bodies == [b'{"model": "m" }']
    (call,) = mesh.nodes[0].calls
    assert call["x-enginehouse-internal-ticket"] == "ticket"
    assert not {"authorization", *sent} & set(call)
    assert "x-enginehouse-internal-destination" not in call


async def test_stream_is_passed_on_as_the_node_wrote_it(mesh: Mesh) -> None:
    mesh.nodes[0].serve = stub_node.stream
    mesh.answer(adapter(mesh.nodes[0].address))

    reply = await mesh.request("/v1/messages?beta=true")

    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.body == b'data: {"n":1}\n\ndata: [DONE]\n\n'


async def test_each_message_reaches_the_client_before_the_next_is_made(mesh: Mesh) -> None:
    node = stub_node.Stepped()
    mesh.nodes[0].serve = node.serve
    mesh.answer(adapter(mesh.nodes[0].address))

    node.make_next()
    async with mesh.client.post(f"{mesh.url}/v1/chat/completions", json={}) as response:
        assert await response.content.readany() == b"data: 0\n\n"
        for number in (1, 2):
            node.make_next()
            assert await response.content.readany() == f"data: {number}\n\n".encode()
        response.close()


async def test_client_that_leaves_cancels_the_nodes_call(mesh: Mesh) -> None:
    node = stub_node.Stepped()
    mesh.nodes[0].serve = node.serve
    mesh.answer(adapter(mesh.nodes[0].address))

    node.make_next()
    async with mesh.client.post(f"{mesh.url}/v1/chat/completions", json={}) as response:
        await response.content.readany()
        response.close()

    await node.wait_cancelled()


@pytest.mark.parametrize("status", [400, 404, 422, 429, 451, 500, 503])
async def test_status_of_an_engines_error_is_the_clients(mesh: Mesh, status: int) -> None:
    body = b'{"error":{"message":"too long"}}'
    mesh.nodes[0].serve = stub_node.engine_error(status, body)
    mesh.answer(adapter(mesh.nodes[0].address))

    reply = await mesh.request()

    assert (reply.status, reply.body) == (status, body)


async def test_status_that_is_none_is_502(mesh: Mesh) -> None:
    mesh.nodes[0].serve = stub_node.engine_error(7, b"{}")
    mesh.answer(adapter(mesh.nodes[0].address))
    assert (await mesh.request()).status == 502


@pytest.mark.parametrize("serve", [stub_node.unary, stub_node.stream, stub_node.engine_error(400, b"{}")])
async def test_client_sees_nothing_of_what_nodes_tell_envoy(mesh: Mesh, serve: stub_node.Serve) -> None:
    mesh.nodes[0].serve = serve
    mesh.answer(adapter(mesh.nodes[0].address))

    reply = await mesh.request()

    hidden = ("x-http-status", "x-usage-", "x-enginehouse-replica", "x-enginehouse-internal-", "grpc-")
    assert [name for name in reply.headers if name.startswith(hidden)] == []
    assert reply.headers["x-enginehouse-decision"] == "decision-1"


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
async def test_node_that_does_not_take_the_call_is_followed_by_the_next_of_the_list(
    mesh: Mesh, code: grpc.StatusCode
) -> None:
    mesh.nodes[0].serve = stub_node.refuses(code)
    mesh.answer(adapter(mesh.dead, UNKNOWN, mesh.nodes[0].address, mesh.nodes[1].address))

    reply = await mesh.request()

    assert reply.status == 200
    assert [len(node.calls) for node in mesh.nodes] == [1, 1, 0]
    assert mesh.nodes[1].bodies == [b'{"model":"m"}']


async def test_unknown_address_is_503_and_no_other_node_is_asked(mesh: Mesh) -> None:
    mesh.answer(adapter(UNKNOWN))
    assert (await mesh.request()).status == 503
    assert [node.calls for node in mesh.nodes] == [[], [], []]


@pytest.mark.parametrize(
    ("code", "status", "openai_code", "anthropic_type"),
    [
        (grpc.StatusCode.UNAVAILABLE, 503, "no_replica_available", "overloaded_error"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 503, "engine_overloaded", "overloaded_error"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 504, "engine_timeout", "timeout_error"),
        (grpc.StatusCode.INTERNAL, 500, "internal", "api_error"),
        (grpc.StatusCode.UNKNOWN, 500, "internal", "api_error"),
    ],
)
async def test_refusal_of_the_last_node_is_told_in_the_clients_dialect(
    mesh: Mesh, code: grpc.StatusCode, status: int, openai_code: str, anthropic_type: str
) -> None:
    mesh.nodes[0].serve = stub_node.refuses(code)
    mesh.answer(adapter(mesh.nodes[0].address))

    openai, anthropic = await mesh.request(), await mesh.request("/v1/messages")

    assert (openai.status, anthropic.status) == (status, status)
    assert openai.json["error"]["code"] == openai_code
    assert openai.json["error"]["type"] == "server_error"
    assert anthropic.json["type"] == "error"
    assert anthropic.json["error"]["type"] == anthropic_type
    assert b"secret" not in openai.body + anthropic.body
    assert openai.headers.get("retry-after") == ("1" if status != 500 else None)


async def test_large_answer_in_one_piece_arrives(mesh: Mesh) -> None:
    text = json.dumps({"data": "x" * 20_000_000}).encode()
    mesh.nodes[0].serve = stub_node.answers(text)
    mesh.answer(adapter(mesh.nodes[0].address))

    assert (await mesh.request()).body == text


async def test_large_body_reaches_the_second_node_whole(mesh: Mesh) -> None:
    body = json.dumps({"p": "x" * 1_000_000}).encode()
    mesh.nodes[0].serve = stub_node.refuses(grpc.StatusCode.UNAVAILABLE)
    mesh.answer(adapter(mesh.nodes[0].address, mesh.nodes[1].address))

    assert (await mesh.request(body=body)).status == 200
    assert mesh.nodes[1].bodies == [body]
