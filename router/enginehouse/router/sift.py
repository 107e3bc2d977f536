"""What the rules over replicas leave for one kind of request: groups of equals. Computed once per view and kind."""

from collections.abc import Iterable
from dataclasses import dataclass

from enginehouse.router.filters import FILTERS, Kind
from enginehouse.router.policy import DEFAULT_WEIGHTS, Policy, Weights
from enginehouse.router.replica import Replica
from enginehouse.router.scorers import chip_score, quality_score
from enginehouse.v1.common_pb2 import Dialect, Lane


@dataclass(frozen=True, slots=True)
class Dropped:
    """A replica and the rule that dropped it."""

    replica: Replica
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Group:
    """Replicas of one deployment for which a request has the same bounds, price and lane.

    Attributes:
        sample: one of them.
        rewriting: groups with the same value have the same body rewritten the same way, once, inside Envoy.
        preferences: for each member, its scores for quality and chip, and their weighted sum.
    """

    sample: Replica
    lane: Lane.ValueType
    rewriting: tuple[str, str]
    members: tuple[Replica, ...]
    preferences: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, slots=True)
class Sifted:
    """What is left, and what was dropped and why."""

    weights: Weights
    groups: tuple[Group, ...]
    dropped: tuple[Dropped, ...]


def sift(kind: Kind, candidates: Iterable[Replica]) -> Sifted:
    """Asks every rule over replicas, of all candidates of the model."""
    dropped: list[Dropped] = []
    groups: dict[tuple[object, ...], list[Replica]] = {}
    for replica in candidates:
        for rule in FILTERS:
            reason = rule.drop(replica, kind)
            if reason is not None:
                dropped.append(Dropped(replica, rule.name, reason))
                break
        else:
            groups.setdefault(_likeness(replica, kind), []).append(replica)
    weights = kind.policy.weights or DEFAULT_WEIGHTS
    made = tuple(_group(members, kind, weights) for members in groups.values())
    return Sifted(weights, made, tuple(dropped))


def lane_of(dialect: Dialect.ValueType, policy: Policy, replica: Replica) -> Lane.ValueType:
    """The lane that requests take to `replica`: the direct one if the engine speaks the client's dialect.

    Policy may force the adapter lane, and so may the deployment. Nobody can force bytes on an engine that does not
    speak them.
    """
    forced = policy.lane or replica.forced_lane
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
        lane_of(kind.dialect, kind.policy, replica),
    )


def _group(members: list[Replica], kind: Kind, weights: Weights) -> Group:
    sample = members[0]
    return Group(
        sample=sample,
        lane=lane_of(kind.dialect, kind.policy, sample),
        rewriting=(sample.served_model, sample.capabilities.stream_usage_members),
        members=tuple(members),
        preferences=tuple(_preference(replica, kind.policy, weights) for replica in members),
    )


def _preference(replica: Replica, policy: Policy, weights: Weights) -> tuple[float, float, float]:
    quality, chip = quality_score(replica, policy), chip_score(replica, policy)
    return quality, chip, weights.quality * quality + weights.chip * chip
