"""Usage as the access log knows it, whatever the dialect and however the answer ended."""

import json

import aiohttp
import pytest

from tests.integration.gateway import stub_engine, stub_node
from tests.integration.gateway.mesh import Json, Mesh
from tests.integration.gateway.stub_router import adapter, direct

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPENAI = {"usage": {"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 2}}}
EMBEDDING = {"usage": {"prompt_tokens": 5, "total_tokens": 5}, "data": [{"embedding": [0.1, 0.2]}]}
LLAMA_CPP = {"timings": {"prompt_n": 3, "cache_n": 2, "predicted_n": 7, "predicted_ms": 1.5}}
ANTHROPIC = {"type": "message", "usage": {"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 7}}
COUNTS = {"input": 5, "cached_input": 2, "output": 7}
TIMINGS = {"timing_prompt": 3, "timing_cached": 2, "timing_output": 7}


async def usage_of(mesh: Mesh, serve: stub_engine.Serve) -> Json:
    mesh.engines[0].serve = serve
    mesh.answer(direct(mesh.engines[0].address))
    return (await mesh.line(await mesh.request()))["usage"]


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        (OPENAI, COUNTS),
        (EMBEDDING, {"input": 5}),
        (ANTHROPIC, COUNTS),
        (LLAMA_CPP, TIMINGS),
        (OPENAI | LLAMA_CPP, COUNTS | TIMINGS),
        ({"usage": None}, None),
        ({"choices": []}, None),
        ([1, 2], None),
    ],
)
async def test_usage_of_an_answer_in_one_piece(mesh: Mesh, content_type: str, answer: Json, usage: Json) -> None:
    assert await usage_of(mesh, stub_engine.json_text(json.dumps(answer), content_type=content_type)) == usage


async def test_last_usage_of_a_stream_wins(mesh: Mesh) -> None:
    chunks = [
        {"choices": [{"delta": {}}], "usage": None},
        *({"usage": {"prompt_tokens": 5, "completion_tokens": n}} for n in range(8)),
        OPENAI,
    ]
    assert await usage_of(mesh, stub_engine.events(*map(json.dumps, chunks), "[DONE]")) == COUNTS


async def test_usage_of_an_anthropic_stream_is_put_together_from_its_events(mesh: Mesh) -> None:
    events = [
        {
            "type": "message_start",
            "message": {"usage": {"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 1}},
        },
        {"type": "content_block_delta", "delta": {"text": "x"}},
        {"type": "message_delta", "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]
    assert await usage_of(mesh, stub_engine.events(*map(json.dumps, events))) == COUNTS


@pytest.mark.parametrize("size", [7, 60, 100])
async def test_usage_is_found_in_whatever_pieces_a_stream_comes(mesh: Mesh, size: int) -> None:
    early = {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    text = f"data: {json.dumps(early)}\n\ndata: {json.dumps(OPENAI)}\n\ndata: [DONE]\n\n".encode()
    engine = stub_engine.Stepped([text[at : at + size] for at in range(0, len(text), size)])
    mesh.engines[0].serve = engine.serve
    mesh.answer(direct(mesh.engines[0].address))

    received = b""
    async with mesh.client.post(f"{mesh.url}/v1/chat/completions", json={}) as response:
        while len(received) < len(text):
            engine.send_next()  # and not before the last piece has come through Envoy
            received += await response.content.readany()

    assert received == text
    assert (await mesh.line_of(response.headers["x-request-id"]))["usage"] == COUNTS


async def test_text_that_looks_like_usage_is_not_taken_for_it(mesh: Mesh) -> None:
    lie = json.dumps({"usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    chunks = [OPENAI, {"choices": [{"delta": {"content": f", {lie}"}}]}, {"choices": [{"delta": {"content": lie}}]}]
    assert await usage_of(mesh, stub_engine.events(*map(json.dumps, chunks))) == COUNTS
    unary = OPENAI | {"choices": [{"message": {"content": lie}}], "message": json.loads(lie)}
    assert await usage_of(mesh, stub_engine.json_text(json.dumps(unary))) == COUNTS


@pytest.mark.parametrize("data", ["0", "null", "true", '"x"', "[]", "[1]", "{}", "{", "", '{"usage":7}', "\0"])
async def test_odd_events_reach_the_client_and_envoy_lives(mesh: Mesh, data: str) -> None:
    start = mesh.gateway.envoy_start
    assert await usage_of(mesh, stub_engine.events(data, json.dumps(OPENAI))) == COUNTS
    assert mesh.gateway.envoy_start == start


async def test_stream_without_usage_is_known_by_llama_cpps_timings(mesh: Mesh) -> None:
    assert await usage_of(mesh, stub_engine.events('{"n":1}', json.dumps(LLAMA_CPP), "[DONE]")) == TIMINGS


async def test_stream_that_the_client_cut_has_the_last_usage_seen(mesh: Mesh) -> None:
    chunks = [json.dumps({"usage": {"prompt_tokens": 5, "completion_tokens": n}}) for n in range(1, 5)]
    mesh.engines[0].serve = stub_engine.events(*chunks, end=stub_engine.hang)
    mesh.answer(direct(mesh.engines[0].address))

    async with mesh.client.post(f"{mesh.url}/v1/chat/completions", json={}) as response:
        request_id = response.headers["x-request-id"]
        seen = b""
        while b'"completion_tokens": 4' not in seen:
            seen += await response.content.readany()
        response.close()

    line = await mesh.line_of(request_id)
    assert line["usage"] == {"input": 5, "output": 4}
    assert line["response_flags"] == "DC"


async def test_stream_that_the_engine_cut_has_the_last_usage_seen(mesh: Mesh) -> None:
    chunk = json.dumps({"usage": {"prompt_tokens": 5, "completion_tokens": 3}})
    mesh.engines[0].serve = stub_engine.events(chunk, end=stub_engine.reset)
    mesh.answer(direct(mesh.engines[0].address))

    async with mesh.client.post(f"{mesh.url}/v1/chat/completions", json={}) as response:
        request_id = response.headers["x-request-id"]
        with pytest.raises(aiohttp.ClientError):
            await response.read()

    line = await mesh.line_of(request_id)
    assert line["usage"] == {"input": 5, "output": 3}
    assert "UPE" in line["response_flags"] or "UC" in line["response_flags"]


async def test_usage_of_the_adapter_lane_is_in_its_trailers_for_rest_clients_too(mesh: Mesh) -> None:
    for serve in (stub_node.unary, stub_node.stream):
        mesh.nodes[0].serve = serve
        mesh.answer(adapter(mesh.nodes[0].address))
        reply = await mesh.request()

        line = await mesh.line(reply)
        entry = await mesh.entry_of(reply.headers["x-request-id"])

        assert line["usage_trailers"] == {"input": "5", "cached_input": "2", "output": "7"}
        assert line["replica"] == "replica-1"
        assert line["path"] == "/v1/chat/completions"
        assert entry.response.response_trailers["x-usage-input"] == "5"


async def test_usage_reaches_the_router_that_decided(mesh: Mesh) -> None:
    mesh.answer(direct(mesh.engines[0].address))
    reply = await mesh.request()

    entry = await mesh.entry_of(reply.headers["x-request-id"])

    usage = entry.common_properties.metadata.filter_metadata["enginehouse.usage"]
    assert dict(usage) == COUNTS
    words = entry.common_properties.metadata.filter_metadata["envoy.filters.http.ext_authz"]
    assert (words["x-md-router"], words["x-md-ticket"]) == ("router-1", "dGlja2V0")
    assert entry.common_properties.upstream_remote_address.socket_address.port_value == mesh.engines[0].address.port


async def test_answer_that_is_no_json_reaches_the_client_and_no_log(mesh: Mesh) -> None:
    marked = "do-not-log-this-completion"
    serves = [
        stub_engine.json_text('{"text": "' + marked),
        stub_engine.json_text('{"usage": {"prompt_tokens": "' + marked + '"}}'),
        stub_engine.events('{"text": "' + marked, '{"usage": {"completion_tokens": "' + marked + '"}}', marked),
    ]
    mesh.answer(direct(mesh.engines[0].address))
    for serve in serves:
        mesh.engines[0].serve = serve
        reply = await mesh.request(body=f'{{"prompt":"{marked}"}}'.encode())
        assert marked.encode() in reply.body
        await mesh.line(reply)
    written = [path.read_text() for path in mesh.settings.state_folder.rglob("*") if path.is_file()]
    assert [text for text in written if marked in text] == []
