"""Reads the desired state as the core wants it: policies and limits from the contract's resources."""

from enginehouse.router import Policy, Residency, Weights
from enginehouse.router.limits import Limit
from enginehouse.router.policy import DEFAULT_WEIGHTS
from enginehouse.v1 import admin_pb2


def policy_from_message(message: admin_pb2.Policy) -> Policy:
    """A tenant's policy. Jurisdictions are spelled as `Jurisdictions` spells, which control has seen to."""
    rule = Residency(frozenset(message.residency.allow), frozenset(message.residency.deny))
    return Policy(
        residency=(rule,) if rule.allow or rule.deny else (),
        chips_allowed=frozenset(message.chips_allowed) or None,
        chips_forbidden=frozenset(message.chips_forbidden),
        chips_preferred=tuple(message.chips_preferred),
        quality_floor=message.quality_floor,
        price_nanousd_max=message.price_nanousd_max or None,
        models=frozenset(message.models) or None,
        weights=_weights(message.weights),
        lane=message.lane,
    )


def limit_from_message(message: admin_pb2.Limit) -> Limit:
    """A limit."""
    return Limit(
        id=message.name.removeprefix("limits/"),
        scope=message.scope,
        unit=message.unit,
        window=message.window,
        cap=message.cap,
        time_zone=message.time_zone or "UTC",
    )


def _weights(message: admin_pb2.ScorerWeights) -> Weights:
    values = (message.cost, message.quality, message.wait, message.affinity, message.chip)
    return Weights(*values) if any(values) else DEFAULT_WEIGHTS
