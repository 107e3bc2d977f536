"""What a router knows of the nodes, and the view that it decides on."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from enginehouse.router import Capabilities, Jurisdictions, Price, Replica, View, by_deployment
from enginehouse.router.record import chip_from_message
from enginehouse.services.replica_ids import replica_id_of
from enginehouse.services.router.desired import Desired
from enginehouse.v1 import admin_pb2, node_pb2

IN_FLIGHT_MAX_DEFAULT = 64
_TAKES_REQUESTS = node_pb2.REPLICA_STATE_READY


@dataclass(slots=True)
class KnownNode:
    """A node's last words, and whether they still stand.

    Attributes:
        registration: as the node last wrote it, in the registry or on its status stream, whichever is newer.
        is_reachable: its status stream is open.
        suspects: engine addresses that Envoy could not reach, with the replica state at that moment.
    """

    registration: node_pb2.Registration
    is_reachable: bool = False
    suspects: dict[str, str] = field(default_factory=dict)


class Fleet:
    """Nodes by name. It only changes when something is known to have changed, and then asks for a new view.

    A node that is gone is remembered for as long as a deployment is placed on it, so that a request which only it may
    serve is told "not now" and not "never".

    Args:
        jurisdictions: reads the nodes' labels.
        here: labels of the places that every request passes.
        on_change: called after every change.
    """

    def __init__(self, jurisdictions: Jurisdictions, here: Iterable[str], on_change: Callable[[], None]) -> None:
        self._jurisdictions = jurisdictions
        self._here = tuple(jurisdictions.place_or_nowhere(label) for label in here)
        self._on_change = on_change
        self._nodes: dict[str, KnownNode] = {}
        self._seen: dict[str, node_pb2.Replica] = {}
        self._published: Callable[[str], bool] = lambda _: True

    def require_published(self, published: Callable[[str], bool]) -> None:
        """Lets only those addresses be used that `published` says Envoy knows."""
        self._published = published

    def registered(self, registrations: Iterable[node_pb2.Registration]) -> None:
        """Takes in what the registry holds. Absence says nothing: an expired entry is not a dead node."""
        for registration in registrations:
            self._take(registration)
        self._on_change()

    def status(self, registration: node_pb2.Registration) -> None:
        """Takes in what a node says on its status stream, which shows that it can be reached."""
        known = self._take(registration)
        known.is_reachable = True
        known.suspects.clear()
        self._on_change()

    def unreachable(self, node: str) -> None:
        """The node's status stream broke."""
        known = self._nodes.get(node)
        if known is not None and known.is_reachable:
            known.is_reachable = False
            self._on_change()

    def suspect(self, address: str) -> None:
        """Envoy could not reach an engine. It gets nothing more until its node speaks again."""
        for known in self._nodes.values():
            if any(replica.address == address for replica in known.registration.replicas):
                known.suspects[address] = "did not take Envoy's connection"
                self._on_change()

    def forget(self, placed: set[str]) -> None:
        """Drops nodes that are out of reach and that no deployment is placed on."""
        for node in [name for name, known in self._nodes.items() if not known.is_reachable and name not in placed]:
            del self._nodes[node]

    @property
    def node_addresses(self) -> dict[str, str]:
        """Where each node's gRPC server is."""
        return {name: known.registration.address for name, known in self._nodes.items()}

    @property
    def engine_addresses(self) -> set[str]:
        """Where the engines of all nodes that can be reached are."""
        return {
            replica.address
            for known in self._nodes.values()
            if known.is_reachable
            for replica in known.registration.replicas
            if replica.address
        }

    def view(self, desired: Desired) -> View:
        """The picture at this moment."""
        replicas: list[Replica] = []
        for name, known in sorted(self._nodes.items()):
            for message in (*known.registration.replicas, *self._awaited(known, desired)):
                deployment = desired.deployments.get(message.deployment)
                placement = _placement(deployment, name)
                if deployment is not None and placement is not None:
                    replicas.append(self._replica(known, message, deployment, placement))
        return View(
            fleet_version=_hash(replicas),
            policy_version=desired.version,
            models=desired.models,
            replicas=by_deployment(replicas),
            policies=desired.policies,
            limits=desired.limits,
            here=self._here,
        )

    def _take(self, registration: node_pb2.Registration) -> KnownNode:
        known = self._nodes.get(registration.node)
        if known is None:
            known = self._nodes[registration.node] = KnownNode(registration)
        elif _is_newer(registration, known.registration):
            known.registration = registration
        self._seen.update({replica.deployment: replica for replica in registration.replicas})
        return known

    def _awaited(self, known: KnownNode, desired: Desired) -> Iterator[node_pb2.Replica]:
        """Replicas that are placed on the node and of which it does not speak yet, as it was only just started.

        Without them a request that only they may serve would be told "never" when it is "not now".
        """
        node = known.registration.node
        spoken_of = {replica.id for replica in known.registration.replicas}
        for deployment_id, deployment in desired.deployments.items():
            placement, like = _placement(deployment, node), self._seen.get(deployment_id)
            if placement is None or like is None:
                continue
            for number in range(max(1, placement.replicas)):
                replica_id = replica_id_of(deployment_id, node, number)
                if replica_id not in spoken_of:
                    yield node_pb2.Replica(
                        id=replica_id,
                        deployment=deployment_id,
                        state=node_pb2.REPLICA_STATE_PENDING,
                        engine=like.engine,
                        served_model=like.served_model,
                        capabilities=like.capabilities,
                    )

    def _replica(
        self,
        known: KnownNode,
        message: node_pb2.Replica,
        deployment: admin_pb2.Deployment,
        placement: admin_pb2.Placement,
    ) -> Replica:
        registration, can = known.registration, message.capabilities
        replica = Replica(
            id=message.id,
            deployment=message.deployment,
            model=deployment.model,
            node=registration.node,
            address=message.address,
            node_address=registration.address,
            served_model=message.served_model,
            place=self._jurisdictions.place_or_nowhere(registration.place),
            chip=chip_from_message(registration.chip),
            capabilities=Capabilities(
                operations=frozenset(can.operations),
                features=frozenset(can.features),
                direct_dialects=frozenset(can.direct_dialects),
                context_tokens_max=can.context_tokens_max,
                output_tokens_max=can.output_tokens_max,
                template_tokens=can.template_tokens,
                message_tokens=can.message_tokens,
                image_tokens_max=can.image_tokens_max,
                stream_usage_members=can.stream_usage_members,
            ),
            price=Price.from_message(placement.price) if placement.HasField("price") else None,
            quality=placement.quality,
            tenants=frozenset(deployment.tenants),
            forced_lane=deployment.lane,
            in_flight_max=placement.in_flight_max or IN_FLIGHT_MAX_DEFAULT,
            parallel=max(1, deployment.settings.parallel),
            waiting=message.load.waiting_requests,
        )
        return replace(replica, unavailable=self._unavailable(known, message))

    def _unavailable(self, known: KnownNode, message: node_pb2.Replica) -> str:
        if not known.is_reachable:
            return f"is on node {known.registration.node}, which is out of reach"
        if known.registration.draining:
            return f"is on node {known.registration.node}, which is draining"
        if message.state != _TAKES_REQUESTS:
            state = node_pb2.ReplicaState.Name(message.state).removeprefix("REPLICA_STATE_").lower()
            return f"is {state}"
        if message.address in known.suspects:
            return known.suspects[message.address]
        if not self._published(message.address):
            return "is not known to Envoy yet"
        return ""


def _placement(deployment: admin_pb2.Deployment | None, node: str) -> admin_pb2.Placement | None:
    if deployment is None:
        return None
    return next((placement for placement in deployment.placements if placement.node == node), None)


def _is_newer(one: node_pb2.Registration, other: node_pb2.Registration) -> bool:
    return (one.registered_at.seconds, one.registered_at.nanos) >= (
        other.registered_at.seconds,
        other.registered_at.nanos,
    )


def _hash(replicas: Iterable[Replica]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for replica in replicas:
        digest.update(repr(replace(replica, waiting=0)).encode())
    return digest.hexdigest()


def registrations(entries: Mapping[str, bytes]) -> list[node_pb2.Registration]:
    """Reads the bucket `registrations`."""
    return [
        node_pb2.Registration.FromString(value) for key, value in sorted(entries.items()) if key.startswith("nodes.")
    ]
