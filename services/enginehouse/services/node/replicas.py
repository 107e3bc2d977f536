"""The replicas of one node: as many as the desired state places here, each under its own supervisor."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import structlog

from enginehouse.contract import EnginehouseError, Reason, RequestError
from enginehouse.engines import (
    DRAINING,
    READY,
    STOPPED,
    EngineRegistry,
    EngineSpec,
    ReplicaSupervisor,
    SupervisionConfig,
    Transition,
)
from enginehouse.engines.launch import EngineHost
from enginehouse.services.background import Background
from enginehouse.services.node.folder import prune_logs
from enginehouse.services.node.prober import DialectProber
from enginehouse.services.node.replacement import Replacement, ReplacementTeller, Step
from enginehouse.services.node.rolling import Elsewhere, Leaving, Standing, next_steps
from enginehouse.services.node.sight import RouterSight
from enginehouse.services.replica_ids import replica_id_of
from enginehouse.services.settings_hash import settings_hash
from enginehouse.v1 import admin_pb2, node_pb2

_log = structlog.get_logger(__name__)
OnChange = Callable[[node_pb2.Replica, Transition], None]
SEEN_MAX_S = 30.0
"""A router that hangs must not hold up a replacement for longer than this."""
REPLACED_GRACE_S = 600.0


@dataclass(slots=True)
class Held:
    """A replica under supervision.

    Attributes:
        number: its place among the deployment's replicas here.
        settings_hash: of what its engine is started with.
        in_flight: calls that pass through this node's adapters now.
        leaving: it is being drained and will go.
        has_served: it was ready at least once.
        is_late: the routers had their time to send it requests.
        watch: the end of that time.
    """

    supervisor: ReplicaSupervisor
    number: int
    settings_hash: str
    in_flight: int = 0
    leaving: asyncio.Task[None] | None = None
    has_served: bool = False
    is_late: bool = False
    watch: asyncio.Task[None] | None = None

    @property
    def deployment(self) -> str:
        """Id of its deployment."""
        return self.supervisor.spec.deployment

    @contextmanager
    def one_more_in_flight(self) -> Iterator[None]:
        """A call passes through this node's adapters inside."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def forget_routers(self) -> None:
        """The routers have all their time again."""
        self.is_late = False
        if self.watch is not None:
            self.watch.cancel()
            self.watch = None


@dataclass(slots=True)
class _Wanted:
    """What the desired state places here.

    Attributes:
        unloaded: numbers of the replicas that a command ended. They stay away until the desired state is applied again.
        is_refused: its engine can never be started here.
        is_looking: the host is being looked at for room.
    """

    deployment: admin_pb2.Deployment
    count: int
    settings_hash: str
    unloaded: set[int] = field(default_factory=set)
    is_refused: bool = False
    is_looking: bool = False


class NodeReplicas:
    """Starts, replaces and ends replicas as told. Commands carry the deployment's revision; an older one is refused.

    Args:
        node: this node's name.
        folder: takes the engines' output.
        session: for probes.
        on_change: told of every edge of every replica.
        drain_grace_s: how long a replica lets its requests end that nobody wants any more, or whose place is needed.
        replaced_grace_s: the same for one that another has taken the place of: as long as the longest request takes.
        host: has the accelerators. None: there are none.
        sight: what the routers say of the replicas. None: there are no routers.
        on_replacement: told of every step of every replacement.
        elsewhere: what other nodes do for a deployment, whose settings have a hash.
        registry: the kinds of engine. None: those that are installed.
        config: how replicas are supervised. None: as usual.
    """

    def __init__(
        self,
        node: str,
        folder: Path,
        session: aiohttp.ClientSession,
        on_change: OnChange,
        *,
        drain_grace_s: float,
        replaced_grace_s: float = REPLACED_GRACE_S,
        host: EngineHost | None = None,
        sight: RouterSight | None = None,
        on_replacement: Callable[[Replacement], None] = lambda _: None,
        elsewhere: Callable[[admin_pb2.Deployment, str], Elsewhere] = lambda _deployment, _hash: Elsewhere(),
        registry: EngineRegistry | None = None,
        config: SupervisionConfig | None = None,
    ) -> None:
        self._node = node
        self._folder = folder
        self._session = session
        self._on_change = on_change
        self._drain_grace_s = drain_grace_s
        self._replaced_grace_s = replaced_grace_s
        self._host = host or EngineHost()
        self._sight = sight or RouterSight()
        self._sight.on_change = self.look_again
        self._teller = ReplacementTeller(on_replacement)
        self._elsewhere = elsewhere
        self._registry = registry or EngineRegistry()
        self._config = config
        self._held: dict[str, Held] = {}
        self._wanted: dict[str, _Wanted] = {}
        self._waiting: set[str] = set()
        self._background = Background()
        self._is_draining = False

    def apply(self, deployments: Iterable[admin_pb2.Deployment]) -> None:
        """Makes the replicas those that are placed here: starts, replaces older revisions, ends what is not wanted.

        A revision that differs only in what routers keep (prices, labels, bounds) restarts nothing.
        """
        wanted: dict[str, _Wanted] = {}
        for deployment in deployments:
            placement = next((one for one in deployment.placements if one.node == self._node), None)
            if placement is not None:
                new = self._newest(deployment, max(1, placement.replicas))
                new.unloaded.clear()
                wanted[_id_of(new.deployment)] = new
        self._wanted = wanted
        self.look_again()

    def load(self, deployment: admin_pb2.Deployment, revision: int) -> node_pb2.Replica:
        """Starts the deployment's first replica here, or finds it running.

        Raises:
            RequestError: the deployment is not placed here (RESOURCE_NOT_FOUND), the command is older than what runs
                (STALE_REVISION), or its engine can never be started.
        """
        placement = next((one for one in deployment.placements if one.node == self._node), None)
        if placement is None:
            raise RequestError(f"{deployment.name} is not placed on node {self._node}", Reason.RESOURCE_NOT_FOUND)
        wanted = self._newest(deployment, max(1, placement.replicas))
        newest = wanted.deployment.revision
        if revision < newest:
            raise RequestError(
                f"revision {revision} of {deployment.name} is older than {newest}, which this node has",
                Reason.STALE_REVISION,
            )
        wanted.unloaded.discard(0)
        self._wanted[_id_of(deployment)] = wanted
        self._look(_id_of(deployment))
        here = self._here(_id_of(deployment))
        fitting = [held for held in here if held.settings_hash == wanted.settings_hash]
        found = [held for held in fitting or here if held.number == 0] or fitting or here
        if not found:
            raise RequestError(f"{deployment.name} cannot be started on node {self._node}; its log says why")
        return self._snapshot(found[0])

    async def unload(self, replica_id: str, revision: int, grace_s: float) -> node_pb2.Replica:
        """Drains and ends one replica.

        Raises:
            RequestError: there is none of that id, or the command is older than what runs.
        """
        held = self.find(replica_id)
        wanted = self._wanted.get(held.deployment)
        newest = wanted.deployment.revision if wanted is not None else held.supervisor.spec.revision
        if revision < newest:
            raise RequestError(
                f"revision {revision} is older than {newest}, which this node has of {held.deployment}",
                Reason.STALE_REVISION,
            )
        if wanted is not None:
            wanted.unloaded.add(held.number)
        await held.supervisor.drain(grace_s)
        self._drop(replica_id, held)
        self._look(held.deployment)
        return self._snapshot(held)

    async def drain(self, grace_s: float) -> int:
        """Ends every replica. Returns how many requests were still running when the grace ended."""
        self._is_draining = True
        results = await asyncio.gather(*(held.supervisor.drain(grace_s) for held in self._held.values()))
        return sum(results)

    async def stop(self) -> None:
        """Kills what still runs and ends supervision."""
        self._is_draining = True
        await self._background.stop()

    def look_again(self) -> None:
        """Something that replacements wait for may be different now."""
        for deployment_id in {*self._wanted, *(held.deployment for held in self._held.values())}:
            self._look(deployment_id)

    def others_changed(self) -> None:
        """Another node changed, and replacements may wait for its replicas."""
        for deployment_id in tuple(self._waiting):
            self._look(deployment_id)

    def find(self, replica_id: str) -> Held:
        """The replica of that id.

        Raises:
            RequestError: there is none.
        """
        held = self._held.get(replica_id)
        if held is None:
            raise RequestError(f"node {self._node} has no replica {replica_id!r}", Reason.RESOURCE_NOT_FOUND)
        return held

    def get(self, replica_id: str) -> Held | None:
        """The replica of that id, if it is here."""
        return self._held.get(replica_id)

    def snapshots(self) -> list[node_pb2.Replica]:
        """Every replica as it is now."""
        return [self._snapshot(held) for _, held in sorted(self._held.items())]

    def _snapshot(self, held: Held) -> node_pb2.Replica:
        replica = held.supervisor.snapshot()
        replica.settings_hash = held.settings_hash
        return replica

    def _newest(self, deployment: admin_pb2.Deployment, count: int) -> _Wanted:
        """What is wanted of a deployment from now on. Words that are older than what is known change nothing."""
        known = self._wanted.get(_id_of(deployment))
        if known is not None and known.deployment.revision >= deployment.revision:
            return known
        return _Wanted(deployment, count, settings_hash(deployment), known.unloaded if known is not None else set())

    def _here(self, deployment_id: str) -> list[Held]:
        return [held for _, held in sorted(self._held.items()) if held.deployment == deployment_id]

    def _look(self, deployment_id: str, has_room: bool | None = None) -> None:
        """Takes the next steps for a deployment.

        Args:
            has_room: the host was looked at just now, and has accelerators for one more, or has not.
        """
        if self._is_draining:
            return
        wanted = self._wanted.get(deployment_id)
        replicas = [self._standing(held, wanted) for held in self._here(deployment_id)]
        if wanted is None:
            self._teller.forget(deployment_id)
            self._waiting.discard(deployment_id)
            for one in next_steps(0, replicas).leave:
                self._leave(*one)
            return
        deployment, revision = wanted.deployment, wanted.deployment.revision
        self._teller.look(deployment_id, revision, wanted.count, replicas)
        steps = next_steps(
            wanted.count,
            replicas,
            has_room=has_room,
            elsewhere=lambda: self._elsewhere(deployment, wanted.settings_hash),
        )
        self._waiting.discard(deployment_id)
        if steps.waits_for:
            self._waiting.add(deployment_id)
            self._teller.say(Step.WAITING, deployment_id, revision, steps.waits_for, replicas)
        for replica_id, why in steps.leave:
            if why in (Leaving.WITHOUT_ROOM, Leaving.ALONE_WITHOUT_ROOM):
                self._teller.say(Step.WITHOUT_ROOM, deployment_id, revision, f"{replica_id}: {why.value}", replicas)
            self._leave(replica_id, why)
        for number in steps.start:
            if number not in wanted.unloaded:
                self._start(number, wanted, replicas)
        if steps.asks_room and not wanted.is_looking and not wanted.is_refused:
            wanted.is_looking = True
            self._background.start(self._look_for_room(deployment_id, wanted), f"room for {deployment_id}")

    async def _look_for_room(self, deployment_id: str, wanted: _Wanted) -> None:
        """Looks at the host, which may take a while, and goes on with what it found."""
        try:
            descriptor, spec = self._registry.descriptor(wanted.deployment.engine), self._spec(0, wanted.deployment)
            count, share = descriptor.accelerators(spec), descriptor.accelerator_share(spec)
            has_room = not count or await asyncio.to_thread(self._host.claims.has_room, count, share)
        except EnginehouseError:
            has_room = True  # what is wrong with it the start will say
        finally:
            wanted.is_looking = False
        if self._wanted.get(deployment_id) is wanted:
            self._look(deployment_id, has_room)

    def _standing(self, held: Held, wanted: _Wanted | None) -> Standing:
        replica = held.supervisor.snapshot()
        standing = Standing(
            id=replica.id,
            number=held.number,
            state=replica.state,
            fits=wanted is not None and held.settings_hash == wanted.settings_hash,
            has_served=held.has_served,
            is_seen=held.is_late or self._sight.all_use(replica.id),
            is_leaving=held.leaving is not None or replica.state in (DRAINING, STOPPED),
            reason=replica.reason,
        )
        if standing.state == READY and not standing.is_seen and held.watch is None:
            held.watch = self._background.start(self._give_up_on_routers(held), f"routers of {replica.id}")
        return standing

    async def _give_up_on_routers(self, held: Held) -> None:
        await asyncio.sleep(SEEN_MAX_S)
        held.is_late = True
        if not self._sight.all_use(held.supervisor.spec.replica_id):
            _log.warning("not every router sends it requests", replica=held.supervisor.spec.replica_id)
        self._look(held.deployment)

    def _start(self, number: int, wanted: _Wanted, replicas: list[Standing]) -> None:
        deployment = wanted.deployment
        replica_id = replica_id_of(_id_of(deployment), self._node, number, deployment.revision)
        if wanted.is_refused or replica_id in self._held:  # one that leaves: its end has us look again
            return
        try:
            supervisor = self._supervisor(self._spec(number, deployment))
        except EnginehouseError as error:
            wanted.is_refused = True
            _log.error("replica cannot be started", replica=replica_id, error=error.message)
            self._teller.say(Step.FAILED, _id_of(deployment), deployment.revision, error.message, replicas)
            return
        self._held[replica_id] = Held(supervisor, number, wanted.settings_hash)
        self._background.start(supervisor.run(), f"supervise {replica_id}")

    def _leave(self, replica_id: str, why: Leaving) -> None:
        held = self._held[replica_id]
        has_stand_in = why in (Leaving.REPLACED, Leaving.WITHOUT_ROOM)
        grace_s = self._replaced_grace_s if has_stand_in else self._drain_grace_s
        _log.info("replica leaves", replica=replica_id, reason=why.value, grace_s=grace_s)
        held.leaving = self._background.start(self._end(replica_id, held, grace_s), f"end {replica_id}")

    async def _end(self, replica_id: str, held: Held, grace_s: float) -> None:
        await held.supervisor.drain(grace_s)
        self._drop(replica_id, held)
        await asyncio.to_thread(prune_logs, self._folder, frozenset(self._held))
        self._look(held.deployment)

    def _drop(self, replica_id: str, held: Held) -> None:
        held.forget_routers()
        if self._held.get(replica_id) is held:
            del self._held[replica_id]

    def _changed(self, replica: node_pb2.Replica, transition: Transition) -> None:
        held = self._held.get(replica.id)
        if held is not None:
            held.has_served = held.has_served or transition.to_state == READY
            held.forget_routers()
        self._on_change(replica, transition)
        # Not now: the supervisor is in the middle of its step.
        asyncio.get_running_loop().call_soon(self._look, replica.deployment)

    def _is_idle(self, replica_id: str) -> bool:
        """No request of ours is on its way to the replica, and no router will send one."""
        held = self._held.get(replica_id)
        return held is None or (not held.in_flight and not self._sight.any_uses(replica_id))

    def _spec(self, number: int, deployment: admin_pb2.Deployment) -> EngineSpec:
        return EngineSpec(
            replica_id=replica_id_of(_id_of(deployment), self._node, number, deployment.revision),
            deployment=_id_of(deployment),
            revision=deployment.revision,
            engine=deployment.engine,
            settings=deployment.settings,
            served_model=deployment.model,
        )

    def _supervisor(self, spec: EngineSpec) -> ReplicaSupervisor:
        descriptor = self._registry.descriptor(spec.engine)
        # One that is called past this node and does not say what it is doing could be cut off by what we know alone.
        knows = descriptor.metrics(spec) is not None or not descriptor.capabilities(spec).direct_dialects
        return ReplicaSupervisor(
            spec,
            descriptor,
            DialectProber(spec.engine, spec.settings.api, self._session, features=descriptor.offered_features(spec)),
            self._folder,
            on_change=self._changed,
            config=self._config,
            idle=(lambda: self._is_idle(spec.replica_id)) if knows else None,
            host=self._host,
        )


def read_deployments(entries: Mapping[str, bytes]) -> list[admin_pb2.Deployment]:
    """The deployments of the bucket `desired`."""
    values = [value for key, value in sorted(entries.items()) if key.startswith("deployments.")]
    return [admin_pb2.Deployment.FromString(value) for value in values]


def _id_of(deployment: admin_pb2.Deployment) -> str:
    return deployment.name.removeprefix("deployments/")
