"""Supervision on virtual time: starts, restarts, health, drains."""

import asyncio
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from enginehouse.contract import DependencyError, InternalError, RequestError
from enginehouse.engines import (
    DEGRADED,
    DRAINING,
    FAILED,
    PENDING,
    READY,
    STARTING,
    STOPPED,
    FailureClass,
    HealthPolicy,
    RestartPolicy,
    SupervisionConfig,
)
from enginehouse.v1 import admin_pb2
from tests.unit.engines.twin import SilentDescriptor, Supervised, TwinHost, running, serving
from tests.unit.engines.virtual import run_virtual

EXACT = SupervisionConfig(restart=RestartPolicy(jitter=0.0))


def test_start_walks_every_state_and_measures_the_template(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        async with serving(supervised):
            assert supervised.path == ["starting", "loading", "ready"]
            replica = supervised.supervisor.snapshot()
            assert (replica.address, replica.state, replica.reason) == ("127.0.0.1:1", READY, "")
            assert (replica.capabilities.template_tokens, replica.capabilities.message_tokens) == (7, 4)
            assert replica.capabilities.context_tokens_max == 1000
            assert (replica.id, replica.revision, replica.served_model) == ("twin-1", 3, "twin-model")
        assert supervised.path[-2:] == ["draining", "stopped"]

    run_virtual(scenario())


def test_loading_for_almost_the_whole_deadline_is_no_failure(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost(loads_in_s=599.0))
        async with serving(supervised):
            assert supervised.supervisor.snapshot().restarts == 0
            assert len(supervised.host.engines) == 1

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("host", "deadline_s", "begins"),
    [
        (TwinHost(listens_after_s=61.0), 60.0, "nothing listened"),
        (TwinHost(loads_in_s=601.0), 601.0, "no token within 600 s; the last try: still loading"),
    ],
)
def test_start_past_its_deadline_is_killed_and_tried_again(
    tmp_path: Path, host: TwinHost, deadline_s: float, begins: str
) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, host, config=EXACT)
        async with running(supervised):
            await supervised.supervisor.wait_until(STARTING)
            await supervised.supervisor.wait_until(PENDING)
            again = supervised.edges[-1]
            assert again.at_s == pytest.approx(deadline_s)
            ending = again.transition.ending
            assert ending is not None
            assert ending.failure_class is FailureClass.START_TIMEOUT
            assert ending.reason.startswith(begins)
            assert host.engines[0].is_dead

    run_virtual(scenario())


def test_dead_engine_is_started_again_with_growing_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        policy = RestartPolicy(backoff_initial_s=1.0, backoff_max_s=5.0, jitter=0.0, crashes_max=None)
        supervised = Supervised(tmp_path, TwinHost(), config=SupervisionConfig(restart=policy))
        async with serving(supervised):
            for _ in range(5):
                await supervised.supervisor.wait_until(READY)
                supervised.host.engine.die()
                await supervised.supervisor.wait_until(PENDING)
            await supervised.supervisor.wait_until(READY)
            ends, starts = supervised.times("ready -> pending"), supervised.times("pending -> starting")[1:]
            assert [start - end for end, start in zip(ends, starts, strict=True)] == pytest.approx([1, 2, 4, 5, 5])
            assert supervised.supervisor.snapshot().restarts == 5

    run_virtual(scenario())


def test_edge_of_a_death_carries_exit_code_class_and_log(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        async with serving(supervised) as engine:
            engine.die(-9, FailureClass.OUT_OF_MEMORY)
            await supervised.supervisor.wait_until(PENDING)
            edge = supervised.edges[-1]
            assert edge.transition.ending is not None
            assert edge.transition.ending.exit_code == -9
            assert edge.transition.ending.failure_class is FailureClass.OUT_OF_MEMORY
            assert edge.transition.log_reference == "twin-1.log"
            assert (edge.replica.state, edge.replica.address, edge.replica.restarts) == (PENDING, "", 1)
            assert not edge.replica.capabilities.template_tokens

    run_virtual(scenario())


def test_engine_that_was_stable_starts_again_at_the_first_wait(tmp_path: Path) -> None:
    async def scenario() -> None:
        policy = RestartPolicy(backoff_initial_s=1.0, jitter=0.0, stable_s=60.0, crashes_max=None)
        supervised = Supervised(tmp_path, TwinHost(), config=SupervisionConfig(restart=policy))
        async with serving(supervised):
            for served_s in (0.0, 0.0, 61.0):
                await supervised.supervisor.wait_until(READY)
                await asyncio.sleep(served_s)
                supervised.host.engine.die()
                await supervised.supervisor.wait_until(PENDING)
            await supervised.supervisor.wait_until(READY)
            ends, starts = supervised.times("ready -> pending"), supervised.times("pending -> starting")[1:]
            assert [start - end for end, start in zip(ends, starts, strict=True)] == pytest.approx([1, 2, 1])

    run_virtual(scenario())


def test_crash_loop_ends_in_failed_with_the_last_exit_code(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost(crashes_after_s=0.5), config=EXACT)
        async with running(supervised) as task:
            await task
            assert supervised.path[-1] == "failed"
            assert len(supervised.host.engines) == 5
            last = supervised.edges[-1]
            assert last.transition.ending is not None
            assert (last.transition.ending.failure_class, last.transition.ending.exit_code) == (FailureClass.CRASH, -11)
            assert (last.replica.state, last.replica.restarts) == (FAILED, 4)
            await supervised.supervisor.drain(1.0)
            assert supervised.supervisor.state == STOPPED

    run_virtual(scenario())


def test_crashes_far_apart_are_no_loop(tmp_path: Path) -> None:
    async def scenario() -> None:
        policy = RestartPolicy(crashes_max=3, window_s=100.0)
        supervised = Supervised(tmp_path, TwinHost(), config=SupervisionConfig(restart=policy))
        async with serving(supervised):
            for _ in range(6):
                await supervised.supervisor.wait_until(READY)
                await asyncio.sleep(51.0)
                supervised.host.engine.die()
                await supervised.supervisor.wait_until(PENDING)
            await supervised.supervisor.wait_until(READY)

    run_virtual(scenario())


def test_settings_that_can_never_work_fail_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost(launch_error=RequestError("no such thing")))
        await supervised.supervisor.run()
        assert supervised.path == ["starting", "failed"]
        ending = supervised.edges[-1].transition.ending
        assert ending is not None
        assert ending.failure_class is FailureClass.CONFIGURATION

    run_virtual(scenario())


def test_model_that_cannot_be_fetched_is_tried_again_without_an_edge(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = TwinHost(model_error=DependencyError("no network"))
        settings = admin_pb2.EngineSettings(model_source="builtin:thing")
        supervised = Supervised(tmp_path, host, settings=settings)
        async with running(supervised):
            await asyncio.sleep(0.1)
            assert supervised.supervisor.snapshot().reason.startswith("no network; starting again in ")
            assert supervised.edges == []
            host.model_error = None
            await supervised.supervisor.wait_until(READY)
            assert host.acquired == ["builtin:thing"] * 2

    run_virtual(scenario())


def test_attached_engine_is_never_given_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = admin_pb2.EngineSettings(external_url="http://127.0.0.1:1")
        supervised = Supervised(tmp_path, TwinHost(crashes_after_s=0.1), settings=settings)
        async with running(supervised):
            await asyncio.sleep(600.0)
            assert len(supervised.host.engines) > 20
            assert FAILED not in [edge.replica.state for edge in supervised.edges]

    run_virtual(scenario())


def test_frozen_engine_degrades_after_three_checks_and_recovers_after_two(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        async with serving(supervised) as engine:
            ready_s = asyncio.get_running_loop().time()
            engine.is_frozen = True
            await supervised.supervisor.wait_until(DEGRADED)
            assert asyncio.get_running_loop().time() - ready_s == pytest.approx(3 * (5.0 + 10.0))
            engine.is_frozen = False
            thawed_s = asyncio.get_running_loop().time()
            await supervised.supervisor.wait_until(READY)
            assert asyncio.get_running_loop().time() - thawed_s == pytest.approx(2 * 5.0)
            assert len(supervised.host.engines) == 1

    run_virtual(scenario())


def test_one_slow_answer_degrades_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        async with serving(supervised) as engine:
            for _ in range(5):
                engine.is_frozen = True
                await asyncio.sleep(20.0)
                engine.is_frozen = False
                await asyncio.sleep(20.0)
            assert supervised.path == ["starting", "loading", "ready"]

    run_virtual(scenario())


def test_engine_with_green_metrics_that_generates_nothing_degrades(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        async with serving(supervised) as engine:
            engine.is_stuck = True
            await supervised.supervisor.wait_until(DEGRADED)
            assert supervised.supervisor.snapshot().reason == "no answer within 10 s"

    run_virtual(scenario())


def test_busy_engine_whose_counters_stand_still_degrades_without_a_probe(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        async with serving(supervised) as engine:
            engine.running, engine.waiting = 2, 3
            probes = engine.probes
            await supervised.supervisor.wait_until(DEGRADED)
            assert supervised.supervisor.snapshot().reason == "2 requests run and 3 wait, but nothing moves"
            assert engine.probes == probes

    run_virtual(scenario())


def test_busy_engine_that_moves_is_not_probed(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        async with serving(supervised) as engine:
            engine.running = 2
            probes = engine.probes
            for _ in range(100):
                engine.steps += 1
                await asyncio.sleep(1.0)
            assert supervised.supervisor.state == READY
            assert engine.probes == probes
            assert supervised.supervisor.snapshot().load.running_requests == 2

    run_virtual(scenario())


def test_idle_engine_without_metrics_is_probed(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost(), descriptor=SilentDescriptor())
        async with serving(supervised) as engine:
            probes = engine.probes
            await asyncio.sleep(26.0)
            assert engine.probes == probes + 5
            engine.is_stuck = True
            await supervised.supervisor.wait_until(DEGRADED)

    run_virtual(scenario())


def test_engine_that_stays_degraded_is_started_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        health = HealthPolicy(degraded_max_s=100.0)
        supervised = Supervised(tmp_path, TwinHost(), config=replace(EXACT, health=health))
        async with serving(supervised) as engine:
            engine.is_frozen = True
            await supervised.supervisor.wait_until(DEGRADED)
            await supervised.supervisor.wait_until(PENDING)
            ending = supervised.edges[-1].transition.ending
            assert ending is not None
            assert ending.failure_class is FailureClass.HUNG
            assert engine.is_dead
            await supervised.supervisor.wait_until(READY)
            assert len(supervised.host.engines) == 2

    run_virtual(scenario())


def test_drain_leaves_rotation_at_once_and_waits_for_the_last_request(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        async with serving(supervised) as engine:
            loop = asyncio.get_running_loop()
            engine.running = 1
            began_s = loop.time()
            drain = asyncio.create_task(supervised.supervisor.drain(100.0))
            await asyncio.sleep(0)
            assert supervised.supervisor.state == DRAINING
            await asyncio.sleep(30.0)
            assert engine.signals == []
            engine.running = 0
            assert await drain == 0
            assert [number for _, number in engine.signals] == [signal.SIGTERM]
            assert engine.signals[0][0] - began_s == pytest.approx(30.5, abs=0.25)
            assert supervised.edges[-1].replica.reason == "drained"

    run_virtual(scenario())


def test_drain_cuts_at_its_deadline_and_says_how_many(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        async with serving(supervised) as engine:
            engine.running, engine.waiting = 2, 1
            assert await supervised.supervisor.drain(10.0) == 3
            assert supervised.edges[-1].replica.reason == "3 requests were cut"

    run_virtual(scenario())


def test_drain_believes_who_knows_of_requests_on_their_way(tmp_path: Path) -> None:
    async def scenario() -> None:
        on_their_way = [1]
        supervised = Supervised(tmp_path, TwinHost(), idle=lambda: not on_their_way)
        async with serving(supervised) as engine:
            drain = asyncio.create_task(supervised.supervisor.drain(100.0))
            await asyncio.sleep(50.0)
            assert engine.signals == []
            on_their_way.clear()
            assert await drain == 0

    run_virtual(scenario())


def test_second_drain_may_only_shorten_the_grace(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        async with serving(supervised) as engine:
            loop = asyncio.get_running_loop()
            engine.running = 1
            began_s = loop.time()
            drains = [asyncio.create_task(supervised.supervisor.drain(grace_s)) for grace_s in (100.0, 500.0)]
            await asyncio.sleep(10.0)
            await supervised.supervisor.stop()
            assert [await drain for drain in drains] == [1, 1]
            assert loop.time() - began_s == pytest.approx(10.0, abs=0.25)

    run_virtual(scenario())


def test_hung_engine_is_drained_until_the_deadline_and_no_longer(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        async with serving(supervised) as engine:
            engine.is_frozen = True
            began_s = asyncio.get_running_loop().time()
            assert await supervised.supervisor.drain(20.0) == 1
            assert asyncio.get_running_loop().time() - began_s == pytest.approx(20.0, abs=1.0)

    run_virtual(scenario())


def test_engine_that_dies_while_it_is_drained_ends_stopped_with_its_exit_code(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        async with serving(supervised) as engine:
            engine.running = 1
            drain = asyncio.create_task(supervised.supervisor.drain(100.0))
            await asyncio.sleep(1.0)
            engine.die(-9)
            await drain
            last = supervised.edges[-1].transition
            assert (supervised.path[-2:], last.reason) == (
                ["draining", "stopped"],
                "while it was drained, ended with -9",
            )
            assert last.ending is not None
            assert last.ending.exit_code == -9
            assert len(supervised.host.engines) == 1

    run_virtual(scenario())


@pytest.mark.parametrize("after_s", [0.0, 0.5, 1.5], ids=["pending", "starting", "loading"])
def test_replica_that_does_not_serve_yet_is_stopped_without_waiting(tmp_path: Path, after_s: float) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        task = asyncio.create_task(supervised.supervisor.run())
        await asyncio.sleep(after_s)
        before_s = asyncio.get_running_loop().time()
        await supervised.supervisor.drain(100.0)
        await task
        assert asyncio.get_running_loop().time() == before_s
        assert supervised.path[-2:] == ["draining", "stopped"]
        assert all(engine.is_dead for engine in supervised.host.engines)

    run_virtual(scenario())


def test_replica_that_waits_for_its_restart_is_stopped_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        policy = RestartPolicy(backoff_initial_s=1000.0, backoff_max_s=1000.0)
        supervised = Supervised(tmp_path, TwinHost(), config=SupervisionConfig(restart=policy))
        async with serving(supervised) as engine:
            engine.die()
            await supervised.supervisor.wait_until(PENDING)
            before_s = asyncio.get_running_loop().time()
            await supervised.supervisor.drain(100.0)
            assert asyncio.get_running_loop().time() == before_s

    run_virtual(scenario())


def test_replica_that_was_never_run_is_stopped(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        await supervised.supervisor.drain(1.0)
        assert supervised.path == ["draining", "stopped"]
        with pytest.raises(InternalError, match="supervised only once"):
            await supervised.supervisor.run()

    run_virtual(scenario())


def test_cancelled_supervision_kills_the_engine(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        task = asyncio.create_task(supervised.supervisor.run())
        await supervised.supervisor.wait_until(READY)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert supervised.host.engine.is_dead
        assert supervised.path[-2:] == ["draining", "stopped"]

    run_virtual(scenario())


def test_waiting_for_a_state_that_cannot_come_is_an_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost(launch_error=RequestError("never")))
        task = asyncio.create_task(supervised.supervisor.run())
        with pytest.raises(InternalError, match="is failed and stays so"):
            await supervised.supervisor.wait_until(READY)
        await task

    run_virtual(scenario())


def test_prober_that_breaks_down_leaves_no_engine_behind(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost(loads_in_s=0.0))
        task = asyncio.create_task(supervised.supervisor.run())
        await supervised.supervisor.wait_until(READY)

        async def break_down() -> None:
            raise KeyError("a bug")

        supervised.host.engine.one_token = break_down  # type: ignore[method-assign]
        with pytest.raises(KeyError):
            await task
        assert supervised.host.engine.is_dead
        assert supervised.path[-1] == "failed"

    run_virtual(scenario())
