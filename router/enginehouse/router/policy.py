"""What a tenant's requests may see, use and cost, and how a request's hints narrow it."""

from dataclasses import dataclass, replace

from enginehouse.router.jurisdiction import Residency
from enginehouse.router.request import Hints
from enginehouse.v1.common_pb2 import ChipClass, Lane, Quality


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each scorer counts. Cost leads, so that the cheapest that satisfies the floor wins by default."""

    cost: float = 1.0
    quality: float = 0.05
    wait: float = 0.3
    affinity: float = 0.1
    chip: float = 0.2


DEFAULT_WEIGHTS = Weights()


@dataclass(frozen=True, slots=True)
class Policy:
    """One tenant's rules.

    Attributes:
        residency: every rule must permit a place.
        chips_allowed: None: every class.
        quality_floor: lowest quality that serves.
        price_nanousd_max: of one request. None: no limit.
        models: public names. None: every model that the deployments offer.
        lane: LANE_UNSPECIFIED: the best that the engine allows.
    """

    residency: tuple[Residency, ...] = ()
    chips_allowed: frozenset[ChipClass.ValueType] | None = None
    chips_forbidden: frozenset[ChipClass.ValueType] = frozenset()
    chips_preferred: tuple[ChipClass.ValueType, ...] = ()
    quality_floor: Quality.ValueType = Quality.QUALITY_UNSPECIFIED
    price_nanousd_max: int | None = None
    models: frozenset[str] | None = None
    weights: Weights = DEFAULT_WEIGHTS
    lane: Lane.ValueType = Lane.LANE_UNSPECIFIED


def narrow(policy: Policy, hints: Hints) -> Policy:
    """The policy with the hints taken in. Whatever it permits, `policy` permits too."""
    residency = policy.residency
    if hints.residency:
        residency = (*residency, Residency(allow=hints.residency))
    chips = policy.chips_allowed
    if hints.chip:
        wished = frozenset({hints.chip})
        chips = wished if chips is None else chips & wished
    price_nanousd_max = policy.price_nanousd_max
    if hints.price_nanousd_max is not None:
        known = price_nanousd_max
        price_nanousd_max = hints.price_nanousd_max if known is None else min(known, hints.price_nanousd_max)
    return replace(
        policy,
        residency=residency,
        chips_allowed=chips,
        quality_floor=max(policy.quality_floor, hints.quality),
        price_nanousd_max=price_nanousd_max,
    )
