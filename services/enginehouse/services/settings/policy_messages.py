"""Policies as messages, and the way back: from a field of the message to the key of the file that it came from."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from google.protobuf import duration_pb2

from enginehouse.router import NANOUSD_PER_USD
from enginehouse.services.policies import Path
from enginehouse.services.settings import policy, sections
from enginehouse.v1 import admin_pb2, common_pb2, router_pb2

ORGANIZATION = "organizations/default"
POLICY_SET = "policies/default"
_BYTES_PER_GIB = 1 << 30
_KEYS: dict[str, tuple[str, ...]] = {
    "chips_required": ("chips", "required"),
    "chips_forbidden": ("chips", "forbidden"),
    "chips_preferred": ("chips", "preferred"),
    "quality_floor": ("quality", "floor"),
    "quality_score_floor": ("quality", "score"),
    "task": ("quality", "task"),
    "price_nanousd_max": ("max_price",),
    "wait": ("wait_s",),
}
_CHIP_KEYS = {
    "classes": "class",
    "vendors": "vendor",
    "models": "model",
    "memory_bytes_min": "memory_gib",
    "count_min": "count",
}


def nanousd(usd: Decimal) -> int:
    """USD as whole nano-USD, rounded up: a price is never less than what was written."""
    return int((usd * NANOUSD_PER_USD).to_integral_value(rounding="ROUND_CEILING"))


def tenant_name(tenant: str) -> str:
    """The resource name of a declared tenant."""
    return f"{ORGANIZATION}/tenants/{tenant}"


def chip_class(name: sections.Chip) -> common_pb2.ChipClass.ValueType:
    """The chip class of a setting."""
    return common_pb2.ChipClass.Value(f"CHIP_CLASS_{name.upper()}")


def quality(name: sections.Quality | None) -> common_pb2.Quality.ValueType:
    """The tier of a setting."""
    return common_pb2.Quality.Value(f"QUALITY_{name.upper()}") if name else common_pb2.QUALITY_UNSPECIFIED


def lane(name: sections.Lane | None) -> common_pb2.Lane.ValueType:
    """The lane of a setting."""
    return common_pb2.Lane.Value(f"LANE_{name.upper()}") if name else common_pb2.LANE_UNSPECIFIED


def policy_message(body: policy.PolicyBody) -> admin_pb2.Policy:
    """What a tenant or a rule adds. Jurisdictions stay as they are written."""
    weights = body.weights
    message = admin_pb2.Policy(
        residency=residency_message(body.residency),
        chips_required=[_chip_rule(rule) for rule in body.chips.required],
        chips_forbidden=[_chip_rule(rule) for rule in body.chips.forbidden],
        chips_preferred=[_chip_rule(rule) for rule in body.chips.preferred],
        quality_floor=quality(body.quality.floor),
        quality_score_floor=body.quality.score,
        task=body.quality.task,
        price_nanousd_max=nanousd(body.max_price) if body.max_price is not None else 0,
        models=body.models,
        weights=admin_pb2.ScorerWeights(
            cost=weights.cost, quality=weights.quality, wait=weights.wait, affinity=weights.affinity, chip=weights.chip
        ),
        lane=lane(body.lane),
        on_tight_budget=_tight_budget(body),
        wait=_wait(body.wait_s),
        routes=[
            admin_pb2.Route(deployment=f"deployments/{route.deployment}", weight=route.weight) for route in body.routes
        ],
    )
    for field in ("residency", "weights"):
        if not getattr(message, field).ByteSize():
            message.ClearField(field)
    return message


def residency_message(rule: policy.Residency) -> router_pb2.Residency:
    """A rule over places, as it is written."""
    return router_pb2.Residency(allow=rule.allow, deny=rule.deny)


def policy_set_message(
    rules: Sequence[policy.Rule], data_classes: Mapping[str, policy.Residency]
) -> admin_pb2.PolicySet:
    """The rules of a file."""
    return admin_pb2.PolicySet(
        name=POLICY_SET,
        rules=[_rule(rule) for rule in rules],
        data_classes={name: residency_message(rule) for name, rule in data_classes.items()},
    )


def set_keys(path: Path, rules: Sequence[policy.Rule]) -> Path:
    """The keys of the file that a field of the set was made from."""
    match path:
        case ("rules", int(index), "principals", int(position)):
            return ("policies", index, "when", *_principal_keys(rules[index].when, position))
        case ("rules", int(index), "models", *rest):
            return ("policies", index, "when", "models", *rest)
        case ("rules", int(index), "policy", *rest):
            return ("policies", index, *body_keys(tuple(rest)))
        case ("rules", *rest):
            return ("policies", *rest)
    return path


def body_keys(path: Path) -> Path:
    """The keys, within a tenant or a rule, that a field of its policy was made from."""
    if not path or not isinstance(path[0], str):
        return path
    head = _KEYS.get(path[0], (path[0],))
    match path:
        case (_, int(index), str(part), *rest) if head[0] == "chips":
            return (*head, index, _CHIP_KEYS.get(part, part), *rest)
    return (*head, *path[1:])


def _principal_keys(when: policy.When, position: int) -> Path:
    for section, names in (("tenants", when.tenants), ("projects", when.projects), ("keys", when.keys)):
        if position < len(names):
            return (section, position)
        position -= len(names)
    return ()


def _rule(rule: policy.Rule) -> admin_pb2.PolicyRule:
    message = admin_pb2.PolicyRule(
        name=rule.name,
        principals=_principals(rule.when),
        models=rule.when.models,
        data_class=rule.data_class or "",
        policy=policy_message(rule),
    )
    if not message.policy.ByteSize():
        message.ClearField("policy")
    return message


def _principals(when: policy.When) -> list[str]:
    names = [tenant_name(tenant) for tenant in when.tenants]
    for path in (*when.projects, *when.keys):
        tenant, project, *key = path.split("/")
        names.append(f"{tenant_name(tenant)}/projects/{project}" + (f"/keys/{key[0]}" if key else ""))
    return names


def _chip_rule(rule: policy.ChipRule) -> admin_pb2.ChipRule:
    return admin_pb2.ChipRule(
        classes=[chip_class(name) for name in rule.classes],
        vendors=rule.vendor,
        models=rule.model,
        memory_bytes_min=round(rule.memory_gib * _BYTES_PER_GIB) if rule.memory_gib is not None else 0,
        count_min=rule.count or 0,
    )


def _tight_budget(body: policy.PolicyBody) -> admin_pb2.TightBudget.ValueType:
    if body.on_tight_budget is None:
        return admin_pb2.TIGHT_BUDGET_UNSPECIFIED
    return admin_pb2.TightBudget.Value(f"TIGHT_BUDGET_{body.on_tight_budget.upper()}")


def _wait(seconds: Decimal | None) -> duration_pb2.Duration | None:
    if seconds is None:
        return None
    wait = duration_pb2.Duration()
    wait.FromMilliseconds(int(seconds * 1000))
    return wait
