"""OpenAI's clients in front of engines that do not speak as OpenAI does: a node translates for them."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from enginehouse.v1 import common_pb2
from tests.integration.adapters.spoken import HELLO, LONG, door
from tests.unit.adapters.build import sse_objects

TRANSLATED = ["mlx", "tgi", "tgi-native"]


def body(text: str = HELLO, **members: object) -> bytes:
    return json.dumps({"model": "public", "messages": [{"role": "user", "content": text}], **members}).encode()


def members(data: bytes) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(data)
    return parsed


@pytest.mark.parametrize("name", TRANSLATED)
async def test_a_whole_answer_is_openais(name: str, session: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with door(name, session, tmp_path) as (asked, _):
        answer = await asked.ask("r-1", body())
    said = members(answer.data)
    assert (answer.status, answer.content_type) == (grpc.StatusCode.OK, "application/json")
    assert (said["object"], said["model"]) == ("chat.completion", "public")
    assert HELLO in said["choices"][0]["message"]["content"]
    assert said["choices"][0]["finish_reason"] == "stop"
    assert answer.usage["x-usage-output"] == str(said["usage"]["completion_tokens"])


@pytest.mark.parametrize("name", TRANSLATED)
@pytest.mark.parametrize("wants_usage", [True, False])
async def test_a_stream_is_openais(
    name: str, wants_usage: bool, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if wants_usage else {}
    async with door(name, session, tmp_path) as (asked, _):
        answer = await asked.ask("r-1", body(stream=True, **options))
    assert answer.content_type == "text/event-stream"
    assert answer.data.endswith(b"data: [DONE]\n\n")
    frames = sse_objects(answer.data)
    text = "".join(choice["delta"].get("content", "") for frame in frames for choice in frame["choices"])
    assert HELLO in text
    assert any(frame["choices"] == [] for frame in frames) is wants_usage
    assert int(answer.usage["x-usage-output"]) >= 4


@pytest.mark.parametrize("name", TRANSLATED)
async def test_a_stream_that_broke_never_looks_finished(
    name: str, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with door(name, session, tmp_path) as (asked, engine):
        await engine.caller.plan("error_frame", after_tokens=2)
        answer = await asked.ask("r-1", body(LONG, stream=True))
        usage = await asked.reported("r-1")
    assert answer.status is not grpc.StatusCode.OK
    assert b"[DONE]" not in answer.data
    assert "error" in sse_objects(answer.data)[-1]
    assert usage.method == engine.spoken.cut_usage


@pytest.mark.parametrize("name", TRANSLATED)
async def test_what_the_engine_cannot_do_is_refused_in_openais_words(
    name: str, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with door(name, session, tmp_path) as (asked, engine):
        before = (await engine.caller.state())["requests"]  # those by which the node found it ready
        answer = await asked.ask("r-1", body(n=2), choices=2)
        assert (await engine.caller.state())["requests"] == before
    error = members(answer.data)["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "more than one choice")
    assert engine.spoken.name in error["message"]


@pytest.mark.parametrize("name", ["vllm", "tgi", "tgi-native"])
async def test_an_adapter_is_named_the_same_way_to_every_engine(
    name: str, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with door(name, session, tmp_path) as (asked, _):
        answer = await asked.ask("r-1", body(lora="mine"))
        refused = await asked.ask("r-2", body(lora="unknown"))
    assert HELLO in members(answer.data)["choices"][0]["message"]["content"]
    if name == "vllm":  # it looks up the name; the emulated TGI takes any
        error = members(refused.data)["error"]
        assert (error["code"], error["type"]) == ("model_not_found", "not_found_error")
        assert "no LoRA adapter 'unknown'" in error["message"]


@pytest.mark.parametrize("name", ["vllm", "sglang", "tensorrt-llm", "llama-cpp"])
@pytest.mark.parametrize("wants_usage", [True, False])
async def test_a_stream_that_is_passed_on_has_the_usage_that_its_client_asked_for(
    name: str, wants_usage: bool, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if wants_usage else {}
    async with door(name, session, tmp_path) as (asked, _):
        answer = await asked.ask("r-1", body(stream=True, **options))
    frames = sse_objects(answer.data)
    assert any(frame["choices"] == [] for frame in frames) is wants_usage
    assert answer.data.endswith(b"data: [DONE]\n\n")
    assert answer.usage["x-usage-output"] == "4"


@pytest.mark.parametrize("name", ["vllm", "tensorrt-llm"])
async def test_a_stream_that_was_passed_on_and_broke_is_billed_for_what_came(
    name: str, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with door(name, session, tmp_path) as (asked, engine):
        await engine.caller.plan("cut", after_tokens=2)
        answer = await asked.ask("r-1", body(LONG, stream=True))
        usage = await asked.reported("r-1")
    assert answer.status is not grpc.StatusCode.OK
    assert (usage.output_tokens, usage.method) == (2, common_pb2.USAGE_METHOD_ENGINE_PARTIAL)
