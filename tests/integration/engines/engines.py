"""Real engines under a real supervisor, and the smallest prober that speaks their dialect."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from enginehouse.contract import EngineError
from enginehouse.engines import (
    READY,
    EngineRegistry,
    EngineSpec,
    HealthPolicy,
    ReplicaSupervisor,
    RestartPolicy,
    SupervisionConfig,
    Transition,
    state_name,
)
from enginehouse.engines.load import PageReader
from enginehouse.v1 import admin_pb2, common_pb2, node_pb2
from tests.support.nats import free_port
from tests.support.waiting import DEADLINE_S, until

QUICK = SupervisionConfig(
    restart=RestartPolicy(backoff_initial_s=0.05, backoff_max_s=0.2),
    health=HealthPolicy(interval_s=0.2, timeout_s=1.0, failures_max=2, successes_min=2),
    ready_poll_s=0.05,
    load_interval_s=0.1,
    drain_poll_s=0.05,
    drain_quiet_s=0.1,
)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a probe found: tokens of the template, and of each further message or text."""

    template_tokens: int
    message_tokens: int


class HttpProber:
    """Asks for one token, or one embedding, in OpenAI's dialect."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def probe_ready(
        self, address: str, served_model: str, operations: Collection[common_pb2.Operation.ValueType]
    ) -> Measured:
        """Generates, with one message and with two."""
        one = await self._prompt_tokens(address, served_model, operations, 1)
        two = await self._prompt_tokens(address, served_model, operations, 2)
        return Measured(one - 1, two - one - 1)

    async def probe_live(
        self, address: str, served_model: str, operations: Collection[common_pb2.Operation.ValueType]
    ) -> None:
        """Generates."""
        await self._prompt_tokens(address, served_model, operations, 1)

    async def _prompt_tokens(self, address: str, model: str, operations: Collection[int], count: int) -> int:
        body: dict[str, Any] = {"model": model}
        if common_pb2.OPERATION_CHAT in operations:
            path = "chat/completions"
            body |= {"max_tokens": 1, "messages": [{"role": "user", "content": "a"}] * count}
        else:
            path = "embeddings"
            body["input"] = ["a"] * count
        try:
            async with self._session.post(f"http://{address}/v1/{path}", json=body) as response:
                if response.status != 200:
                    raise EngineError(f"POST {path} answered {response.status}")
                return int((await response.json())["usage"]["prompt_tokens"])
        except aiohttp.ClientError as error:
            raise EngineError(f"POST {path} failed: {type(error).__name__}") from error


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge, as `on_change` told it."""

    states: str
    transition: Transition
    replica: node_pb2.Replica


class Supervised:
    """A supervisor of one real engine, and what it told."""

    def __init__(
        self,
        engine: str,
        folder: Path,
        session: aiohttp.ClientSession,
        settings: admin_pb2.EngineSettings | None = None,
        *,
        number: int = 1,
        served_model: str = "",
        pages: PageReader | None = None,
        config: SupervisionConfig = QUICK,
    ) -> None:
        self.edges: list[Edge] = []
        self.session = session
        self.engine = engine
        settings = settings or admin_pb2.EngineSettings()
        self.served_model = served_model or f"served-{engine}"
        spec = EngineSpec(f"{engine}-{number}", engine, 1, engine, settings, self.served_model)
        self.supervisor = ReplicaSupervisor(
            spec,
            EngineRegistry().descriptor(engine),
            HttpProber(session),
            folder,
            on_change=self._note,
            config=config,
            pages=pages,
        )

    @property
    def path(self) -> list[str]:
        """The states, in order, from the first edge's end on."""
        return [edge.states.split(" -> ")[1] for edge in self.edges]

    @property
    def url(self) -> str:
        """Where the engine listens."""
        return f"http://{self.supervisor.snapshot().address}"

    @property
    def pid(self) -> int:
        """The engine's process: the one that listens on its port."""
        port = int(self.supervisor.snapshot().address.rpartition(":")[2])
        return pid_of_port(port)

    async def chat(self, **members: object) -> Any:  # noqa: ANN401 (JSON)
        """A unary chat answer."""
        body = {"model": self.served_model, "messages": [{"role": "user", "content": "Tell a story"}], **members}
        async with self.session.post(f"{self.url}/v1/chat/completions", json=body) as response:
            return await response.json()

    @asynccontextmanager
    async def stream(self, **members: object) -> AsyncIterator[aiohttp.ClientResponse]:
        """A streamed chat answer, its headers read."""
        body = {"model": self.served_model, "messages": [{"role": "user", "content": "Tell a story"}], **members}
        async with self.session.post(f"{self.url}/v1/chat/completions", json={**body, "stream": True}) as response:
            yield response

    def _note(self, replica: node_pb2.Replica, transition: Transition) -> None:
        states = f"{state_name(transition.from_state)} -> {state_name(transition.to_state)}"
        self.edges.append(Edge(states, transition, replica))


@asynccontextmanager
async def running(supervised: Supervised) -> AsyncIterator[asyncio.Task[None]]:
    """The supervisor runs inside, and is stopped at the end."""
    task = asyncio.create_task(supervised.supervisor.run())
    try:
        yield task
    finally:
        if not task.done():
            await supervised.supervisor.stop()
        await task


@asynccontextmanager
async def serving(supervised: Supervised) -> AsyncIterator[Supervised]:
    """The same, once the replica is ready."""
    async with running(supervised):
        async with asyncio.timeout(DEADLINE_S):
            await supervised.supervisor.wait_until(READY)
        yield supervised


def pid_of_port(port: int) -> int:
    """The process of ours that listens on `port`."""
    for process in psutil.Process().children(recursive=True):
        try:
            connections = process.net_connections("tcp")
        except psutil.Error:
            continue
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                return process.pid
    raise AssertionError(f"no child of ours listens on {port}")


def is_alive(pid: int) -> bool:
    """The process is there and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def group_of(pid: int) -> list[int]:
    """The processes of `pid`'s group that are alive."""
    members = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == pid and is_alive(process.pid):
                members.append(process.pid)
        except ProcessLookupError:
            continue
    return members


async def killed(pid: int) -> None:
    """SIGKILL, and the end of the process."""
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not is_alive(pid), f"process {pid} is gone")


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """An engine's server without a supervisor."""

    url: str
    process: "subprocess.Popen[str]"
    output: list[str]


@contextmanager
def engine_process(engine: str, *arguments: str) -> Iterator[EngineProcess]:
    """The server of `engine` on loopback, from when it listens; it has to end well on SIGTERM."""
    port = free_port()
    command = [sys.executable, "-P", "-m", f"enginehouse.engines.{engine}.server", "--port", str(port), *arguments]
    output: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            while not output or "listening" not in output[-1]:
                line = process.stdout.readline()
                assert line, f"the engine ended: {output}"
                output.append(line)
            reader = threading.Thread(target=lambda: output.extend(process.stdout or ()), daemon=True)
            reader.start()
            yield EngineProcess(f"http://127.0.0.1:{port}", process, output)
            process.terminate()
            assert process.wait(10) == 0
            reader.join(10)
        finally:
            process.kill()


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process stands still inside."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def chunks(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a stream, up to [DONE]; a stream that ends without is an error."""
    async for line in response.content:
        data = line.decode().strip().removeprefix("data: ")
        if data == "[DONE]":
            return
        if data and not data.startswith(":"):
            yield json.loads(data)
    raise AssertionError("the stream ended without [DONE]")
