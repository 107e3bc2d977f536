"""What only one engine does."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from enginehouse.engines.emulators import EmulatorOptions, make_emulation, running
from tests.conformance.emulators.caller import HELLO, LONG, Caller, chat

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
Emulate = Callable[..., AbstractAsyncContextManager[Caller]]


@pytest.fixture
def emulate(session: aiohttp.ClientSession) -> Emulate:
    """Starts an emulator."""

    @asynccontextmanager
    async def started(kind: str, **options: Any) -> AsyncIterator[Caller]:  # noqa: ANN401
        async with running(make_emulation(kind, EmulatorOptions(controls=True, **options))) as address:
            yield Caller(address, session)

    return started


async def test_vllm_says_usage_in_every_chunk_when_it_is_forced_to(emulate: Emulate) -> None:
    async with emulate("vllm", forces_usage=True) as caller:
        _, heard = await caller.stream(CHAT, chat(HELLO, stream=True))
    counts = [frame["usage"]["completion_tokens"] for frame in heard.frames]
    assert counts == [0, 1, 2, 3, 4, 4]
    assert heard.frames[-1]["choices"] == []


async def test_vllm_counts_usage_in_every_chunk_for_those_who_ask(emulate: Emulate) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    async with emulate("vllm") as caller:
        _, heard = await caller.stream(CHAT, chat(HELLO, stream=True, stream_options=options))
    assert all("usage" in frame for frame in heard.frames)


async def test_vllm_has_no_members_in_chunks_that_were_not_set(emulate: Emulate) -> None:
    async with emulate("vllm") as caller:
        _, heard = await caller.stream(CHAT, chat(HELLO, stream=True, max_tokens=2))
    first, second, last = heard.frames
    assert set(first["choices"][0]) == {"index", "delta", "logprobs", "finish_reason"}
    assert set(second["choices"][0]) == {"index", "delta", "logprobs", "finish_reason", "token_ids"}
    assert set(last["choices"][0]) == {"index", "delta", "logprobs", "finish_reason", "stop_reason", "token_ids"}
    assert "system_fingerprint" in last
    assert "system_fingerprint" not in second


async def test_vllm_gives_token_numbers_back_as_text(emulate: Emulate) -> None:
    async with emulate("vllm") as caller:
        _, tokens = await caller.post("/tokenize", {"prompt": HELLO, "return_token_strs": True})
        _, text = await caller.post("/detokenize", {"tokens": tokens["tokens"]})
    assert tokens["count"] == 3
    assert tokens["token_strs"] == ["Hello", " big", " world"]
    assert text["prompt"] == HELLO


async def test_vllm_echoes_prompts_and_numbers_choices_across_them(emulate: Emulate) -> None:
    body = {"prompt": ["a b", "c"], "n": 2, "echo": True, "max_tokens": 1, "logprobs": 1}
    async with emulate("vllm") as caller:
        _, answer = await caller.post(COMPLETION, body)
        _, heard = await caller.stream(COMPLETION, {**body, "stream": True})
    assert [choice["text"] for choice in answer["choices"]] == ["a ba", "a ba", "cc", "cc"]
    assert [choice["logprobs"]["text_offset"] for choice in answer["choices"]] == [[3], [3], [1], [1]]
    assert [frame["choices"][0]["index"] for frame in heard.frames] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 100_000}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
async def test_vllm_names_the_member_that_it_refuses(emulate: Emulate, members: dict[str, object], param: str) -> None:
    async with emulate("vllm") as caller:
        status, answer = await caller.post(CHAT, chat(HELLO, **members))
    assert status == 400
    assert answer["error"]["param"] == param
    assert answer["error"]["code"] == 400


async def test_vllm_guards_what_is_below_v1(emulate: Emulate) -> None:
    async with emulate("vllm", api_key="k") as caller:
        assert (await caller.get("/health"))[0] == 200
        assert (await caller.get("/v1/models"))[0] == 401
        assert (await caller.post("/tokenize", {"prompt": "a"}))[0] == 200


async def test_sglang_repeats_the_text_in_its_own_streams(emulate: Emulate) -> None:
    body = {"text": "a b c", "sampling_params": {"max_new_tokens": 8}, "stream": True}
    async with emulate("sglang") as caller:
        _, heard = await caller.stream("/generate", body)
        _, answer = await caller.post("/generate", {**body, "stream": False})
    assert [frame["text"] for frame in heard.frames] == ["a", "a b", "a b c", "a b c"]
    assert heard.frames[-1]["meta_info"]["finish_reason"] == {"type": "stop", "matched": 2}
    assert heard.is_done
    assert answer["text"] == "a b c"
    assert answer["meta_info"]["completion_tokens"] == 4


async def test_sglang_aborts_every_request_whose_id_begins_alike(emulate: Emulate) -> None:
    async with emulate("sglang") as caller:
        await caller.close_gate()
        body = {"text": "a", "stream": True}
        asked = [
            asyncio.create_task(caller.stream("/generate", {**body, "rid": name})) for name in ("x-1", "x-2", "y-1")
        ]
        await caller.until_state(running=3)
        await caller.post("/abort_request", {"rid": "x-"})
        await caller.until_state(running=1)
        await caller.open_gate()
        heard = [stream for _, stream in await asyncio.gather(*asked)]
    assert [bool(stream.errors) for stream in heard] == [True, True, False]


async def test_sglang_ends_an_aborted_chat_with_a_finish_reason_of_its_own(emulate: Emulate) -> None:
    async with emulate("sglang") as caller:
        await caller.plan("hang", after_tokens=2)
        asked = asyncio.create_task(caller.stream(CHAT, chat(LONG, stream=True)))
        await caller.until_state(generated_tokens=2)
        await caller.post("/abort_request", {"abort_all": True})
        _, heard = await asked
    assert heard.finish_reasons == ["abort"]
    assert heard.is_done


async def test_tensorrt_llm_hands_out_each_iteration_once(emulate: Emulate) -> None:
    async with emulate("tensorrt-llm", places=2) as caller:
        await caller.post(CHAT, chat(HELLO))
        first = json.loads((await caller.get("/metrics"))[1])
        second = json.loads((await caller.get("/metrics"))[1])
        await caller.close_gate()
        asked = [asyncio.create_task(caller.post(CHAT, chat(HELLO))) for _ in range(3)]
        await caller.until_state(running=2, waiting=1)
        await caller.open_gate()
        await asyncio.gather(*asked)
        third = json.loads((await caller.get("/metrics"))[1])
    assert [entry["iter"] for entry in first] == [0, 1, 2, 3]
    assert second == []
    assert third[0]["iter"] == 4
    assert {"maxNumBlocks", "freeNumBlocks", "usedNumBlocks"} <= set(first[0]["kvCacheStats"])


async def test_tensorrt_llm_has_prometheus_under_a_path_of_its_own(emulate: Emulate) -> None:
    async with emulate("tensorrt-llm") as caller:
        await caller.post(CHAT, chat(HELLO))
        status, page = await caller.get("/prometheus/metrics")
        assert (await caller.get("/health_generate"))[0] == 200
    assert status == 200
    assert "trtllm_time_to_first_token_seconds_count" in page


async def test_mlx_loads_its_model_when_the_first_request_comes(emulate: Emulate) -> None:
    async with emulate("mlx", load_s=0.05) as caller:
        assert (await caller.get("/health"))[0] == 200
        assert (await caller.state())["phase"] == "loading"
        assert (await caller.post(CHAT, chat(HELLO)))[0] == 200
        assert (await caller.state())["phase"] == "ready"


async def test_mlx_streams_open_with_a_comment_and_end_with_the_connection(emulate: Emulate) -> None:
    async with emulate("mlx") as caller:
        body = chat(HELLO, stream=True, stream_options={"include_usage": True})
        async with caller.streaming(CHAT, body) as answer:
            raw = await answer.read()
            assert answer.headers.get("Transfer-Encoding") is None
            assert answer.headers.get("Content-Length") is None
        _, heard = await caller.stream(CHAT, body)
    assert raw.startswith(b": keepalive 10/10\n\n")
    assert heard.frames[-1]["object"] == "chat.completion"
    assert [frame["choices"][0]["delta"]["role"] for frame in heard.frames[:-1]] == ["assistant"] * 4


async def test_llama_cpp_answers_nothing_while_it_loads(emulate: Emulate) -> None:
    async with emulate("llama-cpp", load_s=60.0) as caller:
        for path in ("/health", "/v1/models", "/metrics"):
            status, text = await caller.get(path)
            assert (status, json.loads(text)["error"]["message"]) == (503, "Loading model")


async def test_llama_cpp_counts_tokens_when_a_request_has_ended(emulate: Emulate) -> None:
    async with emulate("llama-cpp") as caller:
        await caller.plan("hang", after_tokens=2)
        async with caller.streaming(CHAT, chat(LONG, stream=True)):
            await caller.until_state(generated_tokens=2)
            assert await caller.metric("/metrics", "llamacpp:n_decode_total") >= 2
            assert await caller.metric("/metrics", "llamacpp:tokens_predicted_total") == 0


async def test_llama_cpp_takes_the_first_of_its_limits(emulate: Emulate) -> None:
    async with emulate("llama-cpp") as caller:
        _, answer = await caller.post(CHAT, chat(LONG, n_predict=2, max_completion_tokens=5, max_tokens=7))
    assert answer["usage"]["completion_tokens"] == 2


SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
PLAINEST = {"name": "", "age": 0}


@pytest.mark.parametrize("kind", ["vllm", "sglang", "tensorrt-llm", "llama-cpp"])
async def test_a_json_schema_forms_the_answer(emulate: Emulate, kind: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
    async with emulate(kind) as caller:
        _, answer = await caller.post(CHAT, chat(HELLO, response_format=form))
    assert json.loads(answer["choices"][0]["message"]["content"]) == PLAINEST


async def test_tgi_takes_its_own_form_of_schema(emulate: Emulate) -> None:
    grammar = {"type": "json", "value": SCHEMA}
    async with emulate("tgi") as caller:
        _, chatted = await caller.post(CHAT, chat(HELLO, response_format=grammar))
        _, answer = await caller.post("/generate", {"inputs": HELLO, "parameters": {"grammar": grammar}})
        status, _ = await caller.post(
            "/generate", {"inputs": HELLO, "parameters": {"grammar": {"type": "regex", "value": "a+"}}}
        )
    assert json.loads(chatted["choices"][0]["message"]["content"]) == PLAINEST
    assert json.loads(answer["generated_text"]) == PLAINEST
    assert status == 422


async def test_mlx_knows_no_schemas(emulate: Emulate) -> None:
    async with emulate("mlx") as caller:
        _, answer = await caller.post(CHAT, chat(HELLO, response_format={"type": "json_object"}))
    assert answer["choices"][0]["message"]["content"] == HELLO
