"""A set of rules as the file that it could have come from: what `policy show` prints and `policy apply` compares."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import yaml

from enginehouse.router import NANOUSD_PER_USD
from enginehouse.v1 import admin_pb2, common_pb2, router_pb2

_BYTES_PER_GIB = 1 << 30
_WIDTH = 110


def policy_text(policy_set: admin_pb2.PolicySet) -> str:
    """YAML with `policies` and `data_classes`."""
    content: dict[str, Any] = {"policies": [_rule(rule) for rule in policy_set.rules]}
    if policy_set.data_classes:
        content["data_classes"] = {name: _residency(rule) for name, rule in sorted(policy_set.data_classes.items())}
    return _yaml(content)


def rule_text(rule: admin_pb2.PolicyRule) -> str:
    """YAML of one rule."""
    return _yaml(_rule(rule))


def residency_text(rule: router_pb2.Residency) -> str:
    """YAML of a rule over places."""
    return _yaml(_residency(rule))


def _yaml(content: object) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=_WIDTH, default_flow_style=None)


def _rule(rule: admin_pb2.PolicyRule) -> dict[str, Any]:
    return {"name": rule.name, **_kept(when=_when(rule), data_class=rule.data_class), **_policy(rule.policy)}


def _when(rule: admin_pb2.PolicyRule) -> dict[str, Any]:
    paths = ["/".join(name.split("/")[3::2]) for name in rule.principals]
    by_depth = [[path for path in paths if path.count("/") == depth] for depth in range(3)]
    return _kept(tenants=by_depth[0], projects=by_depth[1], keys=by_depth[2], models=list(rule.models))


def _policy(policy: admin_pb2.Policy) -> dict[str, Any]:
    weights = {field.name: value for field, value in policy.weights.ListFields()}
    tight = policy.on_tight_budget
    return _kept(
        residency=_residency(policy.residency),
        chips=_kept(
            required=_chips(policy.chips_required),
            forbidden=_chips(policy.chips_forbidden),
            preferred=_chips(policy.chips_preferred),
        ),
        quality=_kept(
            floor=_word(common_pb2.Quality.Name(policy.quality_floor), "QUALITY_") if policy.quality_floor else "",
            task=policy.task,
            score=policy.quality_score_floor,
        ),
        max_price=_number(Decimal(policy.price_nanousd_max) / NANOUSD_PER_USD),
        models=list(policy.models),
        weights=weights,
        lane=_word(common_pb2.Lane.Name(policy.lane), "LANE_") if policy.lane else "",
        on_tight_budget=_word(admin_pb2.TightBudget.Name(tight), "TIGHT_BUDGET_") if tight else "",
        **({"wait_s": _number(Decimal(policy.wait.ToMilliseconds()) / 1000)} if policy.HasField("wait") else {}),
        routes=[
            {"deployment": route.deployment.removeprefix("deployments/"), "weight": route.weight}
            for route in policy.routes
        ],
    )


def _residency(rule: router_pb2.Residency) -> dict[str, Any]:
    return _kept(allow=list(rule.allow), deny=list(rule.deny))


def _chips(rules: Sequence[admin_pb2.ChipRule]) -> list[Any]:
    return [_chip(rule) for rule in rules]


def _chip(rule: admin_pb2.ChipRule) -> str | dict[str, Any]:
    content = _kept(
        **{"class": _one_or_all([_word(common_pb2.ChipClass.Name(one), "CHIP_CLASS_") for one in rule.classes])},
        vendor=_one_or_all(rule.vendors),
        model=_one_or_all(rule.models),
        memory_gib=_number(Decimal(rule.memory_bytes_min) / _BYTES_PER_GIB),
        count=rule.count_min,
    )
    alone = content.get("class")
    return alone if isinstance(alone, str) and len(content) == 1 else content


def _one_or_all(words: Sequence[str]) -> str | list[str]:
    return words[0] if len(words) == 1 else list(words)


def _number(amount: Decimal) -> int | float | str:
    if amount == amount.to_integral_value():
        return int(amount)
    # a float would lose digits of the longest amounts; the file takes text as well
    return float(amount) if Decimal(str(float(amount))) == amount else f"{amount:f}"


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()


def _kept(**parts: Any) -> dict[str, Any]:  # noqa: ANN401 (whatever YAML can say)
    """The parts that say something. A wait of 0 seconds does."""
    return {name: part for name, part in parts.items() if part or (name == "wait_s" and not isinstance(part, Mapping))}
