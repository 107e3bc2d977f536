"""One run of an engine: its port, its first token, its health, its last request."""

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any

from enginehouse.contract import EngineError, EnginehouseError
from enginehouse.engines import state
from enginehouse.engines.clock import Clock, cancel, while_moving, within
from enginehouse.engines.config import SupervisionConfig
from enginehouse.engines.descriptor import EngineDescriptor
from enginehouse.engines.failure import Ending, FailureClass
from enginehouse.engines.health import Hysteresis, Verdict
from enginehouse.engines.launch import EngineUse, MeasuredEngine, RunningEngine
from enginehouse.engines.liveness import LivenessCheck
from enginehouse.engines.load import LoadReader, PageReader
from enginehouse.engines.prober import Prober
from enginehouse.engines.process import OutputLog
from enginehouse.engines.sleep import EngineControls, Nap
from enginehouse.engines.state import ReplicaRecord, State
from enginehouse.v1 import node_pb2

# A look at the load while draining takes at least this long before it is given up, however short the grace.
_LOOK_S_MIN = 0.5
# How far an engine says that it is: of its lines, the number alone is told.
_SHARE = re.compile(r"\b(100|\d?\d)(?:\.\d+)? ?%")

Advance = Callable[[State, str], None]


class UselessEngine(Exception):
    """The engine runs, and is of no more use."""

    def __init__(self, failure_class: FailureClass, reason: str) -> None:
        super().__init__(reason)
        self.ending = Ending(failure_class, reason)


class EngineLife:
    """Looks after one started engine.

    Args:
        engine: the running engine.
        descriptor: its kind.
        record: of its replica; told of what is measured.
        advance: walks an edge of the replica's states.
        prober: speaks the engine's dialect.
        pages: reads the engine's metrics.
        config: the policies.
        clock: the time that everything runs on.
        output: what the engine writes.
        controls: tells the engine what to do.
        idle: says whether no request is on its way to the engine. None: its metrics say so.
    """

    def __init__(
        self,
        engine: RunningEngine,
        descriptor: EngineDescriptor,
        record: ReplicaRecord,
        advance: Advance,
        *,
        prober: Prober,
        pages: PageReader,
        config: SupervisionConfig,
        clock: Clock,
        output: OutputLog,
        controls: EngineControls,
        idle: Callable[[], bool] | None = None,
    ) -> None:
        self._engine = engine
        self._output = output
        self._traits = descriptor.traits
        self._operations = descriptor.operations(record.spec)
        self._record = record
        self._advance = advance
        self._prober = prober
        self._config = config
        self._clock = clock
        self._controls = controls
        self._idle = idle
        self._wish: asyncio.Future[Nap] = asyncio.get_running_loop().create_future()
        self._used: EngineUse | None = None
        # One reader for all who look: some engines forget what they have told.
        self._loads = LoadReader(descriptor.metrics(record.spec), engine.address, pages, clock)

    async def serve(self) -> None:
        """Waits for the port, then for the first token, then watches, and sleeps when told to. Never returns.

        Raises:
            UselessEngine: a deadline passed, the engine stayed degraded for too long, or it did not wake up.
        """
        timeouts = self._traits.start
        self._record.address = self._engine.address
        try:
            await self._while_moving(timeouts.starting_s, self._engine.listening())
        except TimeoutError:
            reason = f"nothing listened at its port within {timeouts.starting_s:g} s of its last sign of progress"
            raise UselessEngine(FailureClass.START_TIMEOUT, reason) from None
        self._advance(state.LOADING, "waiting for the first token")
        await self._until_ready()
        sampling = asyncio.create_task(self._sample_loads(), name=f"load of {self._record.spec.replica_id}")
        measuring = asyncio.create_task(self._sample_use(), name=f"use of {self._record.spec.replica_id}")
        try:
            while True:
                await self._sleep(await self._watch_until_sleep())
                await self._until_ready()
        finally:
            await cancel(sampling)
            await cancel(measuring)

    def sleep(self, nap: Nap) -> None:
        """Wishes that it sleep. `nap` tells what comes of it."""
        if self._wish.done():
            nap.failed(EngineError(f"replica {self._record.spec.replica_id} is about to sleep already"))
        else:
            self._wish.set_result(nap)

    async def until_quiet(self, deadline_s: Callable[[], float], idle: Callable[[], bool] | None) -> int:
        """Returns once no request has been there for a while, or at the deadline.

        Args:
            deadline_s: the monotonic time of the deadline; it may come nearer.
            idle: says whether no request is on its way to the engine.

        Returns:
            Requests that are still there; 1 when nobody can say.
        """
        quiet_since_s: float | None = None
        while True:
            requests = await self._requests(deadline_s(), idle)
            now_s = self._clock.monotonic()
            if requests:
                quiet_since_s = None
            elif quiet_since_s is None:
                quiet_since_s = now_s
            if quiet_since_s is not None and now_s - quiet_since_s >= self._config.drain_quiet_s:
                return 0
            if now_s >= deadline_s():
                return requests
            await self._clock.sleep(self._config.drain_poll_s)

    async def _while_moving(self, idle_s: float, work: Coroutine[Any, Any, None]) -> None:
        """Waits for a phase of the start, for as long as the engine gets on with it.

        Raises:
            TimeoutError: it stood still for `idle_s`, or took longer than any start may.
        """
        longest_s = max(idle_s, self._traits.start.phase_s_max)
        await while_moving(self._clock, work, self._progress, idle_s=idle_s, longest_s=longest_s)

    def _progress(self) -> tuple[int, int]:
        """Differs while the engine writes, or fills its memory. Tells how far it says that it is."""
        last = self._output.lines(1)
        if self._record.state == state.STARTING and last and (share := _SHARE.search(last[0])):
            self._record.explain(f"starting the engine: {share[1]} %")
        measured = self._engine.progress() if isinstance(self._engine, MeasuredEngine) else 0
        return self._output.written_bytes, measured

    async def _first_token(self) -> None:
        while True:
            probe = self._prober.probe_ready(self._engine.address, self._record.spec.served_model, self._operations)
            try:
                readiness = await within(self._clock, self._traits.start.attempt_s, probe)
            except EnginehouseError as error:
                self._record.explain(error.message)
            except OSError as error:  # TimeoutError is one
                self._record.explain(f"no answer: {error}")
            else:
                self._record.measure(template_tokens=readiness.template_tokens, message_tokens=readiness.message_tokens)
                return
            await self._clock.sleep(self._config.ready_poll_s)

    async def _until_ready(self) -> None:
        """Waits for the first token.

        Raises:
            UselessEngine: none came in time.
        """
        loading_s = self._traits.start.loading_s
        try:
            await self._while_moving(loading_s, self._first_token())
        except TimeoutError:
            reason = f"no token within {loading_s:g} s; the last try: {self._record.reason}"
            raise UselessEngine(FailureClass.START_TIMEOUT, reason) from None
        self._advance(state.READY, "generated a token")

    async def _watch_until_sleep(self) -> Nap:
        """Watches until it is told to sleep."""
        self._wish = asyncio.get_running_loop().create_future()
        watching = asyncio.create_task(self._watch(), name=f"watch {self._record.spec.replica_id}")
        ends: set[asyncio.Future[Any]] = {watching, self._wish}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            return self._wish.result()
        finally:
            await cancel(watching)

    async def _sleep(self, nap: Nap) -> None:
        """Leaves rotation, lets requests end, sleeps, and wakes up when told to.

        Nothing is cut: an engine that is put to sleep while it works ends requests as if they were whole.

        Raises:
            UselessEngine: it did not wake up.
        """
        address = self._engine.address
        try:
            self._advance(state.ASLEEP, f"asked to sleep at level {nap.number}; requests in flight end first")
            await self._until_idle(nap)
            for call in nap.level.sleep:
                await self._controls.call(address, call)
            self._record.explain(f"asleep at level {nap.number}: {nap.level.gives_up}")
            nap.fell_asleep()
            await nap.wake.wait()
        except EngineError as error:
            nap.failed(error)
            self._advance(state.LOADING, error.message)
            return
        finally:
            nap.failed(EngineError(f"replica {self._record.spec.replica_id} ended before it slept"))
        self._advance(state.LOADING, "asked to wake up")
        try:
            for call in nap.level.wake:
                await self._controls.call(address, call)
        except EngineError as error:
            raise UselessEngine(FailureClass.HUNG, f"it did not wake up: {error.message}") from error

    async def _until_idle(self, nap: Nap) -> None:
        """Lets requests end before a nap.

        Raises:
            EngineError: some are left.
        """
        if left := await self.until_quiet(lambda: nap.until_s, self._idle):
            raise EngineError(f"not put to sleep: {left} requests still ran when the grace ended; give it longer")

    async def _watch(self) -> None:
        policy = self._config.health
        hysteresis = Hysteresis(policy)
        liveness = LivenessCheck(
            self._prober,
            self._loads,
            self._clock,
            address=self._engine.address,
            served_model=self._record.spec.served_model,
            operations=self._operations,
            timeout_s=policy.timeout_s,
        )
        degraded_since_s = 0.0
        while True:
            await self._clock.sleep(policy.interval_s)
            wrong = await liveness.check()
            verdict = hysteresis.failed() if wrong else hysteresis.succeeded()
            now_s = self._clock.monotonic()
            if verdict is Verdict.DEGRADED:
                degraded_since_s = now_s
                self._advance(state.DEGRADED, wrong)
            elif verdict is Verdict.RECOVERED:
                self._advance(state.READY, "answers again")
            elif self._record.state == state.DEGRADED and now_s - degraded_since_s >= policy.degraded_max_s:
                reason = f"degraded for {now_s - degraded_since_s:.0f} s: {wrong or 'it answers only now and then'}"
                raise UselessEngine(FailureClass.HUNG, reason)

    async def _sample_use(self) -> None:
        while isinstance(self._engine, MeasuredEngine):
            self._used = await self._engine.use()
            await self._clock.sleep(self._config.use_interval_s)

    def _observe(self, load: node_pb2.ReplicaLoad) -> None:
        """Takes a load, with what the engine takes of its host."""
        if self._used is not None:
            load.memory_bytes = self._used.memory_bytes
            load.accelerator_memory_bytes = self._used.accelerator_memory_bytes
            if self._used.accelerator_utilization is not None:
                load.accelerator_utilization = self._used.accelerator_utilization
        self._record.observe(load)

    async def _sample_loads(self) -> None:
        while True:
            try:
                sample = await self._loads.sample(self._config.health.timeout_s)
            except (EnginehouseError, OSError):
                sample = None  # liveness judges; a missed sample only lets the last one age
            if sample is not None:
                self._observe(sample.load)
            await self._clock.sleep(self._config.load_interval_s)

    async def _requests(self, deadline_s: float, idle: Callable[[], bool] | None) -> int:
        """Requests that run, wait, or are on their way; 1 when nobody can say."""
        left_s = deadline_s - self._clock.monotonic()
        try:
            sample = await self._loads.sample(min(self._config.health.timeout_s, max(left_s, _LOOK_S_MIN)))
        except (EnginehouseError, OSError):
            return 1  # it should tell and does not
        if sample is not None:
            self._observe(sample.load)
        if sample is not None and sample.requests:
            return sample.requests
        if idle is not None:
            return 0 if idle() else 1
        return 1 if sample is None else 0
