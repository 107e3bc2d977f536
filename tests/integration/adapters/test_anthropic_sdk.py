"""The official Anthropic SDK against what the adapters write: its dialect in, an OpenAI engine behind."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import anthropic
import pytest
from anthropic.types import MessageParam, ToolParam

from enginehouse.contract import DependencyError, EnginehouseError, PolicyRefusal, Reason, RequestError
from tests.integration.adapters.door import door
from tests.integration.adapters.scripted import (
    Exchange,
    Script,
    answering,
    recorded,
    replaying,
    scripted_engine,
)
from tests.unit.adapters.build import WEATHER_SCHEMA

HI: list[MessageParam] = [{"role": "user", "content": "Hi"}]
TOOL: ToolParam = {"name": "get_weather", "description": "The weather", "input_schema": dict(WEATHER_SCHEMA)}


@asynccontextmanager
async def client(url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as opened:
        yield opened


async def test_a_stream_is_put_together_with_its_true_usage(session: aiohttp.ClientSession) -> None:
    async with (
        scripted_engine(replaying("llama_cpp/chat.sse")) as engine,
        door(engine.url, session) as url,
        client(url) as sdk,
        sdk.messages.stream(model="public", max_tokens=4, system="Be brief", messages=HI) as stream,
    ):
        texts = [text async for text in stream.text_stream]
        message = await stream.get_final_message()
        asked = engine.received[0].members
    assert "".join(texts) == "Hello! How can"
    assert (message.id, message.model, message.stop_reason) == ("msg_1", "public", "max_tokens")
    assert message.usage.output_tokens == 4
    assert message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0) == 31
    assert asked["max_tokens"] == 4
    assert asked["messages"] == [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}]


async def test_parallel_tool_calls_are_put_together_by_the_sdk(session: aiohttp.ClientSession) -> None:
    async with (
        scripted_engine(replaying("llama_cpp/tool_calls_parallel.sse")) as engine,
        door(engine.url, session) as url,
        client(url) as sdk,
        sdk.messages.stream(model="public", max_tokens=50, messages=HI, tools=[TOOL]) as stream,
    ):
        message = await stream.get_final_message()
    uses = [(block.name, block.input) for block in message.content if block.type == "tool_use"]
    assert uses == [("get_weather", {"city": "Rome"}), ("get_weather", {"city": "Paris"})]
    assert message.stop_reason == "tool_use"


async def test_a_whole_message_with_a_tool_call_can_be_answered(session: aiohttp.ClientSession) -> None:
    async with (
        scripted_engine(replaying("llama_cpp/tool_call.sse")) as engine,
        door(engine.url, session) as url,
        client(url) as sdk,
    ):
        message = await sdk.messages.create(model="public", max_tokens=50, messages=HI, tools=[TOOL])
        use = message.content[0]
        assert use.type == "tool_use"
        result: MessageParam = {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}],
        }
        turns = [*HI, message.to_param(), result]
        await sdk.messages.create(model="public", max_tokens=50, messages=turns, tools=[TOOL])
        sent = engine.received[1].members["messages"]
    assert isinstance(sent, list)
    assert [turn["role"] for turn in sent] == ["user", "assistant", "tool"]
    assert sent[1]["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city": "Rome"}'}
    assert sent[2] == {"role": "tool", "content": "sunny", "tool_call_id": use.id}


async def test_reasoning_is_thinking(session: aiohttp.ClientSession) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        for delta in ('{"reasoning_content":"hm"}', '{"content":"Yes"}'):
            await exchange.send(b'data: {"choices":[{"index":0,"delta":%b}]}\n\n' % delta.encode())
        await exchange.send(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
        await exchange.end()

    async with (
        scripted_engine(script) as engine,
        door(engine.url, session) as url,
        client(url) as sdk,
        sdk.messages.stream(model="public", max_tokens=50, messages=HI) as stream,
    ):
        message = await stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].type == "thinking"
    assert message.content[0].thinking == "hm"


async def test_tokens_are_counted(session: aiohttp.ClientSession) -> None:
    async def script(exchange: Exchange) -> None:
        name = exchange.received.path.removeprefix("/").replace("-", "_")
        await exchange.answer(recorded(f"llama_cpp/{name}.json"))

    async with scripted_engine(script) as engine, door(engine.url, session) as url, client(url) as sdk:
        assert (await sdk.messages.count_tokens(model="public", messages=HI)).input_tokens == 31


async def die(exchange: Exchange) -> None:
    exchange.abort()


async def say_done(exchange: Exchange) -> None:
    await exchange.send(b"data: [DONE]\n\n")
    await exchange.end()


@pytest.mark.parametrize("fault", [die, say_done])
async def test_a_stream_that_dies_raises_and_never_stops(session: aiohttp.ClientSession, fault: Script) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(recorded("llama_cpp/chat.sse")[:900])
        await fault(exchange)

    kinds: list[str] = []
    async with scripted_engine(script) as engine, door(engine.url, session) as url, client(url) as sdk:
        stream = await sdk.messages.create(model="public", max_tokens=5, messages=HI, stream=True)

        async def read() -> None:
            async for event in stream:
                kinds.append(event.type)  # noqa: PERF401 (what came before the error counts)

        with pytest.raises(anthropic.APIStatusError, match="the engine llama"):
            await read()
    assert kinds == ["message_start", "content_block_start", "content_block_delta"]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (RequestError("x"), anthropic.BadRequestError),
        (RequestError("x", Reason.INVALID_KEY), anthropic.AuthenticationError),
        (RequestError("x", Reason.PERMISSION_DENIED), anthropic.PermissionDeniedError),
        (RequestError("x", Reason.MODEL_NOT_FOUND), anthropic.NotFoundError),
        (PolicyRefusal("x", Reason.RATE_LIMITED), anthropic.RateLimitError),
    ],
)
async def test_errors_are_the_sdks_own_classes(
    session: aiohttp.ClientSession, error: EnginehouseError, raised: type[anthropic.APIStatusError]
) -> None:
    async with door("http://127.0.0.1:9", session, refuse_with=error) as url, client(url) as sdk:
        with pytest.raises(raised) as caught:
            await sdk.messages.create(model="public", max_tokens=5, messages=HI)
    assert caught.value.status_code == error.http_status
    assert caught.value.request_id == "r1"


@pytest.mark.parametrize(
    "error",
    [
        PolicyRefusal("x", Reason.BUDGET_EXHAUSTED),
        PolicyRefusal("x", Reason.RESIDENCY_UNSATISFIABLE),
        DependencyError("x"),
    ],
)
async def test_other_errors_keep_their_status(session: aiohttp.ClientSession, error: EnginehouseError) -> None:
    async with door("http://127.0.0.1:9", session, refuse_with=error) as url, client(url) as sdk:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await sdk.messages.create(model="public", max_tokens=5, messages=HI)
    assert caught.value.status_code == error.http_status


async def test_the_engines_refusal_before_the_first_token_is_a_plain_error(session: aiohttp.ClientSession) -> None:
    async with (
        scripted_engine(answering("llama_cpp/context_exceeded.json", 400)) as engine,
        door(engine.url, session) as url,
        client(url) as sdk,
    ):
        with pytest.raises(anthropic.BadRequestError, match="3031 tokens of 2048"):
            await sdk.messages.create(model="public", max_tokens=5, messages=HI, stream=True)


async def test_an_unknown_path_is_not_found_in_its_dialect(session: aiohttp.ClientSession) -> None:
    async with door("http://127.0.0.1:9", session) as url, client(url) as sdk:
        with pytest.raises(anthropic.NotFoundError):
            await sdk.messages.batches.list()
