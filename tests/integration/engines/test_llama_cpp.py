"""The llama.cpp engine's server with a real model: what our bounds, prices and drains rely on."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from enginehouse.engines.llama_cpp import LlamaCppEngine
from enginehouse.engines.metrics import parse_prometheus
from enginehouse.engines.models import SMOLLM2, ModelStore
from tests.integration.engines.engines import EngineProcess, chunks, engine_process
from tests.support.waiting import until_async

STORY = [{"role": "user", "content": "Tell a very long story"}]
BOUND = 12


@pytest.fixture(scope="module")
def model() -> Path:
    """The built-in model, fetched if it is not in the cache yet."""
    return asyncio.run(ModelStore().acquire(f"builtin:{SMOLLM2.name}"))


def start(model: Path, *arguments: str) -> AbstractContextManager[EngineProcess]:
    """The server with `model`."""
    return engine_process("llama_cpp", "--model", str(model), "--served-model", "smollm2", *arguments)


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[EngineProcess]:
    """One server for all tests: two slots of 512 tokens, replies of 12."""
    arguments = ("--context-tokens-max", "512", "--output-tokens-max", str(BOUND), "--parallel", "2")
    with start(model, *arguments) as process:
        yield process


class Llama:
    """A client of the server."""

    def __init__(self, process: EngineProcess, session: aiohttp.ClientSession) -> None:
        self.process = process
        self.session = session

    async def chat(self, **members: object) -> tuple[int, Any]:
        """Status and JSON of a unary chat."""
        body = {"model": "smollm2", "messages": STORY, **members}
        async with self.session.post(f"{self.process.url}/v1/chat/completions", json=body) as response:
            return response.status, await response.json()

    async def metric(self, name: str) -> float:
        """The value of llamacpp:`name`."""
        async with self.session.get(f"{self.process.url}/metrics") as response:
            return parse_prometheus(await response.text())[f"llamacpp:{name}"]

    async def is_idle(self) -> bool:
        """Nothing runs or waits."""
        return await self.metric("requests_processing") == 0 == await self.metric("requests_deferred")


@pytest.fixture
def llama(server: EngineProcess, session: aiohttp.ClientSession) -> Llama:
    """The server, for one test."""
    return Llama(server, session)


async def test_launch_bounds_only_requests_that_name_no_limit(llama: Llama) -> None:
    _, unbounded = await llama.chat(ignore_eos=True)
    assert unbounded["usage"]["completion_tokens"] == BOUND
    _, negative = await llama.chat(ignore_eos=True, max_tokens=-1)
    assert negative["usage"]["completion_tokens"] == BOUND
    _, larger = await llama.chat(ignore_eos=True, max_tokens=BOUND + 5)
    assert larger["usage"]["completion_tokens"] == BOUND + 5  # so routing must write the limit into every body


async def test_limit_members_win_in_the_order_that_the_descriptor_says(llama: Llama) -> None:
    members = list(LlamaCppEngine.traits.quirks.output_limit_members)
    while len(members) > 1:
        limits = {member: 3 + index for index, member in enumerate(members)}
        _, answer = await llama.chat(ignore_eos=True, **limits)
        assert answer["usage"]["completion_tokens"] == 3, members
        _, answer = await llama.chat(ignore_eos=True, **dict(reversed(limits.items())))
        assert answer["usage"]["completion_tokens"] == 3, members
        members.pop(0)


async def test_usage_counts_one_choice_alone_so_choices_are_not_offered(llama: Llama) -> None:
    _, answer = await llama.chat(ignore_eos=True, max_tokens=4, n=2)
    assert len(answer["choices"]) == 2
    assert answer["usage"]["completion_tokens"] == 4
    assert not LlamaCppEngine.traits.quirks.usage_covers_choices


async def test_answer_carries_the_served_name(llama: Llama) -> None:
    _, answer = await llama.chat(max_tokens=1, model="anything")
    assert answer["model"] == "smollm2"


async def test_requests_beyond_the_slots_wait_and_are_all_answered(llama: Llama) -> None:
    asked = [asyncio.create_task(llama.chat(ignore_eos=True, max_tokens=8)) for _ in range(12)]
    await until_async(lambda: waiting(llama), "some wait")
    answers = await asyncio.gather(*asked)
    assert [status for status, _ in answers] == [200] * 12


async def waiting(llama: Llama) -> bool:
    """Requests wait for a slot."""
    return await llama.metric("requests_deferred") > 0


async def test_cut_stream_frees_its_slot_and_said_what_it_had_generated(llama: Llama) -> None:
    body = {"messages": STORY, "stream": True, "ignore_eos": True, "max_tokens": 400, "timings_per_token": True}
    seen: list[dict[str, Any]] = []
    async with llama.session.post(f"{llama.process.url}/v1/chat/completions", json=body) as response:
        async for chunk in chunks(response):
            if chunk["choices"][0]["delta"].get("content"):
                seen.append(chunk)
            if len(seen) == 5:
                break
        response.close()
    assert [chunk["timings"]["predicted_n"] for chunk in seen] == [1, 2, 3, 4, 5]
    await until_async(llama.is_idle, "the slot is free")


async def test_progress_counter_moves_in_the_middle_of_a_generation(llama: Llama) -> None:
    mapping = LlamaCppEngine.traits.metrics
    assert mapping is not None
    (name,) = mapping.progress
    body = {"messages": STORY, "stream": True, "ignore_eos": True, "max_tokens": 400}
    async with llama.session.post(f"{llama.process.url}/v1/chat/completions", json=body) as response:
        before = await llama.metric(name.removeprefix("llamacpp:"))
        await until_async(lambda: moved(llama, before, name.removeprefix("llamacpp:")), "the counter moves")
        assert not await llama.is_idle()
        response.close()
    await until_async(llama.is_idle, "the slot is free")


async def moved(llama: Llama, before: float, name: str) -> bool:
    """The metric is above what it was."""
    return await llama.metric(name) > before


async def test_body_that_cannot_be_parsed_is_not_logged(llama: Llama) -> None:
    for broken in (b'{"messages":[{"content":"a very secret prompt \x01"}]}', b'{"prompt": "a very secret prompt'):
        async with llama.session.post(f"{llama.process.url}/v1/chat/completions", data=broken) as response:
            assert response.status == 400
    status, _ = await llama.chat(messages=[{"role": "user", "content": "a very secret prompt " * 300}])
    assert status == 400
    await llama.chat(max_tokens=1, messages=[{"role": "user", "content": "a very secret prompt"}])
    assert "secret" not in "".join(llama.process.output)


async def test_slots_and_properties_show_no_prompt(llama: Llama) -> None:
    await llama.chat(max_tokens=1, messages=[{"role": "user", "content": "a very secret prompt"}])
    for path in ("/slots", "/props"):
        async with llama.session.get(f"{llama.process.url}{path}") as response:
            assert "secret" not in await response.text()


async def test_sigterm_ends_it_in_the_middle_of_unary_and_streamed_requests(
    model: Path, session: aiohttp.ClientSession
) -> None:
    with start(model, "--parallel", "2", "--context-tokens-max", "2048") as process:  # which asserts exit code 0
        llama = Llama(process, session)
        asked = [
            asyncio.create_task(llama.chat(ignore_eos=True, max_tokens=1500, stream=flag)) for flag in (True, False)
        ]
        await until_async(lambda: moved(llama, 1, "requests_processing"), "both run")
    ends = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(end, aiohttp.ClientError) for end in ends] == [True, True], ends


def test_missing_model_is_said_and_ends_it(tmp_path: Path) -> None:
    command = (sys.executable, "-P", "-m", "enginehouse.engines.llama_cpp.server", "--port", "1")
    done = subprocess.run(
        [*command, "--model", str(tmp_path / "none.gguf"), "--served-model", "m"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "no model file" in done.stdout
