"""A candidate: one running engine on one node, with everything that a rule may ask of it."""

from dataclasses import dataclass

from enginehouse.router.jurisdiction import Place
from enginehouse.router.price import Price
from enginehouse.v1.common_pb2 import ChipClass, Dialect, Feature, Lane, Operation, Quality


@dataclass(frozen=True, slots=True)
class Chip:
    """The accelerator. Vendor and model in lower case; memory of one chip in bytes, 0 when unknown."""

    chip_class: ChipClass.ValueType
    vendor: str = ""
    model: str = ""
    memory_bytes: int = 0
    count: int = 1


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
class Replica:
    """One replica as a router sees it.

    Attributes:
        model: the public name that its deployment answers to.
        address: host:port of the engine, dialed in the direct lane.
        node_address: host:port of its node's adapters, dialed in the adapter lane.
        place: None when the node is unlabelled or its label is no place.
        price: None when it is unknown.
        tenants: resource names of those who may use the deployment. Empty: everybody.
        forced_lane: LANE_UNSPECIFIED when the deployment leaves it open.
        in_flight_max: requests that may run or wait on it at once.
        parallel: requests that it works on side by side; the others wait.
        waiting: requests that its engine reported as waiting.
        unavailable: why nothing may be sent to it now. Empty: it is ready.
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
    tenants: frozenset[str] = frozenset()
    forced_lane: Lane.ValueType = Lane.LANE_UNSPECIFIED
    in_flight_max: int = 64
    parallel: int = 1
    waiting: int = 0
    unavailable: str = ""
