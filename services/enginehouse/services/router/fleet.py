"""What a router knows of the nodes: the view that it decides on, and beside it the loads, which change all the time."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import lru_cache

from enginehouse.router import IDLE, Capabilities, Chip, Jurisdictions, Load, Place, Price, Replica, View, by_deployment
from enginehouse.router.record import chip_from_message
from enginehouse.router.snapshot import capabilities_from_message
from enginehouse.services.replica_ids import is_in_place, replica_id_of
from enginehouse.services.router.desired import Desired
from enginehouse.services.router.resources import price_from_message
from enginehouse.services.router.terms import Terms, TermsBook, placement_on
from enginehouse.v1 import admin_pb2, common_pb2, node_pb2

IN_FLIGHT_MAX_DEFAULT = 64
_TAKES_REQUESTS = node_pb2.REPLICA_STATE_READY
_RATE_GROWTH = 1.1
_INTERNED_MAX = 4096


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    """A node's replicas as the core sees them, and a hash of them, for as long as `made_from` stays the same."""

    made_from: tuple[object, ...]
    replicas: tuple[Replica, ...]
    digest: bytes


@dataclass(frozen=True, slots=True)
class _Last:
    """The newest view, and what it was made of."""

    desired: Desired
    pictures: tuple[_Picture, ...]
    view: View


@dataclass(slots=True)
class KnownNode:
    """A node's last words, and whether they still stand.

    Attributes:
        registration: as the node last wrote it, in the registry or on its status stream, whichever is newer.
        words: what it said, less what changes all the time: its loads and the time.
        rates: the highest measured rates of each replica so far, by id: what it can do, over which an hour is spread.
        is_reachable: its status stream is open.
        suspects: engine addresses that Envoy could not reach, with the replica state at that moment.
    """

    registration: node_pb2.Registration
    words: bytes
    rates: dict[str, Load] = field(default_factory=dict)
    is_reachable: bool = False
    suspects: dict[str, str] = field(default_factory=dict)
    picture: _Picture | None = None


class Fleet:
    """Nodes by name. It only changes when something is known to have changed, and then asks for a new view.

    A node that is gone is remembered for as long as a deployment is placed on it, so that a request which only it may
    serve is told "not now" and not "never".

    Args:
        jurisdictions: reads the nodes' labels.
        here: labels of the places that every request passes.
        on_change: called after every change of what the view is made of. A report of loads alone is none.

    Attributes:
        loads: by replica id: what the nodes last reported, with the rates at which replicas last worked while requests
            waited; it changes in place.
        terms: on which replicas are offered.
    """

    def __init__(self, jurisdictions: Jurisdictions, here: Iterable[str], on_change: Callable[[], None]) -> None:
        self._jurisdictions = jurisdictions
        self._here = tuple(jurisdictions.place_or_nowhere(label) for label in here)
        self._on_change = on_change
        self.loads: dict[str, Load] = {}
        self._nodes: dict[str, KnownNode] = {}
        self._seen: dict[str, node_pb2.Replica] = {}
        self._places: dict[str, Place | None] = {}
        self._last: _Last | None = None
        self.terms = TermsBook()
        self._desired: Desired | None = None
        self._knows_engine: Callable[[str], bool] = lambda _: True
        self._knows_node: Callable[[str], bool] = lambda _: True

    def require_published(
        self, knows_engine: Callable[[str], bool], knows_node: Callable[[str], bool] = lambda _: True
    ) -> None:
        """Lets only those addresses be used, of engines and of nodes, that Envoy knows."""
        self._knows_engine = knows_engine
        self._knows_node = knows_node

    def registered(self, registrations: Iterable[node_pb2.Registration]) -> None:
        """Takes in what the registry holds. Absence says nothing: an expired entry is not a dead node."""
        changes = [self._take(registration) for registration in registrations]
        if any(changes):
            self._on_change()

    def status(self, registration: node_pb2.Registration) -> None:
        """Takes in what a node says on its status stream, which shows that it can be reached."""
        is_changed = self._take(registration)
        known = self._nodes[registration.node]
        if is_changed or not known.is_reachable or known.suspects:
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
            for replica in self._nodes.pop(node).registration.replicas:
                self.loads.pop(replica.id, None)

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

    def declared(self, desired: Desired) -> None:
        """Takes in what is desired from now on."""
        if self._desired is not desired:
            self._desired = desired
            self.terms.take(desired.deployments)

    def usable(self) -> dict[str, frozenset[str]]:
        """The replicas of each node that requests may go to now, as far as node and replica are concerned, by id."""
        return {
            name: frozenset(
                replica.id for replica in known.registration.replicas if not self._unavailable(known, replica)
            )
            for name, known in self._nodes.items()
        }

    def view(self, desired: Desired) -> View:
        """The picture at this moment: the very same one when nothing that it is made of has changed.

        Nodes of which nothing has changed keep the replicas that they had.
        """
        self.declared(desired)
        pictures = tuple(self._picture(name, known, desired) for name, known in sorted(self._nodes.items()))
        if self._last is None or self._last.desired is not desired or self._last.pictures != pictures:
            version = hashlib.blake2b(digest_size=8)
            for picture in pictures:
                version.update(picture.digest)
            view = View(
                fleet_version=version.hexdigest(),
                policy_version=desired.version,
                models=desired.models,
                replicas=by_deployment(replica for picture in pictures for replica in picture.replicas),
                policies=desired.policies,
                limits=desired.limits,
                here=self._here,
            )
            self._last = _Last(desired, pictures, view)
        return self._last.view

    def _take(self, registration: node_pb2.Registration) -> bool:
        """Whether what the view is made of has changed."""
        words = _words(registration)
        self._seen.update({replica.deployment: replica for replica in registration.replicas})
        known = self._nodes.get(registration.node)
        if known is None:
            known = self._nodes[registration.node] = KnownNode(registration, words)
            self._take_loads(known)
            return True
        if not _is_newer(registration, known.registration):
            return False
        is_changed = words != known.words
        if is_changed:
            self._forget_others(known, registration)
        known.registration, known.words = registration, words
        return self._take_loads(known) or is_changed

    def _forget_others(self, known: KnownNode, registration: node_pb2.Registration) -> None:
        """Drops what was measured on replicas that are gone, and on those that run something else now."""
        stay = {(replica.id, replica.revision) for replica in registration.replicas}
        is_same_chip = registration.chip == known.registration.chip
        for replica in known.registration.replicas:
            if not is_same_chip or (replica.id, replica.revision) not in stay:
                self.loads.pop(replica.id, None)
                known.rates.pop(replica.id, None)

    def _take_loads(self, known: KnownNode) -> bool:
        """Whether a replica has shown that it can do clearly more than was known, so that its hour is spread anew."""
        is_faster = False
        for replica in known.registration.replicas:
            load, best = replica.load, known.rates.get(replica.id, IDLE)
            prefill, decode = load.prefill_tokens_per_second, load.decode_tokens_per_second
            if (
                prefill > best.prefill_tokens_per_second * _RATE_GROWTH
                or decode > best.decode_tokens_per_second * _RATE_GROWTH
            ):
                known.rates[replica.id] = Load(
                    prefill_tokens_per_second=max(prefill, best.prefill_tokens_per_second),
                    decode_tokens_per_second=max(decode, best.decode_tokens_per_second),
                )
                is_faster = True
            pace = self.loads.get(replica.id, IDLE)
            if load.waiting_requests:
                # Only now is it as fast as it can be. Before, its rates told how little was asked of it, and whoever
                # is asked little would seem slow and be asked even less.
                pace = Load(
                    prefill_tokens_per_second=prefill or pace.prefill_tokens_per_second,
                    decode_tokens_per_second=decode or pace.decode_tokens_per_second,
                )
            self.loads[replica.id] = replace(pace, running=load.running_requests, waiting=load.waiting_requests)
        return is_faster

    def _picture(self, name: str, known: KnownNode, desired: Desired) -> _Picture:
        offers = [
            (message, terms)
            for message in (*known.registration.replicas, *self._awaited(known, desired))
            if (terms := self._terms_of(message, name, desired)) is not None
        ]
        made_from = (
            desired.version,
            known.words,
            *(
                (self._unavailable(known, message), _measured(terms.placement, known, message))
                for message, terms in offers
            ),
        )
        if known.picture is None or known.picture.made_from != made_from:
            replicas = tuple(self._replica(known, message, terms) for message, terms in offers)
            known.picture = _Picture(made_from, replicas, _digest(replicas))
        return known.picture

    def _terms_of(self, message: node_pb2.Replica, node: str, desired: Desired) -> Terms | None:
        deployment = desired.deployments.get(message.deployment)
        return self.terms.terms(deployment, message, node) if deployment is not None else None

    def _awaited(self, known: KnownNode, desired: Desired) -> Iterator[node_pb2.Replica]:
        """Replicas that are placed on the node and of which it does not speak yet, as it was only just started.

        Without them a request that only they may serve would be told "never" when it is "not now".
        """
        node = known.registration.node
        for deployment_id, deployment in desired.deployments.items():
            placement, like = placement_on(deployment, node), self._seen.get(deployment_id)
            if placement is None or like is None:
                continue
            here = [replica.id for replica in known.registration.replicas if replica.deployment == deployment_id]
            for number in range(max(1, placement.replicas)):
                if not any(is_in_place(replica_id, deployment_id, node, number) for replica_id in here):
                    yield node_pb2.Replica(
                        id=replica_id_of(deployment_id, node, number, deployment.revision),
                        deployment=deployment_id,
                        state=node_pb2.REPLICA_STATE_PENDING,
                        engine=like.engine,
                        served_model=like.served_model,
                        capabilities=like.capabilities,
                    )

    def _replica(self, known: KnownNode, message: node_pb2.Replica, terms: Terms) -> Replica:
        registration, deployment, placement = known.registration, terms.deployment, terms.placement
        return Replica(
            id=message.id,
            deployment=message.deployment,
            model=deployment.model,
            node=registration.node,
            address=message.address,
            node_address=registration.address,
            served_model=message.served_model,
            place=self._place(registration.place),
            chip=_chip(registration.chip.SerializeToString(deterministic=True)),
            capabilities=_capabilities(message.capabilities.SerializeToString(deterministic=True)),
            price=_price(placement, known.rates.get(message.id, IDLE)),
            quality=placement.quality,
            quality_scores=tuple(sorted(placement.quality_scores.items())),
            tenants=frozenset(deployment.tenants),
            forced_lane=deployment.lane,
            in_flight_max=placement.in_flight_max or IN_FLIGHT_MAX_DEFAULT,
            parallel=max(1, terms.parallel),
            unavailable=(
                f"is quarantined: {deployment.quarantine}"
                if deployment.quarantine
                else terms.unavailable or self._unavailable(known, message)
            ),
        )

    def _place(self, label: str) -> Place | None:
        if label not in self._places:
            if len(self._places) >= _INTERNED_MAX:
                self._places.clear()
            self._places[label] = self._jurisdictions.place_or_nowhere(label)
        return self._places[label]

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
        if not (self._knows_engine(message.address) and self._knows_node(known.registration.address)):
            return "is not known to Envoy yet"
        return ""


def _is_newer(one: node_pb2.Registration, other: node_pb2.Registration) -> bool:
    return (one.registered_at.seconds, one.registered_at.nanos) >= (
        other.registered_at.seconds,
        other.registered_at.nanos,
    )


def _words(registration: node_pb2.Registration) -> bytes:
    said = node_pb2.Registration()
    said.CopyFrom(registration)
    said.ClearField("registered_at")
    for replica in said.replicas:
        replica.ClearField("load")
    return said.SerializeToString(deterministic=True)


# Many replicas are alike in these: one object for all of them takes less memory and compares sooner.
@lru_cache(_INTERNED_MAX)
def _capabilities(serialized: bytes) -> Capabilities:
    return capabilities_from_message(node_pb2.Capabilities.FromString(serialized))


@lru_cache(_INTERNED_MAX)
def _chip(serialized: bytes) -> Chip:
    return chip_from_message(common_pb2.Chip.FromString(serialized))


def _digest(replicas: Iterable[Replica]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for replica in replicas:
        digest.update(repr(_canonical(replica)).encode())
    return digest.digest()


def _canonical(value: object) -> object:
    """The same for equal values in every process: sets have no order of their own."""
    if is_dataclass(value):
        return tuple(_canonical(getattr(value, one.name)) for one in fields(value))
    if isinstance(value, frozenset):
        return tuple(sorted(value))
    return value


def _price(placement: admin_pb2.Placement, measured: Load) -> Price | None:
    return price_from_message(placement.price, measured) if placement.HasField("price") else None


def _measured(placement: admin_pb2.Placement, known: KnownNode, message: node_pb2.Replica) -> Load | None:
    """The rates that the replica's price follows; None when it follows none."""
    price = placement.price
    if not price.hour_nanousd or (price.input_tokens_per_second and price.output_tokens_per_second):
        return None
    return known.rates.get(message.id)


def registrations(entries: Mapping[str, bytes]) -> list[node_pb2.Registration]:
    """Reads the bucket `registrations`."""
    return [
        node_pb2.Registration.FromString(value) for key, value in sorted(entries.items()) if key.startswith("nodes.")
    ]
