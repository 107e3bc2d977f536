"""A candidate: one running engine on one node, with everything that a rule may ask of it."""

from dataclasses import dataclass, field
from hashlib import blake2b

from enginehouse.router.chip import Chip
from enginehouse.router.jurisdiction import Place
from enginehouse.router.price import Price
from enginehouse.v1.common_pb2 import Dialect, Feature, Lane, Operation, Quality


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the engine can do. Token counts bound one request; see v1.Capabilities for each."""

    operations: frozenset[Operation.ValueType]
    features: frozenset[Feature.ValueType] = frozenset()
    direct_dialects: frozenset[Dialect.ValueType] = frozenset()
    context_tokens_max: int = 0
    output_tokens_max: int = 0
    template_tokens: int = 0
    message_tokens: int = 0
    image_tokens_max: int = 0
    stream_usage_members: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """What a replica is doing, as its node last reported, and how fast it works when it has enough to do.

    Rates in tokens per second, 0 while unknown.
    """

    running: int = 0
    waiting: int = 0
    prefill_tokens_per_second: float = 0.0
    decode_tokens_per_second: float = 0.0


IDLE = Load()


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica as a router sees it.

    Attributes:
        model: the public name that its deployment answers to.
        address: host:port of the engine, dialed in the direct lane.
        node_address: host:port of its node's adapters, dialed in the adapter lane.
        place: None when the node is unlabelled or its label is no place.
        price: None when it is unknown.
        quality_scores: by task class, 0 to 1.
        tenants: resource names of those who may use the deployment. Empty: everybody.
        forced_lane: LANE_UNSPECIFIED when the deployment leaves it open.
        in_flight_max: requests that may run or wait on it at once.
        parallel: requests that it works on side by side; the others wait.
        unavailable: why nothing may be sent to it now. Empty: it is ready.
        sticky: hash of the id, for choices that must be made again the same way.
    """

    id: str
    deployment: str
    model: str
    node: str
    address: str
    node_address: str
    served_model: str
    place: Place | None
    chip: Chip
    capabilities: Capabilities
    price: Price | None
    quality: Quality.ValueType = Quality.QUALITY_STANDARD
    quality_scores: tuple[tuple[str, float], ...] = ()
    tenants: frozenset[str] = frozenset()
    forced_lane: Lane.ValueType = Lane.LANE_UNSPECIFIED
    in_flight_max: int = 64
    parallel: int = 1
    unavailable: str = ""
    sticky: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Computes what would otherwise be computed for every request."""
        object.__setattr__(self, "sticky", hash64(self.id))

    def quality_score(self, task: str) -> float:
        """How good it is at `task`, 0 to 1: as declared for that class, or else by its tier."""
        for name, score in self.quality_scores:
            if name == task:
                return score
        return self.quality / Quality.QUALITY_HIGH


def hash64(text: str) -> int:
    """A hash of 64 bits that is the same in every process and on every machine."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
