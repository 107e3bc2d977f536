"""What only real processes can show about supervision."""

import asyncio
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from enginehouse.engines import DEGRADED, FAILED, READY, FailureClass, RestartPolicy, ports
from enginehouse.engines.load import HttpPageReader
from enginehouse.engines.process import ManagedProcess, OutputLog
from enginehouse.v1 import admin_pb2
from tests.integration.engines.engines import QUICK, Supervised, frozen, is_alive, serving
from tests.support.waiting import DEADLINE_S, until

# A parent of an engine, which says the engine's pid and then waits to be killed.
PARENT = """
import asyncio, sys
from pathlib import Path
import aiohttp
from tests.integration.engines.engines import Supervised, serving

async def main():
    async with aiohttp.ClientSession() as session:
        async with serving(Supervised("echo", Path(sys.argv[1]), session)) as supervised:
            print("engine", supervised.pid, flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""


class CountingPages(HttpPageReader):
    """Counts the looks at the metrics."""

    reads = 0

    async def read(self, address: str, path: str) -> str:
        self.reads += 1
        return await super().read(address, path)


async def test_frozen_engine_leaves_rotation_and_comes_back(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(DEADLINE_S), serving(Supervised("echo", tmp_path, session)) as supervised:
        pid = supervised.pid
        with frozen(pid):
            await supervised.supervisor.wait_until(DEGRADED)
        await supervised.supervisor.wait_until(READY)
        assert supervised.path == ["starting", "loading", "ready", "degraded", "ready"]
        assert supervised.pid == pid


async def test_engine_that_stays_frozen_is_killed_and_started_anew(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    config = replace(QUICK, health=replace(QUICK.health, timeout_s=0.3, degraded_max_s=0.5))
    async with asyncio.timeout(DEADLINE_S):
        async with serving(Supervised("echo", tmp_path, session, config=config)) as supervised:
            pid = supervised.pid
            with frozen(pid):
                await until(lambda: "pending" in supervised.path, "the engine is given up")
                await supervised.supervisor.wait_until(READY)
            assert not is_alive(pid)
            ending = next(e for e in supervised.edges if e.states.endswith("-> pending")).transition.ending
            assert ending is not None
            assert ending.failure_class is FailureClass.HUNG


async def test_engine_held_at_its_gate_is_not_taken_for_a_hung_one(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    settings = admin_pb2.EngineSettings(arguments=["--test-controls"])
    pages = CountingPages()
    supervised = Supervised("echo", tmp_path, session, settings, pages=pages)
    async with asyncio.timeout(DEADLINE_S), serving(supervised):
        async with session.post(f"{supervised.url}/gate/close"):
            held = [asyncio.create_task(supervised.chat()) for _ in range(3)]
        async with session.get(f"{supervised.url}/gate?waiting=3") as response:
            assert await response.json() == {"closed": True, "waiting": 3}
        await until(lambda: supervised.supervisor.snapshot().load.waiting_requests == 3, "they show in the load")
        enough = pages.reads + 25  # two thirds are samples of the load, the others checks
        await until(lambda: pages.reads >= enough, "many checks were made")
        assert supervised.path[-1] == "ready"
        async with session.get(f"{supervised.url}/gate") as response:
            assert (await response.json())["waiting"] == 3
        async with session.post(f"{supervised.url}/gate/open"):
            assert [answer["usage"]["completion_tokens"] for answer in await asyncio.gather(*held)] == [3, 3, 3]


async def test_crash_loop_ends_in_failed_with_exit_code_and_class(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    config = replace(QUICK, restart=RestartPolicy(backoff_initial_s=0.01, backoff_max_s=0.02, crashes_max=3))
    settings = admin_pb2.EngineSettings(arguments=["--no-such-option"])
    supervised = Supervised("echo", tmp_path, session, settings, config=config)
    async with asyncio.timeout(DEADLINE_S):
        await supervised.supervisor.run()
    assert supervised.path == ["starting", "pending", "starting", "pending", "starting", "failed"]
    last = supervised.edges[-1]
    assert last.transition.ending is not None
    assert (last.transition.ending.exit_code, last.transition.ending.failure_class) == (2, FailureClass.EXIT)
    assert last.transition.log_reference == "echo-1.log"
    assert "unrecognized arguments: --no-such-option" in (tmp_path / "echo-1.log").read_text()
    assert (last.replica.state, last.replica.restarts) == (FAILED, 2)


async def test_engine_dies_with_the_process_that_supervises_it(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        word, _, pid = (await parent.stdout.readline()).decode().partition(" ")
    assert word == "engine"
    assert is_alive(int(pid))
    parent.kill()
    await parent.wait()
    await until(lambda: not is_alive(int(pid)), "the engine is dead")


async def test_many_supervisors_on_one_host_do_not_collide(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    replicas = [Supervised("echo", tmp_path, session, number=number) for number in range(1, 4)]
    async with asyncio.timeout(DEADLINE_S):
        tasks = [asyncio.create_task(replica.supervisor.run()) for replica in replicas]
        for replica in replicas:
            await replica.supervisor.wait_until(READY)
        assert len({replica.supervisor.snapshot().address for replica in replicas}) == len(replicas)
        assert len({replica.pid for replica in replicas}) == len(replicas)
        assert all(replica.path == ["starting", "loading", "ready"] for replica in replicas)
        await asyncio.gather(*(replica.supervisor.stop() for replica in replicas), *tasks)


async def test_address_stays_the_same_over_a_restart(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(DEADLINE_S), serving(Supervised("echo", tmp_path, session)) as supervised:
        address = supervised.supervisor.snapshot().address
        os.kill(supervised.pid, signal.SIGKILL)
        await until(lambda: supervised.path[-1] != "ready", "the death is seen")
        await supervised.supervisor.wait_until(READY)
        assert supervised.supervisor.snapshot().address == address


@pytest.mark.parametrize("answers", [False, True], ids=["bound", "listening"])
async def test_stranger_on_the_port_costs_one_restart_at_another_port(
    tmp_path: Path, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, *, answers: bool
) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        if answers:
            stranger.listen()  # connections to it are taken, and nothing is ever said
        port = stranger.getsockname()[1]
        offered, free = iter([port]), ports._free_tcp_port
        monkeypatch.setattr(ports, "_free_tcp_port", lambda host: next(offered, 0) or free(host))
        async with asyncio.timeout(DEADLINE_S), serving(Supervised("echo", tmp_path, session)) as supervised:
            assert [state for state in supervised.path if state != "loading"] == [
                "starting",
                "pending",
                "starting",
                "ready",
            ]
            assert not supervised.url.endswith(f":{port}")


async def test_flood_of_output_blocks_neither_the_engine_nor_us(tmp_path: Path) -> None:
    output = OutputLog(tmp_path / "flood.log", bytes_max=1024 * 1024)
    flood = "import sys\nfor _ in range(200000): sys.stdout.write('0123456789' * 5 + '\\n')\nprint('the end')"
    process = await ManagedProcess.start((sys.executable, "-c", flood), output=output)
    turns = 0
    ended = asyncio.create_task(process.wait())
    while not ended.done():
        await asyncio.sleep(0)
        turns += 1
    assert await process.stop(grace_s=0) == 0
    assert turns > 50
    assert output.lines(1) == ["the end"]
    assert (tmp_path / "flood.log").stat().st_size <= 1024 * 1024 + 8192
    output.close()


async def test_what_an_engine_leaves_behind_in_its_group_is_killed(tmp_path: Path) -> None:
    output = OutputLog(tmp_path / "family.log")
    family = "import subprocess, sys\nprint(subprocess.Popen(['sleep', '600']).pid, flush=True)\nsys.exit(3)"
    process = await ManagedProcess.start((sys.executable, "-c", family), output=output)
    assert await process.wait() == 3
    await until(lambda: output.lines(1), "the child says its child's pid")
    orphan = int(output.lines(1)[0])
    assert is_alive(orphan)
    await process.stop(grace_s=0)
    await until(lambda: not is_alive(orphan), "the orphan is dead")
    output.close()


async def test_descendant_that_left_the_group_and_holds_our_pipe_delays_nothing(tmp_path: Path) -> None:
    output = OutputLog(tmp_path / "family.log")
    family = (
        "import subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "print(child.pid, flush=True)\nsys.exit(3)"
    )
    process = await ManagedProcess.start((sys.executable, "-c", family), output=output)
    assert await process.wait() == 3
    assert await process.stop(grace_s=0) == 3
    os.kill(int(output.lines(1)[0]), signal.SIGKILL)
    output.close()


async def test_engine_does_not_see_our_settings(
    tmp_path: Path, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINEHOUSE_ADMIN_KEY", "not-for-engines")
    settings = admin_pb2.EngineSettings(environment={"MINE": "for the engine"})
    async with serving(Supervised("echo", tmp_path, session, settings)) as supervised:
        environment = Path(f"/proc/{supervised.pid}/environ").read_bytes()  # noqa: ASYNC240
        assert b"not-for-engines" not in environment
        assert b"MINE=for the engine" in environment


async def test_cancelled_supervision_kills_the_engine(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    supervised = Supervised("echo", tmp_path, session)
    task = asyncio.create_task(supervised.supervisor.run())
    async with asyncio.timeout(DEADLINE_S):
        await supervised.supervisor.wait_until(READY)
    pid = supervised.pid
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(pid)
