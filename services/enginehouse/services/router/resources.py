"""Reads the contract's resources as the core wants them: policies, prices, limits.

What cannot be read allows nothing: control has checked all of it, but a rule that a router cannot follow must not be
one that it skips.
"""

from collections.abc import Iterable

import structlog

from enginehouse.contract import RequestError
from enginehouse.router import (
    NOWHERE,
    ChipRule,
    Jurisdictions,
    Load,
    Policy,
    PolicyRule,
    PolicySet,
    Price,
    Residency,
    Route,
    TightBudget,
    Weights,
    When,
    hourly_price,
    residency,
)
from enginehouse.router.limits import Limit
from enginehouse.v1 import admin_pb2, common_pb2, router_pb2

_log = structlog.get_logger(__name__)
WAIT_MS_DEFAULT = 2000
_TIGHT_BUDGETS = {
    admin_pb2.TIGHT_BUDGET_REFUSE: TightBudget.REFUSE,
    admin_pb2.TIGHT_BUDGET_CLAMP: TightBudget.CLAMP,
    admin_pb2.TIGHT_BUDGET_WAIT: TightBudget.WAIT,
}


def policy_set(
    tenants: Iterable[admin_pb2.Tenant], declared: admin_pb2.PolicySet, jurisdictions: Jurisdictions
) -> PolicySet:
    """Every rule there is: each tenant's own policy first, then the declared rules, whose preferences so win."""
    known = sorted(tenants, key=lambda tenant: tenant.name)
    own = [
        PolicyRule(
            name=f"tenant {tenant.name.rpartition('/')[2]}",
            when=When(principals=frozenset({tenant.name})),
            policy=policy_from_message(tenant.policy, jurisdictions),
        )
        for tenant in known
    ]
    return PolicySet(
        rules=(*own, *(rule_from_message(rule, jurisdictions) for rule in declared.rules)),
        data_classes={
            name: residency_from_message(rule, jurisdictions) for name, rule in sorted(declared.data_classes.items())
        },
        tenants=frozenset(tenant.name for tenant in known),
    )


def rule_from_message(message: admin_pb2.PolicyRule, jurisdictions: Jurisdictions) -> PolicyRule:
    """One declared rule."""
    return PolicyRule(
        name=message.name,
        when=When(principals=frozenset(message.principals), models=frozenset(message.models)),
        policy=policy_from_message(message.policy, jurisdictions),
        data_class=message.data_class,
    )


def policy_from_message(message: admin_pb2.Policy, jurisdictions: Jurisdictions) -> Policy:
    """What one tenant's policy, or one rule, adds."""
    rule = residency_from_message(message.residency, jurisdictions)
    return Policy(
        residency=(rule,) if rule.allow or rule.deny else (),
        chips_required=tuple(chip_rule_from_message(one) for one in message.chips_required),
        chips_forbidden=tuple(chip_rule_from_message(one) for one in message.chips_forbidden),
        chips_preferred=tuple(chip_rule_from_message(one) for one in message.chips_preferred),
        quality_floor=message.quality_floor,
        quality_score_floor=message.quality_score_floor,
        task=message.task,
        price_nanousd_max=message.price_nanousd_max or None,
        models=frozenset(message.models) or None,
        weights=_weights(message.weights),
        lane=message.lane,
        on_tight_budget=_TIGHT_BUDGETS.get(message.on_tight_budget),
        wait_ms=_wait_ms(message),
        routes=tuple(Route(route.deployment.removeprefix("deployments/"), route.weight) for route in message.routes),
    )


def residency_from_message(message: router_pb2.Residency, jurisdictions: Jurisdictions) -> Residency:
    """A rule over places. One that names what is no jurisdiction here permits no place."""
    try:
        return residency(jurisdictions, message.allow, message.deny)
    except RequestError as error:
        _log.error("a residency rule that cannot be read permits no place", error=error.message)
        return NOWHERE


def chip_rule_from_message(message: admin_pb2.ChipRule) -> ChipRule:
    """Which chips are meant."""
    return ChipRule(
        classes=frozenset(message.classes),
        vendors=frozenset(message.vendors),
        models=frozenset(message.models),
        memory_bytes_min=message.memory_bytes_min,
        count_min=message.count_min,
    )


def price_from_message(message: common_pb2.Price, measured: Load) -> Price | None:
    """The price of a replica: by token and request, and its hour spread over what it can do in an hour.

    Args:
        message: as declared.
        measured: the rates that stand in for those that are not declared.

    Returns:
        None while a rate is neither declared nor measured: the price is unknown then, never 0.
    """
    price = Price.from_message(message)
    if not message.hour_nanousd:
        return price
    input_rate = message.input_tokens_per_second or int(measured.prefill_tokens_per_second)
    output_rate = message.output_tokens_per_second or int(measured.decode_tokens_per_second)
    if message.hour_nanousd < 0 or input_rate <= 0 or output_rate <= 0:
        return None
    hourly = hourly_price(message.hour_nanousd, input_rate, output_rate)
    return Price(
        price.input_nanousd_per_million_tokens + hourly.input_nanousd_per_million_tokens,
        price.cached_input_nanousd_per_million_tokens + hourly.cached_input_nanousd_per_million_tokens,
        price.output_nanousd_per_million_tokens + hourly.output_nanousd_per_million_tokens,
        price.request_nanousd,
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
        uid=message.uid,
    )


def _weights(message: admin_pb2.ScorerWeights) -> Weights | None:
    values = (message.cost, message.quality, message.wait, message.affinity, message.chip)
    return Weights(*values) if any(values) else None


def _wait_ms(message: admin_pb2.Policy) -> int:
    if message.HasField("wait"):
        return max(0, message.wait.ToMilliseconds())
    return WAIT_MS_DEFAULT if message.on_tight_budget == admin_pb2.TIGHT_BUDGET_WAIT else 0
