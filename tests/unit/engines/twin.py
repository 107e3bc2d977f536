"""An engine in memory, for everything about supervision that is a matter of time."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from enginehouse.contract import EngineError
from enginehouse.engines import (
    READY,
    Bounds,
    DrainSignal,
    Ending,
    EngineDescriptor,
    EngineSpec,
    EngineTraits,
    FailureClass,
    MetricsMapping,
    ReplicaSupervisor,
    StartTimeouts,
    SupervisionConfig,
    Transition,
    state_name,
)
from enginehouse.engines.descriptor import Assignment, Launch
from enginehouse.engines.models import OnProgress, ignore_progress
from enginehouse.engines.process import OutputLog
from enginehouse.engines.sleep import ControlCall, SleepLevel, SleepMode
from enginehouse.v1 import admin_pb2, common_pb2, node_pb2
from tests.unit.engines.virtual import VirtualClock


class TwinDescriptor(EngineDescriptor):
    """The kind of the engine in memory."""

    kind = "twin"
    traits = EngineTraits(
        operations=(common_pb2.OPERATION_CHAT,),
        features=(common_pb2.FEATURE_STREAM,),
        dialects=(common_pb2.DIALECT_OPENAI,),
        defaults=Bounds(context_tokens_max=1000, output_tokens_max=100, parallel=1, threads=1),
        metrics=MetricsMapping(
            running="running",
            waiting="waiting",
            progress=("steps",),
            prompt_tokens_total="prompt",
            generated_tokens_total="generated",
        ),
        drain=DrainSignal(grace_s=5.0),
        start=StartTimeouts(starting_s=60.0, loading_s=600.0, attempt_s=30.0),
    )

    def model_source(self, spec: EngineSpec) -> str | None:
        return spec.settings.model_source or None

    def sleep_mode(self, spec: EngineSpec) -> SleepMode:
        return SleepMode({1: SleepLevel("its memory", (ControlCall("/sleep"),), (ControlCall("/wake"),))})

    def command(self, spec: EngineSpec, assignment: Assignment) -> Launch:
        raise NotImplementedError("the engine in memory has no command line")


class SilentDescriptor(TwinDescriptor):
    """The same, without metrics."""

    traits = EngineTraits(
        operations=TwinDescriptor.traits.operations,
        features=TwinDescriptor.traits.features,
        dialects=TwinDescriptor.traits.dialects,
        defaults=TwinDescriptor.traits.defaults,
    )


@dataclass(frozen=True, slots=True)
class TwinReadiness:
    template_tokens: int = 7
    message_tokens: int = 4


class TwinEngine:
    """One run. Tests turn its knobs."""

    def __init__(self, *, listens_after_s: float, loads_in_s: float, number: int) -> None:
        self.address = f"127.0.0.1:{number}"
        self.started_s = asyncio.get_running_loop().time()
        self.listens_after_s = listens_after_s
        self.ready_s = self.started_s + listens_after_s + loads_in_s
        self.is_frozen = False
        self.is_stuck = False
        self.is_asleep = False
        self.running = 0
        self.waiting = 0
        self.steps = 0
        self.probes = 0
        self.signals: list[tuple[float, signal.Signals]] = []
        self._ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def die(self, exit_code: int = -11, failure_class: FailureClass = FailureClass.CRASH) -> None:
        self._ended.set_result(Ending(failure_class, f"ended with {exit_code}", exit_code))

    @property
    def is_dead(self) -> bool:
        return self._ended.done()

    async def listening(self) -> None:
        await asyncio.sleep(self.listens_after_s)

    async def wait(self) -> Ending:
        return await asyncio.shield(self._ended)

    async def stop(self, *, grace_s: float, number: signal.Signals = signal.SIGTERM) -> int | None:
        if not self.is_dead:
            self.signals.append((asyncio.get_running_loop().time(), number))
            self._ended.set_result(Ending(None, "asked", 0))
        return 0

    async def one_token(self) -> None:
        self.probes += 1
        if self.is_frozen or self.is_stuck or self.is_asleep:
            await asyncio.Event().wait()
        if asyncio.get_running_loop().time() < self.ready_s:
            raise EngineError("still loading")
        self.steps += 1

    async def page(self) -> str:
        if self.is_frozen:
            await asyncio.Event().wait()
        return f"running {self.running}\nwaiting {self.waiting}\nsteps {self.steps}\n"


@dataclass
class TwinHost:
    """Launches engines in memory, and is their prober, their metrics and their models."""

    listens_after_s: float = 1.0
    loads_in_s: float = 2.0
    crashes_after_s: float | None = None
    launch_error: Exception | None = None
    model_error: Exception | None = None
    control_error: EngineError | None = None
    engines: list[TwinEngine] = field(default_factory=list)
    acquired: list[str] = field(default_factory=list)

    @property
    def engine(self) -> TwinEngine:
        return self.engines[-1]

    async def launch(
        self, spec: EngineSpec, descriptor: EngineDescriptor, model: Path | None, output: OutputLog
    ) -> TwinEngine:
        if self.launch_error is not None:
            raise self.launch_error
        engine = TwinEngine(
            listens_after_s=self.listens_after_s, loads_in_s=self.loads_in_s, number=len(self.engines) + 1
        )
        if self.crashes_after_s is not None:
            asyncio.get_running_loop().call_later(self.crashes_after_s, engine.die)
        self.engines.append(engine)
        return engine

    async def probe_ready(
        self, address: str, served_model: str, operations: Collection[common_pb2.Operation.ValueType]
    ) -> TwinReadiness:
        await self._at(address).one_token()
        return TwinReadiness()

    async def probe_live(
        self, address: str, served_model: str, operations: Collection[common_pb2.Operation.ValueType]
    ) -> None:
        await self._at(address).one_token()

    async def acquire(self, source: str, on_progress: OnProgress = ignore_progress) -> Path:
        self.acquired.append(source)
        if self.model_error is not None:
            raise self.model_error
        return Path(source)

    async def call(self, address: str, call: ControlCall) -> None:
        if self.control_error is not None:
            raise self.control_error
        self._at(address).is_asleep = call.path == "/sleep"

    def close(self) -> None:
        """Nothing is held."""

    def _at(self, address: str) -> TwinEngine:
        return next(engine for engine in self.engines if engine.address == address)


@dataclass(frozen=True)
class TwinPages:
    """The metrics of a host's engines."""

    host: TwinHost

    async def read(self, address: str, path: str) -> str:
        return await next(engine for engine in self.host.engines if engine.address == address).page()

    async def close(self) -> None:
        """Nothing is held."""


@dataclass
class Edge:
    """One edge, as `on_change` told it."""

    at_s: float
    states: str
    transition: Transition
    replica: node_pb2.Replica


class Supervised:
    """A supervisor at work on engines in memory, and what it told."""

    def __init__(
        self,
        folder: Path,
        host: TwinHost,
        *,
        config: SupervisionConfig | None = None,
        descriptor: EngineDescriptor | None = None,
        settings: admin_pb2.EngineSettings | None = None,
        idle: Callable[[], bool] | None = None,
    ) -> None:
        self.host = host
        self.edges: list[Edge] = []
        spec = EngineSpec("twin-1", "twin", 3, "twin", settings or admin_pb2.EngineSettings(), "twin-model")
        self.supervisor = ReplicaSupervisor(
            spec,
            descriptor or TwinDescriptor(),
            host,
            folder,
            models=host,
            on_change=self._note,
            idle=idle,
            config=config,
            clock=VirtualClock(),
            chance=Random(1),
            launcher=host,
            pages=TwinPages(host),
            controls=host,
        )

    @property
    def path(self) -> list[str]:
        """The states, in order, from the first edge's end on."""
        return [edge.states.split(" -> ")[1] for edge in self.edges]

    def times(self, states: str) -> list[float]:
        """When the edge "a -> b" was walked."""
        return [edge.at_s for edge in self.edges if edge.states == states]

    def _note(self, replica: node_pb2.Replica, transition: Transition) -> None:
        states = f"{state_name(transition.from_state)} -> {state_name(transition.to_state)}"
        self.edges.append(Edge(asyncio.get_running_loop().time(), states, transition, replica))


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
async def serving(supervised: Supervised) -> AsyncIterator[TwinEngine]:
    """The same, once the replica is ready."""
    async with running(supervised):
        await supervised.supervisor.wait_until(READY)
        yield supervised.host.engine
