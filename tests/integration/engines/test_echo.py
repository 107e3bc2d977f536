"""The echo engine's server, over HTTP."""

import asyncio
import base64
import math
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from enginehouse.engines.metrics import parse_prometheus
from tests.integration.engines.engines import chunks, engine_process
from tests.support.waiting import until_async

HELLO = [{"role": "user", "content": "Hello big world"}]
LONG = " ".join(f"word{number}" for number in range(200))


@dataclass(frozen=True, slots=True)
class Echo:
    """A running server."""

    url: str
    session: aiohttp.ClientSession

    async def post(self, path: str, body: object) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        async with self.session.post(f"{self.url}{path}", json=body) as response:
            return response.status, None if response.status == 204 else await response.json()

    async def chat(self, **members: object) -> tuple[int, Any]:
        """Status and JSON of a unary chat."""
        return await self.post("/v1/chat/completions", {"messages": HELLO, **members})

    async def stream(self, path: str = "/v1/chat/completions", **members: object) -> list[dict[str, Any]]:
        """All chunks of a stream."""
        async with self.open_stream(path, **members) as response:
            return [chunk async for chunk in chunks(response)]

    @asynccontextmanager
    async def open_stream(
        self, path: str = "/v1/chat/completions", **members: object
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A stream, its headers read."""
        body = {"messages": HELLO, "stream": True, **members}
        async with self.session.post(f"{self.url}{path}", json=body) as response:
            yield response

    async def metric(self, name: str) -> float:
        """The value of echo:`name`."""
        async with self.session.get(f"{self.url}/metrics") as response:
            return parse_prometheus(await response.text())[f"echo:{name}"]


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    """Instant, with two slots and little context."""
    with engine_process(
        "echo",
        *("--served-model", "echo", "--served-model", "alias"),
        *("--context-tokens-max", "300", "--output-tokens-max", "100", "--parallel", "2"),
        *("--waiting-max", "3", "--choices-max", "4", "--test-controls"),
    ) as process:
        yield process.url


@pytest.fixture(scope="module")
def slow_url() -> Iterator[str]:
    """So slow that a reply takes a minute."""
    arguments = ("--served-model", "echo", "--tokens-per-second", "20", "--output-tokens-max", "1200")
    with engine_process("echo", *arguments) as process:
        yield process.url


@pytest.fixture
def slow_echo(slow_url: str, session: aiohttp.ClientSession) -> Echo:
    """The slow server."""
    return Echo(slow_url, session)


@pytest.fixture
async def echo(server_url: str, session: aiohttp.ClientSession) -> AsyncIterator[Echo]:
    """The server, with the gate open and no fault planned."""
    running = Echo(server_url, session)
    yield running
    await running.post("/gate/open", {})
    async with session.delete(f"{server_url}/faults"):
        pass
    await until_async(lambda: idle(running), "the engine is idle again")


async def idle(echo: Echo) -> bool:
    """Nothing runs or waits."""
    return await echo.metric("requests_running") == 0 == await echo.metric("requests_waiting")


async def test_chat_says_back_what_the_user_said(echo: Echo) -> None:
    messages = [{"role": "system", "content": "Be kind."}, *HELLO, {"role": "assistant", "content": "Yes?"}]
    status, answer = await echo.chat(messages=messages)
    assert status == 200
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Hello big world"}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 2 + 3 + 1 + 3 * 4 + 3, "completion_tokens": 3, "total_tokens": 24}


async def test_content_parts_are_joined(echo: Echo) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    _, answer = await echo.chat(messages=[{"role": "user", "content": parts}])
    assert answer["choices"][0]["message"]["content"] == "one two"


async def test_usage_counts_every_choice_and_every_prompt(echo: Echo) -> None:
    _, answer = await echo.post("/v1/completions", {"prompt": ["a b", "c"], "n": 2})
    assert [choice["text"] for choice in answer["choices"]] == ["a b", "a b", "c", "c"]
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}


async def test_stream_is_the_unary_answer_in_pieces(echo: Echo) -> None:
    came = await echo.stream(n=2)
    for index in (0, 1):
        choices = [chunk["choices"][0] for chunk in came if chunk["choices"][0]["index"] == index]
        assert choices[0]["delta"] == {"role": "assistant", "content": ""}
        assert [choice["delta"].get("content") for choice in choices[1:-1]] == ["Hello", " big", " world"]
        assert [choice["finish_reason"] for choice in choices] == [None] * 4 + ["stop"]
    assert all("usage" not in chunk for chunk in came)
    assert len({chunk["id"] for chunk in came}) == 1


async def test_completion_stream_has_text_and_no_role(echo: Echo) -> None:
    came = await echo.stream("/v1/completions", prompt="a b")
    assert [chunk["choices"][0]["text"] for chunk in came] == ["a", " b", ""]
    assert came[-1]["choices"][0]["finish_reason"] == "stop"


async def test_include_usage_adds_one_last_chunk_without_choices(echo: Echo) -> None:
    came = await echo.stream(stream_options={"include_usage": True})
    assert all("usage" not in chunk for chunk in came[:-1])
    assert came[-1]["choices"] == []
    assert came[-1]["usage"] == {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}


async def test_continuous_usage_needs_include_usage_as_in_vllm(echo: Echo) -> None:
    came = await echo.stream(stream_options={"include_usage": True, "continuous_usage_stats": True})
    assert [chunk["usage"]["completion_tokens"] for chunk in came] == [0, 1, 2, 3, 3, 3]
    assert came[-1]["choices"] == []
    came = await echo.stream(stream_options={"continuous_usage_stats": True})
    assert all("usage" not in chunk for chunk in came)


async def test_usage_per_chunk_adds_no_chunk_that_was_not_asked_for(echo: Echo) -> None:
    came = await echo.stream(usage_per_chunk=True)
    assert [chunk["usage"]["completion_tokens"] for chunk in came] == [0, 1, 2, 3, 3]
    assert all(len(chunk["choices"]) == 1 for chunk in came)


@pytest.mark.parametrize("cut_after", [1, 2, 7])
async def test_cut_stream_ends_generation_and_its_last_usage_is_what_came(slow_echo: Echo, cut_after: int) -> None:
    before = await slow_echo.metric("generation_tokens_total")
    seen: list[dict[str, Any]] = []
    async with slow_echo.open_stream(ignore_eos=True, usage_per_chunk=True) as response:
        async for chunk in chunks(response):
            seen.append(chunk)
            if len(seen) == cut_after + 1:  # the first one names the role
                break
        response.close()
    await until_async(lambda: idle(slow_echo), "the slot is free")
    generated = await slow_echo.metric("generation_tokens_total") - before
    assert seen[-1]["usage"]["completion_tokens"] == cut_after
    assert cut_after <= generated < 1200
    assert await slow_echo.metric("generation_tokens_total") - before == generated


async def test_client_that_leaves_a_unary_request_frees_its_slot(slow_echo: Echo) -> None:
    before = await slow_echo.metric("generation_tokens_total")
    asked = asyncio.create_task(slow_echo.chat(ignore_eos=True))
    await until_async(lambda: running(slow_echo, 1), "it runs")
    asked.cancel()
    await until_async(lambda: idle(slow_echo), "the slot is free")
    assert await slow_echo.metric("generation_tokens_total") - before < 1200


async def running(echo: Echo, count: int) -> bool:
    """So many requests run."""
    return await echo.metric("requests_running") == count


@pytest.mark.parametrize("member", ["max_tokens", "max_completion_tokens"])
async def test_output_limit_is_obeyed_and_bounded_by_the_deployments(echo: Echo, member: str) -> None:
    _, answer = await echo.chat(**{member: 2})
    assert (answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"]) == ("length", 2)
    _, answer = await echo.chat(ignore_eos=True, **{member: 100_000})
    assert (answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"]) == ("length", 100)
    _, answer = await echo.chat(ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 100


async def test_context_bounds_prompt_and_output_together(echo: Echo) -> None:
    status, answer = await echo.post("/v1/completions", {"prompt": LONG + " " + LONG})
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    _, answer = await echo.post("/v1/completions", {"prompt": " ".join(["w"] * 280), "ignore_eos": True})
    assert answer["usage"]["total_tokens"] == 300


async def test_stop_sequence_is_not_shown(echo: Echo) -> None:
    came = await echo.stream(stop=["ig"], usage_per_chunk=True)
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in came) == "Hello b"
    assert came[-1]["usage"]["completion_tokens"] == 2
    assert came[-1]["choices"][0]["finish_reason"] == "stop"


async def test_same_request_gets_the_same_answer(echo: Echo) -> None:
    answers = [(await echo.chat(seed=seed, temperature=1.5))[1]["choices"] for seed in (1, 2)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"n": 5}, "n"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": []}, "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]},
            "messages",
        ),
    ],
)
async def test_what_cannot_be_done_is_refused_by_naming_the_member(
    echo: Echo, members: dict[str, object], param: str
) -> None:
    status, answer = await echo.chat(**members)
    assert status == 400
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["param"].startswith(param)
    assert answer["error"]["type"] == "invalid_request_error"


async def test_members_that_ask_for_nothing_are_taken(echo: Echo) -> None:
    status, _ = await echo.chat(tools=[], logprobs=False, tool_choice="none", frequency_penalty=0, user="someone")
    assert status == 200


async def test_malformed_body_is_refused_without_quoting_it(echo: Echo) -> None:
    async with echo.session.post(f"{echo.url}/v1/chat/completions", data=b'{"secret') as response:
        answer = await response.text()
    assert response.status == 400
    assert "secret" not in answer


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/v1/chat/completions", 405), ("POST", "/health", 405)],
)
async def test_every_error_has_openais_body(echo: Echo, method: str, path: str, status: int) -> None:
    async with echo.session.request(method, f"{echo.url}{path}") as response:
        assert response.status == status
        assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_model_is_one_of_the_served_names(echo: Echo) -> None:
    async with echo.session.get(f"{echo.url}/v1/models") as response:
        assert [model["id"] for model in (await response.json())["data"]] == ["echo", "alias"]
    assert (await echo.chat(model="alias"))[1]["model"] == "alias"
    status, answer = await echo.chat(model="other")
    assert (status, answer["error"]["code"]) == (404, "model_not_found")


async def test_embeddings_are_unit_vectors_in_either_encoding(echo: Echo) -> None:
    body = {"input": ["a b", "c"], "dimensions": 12}
    _, answer = await echo.post("/v1/embeddings", body)
    vectors = [item["embedding"] for item in answer["data"]]
    assert [len(vector) for vector in vectors] == [12, 12]
    assert math.hypot(*vectors[0]) == pytest.approx(1.0)
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    _, encoded = await echo.post("/v1/embeddings", {**body, "encoding_format": "base64"})
    decoded = struct.unpack("<12f", base64.b64decode(encoded["data"][1]["embedding"]))
    assert decoded == pytest.approx(vectors[1], rel=1e-6)


async def test_rerank_puts_the_most_relevant_first(echo: Echo) -> None:
    body = {"query": "red apple", "documents": ["blue sky", {"text": "red apple"}, "red car"], "top_n": 2}
    _, answer = await echo.post("/v1/rerank", body)
    assert [(result["index"], result["relevance_score"]) for result in answer["results"]] == [
        (1, 1.0),
        (2, pytest.approx(1 / 3)),
    ]


async def test_tokenize_counts_what_usage_counts(echo: Echo) -> None:
    _, chat = await echo.chat(max_tokens=1)
    _, counted = await echo.post("/tokenize", {"messages": HELLO})
    assert counted["count"] == chat["usage"]["prompt_tokens"]
    _, counted = await echo.post("/tokenize", {"prompt": "a b b"})
    assert counted["count"] == 3
    assert counted["tokens"][1] == counted["tokens"][2] != counted["tokens"][0]


async def test_more_requests_than_slots_wait_and_more_than_may_wait_are_refused(echo: Echo) -> None:
    await echo.post("/faults", {"kind": "hang", "requests": 2})
    hanging = [asyncio.create_task(echo.chat()) for _ in range(2)]
    await until_async(lambda: queued(echo, 2, 0), "two run")
    waiting = [asyncio.create_task(echo.chat()) for _ in range(3)]
    await until_async(lambda: queued(echo, 2, 3), "three wait")
    status, answer = await echo.chat()
    assert (status, answer["error"]["code"]) == (503, "overloaded")
    for task in hanging:
        task.cancel()
    assert [status for status, _ in await asyncio.gather(*waiting)] == [200] * 3


async def queued(echo: Echo, running: int, waiting: int) -> bool:
    """So many run, and so many wait."""
    return (await echo.metric("requests_running"), await echo.metric("requests_waiting")) == (running, waiting)


async def test_closed_gate_holds_every_request_before_its_first_token(echo: Echo) -> None:
    before = await echo.metric("generation_tokens_total")
    assert (await echo.post("/gate/close", {}))[1] == {"closed": True, "waiting": 0}
    held = [asyncio.create_task(echo.stream()), asyncio.create_task(echo.chat())]
    async with echo.session.get(f"{echo.url}/gate?waiting=2") as response:
        assert await response.json() == {"closed": True, "waiting": 2}
    assert await echo.metric("generation_tokens_total") == before
    assert await echo.metric("requests_waiting") == 2
    await echo.post("/gate/open", {})
    await asyncio.gather(*held)
    assert await echo.metric("generation_tokens_total") == before + 6


async def test_client_that_leaves_the_gate_is_not_counted_there(echo: Echo) -> None:
    await echo.post("/gate/close", {})
    held = asyncio.create_task(echo.chat())
    async with echo.session.get(f"{echo.url}/gate?waiting=1"):
        held.cancel()
    await until_async(lambda: idle(echo), "nobody waits")


async def test_error_frame_comes_in_the_middle_of_a_stream_under_status_200(echo: Echo) -> None:
    await echo.post("/faults", {"kind": "error_frame", "after_tokens": 2})
    async with echo.open_stream() as response:
        assert response.status == 200
        came = [chunk async for chunk in chunks(response)]
    assert came[-1]["error"]["code"] == "engine_fault"
    assert [chunk["choices"][0]["finish_reason"] for chunk in came[:-1]] == [None] * 3
    assert (await echo.chat())[0] == 200


async def test_error_of_a_unary_request_is_a_500(echo: Echo) -> None:
    await echo.post("/faults", {"kind": "error_frame"})
    status, answer = await echo.chat()
    assert (status, answer["error"]["type"]) == (500, "server_error")


async def test_unavailable_hits_as_many_requests_as_planned(echo: Echo) -> None:
    await echo.post("/faults", {"kind": "unavailable", "requests": 2})
    assert [(await echo.chat())[0] for _ in range(3)] == [503, 503, 200]


async def test_faults_hit_embeddings_too(echo: Echo) -> None:
    await echo.post("/faults", {"kind": "unavailable"})
    await echo.post("/faults", {"kind": "error_frame", "after_tokens": 5})
    assert [(await echo.post("/v1/embeddings", {"input": "a"}))[0] for _ in range(3)] == [503, 500, 200]


async def test_refused_request_gets_no_answer(echo: Echo) -> None:
    await echo.post("/faults", {"kind": "refuse"})
    with pytest.raises(aiohttp.ClientConnectionError):
        await echo.chat()
    assert (await echo.chat())[0] == 200


async def test_hanging_stream_sends_nothing_more_until_the_client_leaves(echo: Echo) -> None:
    await echo.post("/faults", {"kind": "hang", "after_tokens": 1})
    async with echo.open_stream() as response:
        arriving = chunks(response)
        assert (await anext(arriving))["choices"][0]["delta"]["role"] == "assistant"
        assert (await anext(arriving))["choices"][0]["delta"]["content"] == "Hello"
        steps = await echo.metric("steps_total")
        rest = asyncio.ensure_future(anext(arriving))
        assert await running(echo, 1)
        assert await echo.metric("steps_total") == steps
        assert not rest.done()
        rest.cancel()
        response.close()
    await until_async(lambda: idle(echo), "the slot is free")


@pytest.mark.parametrize("body", [{"kind": "explode"}, {"kind": "die", "after_tokens": -1}, {"kind": "die", "x": 1}])
async def test_fault_that_is_none_is_refused(echo: Echo, body: dict[str, object]) -> None:
    assert (await echo.post("/faults", body))[0] == 400


async def test_planned_faults_are_bounded_and_can_be_cleared(echo: Echo) -> None:
    statuses = [(await echo.post("/faults", {"kind": "unavailable"}))[0] for _ in range(17)]
    assert statuses == [204] * 16 + [409]
    async with echo.session.delete(f"{echo.url}/faults") as response:
        assert response.status == 204
    assert (await echo.chat())[0] == 200


async def test_engine_without_test_controls_can_be_neither_held_nor_broken(slow_echo: Echo) -> None:
    assert [(await slow_echo.post(path, {}))[0] for path in ("/gate/close", "/faults")] == [404, 404]
