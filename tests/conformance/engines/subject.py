"""An engine under test: what a subclass of the suite says of it, and what it is like while it runs."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import aiohttp
import psutil

from enginehouse.adapters.collect import CollectedAnswer, collect
from enginehouse.adapters.engine import EngineClient
from enginehouse.adapters.openai import open_session
from enginehouse.engines import (
    EngineRegistry,
    EngineSpec,
    HealthPolicy,
    MetricsMapping,
    RestartPolicy,
    SupervisionConfig,
    Transition,
)
from enginehouse.services.node.engine_clients import engine_client
from enginehouse.services.single import Engine
from enginehouse.v1 import admin_pb2, common_pb2, inference_pb2, node_pb2
from tests.conformance.engines.columns import Column
from tests.support.waiting import until

Result = TypeVar("Result")
OUTPUT_TOKENS = 256
SHORT = "Say hello to the whole big world, please."
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
LONG = "Count on for ever: " + " ".join(WORDS[number % len(WORDS)] for number in range(100))
TOO_LONG = " ".join(WORDS[number % len(WORDS)] for number in range(1500))
_STEADY = SupervisionConfig(
    restart=RestartPolicy(backoff_initial_s=0.05, backoff_max_s=0.2, crashes_max=5),
    health=HealthPolicy(interval_s=5.0, timeout_s=120.0),  # 64 at once keep a slow engine from a probe
    ready_poll_s=0.05,
    load_interval_s=0.1,
    drain_poll_s=0.05,
    drain_quiet_s=0.2,
)
CRASHING = SupervisionConfig(
    restart=RestartPolicy(backoff_initial_s=0.05, backoff_max_s=0.1, crashes_max=2), ready_poll_s=0.05
)
"""Gives up after the second end."""


class RefusedBy(Enum):
    """Who refuses what an engine cannot do."""

    ADAPTER = "adapter"
    """Its client, before anything is sent, naming the field and the engine."""
    ROUTER = "router"
    """The router's filter of features: its client could ask, but something of the answer would not hold."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an engine does not offer something, in words for the page."""

    reason: str
    by: RefusedBy = RefusedBy.ADAPTER


class Subject:
    """What the suite has to know of one engine; each subclass of the suite is one.

    Attributes:
        title: its row on the page; unique.
        kind: of engine.
        api: what it is asked in.
        is_real: the engine itself runs, not its emulator.
        refused: what it does not offer, and why. Everything that it lacks has to be here.
        not_shown: what it offers, and why it cannot be shown here. The suite makes sure that it really cannot.
        remarks: on what it does.
        parallel: requests side by side.
        start_s: how long a start may take, and anything else.
        tokens: of a short answer.
        context_tokens: of prompt and answer; `TOO_LONG` does not fit.
        unknown_argument: for its command line; its program ends at it.
        other_names: what messages call it, besides its kind.
    """

    title: ClassVar[str]
    kind: ClassVar[str]
    api: ClassVar[admin_pb2.EngineApi.ValueType] = admin_pb2.ENGINE_API_UNSPECIFIED
    is_real: ClassVar[bool] = True
    refused: ClassVar[Mapping[Column, Refusal]] = {}
    not_shown: ClassVar[Mapping[Column, str]] = {}
    remarks: ClassVar[Mapping[Column, str]] = {}
    parallel: ClassVar[int] = 8
    start_s: ClassVar[float] = 60.0
    tokens: ClassVar[int] = 8
    context_tokens: ClassVar[int] = 512
    unknown_argument: ClassVar[str] = "--no-such-argument"
    other_names: ClassVar[tuple[str, ...]] = ()

    def model(self, folder: Path) -> str:
        """The model source."""
        return ""

    def settings(self, folder: Path) -> admin_pb2.EngineSettings:
        """Everything else that the engine is started with. `folder` is for files."""
        return admin_pb2.EngineSettings(
            context_tokens_max=self.context_tokens,
            output_tokens_max=OUTPUT_TOKENS,
            parallel=self.parallel,
            api=self.api,
        )

    async def version(self, running: "Running") -> str:
        """Of the engine."""
        raise NotImplementedError

    async def whole(self, running: "Running", text: str, tokens: int) -> "Whole":
        """A whole answer in the engine's own API; here OpenAI's."""
        body = {
            "model": running.engine.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": tokens,
            "temperature": 0,
            "stream": False,
        }
        answer = await running.post("/v1/chat/completions", body)
        usage = answer["usage"]
        return Whole(answer["choices"][0]["message"]["content"], usage["prompt_tokens"], usage["completion_tokens"])

    async def is_refused(self, running: "Running") -> bool:
        """Sends something that the engine has to refuse; whether it was, as the caller's error."""
        status, _ = await running.answer("/v1/chat/completions", {"model": running.engine.model, "messages": 5})
        return 400 <= status < 500


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole answer, and what the engine counted."""

    text: str
    input_tokens: int
    output_tokens: int


class InFlight:
    """Counts who speaks to an engine, as nodes do: not every engine tells, and none tells at once."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """One more, inside."""
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


@dataclass(slots=True)
class Running:
    """An engine while it runs.

    Attributes:
        subject: what is known of it.
        engine: supervised.
        edges: that its states took.
        session: for HTTP to it.
        folder: takes what it writes.
        in_flight: who speaks to it.
        version: of the engine.
    """

    subject: Subject
    engine: Engine
    session: aiohttp.ClientSession
    folder: Path
    edges: list[Transition]
    in_flight: InFlight
    version: str = ""

    @property
    def replica(self) -> node_pb2.Replica:
        """All that is known of it now."""
        return self.engine.snapshot()

    @property
    def load(self) -> node_pb2.ReplicaLoad:
        """What it says that it is doing."""
        return self.engine.snapshot().load

    @property
    def mapping(self) -> MetricsMapping | None:
        """What its load is read from."""
        subject = self.subject
        spec = EngineSpec("a", "a", 1, subject.kind, subject.settings(self.folder), "a")
        return EngineRegistry().descriptor(subject.kind).metrics(spec)

    @property
    def has_metrics(self) -> bool:
        """It says what it is doing."""
        return self.load.HasField("observed_at")

    @property
    def pid(self) -> int:
        """The process that listens at its address."""
        port = int(self.replica.address.rpartition(":")[2])
        for process in psutil.Process().children(recursive=True):
            try:
                connections = process.net_connections("tcp")
            except psutil.Error:
                continue
            if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections):
                return process.pid
        raise AssertionError(f"no child of ours listens on {port}")

    def offers(self, feature: common_pb2.Feature.ValueType) -> bool:
        """It declares that feature."""
        return feature in self.replica.capabilities.features

    def does(self, operation: common_pb2.Operation.ValueType) -> bool:
        """It declares that operation."""
        return operation in self.replica.capabilities.operations

    @asynccontextmanager
    async def client(self) -> AsyncIterator[EngineClient]:
        """Speaks to it, until the block ends."""
        made = engine_client(self.subject.kind, self.subject.api, self.replica.address, self.session)
        async with aclosing(made):
            with self.in_flight.one():
                yield made

    async def ask(self, request: inference_pb2.GenerateRequest) -> CollectedAnswer:
        """The whole answer to a request."""
        return collect(await self.steps(request))

    async def steps(self, request: inference_pb2.GenerateRequest) -> list[inference_pb2.GenerateResponse]:
        """The steps of the answer, to the end."""
        async with self.stream(request) as steps:
            return [step async for step in steps]

    @asynccontextmanager
    async def stream(
        self, request: inference_pb2.GenerateRequest
    ) -> AsyncIterator[AsyncIterator[inference_pb2.GenerateResponse]]:
        """The steps as they come; leaving the block is leaving the engine."""
        async with self.client() as client:
            generation = client.generate(
                request,
                served_model=self.engine.model,
                output_tokens_max=OUTPUT_TOKENS,
                generation_id=f"conformance-{os.urandom(8).hex()}",
            )
            async with generation:
                yield generation

    async def answer(self, path: str, body: object) -> tuple[int, bytes]:
        """Posts a body as it is: status, and what came."""
        async with self.session.post(f"http://{self.replica.address}{path}", json=body) as response:
            return response.status, await response.read()

    async def get(self, path: str) -> dict[str, Any]:
        """A page that is a JSON object."""
        async with self.session.get(f"http://{self.replica.address}{path}") as response:
            assert response.status == 200
            return _object(await response.read())

    async def post(self, path: str, body: object) -> dict[str, Any]:
        """Posts, and expects JSON under status 200."""
        status, answer = await self.answer(path, body)
        assert status == 200, answer
        return _object(answer)

    async def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the engine; returns once its process is no more."""
        pid = self.pid
        os.kill(pid, number)
        await until(lambda: _is_gone(pid), f"the engine ends on {number.name}", self.subject.start_s)

    async def until_edge(self, matches: Callable[[Transition], bool], what: str, since: int) -> Transition:
        """The first edge that matches, once there is one; those before the number `since` do not count."""
        await until(lambda: any(map(matches, self.edges[since:])), what, self.subject.start_s)
        return next(filter(matches, self.edges[since:]))


def _object(text: bytes) -> dict[str, Any]:
    parsed = json.loads(text)
    assert isinstance(parsed, dict)
    return parsed


def _is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@asynccontextmanager
async def started(
    subject: Subject,
    folder: Path,
    *,
    config: SupervisionConfig = _STEADY,
    arguments: Sequence[str] = (),
    edges: list[Transition] | None = None,
) -> AsyncIterator[Running]:
    """The engine, supervised and ready; drained and ended after the block.

    Args:
        subject: which one.
        folder: for what it writes.
        config: how it is supervised.
        arguments: for its command line, besides its own.
        edges: takes the edges of its states, also if it does not start. None: a list of its own.
    """
    edges, in_flight = [] if edges is None else edges, InFlight()
    settings = subject.settings(folder)
    settings.arguments.extend(arguments)
    launch = Engine.launch(
        kind=subject.kind,
        model=subject.model(folder),
        settings=settings,
        log_folder=folder,
        grace_s=subject.start_s,
        on_change=lambda _, edge: edges.append(edge),
        idle=lambda: not in_flight.count,
        config=config,
    )
    session = open_session()
    try:
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(subject.start_s):
                engine = await stack.enter_async_context(launch)
            yield Running(subject, engine, session, folder, edges, in_flight)
    finally:
        await session.close()


def chat(model: str, text: str, tokens: int, **sampling: object) -> inference_pb2.GenerateRequest:
    """A conversation of one message, at temperature 0."""
    wanted = inference_pb2.Sampling(max_output_tokens=tokens, temperature=0)
    for name, value in sampling.items():
        if isinstance(value, list):
            getattr(wanted, name).extend(value)
        else:
            setattr(wanted, name, value)
    message = inference_pb2.Message(role=inference_pb2.ROLE_USER, parts=[inference_pb2.Part(text=text)])
    return inference_pb2.GenerateRequest(
        model=model, conversation=inference_pb2.Conversation(messages=[message]), sampling=wanted
    )


async def gathered(work: "Sequence[asyncio.Task[Result]]") -> list[Result]:
    """The results of all; if one fails the others are cancelled first."""
    try:
        return await asyncio.gather(*work)
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
