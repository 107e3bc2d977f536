"""One simulated mesh from its seed: it lives through a storm, and the oracles look after every step."""

import asyncio
import hashlib
import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from unittest import mock

from enginehouse.contract import InternalError
from enginehouse.router import Replica, Request
from enginehouse.router.limits import Limit
from enginehouse.services.access_log import AccessRecord
from enginehouse.services.control import database
from enginehouse.services.gateway import shipper
from enginehouse.v1 import ledger_pb2, router_pb2
from tests.simulation import oracles
from tests.simulation.control import SETTINGS, ControlHouse, fill
from tests.simulation.database import DISK, engine_for, new_disk
from tests.simulation.engines import Engines
from tests.simulation.envoy import EnvoyHouse, Reader, in_line
from tests.simulation.ledger_state import LedgerState, newest_fence, read_state
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.network import CLEAR, Network
from tests.simulation.oracles import Known, Violation
from tests.simulation.profile import Profile, draw_profile
from tests.simulation.router import RouterProcess
from tests.simulation.scene import Rules, draw_scene
from tests.simulation.truth import Truth, Work

STEPS = 12
_END_S_MAX = 120.0
_TRACE_MAX = 40


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a seed ended.

    Attributes:
        violation: what was broken. Empty: nothing.
        digest: of the whole trace; equal for equal runs.
        served, refused, written_off: how much happened.
    """

    seed: int
    steps: int
    violation: str
    digest: str
    trace: tuple[str, ...] = ()
    turns: int = 0
    served: int = 0
    asked: int = 0
    written_off: int = 0


@dataclass(slots=True)
class _Broker:
    """What routers are told of the world, and when."""

    is_up: bool = True
    version: int = 0
    heard: dict[str, int] = field(default_factory=dict)


class World:
    """Everything, put together from one seed."""

    def __init__(self, seed: int, steps: int) -> None:
        self.rng = random.Random(seed)
        self.steps = steps
        self.trace: list[tuple[float, str, str]] = []
        self.loop = VirtualLoop(self._after_turn, self._died)
        self.profile: Profile = draw_profile(self.rng)
        self.network = Network(self.loop, self.rng, self.say)
        self.network.weather = self.profile.weather
        self.scene = draw_scene(self.rng)
        self.rules: Rules = self.scene.rules
        self.limits: dict[str, Limit] = {limit.id: limit for limit in self.scene.limits}
        self.truth = Truth()
        self.known = Known({}, set(), set())
        self.rules_at: dict[str, Rules] = {}
        self.exact: set[str] = set()
        self.broker = _Broker()
        self._view_rules: dict[int, Rules] = {}
        self._killed_s: dict[int, float] = {}
        self._owners: dict[str, RouterProcess] = {}
        self._admitted_s: dict[str, float] = {}
        self._is_dirty = False
        self._error: Exception | None = None
        self._seen_changes = -1
        self.connection = DISK.connection = new_disk(lambda connection: fill(connection, self.scene.limits))
        self.state: LedgerState = read_state(self.connection)
        self.engines = Engines(self.scene.replicas, self.loop, self.network, self.rng, self.truth, self._served)
        self.control = ControlHouse(self.loop, self.network, self.profile.resolve_interval_s, self._answered)
        names = [f"router-{number}" for number in range(self.profile.routers)]
        self.routers: dict[str, RouterProcess] = {}
        self.zombies: list[RouterProcess] = []
        self.envoys = [
            EnvoyHouse(
                f"envoy-{number}",
                self.loop,
                self.network,
                self.rng,
                self.truth,
                self.engines,
                names,
                self.profile.report_s,
            )
            for number in range(self.profile.envoys)
        ]
        self.router_names = names

    def _envoy(self, name: str, routers: list[str]) -> EnvoyHouse:
        report_s = self.profile.report_s
        return EnvoyHouse(name, self.loop, self.network, self.rng, self.truth, self.engines, routers, report_s)

    def say(self, who: str, what: str) -> None:
        """Notes a step: after this turn of the loop, the oracles look."""
        self.trace.append((self.loop.now_s, who, what))
        self._is_dirty = True

    def boot_router(self, name: str) -> None:
        """Starts a process of a router, beside an older one that is stopped, if there is one."""
        older = self.routers.get(name)
        if older is not None and not older.process.is_dead:
            self.zombies.append(older)
        view = self.scene.view(self.rules, tuple(self.limits.values()), frozenset(self.engines.down))
        router = RouterProcess(name, self.loop, self.network, self.rng, view, self._admitted, self._logged)
        self._view_rules[id(router)] = self.rules
        self.routers[name] = router
        for envoy in self.envoys:
            envoy.connect(name)
        self.say(name, "starts")

    def kill_router(self, router: RouterProcess) -> None:
        """Kills a router process."""
        router.kill()
        self._killed_s[id(router)] = self.loop.now_s
        self.say(router.router, "is killed")

    def every_router(self) -> list[RouterProcess]:
        """All processes that are not dead, stopped ones included."""
        return [router for router in (*self.routers.values(), *self.zombies) if not router.process.is_dead]

    def publish(self) -> None:
        """The broker tells every router of the world as it is now, each after a while."""
        self.broker.version += 1
        if not self.broker.is_up:
            return
        version, rules = self.broker.version, self.rules
        view = self.scene.view(rules, tuple(self.limits.values()), frozenset(self.engines.down))
        for router in self.every_router():

            def deliver(router: RouterProcess = router) -> None:
                if self.broker.heard.get(str(id(router)), 0) < version:
                    self.broker.heard[str(id(router))] = version
                    router.view = view
                    self._view_rules[id(router)] = rules
                    self.say(router.router, f"has view {version}")

            self.loop.call_later(self.rng.expovariate(20.0), deliver, context=router.process.context)

    def run(self, storm: "Callable[[World], object]") -> None:
        """Lives through the storm, the calm after it, and the last judgment.

        Raises:
            Violation: an oracle was right to look.
        """
        self.loop.run(self._live(storm))

    async def _live(self, storm: "Callable[[World], object]") -> None:
        self.control.boot()
        for name in self.router_names:
            self.boot_router(name)
        for envoy in self.envoys:
            envoy.boot()
        await asyncio.sleep(0.1)
        await storm(self)  # type: ignore[misc]
        self._calm()
        await self._wait_for_the_end()
        self._judge()

    def _calm(self) -> None:
        self.network.weather = CLEAR
        self.network.cut.clear()
        self.broker.is_up = True
        self.engines.down.clear()
        if self.control.process.is_dead:
            self.control.boot()
        for envoy in self.envoys:
            if envoy.process.is_dead:
                envoy.boot()
        for router in self.every_router():
            if router.process.is_stopped:
                self.loop.resume(router.process)
        ending = self.rng.choice(("idle", "killed", "restarted"))
        self.say("world", f"is calm; routers end {ending}")
        for router in self.every_router() if ending != "idle" else ():
            self.kill_router(router)
        for name in self.router_names if ending == "restarted" else ():
            self.boot_router(name)

    async def _wait_for_the_end(self) -> None:
        until_s = self.loop.now_s + _END_S_MAX
        await asyncio.sleep(SETTINGS.longest_request_s + 3)
        while self.loop.now_s < until_s:
            await asyncio.sleep(5)
            self._look()
            if not any(account.allotted for account in self.state.accounts.values()):
                return

    def _judge(self) -> None:
        self._look()
        oracles.check_end(self.state)
        for work in self.truth.works.values():
            if self._is_exact(work):
                self.exact.add(work.request.id)
        oracles.check_settled(self.state, self.truth, self.exact)
        if self.profile.is_exact:
            written_off = [account.limit for account in self.state.accounts.values() if account.written_off]
            oracles.require(not written_off, f"written off in {written_off}, though no log is missing")

    def _is_exact(self, work: Work) -> bool:
        request_id = work.request.id
        if len(self.truth.admissions[request_id]) > 1 or work.is_lost or not (work.is_counted or not work.replica):
            return False
        if not work.is_entry_lost:
            return True
        killed_s = self._killed_s.get(id(self._owners[request_id]), float("inf"))
        return killed_s < self._admitted_s[request_id] + SETTINGS.longest_request_s

    def _after_turn(self) -> None:
        if self.loop.failures:
            raise Violation(self.loop.failures[0])
        if self._error is not None:
            raise self._error
        if self._is_dirty:
            self._is_dirty = False
            self._look()

    def _look(self) -> None:
        if self.connection.total_changes != self._seen_changes:
            self._seen_changes = self.connection.total_changes
            before, self.state = self.state, read_state(self.connection)
            self._tell_ended(before)
            oracles.check_rows(self.state, self.known)
            oracles.check_grants(before, self.state)
            for key, charge in self.state.charges.items():
                if key not in self.known.judged:
                    self.known.judged.add(key)
                    oracles.check_charge(charge, self.truth, self.state.shares.get(charge.share))
        oracles.check_exposure(self.state, self.truth)
        for router in self.every_router():
            oracles.check_book(self.state, self.truth, router)

    def _tell_ended(self, before: LedgerState) -> None:
        for share in self.state.shares.values():
            earlier = before.shares.get(share.id)
            if share.is_closed and (earlier is None or not earlier.is_closed):
                how = f"writes off {share.written_off} of" if share.written_off else "closes"
                self.trace.append((self.loop.now_s, "control", f"{how} {share.id}"))

    def _admitted(self, router: RouterProcess, request: Request, ticket: router_pb2.Ticket) -> None:
        self.say(router.router, f"admits {request.id}: {_amounts(ticket)}")
        self.truth.admitted(router.router, ticket)
        self.rules_at[f"{request.id}@{ticket.fence}"] = self._view_rules[id(router)]
        self._owners[request.id] = router
        self._admitted_s[request.id] = self.loop.now_s
        with self._caught():
            if self.connection.total_changes != self._seen_changes:
                self._look()
            now_ms = self.control.clock.steady_ms()
            oracles.check_holds(self.state, self.known, router.view.limits, ticket, now_ms)

    def _died(self, process: Process, error: BaseException) -> bool:
        """A router that a newer process of its id has replaced ends by itself; its supervisor starts no other."""
        for router in self.every_router():
            if router.process is process and isinstance(error, InternalError) and "fence" in error.message:
                self.kill_router(router)
                if self.routers[router.router] is router:
                    self.loop.call_later(1.0, self.boot_router, router.router)
                return True
        return False

    def _answered(self, request: object, answer: object) -> None:
        if isinstance(answer, ledger_pb2.EnrollResponse):
            with self._caught():
                oracles.require(answer.fence > self.known.fence, f"fence {answer.fence} after {self.known.fence}")
            self.known.fence = max(self.known.fence, answer.fence)
        if not isinstance(request, ledger_pb2.AcquireAllowancesRequest | ledger_pb2.ReleaseAllowancesRequest):
            return
        if isinstance(request, ledger_pb2.AcquireAllowancesRequest) or request.returns:
            with self._caught():
                newest = newest_fence(self.connection, request.router)
                oracles.require(request.fence == newest, f"{request.router} has the fence {newest}: {request}")

    def _served(self, work: Work, replica: Replica) -> None:
        self.say(replica.id, f"works on {work.request.id}")
        with self._caught():
            oracles.check_place(work, replica, self.rules_at[f"{work.request.id}@{work.ticket.fence}"])

    def _logged(self, router: RouterProcess, record: AccessRecord) -> None:
        work = self.truth.works.get(record.request_id)
        if work is not None and router.settler.is_admitted(record.request_id):
            work.is_entry_lost = False

    @contextmanager
    def _caught(self) -> Iterator[None]:
        # inside product code an exception would be taken for one of its own
        try:
            yield
        except Violation as violation:
            self._error = violation


class _Ids:
    """Random ids that are the same in every run."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"ids {seed}")

    def __call__(self) -> uuid.UUID:
        return uuid.UUID(int=self._rng.getrandbits(128), version=4)


def simulate(seed: int, steps: int = STEPS, *, is_traced: bool = False) -> Outcome:
    """Runs one seed.

    Args:
        seed: everything random comes from it.
        steps: how many things happen in the storm.
        is_traced: keep the whole trace, and not its end alone.
    """
    from tests.simulation.storm import storm

    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(uuid, "uuid4", _Ids(seed)))
        patches.enter_context(mock.patch.object(database, "_engine", engine_for))
        patches.enter_context(mock.patch.object(shipper, "_in_thread", in_line))
        patches.enter_context(mock.patch.object(shipper, "AccessLogReader", Reader))
        world = World(seed, steps)
        violation = ""
        try:
            world.run(storm)
        except Violation as broken:
            violation = str(broken)
        finally:
            assert world.connection is not None
            world.connection.close_for_good()
            DISK.connection = None
    lines = [f"{at_s:9.3f}  {who:<12} {what}" for at_s, who, what in world.trace]
    shown = lines if is_traced else lines[-_TRACE_MAX:] if violation else []
    return Outcome(
        seed,
        steps,
        violation,
        hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        tuple(shown),
        turns=len(lines),
        served=sum(1 for work in world.truth.works.values() if work.replica),
        asked=world.profile.asked,
        written_off=sum(1 for account in world.state.accounts.values() if account.written_off),
    )


def _amounts(ticket: router_pb2.Ticket) -> str:
    return ", ".join(f"{hold.limit} {hold.amount} in {hold.allowance}" for hold in ticket.holds)
