"""What the rules over replicas leave for one kind of request: groups of equals. Computed once per view and kind.

Replicas that are alike are asked about once: a fleet of thousands has a handful of sorts.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from enginehouse.router.dropped import Dropped, by_rule
from enginehouse.router.filters import FILTERS, Kind
from enginehouse.router.jurisdiction import Place, Residency
from enginehouse.router.policy import DEFAULT_WEIGHTS, Policy, Weights
from enginehouse.router.replica import Replica
from enginehouse.router.scorers import chip_score, quality_score
from enginehouse.v1.common_pb2 import Dialect, Feature, Lane

# Engines name them in ways of their own, so a body has to be translated even where the dialect is theirs.
_TRANSLATED = frozenset({Feature.FEATURE_LORA})


@dataclass(frozen=True, slots=True)
class Preferred:
    """Members of a group with the same scores for quality and chip. `weighted` is their weighted sum."""

    replicas: tuple[Replica, ...]
    quality: float
    chip: float
    weighted: float


@dataclass(frozen=True, slots=True)
class Group:
    """Replicas of one deployment for which a request has the same bounds, price and lane.

    Attributes:
        sample: one of them.
        rewriting: groups with the same value have the same body rewritten the same way, once, inside Envoy.
        parts: all of them, by what makes one better than another whatever the request.
    """

    sample: Replica
    lane: Lane.ValueType
    rewriting: tuple[str, str]
    parts: tuple[Preferred, ...]

    @property
    def members(self) -> tuple[Replica, ...]:
        """All of them."""
        return tuple(replica for part in self.parts for replica in part.replicas)


@dataclass(frozen=True, slots=True)
class Sifted:
    """What is left, and what was dropped and why.

    Attributes:
        source: the policy before it was narrowed.
        policy: narrowed by the hints, except for the highest price: that depends on the request's size.
        forbidden: a place that the request passes on its way, and the rule that does not permit it.
        excluded: which rules dropped something, in a few words.
    """

    source: Policy
    policy: Policy
    weights: Weights
    groups: tuple[Group, ...]
    dropped: tuple[Dropped, ...]
    forbidden: tuple[Place | None, Residency] | None = None
    excluded: str = ""


def sort(replicas: Iterable[Replica]) -> tuple[tuple[Replica, ...], ...]:
    """Puts together those that no rule over replicas can tell apart, in the order in which the first of each comes."""
    sorts: dict[tuple[object, ...], list[Replica]] = {}
    for one in replicas:
        # Parts that many replicas share are compared by identity: telling apart what is equal only costs time.
        key = (
            one.deployment,
            one.model,
            one.served_model,
            id(one.place),
            id(one.chip),
            id(one.capabilities),
            one.price,
            one.quality,
            one.quality_scores,
            one.tenants,
            one.forced_lane,
            one.parallel,
            one.unavailable,
        )
        sorts.setdefault(key, []).append(one)
    return tuple(map(tuple, sorts.values()))


def sift(
    kind: Kind,
    sorts: Iterable[tuple[Replica, ...]],
    source: Policy,
    forbidden: tuple[Place | None, Residency] | None = None,
) -> Sifted:
    """Asks every rule over replicas about one of each sort.

    Args:
        kind: of the requests.
        sorts: all candidates of the model; see `sort`.
        source: the policy before it was narrowed to `kind.policy`.
        forbidden: see `Sifted`.
    """
    dropped: list[Dropped] = []
    groups: dict[tuple[object, ...], list[tuple[Replica, ...]]] = {}
    for replicas in sorts:
        for rule in FILTERS:
            reason = rule.drop(replicas[0], kind)
            if reason is not None:
                dropped.append(Dropped(replicas, rule.name, reason))
                break
        else:
            groups.setdefault(_likeness(replicas[0], kind), []).append(replicas)
    weights = kind.policy.weights or DEFAULT_WEIGHTS
    return Sifted(
        source=source,
        policy=kind.policy,
        weights=weights,
        groups=tuple(_group(parts, kind, weights) for parts in groups.values()),
        dropped=tuple(dropped),
        forbidden=forbidden,
        excluded=by_rule(dropped),
    )


def lane_of(
    dialect: Dialect.ValueType, features: frozenset[Feature.ValueType], policy: Policy, replica: Replica
) -> Lane.ValueType:
    """The lane that requests take to `replica`: the direct one if the engine speaks the client's dialect.

    Policy may force the adapter lane, and so may the deployment. Nobody can force bytes on an engine that does not
    speak them, and some features no dialect has a word for that engines agree on.
    """
    forced = policy.lane or replica.forced_lane
    if features & _TRANSLATED:
        return Lane.LANE_ADAPTER
    if forced != Lane.LANE_ADAPTER and dialect in replica.capabilities.direct_dialects:
        return Lane.LANE_DIRECT
    return Lane.LANE_ADAPTER


def _likeness(replica: Replica, kind: Kind) -> tuple[object, ...]:
    return (
        replica.deployment,
        replica.model,
        replica.served_model,
        replica.capabilities,
        replica.price,
        replica.parallel,
        lane_of(kind.dialect, kind.features, kind.policy, replica),
    )


def _group(sorts: list[tuple[Replica, ...]], kind: Kind, weights: Weights) -> Group:
    sample = sorts[0][0]
    return Group(
        sample=sample,
        lane=lane_of(kind.dialect, kind.features, kind.policy, sample),
        rewriting=(sample.served_model, sample.capabilities.stream_usage_members),
        parts=tuple(_preferred(replicas, kind.policy, weights) for replicas in sorts),
    )


def _preferred(replicas: tuple[Replica, ...], policy: Policy, weights: Weights) -> Preferred:
    quality, chip = quality_score(replicas[0], policy), chip_score(replicas[0], policy)
    return Preferred(replicas, quality, chip, weights.quality * quality + weights.chip * chip)
