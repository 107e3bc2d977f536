"""A container's life, with a runtime that runs the engine on the host: everything but the container is real."""

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from enginehouse.engines import (
    CONTAINERS_FILE,
    FAILED,
    READY,
    Assignment,
    EngineDescriptor,
    EngineOption,
    EngineSpec,
    Launch,
    ReplicaSupervisor,
    RestartPolicy,
)
from enginehouse.engines.echo.descriptor import EchoEngine
from enginehouse.engines.launch import end_orphan_containers
from enginehouse.v1 import admin_pb2
from tests.integration.engines.engines import QUICK, HttpProber, is_alive
from tests.support.waiting import DEADLINE_S, until

# A stand-in for docker. `run` notes its words and environment, then becomes the program inside; `rm` kills that.
RUNTIME = f"""#!{sys.executable}
import json, os, signal, sys
here = os.path.dirname(os.path.abspath(__file__))
words = sys.argv[1:]
with open(os.path.join(here, "calls"), "a") as calls:
    calls.write(json.dumps({{"words": words, "flavor": os.environ.get("FLAVOR", "")}}) + "\\n")
if words[0] == "rm":
    try:
        os.kill(int(open(os.path.join(here, words[-1])).read()), signal.SIGKILL)
    except OSError:
        sys.exit(1)
    sys.exit(0)
with open(os.path.join(here, words[words.index("--name") + 1]), "w") as pid:
    pid.write(str(os.getpid()))
begin = words.index("--entrypoint")
os.execvp(words[begin + 1], [words[begin + 1], *words[begin + 3 :]])
"""


class BoxedEcho(EngineDescriptor):
    """The echo engine, as an image would have it."""

    kind = "boxed"
    traits = replace(EchoEngine.traits, options=frozenset({EngineOption.CONTAINER}))

    def command(self, spec: EngineSpec, assignment: Assignment) -> Launch:
        command = EchoEngine().command(spec, assignment).command
        return Launch(command, {"FLAVOR": "mild"}, {assignment.folder / "notes" / "a.txt": "written"})


class Runtime:
    """The stand-in, and what it was told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        program = folder / "docker"
        program.write_text(RUNTIME)
        program.chmod(0o755)

    def calls(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """The stand-in, first on PATH."""
    found = Runtime(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{found.folder}{os.pathsep}{os.environ['PATH']}")
    return found


def supervisor(folder: Path, session: aiohttp.ClientSession, runtime: str = "docker") -> ReplicaSupervisor:
    container = admin_pb2.Container(image="echo:1", runtime=runtime)
    spec = EngineSpec("boxed-1", "boxed", 1, "boxed", admin_pb2.EngineSettings(container=container), "echo")
    config = replace(QUICK, restart=RestartPolicy(backoff_initial_s=0.01, crashes_max=1))
    descriptor = BoxedEcho()
    return ReplicaSupervisor(spec, descriptor, HttpProber(session), folder, config=config)


async def test_container_runs_is_published_on_loopback_and_is_removed_in_the_end(
    runtime: Runtime, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    replica = supervisor(tmp_path / "logs", session)
    async with asyncio.timeout(DEADLINE_S):
        task = asyncio.create_task(replica.run())
        await replica.wait_until(READY)
        host, port = replica.snapshot().address.split(":")
        await replica.drain(0.0)
        await task
    first, last = runtime.calls()[0], runtime.calls()[-1]
    words = first["words"]
    assert isinstance(words, list)
    assert words[words.index("--publish") + 1] == f"{host}:{port}:{port}/tcp"
    assert words[words.index("--host") + 1] == "0.0.0.0"
    assert "FLAVOR" in words
    assert first["flavor"] == "mild"
    name = words[words.index("--name") + 1]
    assert last["words"] == ["rm", "--force", name]
    assert not is_alive(int((runtime.folder / name).read_text()))
    mounted = next(word for word in words if "target=/run/enginehouse" in word)
    assert not await asyncio.to_thread(os.path.lexists, mounted.split("source=")[1].split(",")[0])


async def test_container_of_a_dead_node_is_removed_by_the_name_that_it_kept(
    runtime: Runtime, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    replica = supervisor(tmp_path / "logs", session)
    async with asyncio.timeout(DEADLINE_S):
        task = asyncio.create_task(replica.run())
        await replica.wait_until(READY)
        kept = tmp_path / "logs" / CONTAINERS_FILE
        (name,) = [line.split()[1] for line in kept.read_text().splitlines()]
        pid = int((runtime.folder / name).read_text())
        assert await asyncio.to_thread(end_orphan_containers, kept) == [name]
        await until(lambda: not is_alive(pid), "the container is gone")
        assert not kept.exists()
        assert await asyncio.to_thread(end_orphan_containers, kept) == []
        await replica.wait_until(FAILED)
        await task


async def test_node_without_the_runtime_says_so(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    replica = supervisor(tmp_path / "logs", session, "podman")
    async with asyncio.timeout(DEADLINE_S):
        await replica.run()
    assert "no podman on PATH; install one on this node" in replica.snapshot().reason
