"""One engine without a mesh, by the Python API and by the command."""

import asyncio
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from enginehouse.contract import EngineError, RequestError
from enginehouse.engines import DEGRADED, READY, state_name
from enginehouse.engines.ports import PortChoice, ReservedPort
from enginehouse.services.single import Engine, served_name
from enginehouse.v1 import admin_pb2
from tests.integration.engines.engines import Supervised, chunks, frozen, serving
from tests.support.waiting import DEADLINE_S

COMMAND = (sys.executable, "-P", "-m", "enginehouse.cli", "engine", "run")


async def test_engine_serves_inside_its_block_and_is_gone_after(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    states: list[str] = []
    launched = Engine.launch(
        kind="echo", log_folder=tmp_path, on_change=lambda _, edge: states.append(state_name(edge.to_state))
    )
    async with asyncio.timeout(DEADLINE_S), launched as engine:
        assert engine.state == READY
        body = {"model": engine.model, "messages": [{"role": "user", "content": "hello"}]}
        async with session.post(f"{engine.base_url}/chat/completions", json=body) as response:
            assert (response.status, (await response.json())["model"]) == (200, "echo")
        url, log = engine.base_url, engine.log
    assert states == ["starting", "loading", "ready", "draining", "stopped"]
    assert log.read_text()
    with pytest.raises(aiohttp.ClientConnectionError):
        await session.get(f"{url}/models")


async def test_engine_listens_where_it_was_asked_to(tmp_path: Path) -> None:
    free = ReservedPort.reserve()
    free.release()
    async with asyncio.timeout(DEADLINE_S), Engine.launch(kind="echo", port=free.number, log_folder=tmp_path) as engine:
        assert engine.base_url == f"http://127.0.0.1:{free.number}/v1"
        with pytest.raises(EngineError, match=f"port {free.number} of 127.0.0.1 cannot be used"):
            async with Engine.launch(kind="echo", port=free.number, log_folder=tmp_path):
                pass


async def test_engine_that_cannot_start_says_why_and_where_its_output_is(tmp_path: Path) -> None:
    settings = admin_pb2.EngineSettings(program="no-such-program")
    with pytest.raises(EngineError, match=r"no such file; give the path .* what it wrote is in .*llama-server-"):
        async with Engine.launch(kind="llama-server", model="nowhere.gguf", settings=settings, log_folder=tmp_path):
            pass
    with pytest.raises(RequestError, match="engine echo has no quantization"):
        async with Engine.launch(kind="echo", settings=admin_pb2.EngineSettings(quantization="fp8")):
            pass


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("builtin:smollm2", "smollm2"),
        ("owner/Model-1B@main", "Model-1B"),
        ("folder/model.Q4.gguf", "model.Q4"),
        ("owner/name:file.gguf", "file"),
        ("", "vllm"),
    ],
)
def test_model_is_called_by_the_end_of_its_source(model: str, name: str) -> None:
    assert served_name(model, "vllm") == name


def test_chosen_port_is_the_first_and_the_others_are_free_ones() -> None:
    free = ReservedPort.reserve()
    free.release()
    choice = PortChoice(free.number)
    first, second = choice(), choice()
    assert first.number == free.number != second.number
    first.release()
    again = choice()
    assert again.number == free.number
    again.release()
    second.release()


async def test_command_prints_its_url_and_drains_on_ctrl_c(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "--kind", "echo", "--name", "mine", stdout=asyncio.subprocess.PIPE, cwd=tmp_path
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not lines or "Ctrl-C" not in lines[-1]:
                line = await process.stdout.readline()
                assert line, lines
                lines.append(line.decode().strip())
            url = next(line.split()[-1] for line in lines if line.startswith("OpenAI base URL"))
            async with session.get(f"{url}/models") as response:
                assert (await response.json())["data"][0]["id"] == "mine"
            process.send_signal(signal.SIGINT)
            rest = (await process.stdout.read()).decode()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert [line.split("  ")[-1].split(":")[0] for line in lines if " s  " in line] == ["starting", "loading", "ready"]
    assert rest.splitlines()[-1].endswith("stopped: drained")
    assert list((tmp_path / ".enginehouse" / "engines").glob("echo-*.log"))


async def test_frozen_llama_cpp_leaves_rotation_with_a_stream_in_flight_and_comes_back(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    settings = admin_pb2.EngineSettings(
        model_source="builtin:smollm2", context_tokens_max=512, output_tokens_max=64, parallel=2, threads=1
    )
    supervised = Supervised("llama-cpp", tmp_path, session, settings)
    async with asyncio.timeout(2 * DEADLINE_S), serving(supervised):
        pid = supervised.pid
        async with supervised.stream(ignore_eos=True, max_tokens=60) as response:
            with frozen(pid):
                await supervised.supervisor.wait_until(DEGRADED)
            finished = [chunk async for chunk in chunks(response)]
        await supervised.supervisor.wait_until(READY)
        assert finished[-1]["choices"][0]["finish_reason"] == "length"
        assert (supervised.pid, supervised.supervisor.snapshot().restarts) == (pid, 0)
        assert supervised.supervisor.snapshot().load.memory_bytes > 0
