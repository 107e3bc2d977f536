"""The engine client against answers that real engines sent, and against engines that misbehave."""

import asyncio
import socket
from dataclasses import dataclass

import aiohttp
import pytest

from enginehouse.adapters import CollectedChoice, collect
from enginehouse.adapters.openai import LLAMA_CPP, Generation, OpenAIEngine, OpenAIQuirks, RunningUsage
from enginehouse.contract import EngineError, Reason, RequestError
from enginehouse.v1 import common_pb2, inference_pb2
from tests.integration.adapters.scripted import (
    Exchange,
    Received,
    Script,
    answering,
    recorded,
    replaying,
    scripted_engine,
)
from tests.unit.adapters.build import generate_request, texts

COUNTING = OpenAIQuirks("counting", running_usage=RunningUsage.USAGE_IN_CHUNKS)
CHUNK = (
    b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}],"usage":{"prompt_tokens":9,"completion_tokens":%d}}\n\n'
)
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


def generation(
    url: str,
    session: aiohttp.ClientSession,
    request: inference_pb2.GenerateRequest | None = None,
    quirks: OpenAIQuirks = LLAMA_CPP,
    idle_timeout_s: float = 20,
) -> Generation:
    client = OpenAIEngine(url, session, quirks, idle_timeout_s=idle_timeout_s)
    return client.generate(
        request or generate_request(),
        served_model="smollm2",
        output_tokens_max=64,
        generation_id="g1",
        headers={"x-request-id": "r1"},
    )


def numbers(usage: common_pb2.Usage) -> tuple[int, int, int, str]:
    method = common_pb2.UsageMethod.Name(usage.method).removeprefix("USAGE_METHOD_")
    return usage.input_tokens, usage.cached_input_tokens, usage.output_tokens, method


@dataclass(frozen=True)
class Whole:
    """A generation that was read to its end."""

    steps: list[inference_pb2.GenerateResponse]
    usage: common_pb2.Usage
    asked: Received

    @property
    def choice(self) -> CollectedChoice:
        return collect(self.steps).choices[0]


async def generated(
    session: aiohttp.ClientSession, script: Script, request: inference_pb2.GenerateRequest | None = None
) -> Whole:
    async with scripted_engine(script) as engine, generation(engine.url, session, request) as steps:
        seen = [step async for step in steps]
        return Whole(seen, steps.usage, engine.received[0])


async def test_a_recorded_chat_is_generated_and_counted(session: aiohttp.ClientSession) -> None:
    whole = await generated(session, replaying("llama_cpp/chat.sse"))
    assert whole.choice.text == "Hello! How can"
    assert [step.WhichOneof("event") for step in whole.steps] == [*["delta"] * 4, "choice_finished", "finished"]
    assert whole.choice.finish_reason == inference_pb2.FINISH_REASON_LENGTH
    assert whole.steps[-1].finished.usage == whole.usage
    assert numbers(whole.usage)[2:] == (4, "ENGINE")
    assert (whole.asked.path, whole.asked.headers["x-request-id"]) == ("/v1/chat/completions", "r1")
    assert (whole.asked.members["model"], whole.asked.members["timings_per_token"]) == ("smollm2", True)


async def test_choices_that_the_engine_counts_alone_are_added_up(session: aiohttp.ClientSession) -> None:
    request = generate_request()
    request.sampling.choices = 2
    whole = await generated(session, replaying("llama_cpp/chat_two_choices.sse"), request)
    assert numbers(whole.usage)[2:] == (6, "ENGINE")  # 3 for each; the engine's last word is 3
    assert texts(whole.steps, 0)
    assert texts(whole.steps, 1)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("llama_cpp/tool_call.sse", ['{"city": "Rome"}']),
        ("llama_cpp/tool_calls_parallel.sse", ['{"city": "Rome"}', '{"city": "Paris"}']),
    ],
)
async def test_recorded_tool_calls_come_out_whole(
    session: aiohttp.ClientSession, name: str, arguments: list[str]
) -> None:
    choice = (await generated(session, replaying(name))).choice
    assert [call.arguments for call in choice.tool_calls.values()] == arguments
    assert all(call.name == "get_weather" and call.id for call in choice.tool_calls.values())
    assert choice.finish_reason == inference_pb2.FINISH_REASON_TOOL_CALLS


async def test_recorded_logprobs_belong_to_their_tokens(session: aiohttp.ClientSession) -> None:
    choice = (await generated(session, replaying("llama_cpp/chat_logprobs.sse"))).choice
    assert "".join(token.token for token in choice.logprobs) == choice.text
    assert choice.logprobs
    assert all(len(token.top) == 2 and token.token_bytes for token in choice.logprobs)


async def test_a_recorded_completion_is_generated(session: aiohttp.ClientSession) -> None:
    request = inference_pb2.GenerateRequest(model="public", prompt="One two")
    whole = await generated(session, replaying("llama_cpp/completion.sse"), request)
    assert whole.asked.path == "/v1/completions"
    assert whole.choice.text
    assert whole.usage.output_tokens == 3


async def test_an_engine_that_does_not_stream_is_read_all_the_same(session: aiohttp.ClientSession) -> None:
    whole = await generated(session, answering("llama_cpp/chat.json"))
    assert whole.choice.text.startswith("Hello")
    assert numbers(whole.usage)[2:] == (8, "ENGINE")


async def test_the_first_token_is_there_before_the_engine_says_more(session: aiohttp.ClientSession) -> None:
    seen = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(CHUNK % 1)
        await seen.wait()
        await exchange.send(END + b"data: [DONE]\n\n")
        await exchange.end()

    async with scripted_engine(script) as engine, generation(engine.url, session, quirks=COUNTING) as steps:
        assert (await anext(steps)).delta.text == "Hi"
        seen.set()
        assert [step.WhichOneof("event") async for step in steps] == ["choice_finished", "finished"]


@pytest.mark.parametrize("way", ["close", "cancel"])
async def test_a_client_that_leaves_frees_the_engine_and_is_billed_what_was_generated(
    session: aiohttp.ClientSession, way: str
) -> None:
    left = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(CHUNK % 1 + CHUNK % 2)
        await exchange.client_left()
        left.set()

    async with scripted_engine(script) as engine:
        steps = generation(engine.url, session, quirks=COUNTING)
        await anext(steps)
        await anext(steps)
        if way == "close":
            await steps.aclose()
        else:
            waiting = asyncio.ensure_future(anext(steps))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
        async with asyncio.timeout(20):
            await left.wait()
    assert numbers(steps.usage) == (9, 0, 2, "ENGINE_PARTIAL")


async def test_what_was_never_asked_for_costs_nothing(session: aiohttp.ClientSession) -> None:
    steps = generation("http://127.0.0.1:9", session)
    await steps.aclose()
    assert numbers(steps.usage) == (0, 0, 0, "NONE")


async def test_an_engine_that_began_and_never_counted_is_charged_the_bound(session: aiohttp.ClientSession) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n')
        exchange.abort()

    async with scripted_engine(script) as engine, generation(engine.url, session) as steps:
        with pytest.raises(EngineError, match="broke off"):
            [step async for step in steps]
    assert numbers(steps.usage) == (0, 0, 0, "UPPER_BOUND")


async def refuse_for_context(exchange: Exchange) -> None:
    await exchange.answer(recorded("llama_cpp/context_exceeded.json"), status=400)


async def break_before_answering(exchange: Exchange) -> None:
    exchange.abort()


async def say_nothing(exchange: Exchange) -> None:
    await exchange.client_left()


async def fail_in_the_stream(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.send(b'data: {"error":{"message":"x","type":"internal_error","code":500}}\n\ndata: [DONE]\n\n')
    await exchange.end()


async def fail_in_the_stream_as_llama_cpp_did(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.send(b'error: {"code":500,"message":"x","type":"server_error"}\n\n')
    await exchange.end()


async def overload(exchange: Exchange) -> None:
    await exchange.answer(b"busy", "text/plain", status=503)


@pytest.mark.parametrize(
    ("script", "kind", "reason", "says"),
    [
        (refuse_for_context, RequestError, Reason.CONTEXT_TOO_LONG, "3031 tokens of 2048"),
        (break_before_answering, EngineError, Reason.ENGINE_FAILED, "broke off"),
        (say_nothing, EngineError, Reason.ENGINE_TIMEOUT, "silent"),
        (fail_in_the_stream, EngineError, Reason.ENGINE_FAILED, "internal_error"),
        (fail_in_the_stream_as_llama_cpp_did, EngineError, Reason.ENGINE_FAILED, "server_error"),
        (overload, EngineError, Reason.ENGINE_OVERLOADED, "status 503"),
    ],
)
async def test_an_engine_that_fails_before_its_first_token_costs_nothing(
    session: aiohttp.ClientSession, script: Script, kind: type[Exception], reason: Reason, says: str
) -> None:
    async with scripted_engine(script) as engine, generation(engine.url, session, idle_timeout_s=0.3) as steps:
        with pytest.raises(kind, match=says) as caught:
            await anext(steps)
    assert isinstance(caught.value, RequestError | EngineError)
    assert caught.value.reason is reason
    assert numbers(steps.usage) == (0, 0, 0, "NONE")


async def test_an_engine_that_is_not_there_cannot_be_reached(session: aiohttp.ClientSession) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with generation(f"http://127.0.0.1:{unused.getsockname()[1]}", session) as steps:
            with pytest.raises(EngineError, match="cannot be reached") as caught:
                await anext(steps)
    assert caught.value.reason is Reason.ENGINE_FAILED
    assert numbers(steps.usage) == (0, 0, 0, "NONE")


async def die(exchange: Exchange) -> None:
    exchange.abort()


async def hang(exchange: Exchange) -> None:
    await exchange.client_left()


async def end_cleanly(exchange: Exchange) -> None:
    await exchange.end()


async def end_as_if_done(exchange: Exchange) -> None:
    await exchange.send(b"data: [DONE]\n\n")
    await exchange.end()


async def say_an_error_and_done(exchange: Exchange) -> None:
    await exchange.send(b'data: {"error":{"message":"x","type":"abort","code":500}}\n\ndata: [DONE]\n\n')
    await exchange.end()


@pytest.mark.parametrize(
    ("fault", "reason", "says"),
    [
        (die, Reason.ENGINE_FAILED, "broke off"),
        (hang, Reason.ENGINE_TIMEOUT, "silent"),
        (end_cleanly, Reason.ENGINE_FAILED, "ended early: 0 of 1 choices"),
        (end_as_if_done, Reason.ENGINE_FAILED, "ended early: 0 of 1 choices"),
        (say_an_error_and_done, Reason.ENGINE_FAILED, "abort"),
    ],
)
async def test_a_stream_that_dies_is_never_an_answer_and_is_billed_to_its_last_token(
    session: aiohttp.ClientSession, fault: Script, reason: Reason, says: str
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(CHUNK % 1 + CHUNK % 2)
        await fault(exchange)

    async with scripted_engine(script) as engine:
        steps = generation(engine.url, session, quirks=COUNTING, idle_timeout_s=0.3)
        for _ in range(2):
            assert (await anext(steps)).delta.text == "Hi"
        with pytest.raises(EngineError, match=says) as caught:
            await anext(steps)
    assert caught.value.reason is reason
    assert numbers(steps.usage) == (9, 0, 2, "ENGINE_PARTIAL")


async def test_an_answer_that_ends_with_the_connection_is_not_taken_for_whole(session: aiohttp.ClientSession) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.raw(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + CHUNK % 1)
        exchange.leave()

    async with scripted_engine(script) as engine, generation(engine.url, session, quirks=COUNTING) as steps:
        with pytest.raises(EngineError, match="ended early"):
            [step async for step in steps]


async def test_more_generations_run_at_once_than_a_common_pool_has_places(session: aiohttp.ClientSession) -> None:
    count = 150
    all_here = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        if len(engine.received) == count:
            all_here.set()
        await all_here.wait()
        await exchange.begin()
        await exchange.send(CHUNK % 1 + END + b"data: [DONE]\n\n")
        await exchange.end()

    async def generate() -> int:
        async with generation(engine.url, session, quirks=COUNTING) as steps:
            return len([step async for step in steps])

    async with scripted_engine(script) as engine, asyncio.timeout(30):
        assert await asyncio.gather(*(generate() for _ in range(count))) == [3] * count


async def test_one_generation_after_the_other_meets_no_dying_connection(session: aiohttp.ClientSession) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.replay("llama_cpp/chat.sse")
        exchange.abort()  # as llama.cpp closes after every stream, whatever it has promised

    async with scripted_engine(script) as engine:
        for _ in range(10):
            async with generation(engine.url, session) as steps:
                assert [step async for step in steps][-1].HasField("finished")


async def test_nagles_algorithm_is_off(session: aiohttp.ClientSession) -> None:
    found = []

    async def note(_: object, __: object, params: aiohttp.TraceRequestEndParams) -> None:
        transport = params.response.connection and params.response.connection.transport
        assert transport
        found.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(note)
    trace.freeze()
    session.trace_configs.append(trace)

    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(CHUNK % 1)
        await exchange.client_left()

    async with scripted_engine(script) as engine, generation(engine.url, session, quirks=COUNTING) as steps:
        await anext(steps)
    assert found == [1]
