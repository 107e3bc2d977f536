"""Validators of Policy, ChipRule, PolicyRule and PolicySet. Each says everything that is wrong, not only the first."""

import math
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from google.protobuf import duration_pb2
from google.protobuf.descriptor import EnumDescriptor

from enginehouse.contract import RequestError
from enginehouse.services.policies.catalog import Catalog
from enginehouse.services.policies.problem import Path, Problem
from enginehouse.v1 import admin_pb2, router_pb2
from enginehouse.v1.common_pb2 import ChipClass, Lane, Quality

RULES_MAX = 1000
WAIT_S_MAX = 30
_WEIGHT_MAX = 1_000_000
_NAMES_SHOWN = 12
_ID = r"[a-z0-9-]{1,63}"
_PRINCIPAL = re.compile(rf"(organizations/{_ID}/tenants/{_ID})(/projects/{_ID}(/keys/{_ID})?)?")
_DEPLOYMENT = re.compile(rf"deployments/({_ID})")
_CLASS = re.compile(r"[a-z][a-z0-9-]{0,39}")
_TASK = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_CHIP_WORD = re.compile(r"[a-z0-9][a-z0-9 ._-]{0,39}")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
_RULE_NAME_LENGTH_MAX = 100


def policy_set_problems(policy_set: admin_pb2.PolicySet, catalog: Catalog) -> Iterator[Problem]:
    """Everything that is wrong with a set of rules."""
    if len(policy_set.rules) > RULES_MAX:
        yield Problem(("rules",), f"there are {len(policy_set.rules)}; at most {RULES_MAX} are taken")
        return
    for name, residency in sorted(policy_set.data_classes.items()):
        if not _CLASS.fullmatch(name):
            yield Problem(("data_classes",), f"{name[:80]!r} is no name of a class: write it like 'personal'")
        yield from _residency_problems(residency, catalog, ("data_classes", name))
    first: dict[str, int] = {}
    for index, rule in enumerate(policy_set.rules):
        where: Path = ("rules", index)
        if first.setdefault(rule.name, index) != index:
            message = f"{rule.name[:80]!r} is the name of rule {first[rule.name] + 1} already; names must differ"
            yield Problem((*where, "name"), message)
        yield from _rule_problems(rule, policy_set, catalog, where)


def policy_problems(policy: admin_pb2.Policy, catalog: Catalog, where: Path) -> Iterator[Problem]:
    """Everything that is wrong with a policy, which is at `where`."""
    yield from _residency_problems(policy.residency, catalog, (*where, "residency"))
    for field, rules in (
        ("chips_required", policy.chips_required),
        ("chips_forbidden", policy.chips_forbidden),
        ("chips_preferred", policy.chips_preferred),
    ):
        for index, rule in enumerate(rules):
            yield from _chip_problems(rule, (*where, field, index))
    yield from _optional(policy.quality_floor, Quality.DESCRIPTOR, (*where, "quality_floor"))
    if not 0 <= policy.quality_score_floor <= 1:
        message = f"{policy.quality_score_floor} is no score; write a number from 0 to 1"
        yield Problem((*where, "quality_score_floor"), message)
    if policy.task and not _TASK.fullmatch(policy.task):
        yield Problem((*where, "task"), f"{policy.task[:80]!r} is no task class; write it like 'code'")
    if policy.price_nanousd_max < 0:
        yield Problem((*where, "price_nanousd_max"), f"{policy.price_nanousd_max}; a price is not negative")
    yield from _model_problems(policy.models, catalog, (*where, "models"))
    yield from _weight_problems(policy.weights, (*where, "weights"))
    yield from _optional(policy.lane, Lane.DESCRIPTOR, (*where, "lane"))
    tight = admin_pb2.TightBudget.DESCRIPTOR
    yield from _optional(policy.on_tight_budget, tight, (*where, "on_tight_budget"))
    if policy.HasField("wait"):
        yield from _wait_problems(policy.wait, (*where, "wait"))
    yield from _route_problems(policy.routes, catalog, (*where, "routes"))


def _rule_problems(
    rule: admin_pb2.PolicyRule, policy_set: admin_pb2.PolicySet, catalog: Catalog, where: Path
) -> Iterator[Problem]:
    if not rule.name.strip() or len(rule.name) > _RULE_NAME_LENGTH_MAX or not rule.name.isprintable():
        message = f"{rule.name[:80]!r}; a rule has a name of 1 to {_RULE_NAME_LENGTH_MAX} printable characters"
        yield Problem((*where, "name"), message)
    for index, principal in enumerate(rule.principals):
        yield from _principal_problems(principal, catalog, (*where, "principals", index))
    yield from _model_problems(rule.models, catalog, (*where, "models"))
    if rule.data_class and rule.data_class not in policy_set.data_classes:
        known = _listed(policy_set.data_classes)
        message = f"{rule.data_class[:80]!r} is not a declared class of data; declared are: {known}"
        yield Problem((*where, "data_class"), message)
    yield from policy_problems(rule.policy, catalog, (*where, "policy"))
    if rule.models and catalog.deployments is not None:
        for index, route in enumerate(rule.policy.routes):
            offered = catalog.deployments.get(route.deployment.removeprefix("deployments/"))
            if offered is not None and offered.isdisjoint(rule.models):
                message = (
                    f"{route.deployment!r} offers {_listed(offered)}, and the rule is about {_listed(rule.models)}"
                )
                yield Problem((*where, "policy", "routes", index, "deployment"), message)


def _residency_problems(residency: router_pb2.Residency, catalog: Catalog, where: Path) -> Iterator[Problem]:
    for field, names in (("allow", residency.allow), ("deny", residency.deny)):
        for index, name in enumerate(names):
            try:
                catalog.jurisdictions.jurisdiction(name)
            except RequestError as error:
                yield Problem((*where, field, index), error.message)


def _chip_problems(rule: admin_pb2.ChipRule, where: Path) -> Iterator[Problem]:
    for index, chip_class in enumerate(rule.classes):
        yield from _known(chip_class, ChipClass.DESCRIPTOR, (*where, "classes", index))
    for field, words in (("vendors", rule.vendors), ("models", rule.models)):
        for index, word in enumerate(words):
            if not _CHIP_WORD.fullmatch(word):
                wanted = repr(word.lower()) if _CHIP_WORD.fullmatch(word.lower()) else "letters, digits and ' ._-'"
                yield Problem((*where, field, index), f"{word[:80]!r}; write it in lower case: {wanted}")
    for field, amount in (("memory_bytes_min", rule.memory_bytes_min), ("count_min", rule.count_min)):
        if amount < 0:
            yield Problem((*where, field), f"{amount} is negative")
    if rule == admin_pb2.ChipRule():
        yield Problem(where, "names no chip; give a class, a vendor, a model, its memory or a count")


def _model_problems(names: Iterable[str], catalog: Catalog, where: Path) -> Iterator[Problem]:
    offered = catalog.models
    for index, name in enumerate(names):
        if not _MODEL.fullmatch(name):
            message = f"{name[:80]!r} is not a model name: use letters, digits and ._:/@+-"
            yield Problem((*where, index), message)
        elif offered is not None and name not in offered:
            yield Problem((*where, index), f"no deployment offers {name!r}; there is {_listed(offered, near=name)}")


def _principal_problems(name: str, catalog: Catalog, where: Path) -> Iterator[Problem]:
    # A project or key need not be there yet: what restrains it must come first.
    match = _PRINCIPAL.fullmatch(name)
    if match is None:
        forms = "'organizations/*/tenants/*', and below it '/projects/*' and '/keys/*'"
        yield Problem(where, f"{name[:200]!r} is no name of a tenant, project or key; they are {forms}")
    elif catalog.tenants is not None and match[1] not in catalog.tenants:
        known = _listed((one.rpartition("/")[2] for one in catalog.tenants), near=match[1].rpartition("/")[2])
        yield Problem(where, f"there is no tenant {match[1]!r}; there is {known}")


def _route_problems(routes: Iterable[admin_pb2.Route], catalog: Catalog, where: Path) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, route in enumerate(routes):
        match = _DEPLOYMENT.fullmatch(route.deployment)
        if match is None:
            message = f"{route.deployment[:80]!r} is no name of a deployment; they are 'deployments/*'"
            yield Problem((*where, index, "deployment"), message)
        elif catalog.deployments is not None and match[1] not in catalog.deployments:
            known = _listed(catalog.deployments, near=match[1])
            yield Problem((*where, index, "deployment"), f"there is no deployment {match[1]!r}; there is {known}")
        if route.deployment in seen:
            yield Problem((*where, index, "deployment"), f"{route.deployment[:80]!r} has a route already")
        seen.add(route.deployment)
        if not 1 <= route.weight <= _WEIGHT_MAX:
            yield Problem((*where, index, "weight"), f"{route.weight}; a weight is from 1 to {_WEIGHT_MAX}")


def _weight_problems(weights: admin_pb2.ScorerWeights, where: Path) -> Iterator[Problem]:
    for field, weight in (
        ("cost", weights.cost),
        ("quality", weights.quality),
        ("wait", weights.wait),
        ("affinity", weights.affinity),
        ("chip", weights.chip),
    ):
        if not math.isfinite(weight) or weight < 0:
            yield Problem((*where, field), f"{weight}; a weight is a number of at least 0")


def _wait_problems(wait: duration_pb2.Duration, where: Path) -> Iterator[Problem]:
    seconds = wait.seconds + wait.nanos / 1e9
    if not 0 <= seconds <= WAIT_S_MAX:
        yield Problem(where, f"{seconds:g} seconds; a request waits from 0 to {WAIT_S_MAX} seconds")


def _optional(value: int, enum: EnumDescriptor, where: Path) -> Iterator[Problem]:
    if value:
        yield from _known(value, enum, where)


def _known(value: int, enum: EnumDescriptor, where: Path) -> Iterator[Problem]:
    if value == 0 or value not in enum.values_by_number:
        names = ", ".join(enum.values_by_number[number].name for number in sorted(enum.values_by_number) if number)
        yield Problem(where, f"{value} is unknown; choose one of {names}")


def _listed(names: Iterable[str], near: str = "") -> str:
    """Names for a message, those first that are spelled like `near`."""
    every = sorted(names)
    close = get_close_matches(near, every, n=3) if near else []
    shown = [*close, *(name for name in every if name not in close)][:_NAMES_SHOWN]
    return ", ".join(shown) + (f" and {len(every) - len(shown)} more" if len(every) > len(shown) else "") or "none"
