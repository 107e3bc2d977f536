"""Keeps one replica's engine alive: starts it, watches it, starts it again, drains it."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from enginehouse.contract import EngineError, EnginehouseError, InternalError, Reason, RequestError
from enginehouse.engines import state
from enginehouse.engines.clock import Clock, SystemClock, cancel
from enginehouse.engines.config import SupervisionConfig
from enginehouse.engines.descriptor import EngineDescriptor, EngineSpec
from enginehouse.engines.failure import Ending, FailureClass
from enginehouse.engines.launch import (
    AttachedLauncher,
    ContainerLauncher,
    EngineHost,
    Launcher,
    LocalLauncher,
    RunningEngine,
)
from enginehouse.engines.life import EngineLife, UselessEngine
from enginehouse.engines.load import PageReader, page_reader
from enginehouse.engines.models import Models, ModelStore
from enginehouse.engines.ports import PortChoice
from enginehouse.engines.prober import Prober
from enginehouse.engines.process import OutputLog
from enginehouse.engines.restart import RestartTracker
from enginehouse.engines.sleep import EngineControls, HttpControls, Nap
from enginehouse.engines.state import OnChange, ReplicaRecord, State, Transition, state_name
from enginehouse.v1 import admin_pb2, node_pb2

Result = TypeVar("Result")
CONTAINERS_FILE = "containers"


class _StopAsked(Exception):
    """The replica is to be drained."""


def _tell_nobody(replica: node_pb2.Replica, transition: Transition) -> None:
    """Takes a change and does nothing with it."""


class ReplicaSupervisor:
    """One replica, from pending to stopped or failed.

    Args:
        spec: the replica. With `external_url` set the engine is attached: probed, never started or stopped.
        descriptor: its kind of engine.
        prober: speaks the engine's dialect.
        folder: takes the engine's output, as <replica id>.log.
        models: where model files come from. None: the default cache.
        on_change: told of every edge, in order. It must neither block nor raise.
        idle: says whether no request is on its way to the replica. None: its metrics say so.
        config: the policies.
        clock: the time that everything runs on.
        chance: for the jitter of restarts.
        launcher: starts engines. None: as the spec wants it.
        pages: reads metrics. None: as the engine tells them.
        host: its accelerators. None: there are none.
        port: where the engine listens. 0: a free one.
        controls: tells the engine to sleep and to wake. None: over HTTP.

    Raises:
        RequestError: the settings can never work.
    """

    def __init__(
        self,
        spec: EngineSpec,
        descriptor: EngineDescriptor,
        prober: Prober,
        folder: Path,
        *,
        models: Models | None = None,
        on_change: OnChange = _tell_nobody,
        idle: Callable[[], bool] | None = None,
        config: SupervisionConfig | None = None,
        clock: Clock | None = None,
        chance: random.Random | None = None,
        launcher: Launcher | None = None,
        pages: PageReader | None = None,
        host: EngineHost | None = None,
        port: int = 0,
        controls: EngineControls | None = None,
    ) -> None:
        descriptor.check(spec)
        self.spec = spec = descriptor.settled(spec)
        self.output = OutputLog(folder / f"{spec.replica_id}.log")
        self._descriptor = descriptor
        self._prober = prober
        self._models = models or ModelStore()
        self._idle = idle
        self._config = config or SupervisionConfig()
        self._clock = clock or SystemClock()
        self._record = ReplicaRecord(spec, descriptor.capabilities(spec), self._clock, self._changed)
        self._on_change = on_change
        self._change = asyncio.Event()
        is_attached = bool(spec.settings.external_url)
        self._launcher = launcher or _launcher(spec, self._clock, host, folder, PortChoice(port))
        self._pages = pages or page_reader(descriptor.metrics(spec))
        restart = replace(self._config.restart, crashes_max=None) if is_attached else self._config.restart
        self._restarts = RestartTracker(restart, chance or random.Random())  # noqa: S311 (jitter is no secret)
        self._controls = controls or HttpControls()
        self._life: EngineLife | None = None
        self._nap: Nap | None = None
        self._stop = asyncio.Event()
        self._over = asyncio.Event()
        self._is_running = False
        self._has_served = False
        self._drain_until_s = 0.0
        self._ready_since_s: float | None = None
        self._abandoned = 0

    @property
    def state(self) -> State:
        """Where the replica is."""
        return self._record.state

    def snapshot(self) -> node_pb2.Replica:
        """The replica as it is now."""
        return self._record.snapshot()

    async def wait_until(self, *states: State) -> None:
        """Returns once the replica is in one of `states`.

        Raises:
            InternalError: it is over and can never be there.
        """
        while self.state not in states:
            if self._over.is_set():
                raise InternalError(f"replica {self.spec.replica_id} is {state_name(self.state)} and stays so")
            await self._change.wait()

    async def run(self) -> None:
        """Keeps the engine alive until the replica is drained, or is given up. Cancelling it kills the engine."""
        if self._is_running or self._over.is_set():
            raise InternalError(f"replica {self.spec.replica_id} is supervised only once")
        self._is_running = True
        try:
            while await self._live():
                pass
        except asyncio.CancelledError:
            self._abandon("supervision was cancelled")
            raise
        except BaseException as error:
            self._record.move(state.FAILED, f"supervision broke down: {type(error).__name__}")
            raise
        finally:
            self._over.set()
            self._change.set()
            self._launcher.close()
            await self._pages.close()
            self.output.close()

    async def drain(self, grace_s: float) -> int:
        """Takes the replica out of rotation at once, lets its requests end, then ends the engine.

        A second call may shorten the grace, never lengthen it. A failed replica becomes stopped.

        Args:
            grace_s: seconds for requests in flight.

        Returns:
            How many requests were still there when the grace ended.
        """
        until_s = self._clock.monotonic() + grace_s
        if self.state == state.FAILED:
            self._record.move(state.STOPPED, "removed")
        elif not self._stop.is_set():
            self._drain_until_s = until_s
            self._has_served = self.state in state.SERVING
            self._record.move(state.DRAINING, "asked to drain")
            self._stop.set()
            if not self._is_running:
                self._record.move(state.STOPPED, "stopped before it was started")
                self._over.set()
                self.output.close()
        self._drain_until_s = min(self._drain_until_s, until_s)
        await self._over.wait()
        return self._abandoned

    async def sleep(self, level: int, grace_s: float) -> node_pb2.Replica:
        """Takes the replica out of rotation at once, lets its requests end, and puts the engine to sleep.

        A replica that sleeps already stays as it is.

        Args:
            level: how deep; what there is, the kind of engine says.
            grace_s: seconds for requests in flight. If some are left then, it goes on serving.

        Raises:
            RequestError: the engine has no such sleep, or the replica is not ready.
            EngineError: it was not put to sleep; the replica serves again.
        """
        levels = self._descriptor.sleep_mode(self.spec).levels
        if level not in levels:
            known = "; ".join(f"{number} gives up {known.gives_up}" for number, known in sorted(levels.items()))
            raise RequestError(f"{self.spec.replica_id}: there is no sleep level {level}; levels are: {known}")
        if self.state == state.ASLEEP and self._nap is not None:
            await asyncio.shield(self._nap.asleep)
            return self.snapshot()
        if self._life is None or self.state != state.READY:
            raise self._not("ready")
        self._nap = nap = Nap(level, levels[level], self._clock.monotonic() + grace_s)
        self._life.sleep(nap)
        await asyncio.shield(nap.asleep)
        return self.snapshot()

    async def wake(self) -> node_pb2.Replica:
        """Wakes the engine, and returns once the replica is back in rotation.

        Raises:
            RequestError: it does not sleep.
            EngineError: it did not come back.
        """
        if self.state == state.READY:
            return self.snapshot()
        if self.state != state.ASLEEP or self._nap is None:
            raise self._not("asleep")
        self._nap.wake.set()
        await self.wait_until(*(set(state.EDGES) - {state.ASLEEP, state.LOADING}))
        if self.state != state.READY:
            raise EngineError(f"{self.spec.replica_id} did not wake up; it is {state_name(self.state)}")
        return self.snapshot()

    def _not(self, wanted: str) -> RequestError:
        now = state_name(self.state)
        return RequestError(f"{self.spec.replica_id} is {now}, not {wanted}", Reason.NO_REPLICA_AVAILABLE)

    async def stop(self) -> None:
        """Ends the engine without waiting for its requests."""
        await self.drain(0.0)

    def _abandon(self, reason: str) -> None:
        """Walks to stopped from wherever the replica is. Its engine is dead already."""
        if self.state in (state.STOPPED, state.FAILED):
            return
        if self.state != state.DRAINING:
            self._record.move(state.DRAINING, reason)
        self._record.move(state.STOPPED, reason)

    def _changed(self, replica: node_pb2.Replica, transition: Transition) -> None:
        if transition.to_state == state.READY and self._ready_since_s is None:
            self._ready_since_s = self._clock.monotonic()
        self._change.set()
        self._change = asyncio.Event()
        self._on_change(replica, transition)

    def _advance(self, to_state: State, reason: str) -> None:
        """Walks an edge, unless the replica has been taken out of service meanwhile."""
        if self._stop.is_set():
            raise _StopAsked
        self._record.move(to_state, reason)

    async def _live(self) -> bool:
        """One life of the engine, from pending on. False when there will be no other."""
        try:
            ending = await self._live_once()
            if not self._stop.is_set():
                return await self._wait_for_next(ending)
        except _StopAsked:
            ending = Ending(None, "stopped")
        reason = ending.reason if ending.failure_class is None else f"while it was drained, {ending.reason}"
        self._record.move(state.STOPPED, reason, ending)
        return False

    async def _live_once(self) -> Ending:
        """Starts the engine and serves with it until it has ended. Returns how."""
        try:
            prepared = await self._unless_stopped(self._prepared())
            spec, model = prepared or (self.spec, None)
            self._advance(state.STARTING, "starting the engine")
            engine = await self._launcher.launch(spec, self._descriptor, model, self.output)
        except RequestError as error:
            return Ending(FailureClass.CONFIGURATION, error.message)
        except EnginehouseError as error:
            is_model = self.state == state.PENDING
            return Ending(FailureClass.MODEL_UNAVAILABLE if is_model else FailureClass.START_FAILED, error.message)
        ended = asyncio.create_task(engine.wait(), name=f"end of {self.spec.replica_id}")
        try:
            return await self._serve(engine, ended)
        finally:
            await engine.stop(grace_s=0)
            await cancel(ended)

    async def _serve(self, engine: RunningEngine, ended: asyncio.Task[Ending]) -> Ending:
        """Serves with a started engine until it ends, is of no more use, or is drained."""
        life = EngineLife(
            engine,
            self._descriptor,
            self._record,
            self._advance,
            prober=self._prober,
            pages=self._pages,
            config=self._config,
            clock=self._clock,
            output=self.output,
            controls=self._controls,
            idle=self._idle,
        )
        self._life = life
        try:
            await self._unless_stopped(life.serve(), ended)
        except UselessEngine as useless:
            return useless.ending
        except _StopAsked:
            return await self._drain(engine, life, ended)
        finally:
            self._life = None
        return ended.result()

    async def _drain(self, engine: RunningEngine, life: EngineLife, ended: asyncio.Task[Ending]) -> Ending:
        """Lets requests end, within the grace, then ends the engine."""
        if self._has_served:
            quiet = asyncio.ensure_future(life.until_quiet(lambda: self._drain_until_s, self._idle))
            try:
                await asyncio.wait({quiet, ended}, return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    return ended.result()
                self._abandoned = quiet.result()
            finally:
                await cancel(quiet)
        signal = self._descriptor.traits.drain
        exit_code = await engine.stop(grace_s=signal.grace_s, number=signal.number)
        return Ending(None, f"{self._abandoned} requests were cut" if self._abandoned else "drained", exit_code)

    async def _wait_for_next(self, ending: Ending) -> bool:
        """Waits until the engine may be started again. False when it will not be."""
        now_s = self._clock.monotonic()
        served_s = 0.0 if self._ready_since_s is None else now_s - self._ready_since_s
        self._ready_since_s = None
        is_final = ending.failure_class is FailureClass.CONFIGURATION
        wait_s = None if is_final else self._restarts.wait_s(now_s=now_s, served_s=served_s)
        if wait_s is None:
            self._record.move(state.FAILED, ending.reason, ending)
            return False
        reason = f"{ending.reason}; starting again in {wait_s:.1f} s"
        if self.state == state.PENDING:
            self._record.explain(reason)
        else:
            self._record.move(state.PENDING, reason, ending)
        await self._unless_stopped(self._clock.sleep(wait_s))
        return True

    async def _prepared(self) -> tuple[EngineSpec, Path | None]:
        """The spec with its adapters as files of this host, and the model."""
        if self.spec.settings.external_url:
            return self.spec, None
        source = self._descriptor.model_source(self.spec)
        if source is None:
            return self.spec, None
        model = await self._models.acquire(source, self._tell_progress)
        if not self.spec.settings.lora_adapters:
            return self.spec, model
        settings = admin_pb2.EngineSettings()
        settings.CopyFrom(self.spec.settings)
        for adapter in settings.lora_adapters:
            adapter.source = str(await self._models.acquire(adapter.source, self._tell_progress))
        return replace(self.spec, settings=settings), model

    def _tell_progress(self, done_bytes: int, total_bytes: int) -> None:
        share = f"{100 * done_bytes // total_bytes} %" if total_bytes else f"{done_bytes} bytes"
        self._record.explain(f"fetching the model: {share}")

    async def _unless_stopped(
        self, work: Coroutine[Any, Any, Result], ended: "asyncio.Task[Any] | None" = None
    ) -> Result | None:
        """The result of `work`; None if `ended` was done first.

        Raises:
            _StopAsked: the replica was taken out of service first.
        """
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stop.wait())
        others = {stop} if ended is None else {stop, ended}
        try:
            await asyncio.wait({task, *others}, return_when=asyncio.FIRST_COMPLETED)
            if ended is not None and ended.done():
                return None
            if self._stop.is_set():
                raise _StopAsked
            return task.result()
        finally:
            await cancel(task)
            await cancel(stop)


def _launcher(spec: EngineSpec, clock: Clock, host: EngineHost | None, folder: Path, port: PortChoice) -> Launcher:
    if spec.settings.external_url:
        return AttachedLauncher(clock)
    if spec.settings.container.image:
        return ContainerLauncher(clock, reserve=port, host=host, kept=folder / CONTAINERS_FILE)
    return LocalLauncher(clock, reserve=port, host=host)
