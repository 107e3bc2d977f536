"""A node replaces the engines of a deployment: real engines, and routers and accelerators as the test wants them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import aiohttp
import pytest

from enginehouse.contract import Reason, RequestError
from enginehouse.engines import (
    FAILED,
    READY,
    Accelerator,
    AcceleratorPool,
    EngineHost,
    EngineRegistry,
    EngineTraits,
    RestartPolicy,
    Transition,
    state_name,
)
from enginehouse.engines.echo.descriptor import EchoEngine
from enginehouse.services.node.folder import prune_logs
from enginehouse.services.node.replacement import Replacement, Step
from enginehouse.services.node.replicas import NodeReplicas
from enginehouse.services.node.sight import RouterSight
from enginehouse.v1 import admin_pb2, common_pb2, node_pb2
from tests.integration.engines.engines import QUICK, is_alive, pid_of_port
from tests.support.waiting import DEADLINE_S, until

FIRST, SECOND, THIRD = "chat-here-0", "chat-here-0-r2", "chat-here-0-r3"
BREAKS = "--no-such-option"


class WholeGpuEcho(EchoEngine):
    """An echo engine that takes a whole accelerator."""

    kind: ClassVar[str] = "whole-gpu-echo"
    traits: ClassVar[EngineTraits] = replace(EchoEngine.traits, accelerator_share=1.0)


REGISTRY = EngineRegistry(lambda: [EntryPoint("whole-gpu-echo", f"{__name__}:WholeGpuEcho", "enginehouse.engines")])


def deployment(
    revision: int, *, engine: str = "echo", parallel: int = 2, replicas: int = 1, nanousd: int = 1, arguments: str = ""
) -> admin_pb2.Deployment:
    """A revision of the deployment."""
    return admin_pb2.Deployment(
        name="deployments/chat",
        model="chat",
        engine=engine,
        revision=revision,
        settings=admin_pb2.EngineSettings(parallel=parallel, arguments=[arguments] if arguments else []),
        placements=[
            admin_pb2.Placement(node="here", replicas=replicas, price=common_pb2.Price(request_nanousd=nanousd))
        ],
    )


@dataclass
class NodeUnderTest:
    """A node's replicas, and what they told."""

    replicas: NodeReplicas
    sight: RouterSight
    told: list[str] = field(default_factory=list)
    steps: list[Replacement] = field(default_factory=list)
    ready_at_once: list[int] = field(default_factory=list)
    edges: list[tuple[node_pb2.Replica, Transition]] = field(default_factory=list)

    def note(self, replica: node_pb2.Replica, transition: Transition) -> None:
        """Takes an edge in."""
        self.told.append(f"{replica.id} {state_name(replica.state)}")
        self.edges.append((replica, transition))
        self.ready_at_once.append(sum(one.state == READY for one in self.replicas.snapshots()))

    @property
    def states(self) -> dict[str, str]:
        """The state of every replica by id."""
        return {one.id: state_name(one.state) for one in self.replicas.snapshots()}

    async def apply(self, revision: admin_pb2.Deployment, *ready: str) -> None:
        """Applies a revision and waits until exactly these replicas are there, and ready."""
        self.replicas.apply([revision])
        await until(lambda: self.states == dict.fromkeys(ready, "ready"), f"{ready} are ready, not {self.states}")

    def pid(self, replica_id: str) -> int:
        """The process of a replica's engine."""
        address = self.replicas.find(replica_id).supervisor.snapshot().address
        return pid_of_port(int(address.rpartition(":")[2]))

    def stepped(self, revision: int) -> list[Step]:
        """The steps that were told of a revision."""
        return [one.step for one in self.steps if one.revision == revision]


@asynccontextmanager
async def node(folder: Path, session: aiohttp.ClientSession, *, accelerators: int = 0) -> AsyncIterator[NodeUnderTest]:
    """A node on a host with so many accelerators."""
    found = [Accelerator(f"GPU-{n}", n, common_pb2.CHIP_CLASS_GPU, "nvidia", "h200", 1) for n in range(accelerators)]
    sight, steps = RouterSight(), list[Replacement]()
    restart = RestartPolicy(backoff_initial_s=0.01, backoff_max_s=0.02, crashes_max=2)
    replicas = NodeReplicas(
        "here",
        folder,
        session,
        lambda replica, transition: made.note(replica, transition),  # noqa: PLW0108 (it is made below)
        drain_grace_s=5,
        host=EngineHost(claims=AcceleratorPool(found, folder / "claims")),
        sight=sight,
        on_replacement=steps.append,
        registry=REGISTRY,
        config=replace(QUICK, restart=restart),
    )
    made = NodeUnderTest(replicas, sight, steps=steps)
    try:
        yield made
        await replicas.drain(0)
    finally:
        await replicas.stop()


@contextmanager
def router(here: NodeUnderTest, *uses: str) -> Iterator[None]:
    """A router watches inside, and sends requests to these replicas."""
    with here.sight.watching("router-0"):
        here.sight.confirm("router-0", uses)
        yield


async def until_looked_at(here: NodeUnderTest, replica_id: str) -> None:
    """Returns once the load of a replica was looked at many times. Idle, it would have ended long before."""
    looks: set[int] = set()

    def are_enough() -> bool:
        looks.add(here.replicas.find(replica_id).supervisor.snapshot().load.observed_at.ToNanoseconds())
        return len(looks) > 10

    await until(are_enough, f"{replica_id} was looked at")


async def test_change_of_prices_and_bounds_restarts_nothing(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    async with node(tmp_path, session) as here:
        await here.apply(deployment(1), FIRST)
        pid = here.pid(FIRST)
        await here.apply(deployment(2, nanousd=7), FIRST)
        assert (here.pid(FIRST), here.steps) == (pid, [])
        with pytest.raises(RequestError) as refused:
            await here.replicas.unload(FIRST, 1, 0)  # the node has obeyed revision 2
        assert refused.value.reason is Reason.STALE_REVISION


async def test_replica_serves_until_its_successor_does(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    async with node(tmp_path, session) as here:
        await here.apply(deployment(1), FIRST)
        old, hashed = here.pid(FIRST), here.replicas.snapshots()[0].settings_hash
        await here.apply(deployment(2, parallel=3), SECOND)
        assert here.told.index(f"{SECOND} ready") < here.told.index(f"{FIRST} draining")
        assert not is_alive(old)
        assert here.replicas.snapshots()[0].settings_hash != hashed
        await until(lambda: here.stepped(2) == [Step.BEGAN, Step.COMPLETED], "every step is told, and no other")


async def test_replica_serves_until_every_router_uses_its_successor_and_none_uses_it(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with node(tmp_path, session) as here:
        await here.apply(deployment(1), FIRST)
        with router(here, FIRST):
            await here.apply(deployment(2, parallel=3), FIRST, SECOND)
            here.sight.confirm("router-0", [FIRST, SECOND])
            await until(lambda: here.states[FIRST] == "draining", "the old one leaves")
            with here.replicas.find(FIRST).one_more_in_flight():
                here.sight.confirm("router-0", [SECOND])
                await until_looked_at(here, FIRST)
                assert here.states[FIRST] == "draining"
            await until(lambda: here.states == {SECOND: "ready"}, "it is gone")
        (ended,) = [
            edge for replica, edge in here.edges if (replica.id, state_name(replica.state)) == (FIRST, "stopped")
        ]
        assert ended.reason == "drained"


async def test_revision_that_never_gets_ready_leaves_the_one_before_in_place_and_the_next_goes_on(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with node(tmp_path, session) as here:
        await here.apply(deployment(1), FIRST)
        here.replicas.apply([deployment(2, arguments=BREAKS)])
        await until(lambda: Step.FAILED in here.stepped(2), "it is given up")
        assert here.states == {FIRST: "ready", SECOND: "failed"}
        (failed,) = [edge for replica, edge in here.edges if replica.state == FAILED]
        assert failed.ending is not None
        assert (failed.ending.exit_code, failed.ending.failure_class) == (2, "exit")
        assert failed.log_reference == f"{SECOND}.log"
        assert failed.reason in here.steps[-1].reason
        await here.apply(deployment(3, parallel=4), THIRD)
        await until(lambda: here.stepped(3) == [Step.BEGAN, Step.COMPLETED], "every step is told, and no other")
        assert here.ready_at_once[here.told.index(f"{FIRST} ready") :].count(0) == 0


async def test_change_that_is_taken_back_restarts_nothing(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    async with node(tmp_path, session) as here:
        await here.apply(deployment(1), FIRST)
        pid = here.pid(FIRST)
        here.replicas.apply([deployment(2, arguments=BREAKS)])
        await until(lambda: SECOND in here.states, "its successor starts")
        await here.apply(deployment(3), FIRST)
        assert here.pid(FIRST) == pid


async def test_full_host_ends_its_only_replica_first_and_says_so(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with node(tmp_path, session, accelerators=1) as here:
        await here.apply(deployment(1, engine="whole-gpu-echo"), FIRST)
        await here.apply(deployment(2, engine="whole-gpu-echo", parallel=3), SECOND)
        assert here.told.index(f"{FIRST} stopped") < here.told.index(f"{SECOND} starting")
        assert f"{SECOND} pending" not in here.told  # it never found the accelerator taken
        await until(lambda: len(here.steps) == 3, "every step is told")
        assert here.stepped(2) == [Step.BEGAN, Step.WITHOUT_ROOM, Step.COMPLETED]
        assert "nobody serves until its successor does" in here.steps[1].reason


async def test_full_host_replaces_one_replica_while_the_other_serves(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with node(tmp_path, session, accelerators=2) as here:
        await here.apply(deployment(1, engine="whole-gpu-echo", replicas=2), FIRST, "chat-here-1")
        began = len(here.told)
        await here.apply(deployment(2, engine="whole-gpu-echo", replicas=2, parallel=3), SECOND, "chat-here-1-r2")
        assert min(here.ready_at_once[began:]) == 1


async def test_host_with_room_replaces_beside_the_old_one(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    async with node(tmp_path, session, accelerators=2) as here:
        await here.apply(deployment(1, engine="whole-gpu-echo"), FIRST)
        began = len(here.told)
        await here.apply(deployment(2, engine="whole-gpu-echo", parallel=3), SECOND)
        assert min(here.ready_at_once[began:]) == 1
        assert Step.WITHOUT_ROOM not in here.stepped(2)


async def test_replica_that_was_unloaded_stays_away_until_the_desired_state_is_applied_again(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with node(tmp_path, session) as here:
        await here.apply(deployment(1), FIRST)
        async with asyncio.timeout(DEADLINE_S):
            assert state_name((await here.replicas.unload(FIRST, 1, 0)).state) == "stopped"
        here.replicas.look_again()
        assert here.states == {}
        assert here.replicas.load(deployment(1), 1).id == FIRST
        await here.apply(deployment(1), FIRST)


def test_outputs_of_engines_that_ended_are_kept_up_to_a_bound(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"r{number}.log").write_text("said")
        (tmp_path / f"r{number}.log.1").write_text("said before")
    prune_logs(tmp_path, {"r0", "r1"}, kept_max=1)
    kept = {log.name for log in tmp_path.iterdir()}
    assert {"r0.log", "r0.log.1", "r1.log", "r1.log.1"} <= kept
    assert len(kept) == 6
