"""The emulated engine proper: phases, batch, faults, counts, and who is at work."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import StrEnum

from enginehouse.engines.emulators.core.batch import Batch, Pace
from enginehouse.engines.emulators.core.counts import Counts
from enginehouse.engines.emulators.core.errors import BrokenBy, ConnectionCut, GenerationBroken, Overloaded, Unavailable
from enginehouse.engines.emulators.core.faults import Fault, FaultKind, Faults
from enginehouse.engines.emulators.core.generation import Generation, Step, Times, Work


class Phase(StrEnum):
    """Where an engine is in its life, once its port is open."""

    LOADING = "loading"
    READY = "ready"
    ENDING = "ending"


class EmulatedEngine:
    """Takes work on and hands out tokens. What an engine's own package shows of it is its own affair.

    Args:
        takes_while_loading: requests that come before the model is loaded wait for it instead of being refused.
        takes_while_ending: requests that come after SIGTERM are answered like others.

    Attributes:
        gate: open unless a test closes it; while it is closed every request is held before its first token.
    """

    def __init__(
        self,
        pace: Pace,
        places: int,
        queue_max: int,
        faults: tuple[Fault, ...] = (),
        *,
        takes_while_loading: bool = False,
        takes_while_ending: bool = False,
    ) -> None:
        self.batch = Batch(pace, places, queue_max)
        self.counts = Counts()
        self.faults = Faults(faults)
        self.phase = Phase.LOADING
        self._taken_in = {Phase.READY}
        self._taken_in |= {Phase.LOADING} if takes_while_loading else set()
        self._taken_in |= {Phase.ENDING} if takes_while_ending else set()
        self._at_work: set[Generation] = set()
        self._loaded = asyncio.Event()
        self._asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    @property
    def tokens_in_use(self) -> int:
        """Tokens of the requests at work, which is what fills the KV cache."""
        return sum(generation.work.prompt_tokens + generation.generated_tokens for generation in self._at_work)

    @property
    def at_work(self) -> tuple[Generation, ...]:
        """The requests that wait or run."""
        return tuple(self._at_work)

    def become(self, phase: Phase) -> None:
        """Enters a phase."""
        self.phase = phase
        if phase is not Phase.LOADING:
            self._loaded.set()

    async def wait_for_request(self) -> None:
        """Returns once a first request has come; engines that load their model then wait for this."""
        await self._asked.wait()

    async def wait_for_idle(self) -> None:
        """Returns once nothing is at work."""
        while self._at_work:
            await asyncio.sleep(0.02)

    def abort(self, cause: BrokenBy, matches: Callable[[str], bool] = lambda _: True) -> int:
        """Breaks the requests whose id matches; how many those were."""
        hit = [generation for generation in self._at_work if matches(generation.work.id)]
        for generation in hit:
            generation.abort(cause)
        return len(hit)

    def stall(self) -> None:
        """Lets no token come any more."""
        for generation in self._at_work:
            generation.stall()

    @asynccontextmanager
    async def admitted(self, work: Work, on_taken: Callable[[], Awaitable[object]]) -> AsyncIterator["Admitted"]:
        """A place for one request, waited for in turn and given back at the end, however that comes.

        `on_taken` is awaited once nothing refuses the request, before it waits.

        Raises:
            Unavailable: the engine takes nothing on.
            Overloaded: too many wait.
            ConnectionCut: a fault says so.
            GenerationBroken: aborted while it waited, or while it was at work.
        """
        self.counts.requests += 1
        self._asked.set()
        if self.phase not in self._taken_in:
            self.counts.failed[self.phase.value] += 1
            raise Unavailable(self.phase.value)
        generation = Generation(work, Times(asyncio.get_running_loop().time()), self._before(self.faults.take()))
        place = self._enter()
        try:
            self._at_work.add(generation)
            await on_taken()
            await generation.pass_gate(self._loaded)
            await generation.wait_for(place)
            generation.times.started_s = asyncio.get_running_loop().time()
            await generation.pass_gate(self.gate)
            yield Admitted(generation, self)
        except GenerationBroken as error:
            self.counts.failed[error.cause.value] += 1
            raise
        finally:
            self._at_work.discard(generation)
            self.batch.leave(place)

    def _enter(self) -> "asyncio.Future[None]":
        try:
            return self.batch.enter()
        except Overloaded:
            self.counts.failed["overloaded"] += 1
            raise

    def _before(self, fault: Fault | None) -> Fault | None:
        """Lets a fault happen that comes before any work."""
        if fault is not None and fault.kind is FaultKind.REFUSE:
            raise ConnectionCut
        if fault is not None and fault.kind is FaultKind.UNAVAILABLE:
            self.counts.failed["overloaded"] += 1
            raise Overloaded("on demand")
        return fault


class Admitted:
    """A request with a place. Iterate `steps` to its end, and it counts as answered."""

    def __init__(self, generation: Generation, engine: EmulatedEngine) -> None:
        self.generation = generation
        self._engine = engine

    @property
    def times(self) -> Times:
        """Moments of the request."""
        return self.generation.times

    async def steps(self) -> AsyncIterator[Step]:
        """The tokens; see `Generation.steps`."""
        async for step in self.generation.steps(self._engine.batch, self._engine.counts):
            yield step
        self._count()

    def _count(self) -> None:
        generation, counts, times = self.generation, self._engine.counts, self.generation.times
        times.ended_s = asyncio.get_running_loop().time()
        for plan in generation.work.plans:
            counts.succeeded[plan.finish.kind.value] += 1
            counts.output_length.observe(len(plan.tokens))
            counts.output_limit.observe(generation.work.tokens_max)
        counts.prompt_length.observe(generation.work.prompt_tokens)
        counts.queue_s.observe(times.queue_s)
        counts.request_s.observe(times.total_s)
        counts.inference_s.observe(times.inference_s)
        counts.token_mean_s.observe(times.inference_s / max(1, generation.generated_tokens))
        counts.finished_prompt_tokens += generation.work.prompt_tokens
        counts.finished_generated_tokens += generation.generated_tokens
        counts.prompt_seconds += times.prefill_s
        counts.generated_seconds += times.decode_s
