"""One run of an engine: its port, its first token, its health, its last request."""

import asyncio
from collections.abc import Callable

from enginehouse.contract import EnginehouseError
from enginehouse.engines import state
from enginehouse.engines.clock import Clock, cancel, within
from enginehouse.engines.config import SupervisionConfig
from enginehouse.engines.descriptor import EngineDescriptor
from enginehouse.engines.failure import Ending, FailureClass
from enginehouse.engines.health import Hysteresis, Verdict
from enginehouse.engines.launch import RunningEngine
from enginehouse.engines.liveness import LivenessCheck
from enginehouse.engines.load import LoadReader, PageReader
from enginehouse.engines.prober import Prober
from enginehouse.engines.state import ReplicaRecord, State

# A look at the load while draining takes at least this long before it is given up, however short the grace.
_LOOK_S_MIN = 0.5

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
    ) -> None:
        self._engine = engine
        self._traits = descriptor.traits
        self._operations = descriptor.traits.operations
        self._record = record
        self._advance = advance
        self._prober = prober
        self._pages = pages
        self._config = config
        self._clock = clock

    async def serve(self) -> None:
        """Waits for the port, then for the first token, then watches. Never returns.

        Raises:
            UselessEngine: a deadline passed, or the engine stayed degraded for too long.
        """
        timeouts = self._traits.start
        self._record.address = self._engine.address
        try:
            await within(self._clock, timeouts.starting_s, self._engine.listening())
        except TimeoutError:
            reason = f"nothing listened at its port within {timeouts.starting_s:g} s"
            raise UselessEngine(FailureClass.START_TIMEOUT, reason) from None
        self._advance(state.LOADING, "waiting for the first token")
        try:
            await within(self._clock, timeouts.loading_s, self._first_token())
        except TimeoutError:
            reason = f"no token within {timeouts.loading_s:g} s; the last try: {self._record.reason}"
            raise UselessEngine(FailureClass.START_TIMEOUT, reason) from None
        self._advance(state.READY, "generated a token")
        sampling = asyncio.create_task(self._sample_loads(), name=f"load of {self._record.spec.replica_id}")
        try:
            await self._watch()
        finally:
            await cancel(sampling)

    async def until_quiet(self, deadline_s: Callable[[], float], idle: Callable[[], bool] | None) -> int:
        """Returns once no request has been there for a while, or at the deadline.

        Args:
            deadline_s: the monotonic time of the deadline; it may come nearer.
            idle: says whether no request is on its way to the engine.

        Returns:
            Requests that are still there; 1 when nobody can say.
        """
        loads = self._loads()
        quiet_since_s: float | None = None
        while True:
            requests = await self._requests(loads, deadline_s(), idle)
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

    async def _watch(self) -> None:
        policy = self._config.health
        hysteresis = Hysteresis(policy)
        liveness = LivenessCheck(
            self._prober,
            self._loads(),
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

    async def _sample_loads(self) -> None:
        loads = self._loads()
        while True:
            try:
                sample = await loads.sample(self._config.health.timeout_s)
            except (EnginehouseError, OSError):
                sample = None  # liveness judges; a missed sample only lets the last one age
            if sample is not None:
                self._record.observe(sample.load)
            await self._clock.sleep(self._config.load_interval_s)

    async def _requests(self, loads: LoadReader, deadline_s: float, idle: Callable[[], bool] | None) -> int:
        """Requests that run, wait, or are on their way; 1 when nobody can say."""
        left_s = deadline_s - self._clock.monotonic()
        try:
            sample = await loads.sample(min(self._config.health.timeout_s, max(left_s, _LOOK_S_MIN)))
        except (EnginehouseError, OSError):
            return 1  # it should tell and does not
        if sample is not None:
            self._record.observe(sample.load)
        if sample is not None and sample.requests:
            return sample.requests
        if idle is not None:
            return 0 if idle() else 1
        return 1 if sample is None else 0

    def _loads(self) -> LoadReader:
        return LoadReader(self._traits.metrics, self._engine.address, self._pages, self._clock)
