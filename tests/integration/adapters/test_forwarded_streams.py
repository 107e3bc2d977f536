"""The adapter lane between equal dialects: a stream that is not whole never looks finished to the client."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import grpc
import pytest

from enginehouse.v1 import common_pb2
from tests.integration.adapters.node import Answer, NodeUnderTest, node
from tests.integration.adapters.scripted import Exchange, Script, scripted_engine
from tests.unit.adapters.build import chat_body, sse_objects

USAGE = b'"usage":{"prompt_tokens":9,"completion_tokens":%d}'
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
TOKEN = b'data: {"choices":[{"index":%d,"delta":{"content":"Hi"}}],' + USAGE + b"}\n\n"
STOP = b'data: {"choices":[{"index":%d,"delta":{},"finish_reason":"stop"}],' + USAGE + b"}\n\n"
ABORTED = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"abort"}]}\n\n'
ERROR = b'data: {"error":{"message":"EngineCore died","type":"internal_error","code":500}}\n\n'
REFUSAL = b'data: {"error":{"message":"too many images","type":"invalid_request_error","code":400}}\n\n'
FLAT_ERROR = b'data: {"object":"error","message":"EngineCore died","type":"internal_error","code":500}\n\n'
OLD_ERROR = b'error: {"code":500,"message":"EngineCore died","type":"server_error"}\n\n'
DONE = b"data: [DONE]\n\n"
BEGUN = ROLE + TOKEN % (0, 1)
WHOLE = BEGUN + STOP % (0, 2) + DONE
PROBE = STOP % (0, 1) + DONE
PARTIAL, NONE = common_pb2.USAGE_METHOD_ENGINE_PARTIAL, common_pb2.USAGE_METHOD_NONE
OURS = "engine_failed"


def streaming(*pieces: bytes) -> Script:
    """Says this, and ends as HTTP wants it."""

    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        for piece in pieces:
            await exchange.send(piece)
        await exchange.end()

    return script


def closing(data: bytes) -> Script:
    """Says this as an HTTP/1.0 engine does, whose death looks like an end."""

    async def script(exchange: Exchange) -> None:
        await exchange.raw(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + data)
        exchange.leave()

    return script


def breaking(data: bytes, content_type: str = "text/event-stream") -> Script:
    """Says this, and dies."""

    async def script(exchange: Exchange) -> None:
        await exchange.begin(content_type)
        await exchange.send(data)
        exchange.abort()

    return script


async def dying(exchange: Exchange) -> None:
    """Dies without a word."""
    exchange.abort()


@asynccontextmanager
async def node_before(
    scripts: Mapping[str, Script], session: aiohttp.ClientSession, folder: Path
) -> AsyncIterator[NodeUnderTest]:
    """A node before an engine that is ready, and answers each request by its id."""

    async def serve(exchange: Exchange) -> None:
        await scripts.get(exchange.received.headers.get("x-request-id", ""), streaming(PROBE))(exchange)

    async with scripted_engine(serve) as engine, node(engine.url, session, folder) as started:
        yield started


async def asked(
    script: Script, session: aiohttp.ClientSession, folder: Path, **members: object
) -> tuple[Answer, common_pb2.Usage]:
    """The answer of a node whose engine does that, and what the node reports to the router."""
    async with node_before({"r1": script}, session, folder) as started:
        answer = await started.ask("r1", chat_body(stream=True, **members))
        return answer, await started.reported("r1")


def numbers(usage: common_pb2.Usage) -> tuple[int, int, int]:
    return usage.input_tokens, usage.output_tokens, usage.method


async def test_a_whole_stream_is_the_engines_bytes_and_is_left_to_the_access_log(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    scripts = {"r1": streaming(WHOLE[:70], WHOLE[70:150], WHOLE[150:]), "r2": streaming(BEGUN)}
    async with node_before(scripts, session, tmp_path) as started:
        answer = await started.ask("r1", chat_body(stream=True))
        await started.ask("r2", chat_body(stream=True))
        await started.reported("r2")  # reports go out in order, so the first call has none
        assert list(started.router.reports) == ["r2"]
    assert (answer.data, answer.content_type, answer.status) == (WHOLE, "text/event-stream", grpc.StatusCode.OK)
    assert answer.usage == {"x-usage-input": "9", "x-usage-cached-input": "0", "x-usage-output": "2"}


@pytest.mark.parametrize(
    "script",
    [
        streaming(BEGUN),
        streaming(BEGUN + DONE),
        streaming(BEGUN, b"data: [DO", b"NE]\r\n\r\n"),
        streaming(BEGUN + b"data: [DONE]"),
        streaming(BEGUN + ABORTED + DONE),
        streaming(BEGUN + DONE + STOP % (0, 2)),
        closing(BEGUN),
        breaking(BEGUN),
    ],
    ids=["end", "done", "cut-done", "open-done", "aborted", "done-first", "http-1.0", "reset"],
)
async def test_a_stream_that_ends_without_a_finish_reason_ends_in_our_error(
    session: aiohttp.ClientSession, tmp_path: Path, script: Script
) -> None:
    answer, reported = await asked(script, session, tmp_path)
    frames = sse_objects(answer.data)
    assert answer.data.startswith(BEGUN)
    assert b"[DONE]" not in answer.data
    assert frames[-1]["error"]["code"] == OURS
    assert [frame for frame in frames if "error" in frame] == frames[-1:]
    assert answer.status == grpc.StatusCode.UNAVAILABLE
    assert numbers(reported) == (9, 1, PARTIAL)


@pytest.mark.parametrize(
    "said",
    [BEGUN + STOP % (0, 2), BEGUN + TOKEN % (1, 1) + STOP % (0, 2), BEGUN + TOKEN % (1, 1) + STOP % (1, 2)],
    ids=["second-never-began", "second-is-open", "first-is-open"],
)
async def test_a_stream_needs_a_finish_reason_for_every_choice(
    session: aiohttp.ClientSession, tmp_path: Path, said: bytes
) -> None:
    answer, reported = await asked(streaming(said + DONE), session, tmp_path, n=2)
    assert sse_objects(answer.data)[-1]["error"]["code"] == OURS
    assert b"[DONE]" not in answer.data
    assert reported.method == PARTIAL


async def test_an_error_that_sdks_raise_on_is_passed_on_and_is_the_last_word(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    answer, reported = await asked(streaming(BEGUN + ERROR + DONE), session, tmp_path)
    assert answer.data == BEGUN + ERROR
    assert answer.status == grpc.StatusCode.OK
    assert numbers(reported) == (9, 1, PARTIAL)


async def test_an_error_after_the_finish_reason_is_still_one(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    answer, reported = await asked(streaming(BEGUN + STOP % (0, 2) + ERROR + DONE), session, tmp_path)
    assert answer.data == BEGUN + STOP % (0, 2) + ERROR
    assert numbers(reported) == (9, 2, PARTIAL)


@pytest.mark.parametrize("error", [FLAT_ERROR, OLD_ERROR], ids=["flat", "old-llama.cpp"])
async def test_an_error_that_no_sdk_hears_is_told_in_our_words(
    session: aiohttp.ClientSession, tmp_path: Path, error: bytes
) -> None:
    answer, reported = await asked(streaming(BEGUN + error + DONE), session, tmp_path)
    assert answer.data.startswith(BEGUN + b"data: ")
    assert b"EngineCore" not in answer.data
    assert b"[DONE]" not in answer.data
    assert sse_objects(answer.data)[-1]["error"]["code"] == OURS
    assert numbers(reported) == (9, 1, PARTIAL)


@pytest.mark.parametrize(
    "script",
    [streaming(ERROR + DONE), streaming(FLAT_ERROR), streaming(DONE), streaming(), closing(b""), dying],
    ids=["error", "flat", "done", "nothing", "http-1.0", "reset"],
)
async def test_a_failure_before_the_first_event_is_left_to_the_next_replica_and_costs_nothing(
    session: aiohttp.ClientSession, tmp_path: Path, script: Script
) -> None:
    async with node_before({"r1": script, "r2": streaming(BEGUN)}, session, tmp_path) as started:
        answer = await started.ask("r1", chat_body(stream=True))
        await started.ask("r2", chat_body(stream=True))
        await started.reported("r2")
        # A report would end the request at the router, and the replica that serves it next could not be charged.
        assert list(started.router.reports) == ["r2"]
    assert (answer.data, answer.status) == (b"", grpc.StatusCode.UNAVAILABLE)
    assert answer.usage == {"x-usage-input": "0", "x-usage-cached-input": "0", "x-usage-output": "0"}


async def test_a_refusal_before_the_first_event_is_the_clients_to_read(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    answer, reported = await asked(streaming(REFUSAL + DONE), session, tmp_path)
    assert (answer.data, answer.status) == (REFUSAL, grpc.StatusCode.OK)
    assert numbers(reported) == (0, 0, NONE)


async def test_a_body_that_is_no_stream_breaks_off_without_an_event_in_it(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    half = json.dumps({"choices": [{"index": 0, "message": {"content": "Hi"}}]}).encode()[:-5]
    async with node_before({"r1": breaking(half, "application/json")}, session, tmp_path) as started:
        answer = await started.ask("r1", chat_body())
        reported = await started.reported("r1")
    assert (answer.data, answer.status) == (half, grpc.StatusCode.UNAVAILABLE)
    assert reported.method == common_pb2.USAGE_METHOD_UPPER_BOUND
