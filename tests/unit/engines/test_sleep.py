"""Sleep: out of rotation at once, no request cut, back by a generated token."""

import asyncio
from pathlib import Path

import pytest

from enginehouse.contract import EngineError, Reason, RequestError
from enginehouse.engines import (
    ASLEEP,
    PENDING,
    READY,
    STOPPED,
    EngineDescriptor,
    EngineRegistry,
    EngineSpec,
    FailureClass,
)
from enginehouse.v1 import admin_pb2
from tests.unit.engines.twin import Supervised, TwinDescriptor, TwinHost, running, serving
from tests.unit.engines.virtual import run_virtual

GRACE_S = 30.0


class SleeplessDescriptor(TwinDescriptor):
    """The engine in memory, if it could not sleep."""

    sleep_mode = EngineDescriptor.sleep_mode


def test_replica_sleeps_and_is_back_by_a_token(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        async with serving(supervised) as engine:
            asleep = await supervised.supervisor.sleep(1, GRACE_S)
            assert (asleep.state, engine.is_asleep) == (ASLEEP, True)
            assert asleep.reason == "asleep at level 1: its memory"
            probes = engine.probes
            await asyncio.sleep(600.0)  # nothing asks it for a token, and nothing takes it for dead
            assert (supervised.supervisor.state, engine.probes) == (ASLEEP, probes)
            assert (await supervised.supervisor.wake()).state == READY
            assert engine.probes > probes
        assert supervised.path[:6] == ["starting", "loading", "ready", "asleep", "loading", "ready"]

    run_virtual(scenario())


def test_replica_is_out_of_rotation_while_its_requests_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        async with serving(supervised) as engine:
            engine.running = 1
            sleeping = asyncio.create_task(supervised.supervisor.sleep(1, GRACE_S))
            await supervised.supervisor.wait_until(ASLEEP)
            await asyncio.sleep(GRACE_S / 2)
            assert not engine.is_asleep
            engine.running = 0
            await sleeping
            assert engine.is_asleep

    run_virtual(scenario())


def test_requests_that_outlast_the_grace_are_not_cut(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        async with serving(supervised) as engine:
            engine.running = 2
            with pytest.raises(EngineError, match="2 requests still ran when the grace ended"):
                await supervised.supervisor.sleep(1, GRACE_S)
            await supervised.supervisor.wait_until(READY)
            assert not engine.is_asleep
            engine.running = 0
            assert (await supervised.supervisor.sleep(1, GRACE_S)).state == ASLEEP

    run_virtual(scenario())


def test_engine_that_refuses_to_sleep_serves_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = TwinHost(control_error=EngineError("POST /sleep answered 404"))
        supervised = Supervised(tmp_path, host)
        async with serving(supervised):
            with pytest.raises(EngineError, match="answered 404"):
                await supervised.supervisor.sleep(1, GRACE_S)
            await supervised.supervisor.wait_until(READY)
        assert len(host.engines) == 1

    run_virtual(scenario())


def test_engine_that_does_not_wake_up_is_started_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = TwinHost()
        supervised = Supervised(tmp_path, host)
        async with serving(supervised):
            await supervised.supervisor.sleep(1, GRACE_S)
            host.control_error = EngineError("POST /wake answered 500")
            with pytest.raises(EngineError, match="did not wake up"):
                await supervised.supervisor.wake()
            await supervised.supervisor.wait_until(READY)
        endings = [edge.transition.ending for edge in supervised.edges if edge.transition.to_state == PENDING]
        assert [ending.failure_class for ending in endings if ending] == [FailureClass.HUNG]
        assert len(host.engines) == 2

    run_virtual(scenario())


def test_engine_that_dies_in_its_sleep_is_started_again_awake(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        async with serving(supervised) as engine:
            await supervised.supervisor.sleep(1, GRACE_S)
            engine.die()
            await supervised.supervisor.wait_until(READY)
            assert not supervised.host.engine.is_asleep

    run_virtual(scenario())


def test_replica_that_sleeps_is_drained_without_being_woken(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        async with running(supervised):
            await supervised.supervisor.wait_until(READY)
            await supervised.supervisor.sleep(1, GRACE_S)
            assert await supervised.supervisor.drain(GRACE_S) == 0
        assert supervised.path[-3:] == ["asleep", "draining", "stopped"]
        assert supervised.supervisor.state == STOPPED

    run_virtual(scenario())


def test_replica_that_is_drained_while_it_falls_asleep_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        async with running(supervised):
            await supervised.supervisor.wait_until(READY)
            supervised.host.engine.running = 1
            sleeping = asyncio.create_task(supervised.supervisor.sleep(1, GRACE_S))
            await supervised.supervisor.wait_until(ASLEEP)
            await supervised.supervisor.stop()
            with pytest.raises(EngineError, match="ended before it slept"):
                await sleeping

    run_virtual(scenario())


def test_both_commands_are_idempotent(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost())
        async with serving(supervised):
            assert (await supervised.supervisor.wake()).state == READY
            await supervised.supervisor.sleep(1, GRACE_S)
            assert (await supervised.supervisor.sleep(1, GRACE_S)).state == ASLEEP
            assert [one.state for one in await asyncio.gather(*(supervised.supervisor.wake() for _ in range(2)))] == [
                READY,
                READY,
            ]

    run_virtual(scenario())


def test_what_cannot_sleep_is_refused_with_the_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(tmp_path, TwinHost(), descriptor=SleeplessDescriptor())
        async with serving(supervised):
            with pytest.raises(RequestError, match="engine twin cannot sleep; engines that can are: vllm") as refusal:
                await supervised.supervisor.sleep(1, GRACE_S)
            assert refusal.value.reason is Reason.METHOD_NOT_ALLOWED
        with pytest.raises(RequestError, match="twin-1 is stopped, not asleep"):
            await supervised.supervisor.wake()
        other = Supervised(tmp_path, TwinHost())
        with pytest.raises(RequestError, match="there is no sleep level 7; levels are: 1 gives up its memory"):
            await other.supervisor.sleep(7, GRACE_S)
        with pytest.raises(RequestError, match="twin-1 is pending, not ready"):
            await other.supervisor.sleep(1, GRACE_S)
        await other.supervisor.stop()

    run_virtual(scenario())


@pytest.mark.parametrize("level", [1, 2])
def test_vllm_sleeps_where_its_arguments_say_so(level: int) -> None:
    descriptor = EngineRegistry().descriptor("vllm")
    able = admin_pb2.EngineSettings(model_source="m", arguments=["--enable-sleep-mode"])
    assert level in descriptor.sleep_mode(EngineSpec("r", "d", 1, "vllm", able, "m")).levels
    unable = admin_pb2.EngineSettings(model_source="m")
    with pytest.raises(RequestError, match="can sleep only with --enable-sleep-mode among its arguments"):
        descriptor.sleep_mode(EngineSpec("r", "d", 1, "vllm", unable, "m"))
