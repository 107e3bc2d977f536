"""What requests may see, use and cost: rules, folded into one policy, and narrowed by a request's hints."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, unique
from functools import lru_cache

from enginehouse.router.chip import ChipRule
from enginehouse.router.jurisdiction import Residency
from enginehouse.router.request import Hints, Principal
from enginehouse.v1.common_pb2 import Lane, Quality

_FOLDED_MAX = 4096


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each scorer counts. Cost leads, so that the cheapest that satisfies the floor wins by default."""

    cost: float = 1.0
    quality: float = 0.05
    wait: float = 0.3
    affinity: float = 0.1
    chip: float = 0.2


DEFAULT_WEIGHTS = Weights()


@unique
class TightBudget(Enum):
    """What becomes of a request whose upper bound does not fit into what is left of a limit."""

    REFUSE = "refuse"
    """It is refused."""
    CLAMP = "clamp"
    """Its output is bounded by what is left, if that is anything."""
    WAIT = "wait"
    """It waits for other requests to give back what they do not use, and is refused after a while."""


@dataclass(frozen=True, slots=True)
class Route:
    """A share of a model's requests for one deployment. Weights are relative."""

    deployment: str
    weight: int


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for one request, or what one rule adds to it. The defaults add nothing.

    Attributes:
        residency: every rule must permit a place.
        chips_required: a chip must match each of them; chips_forbidden: none of them.
        chips_preferred: matched by better scores.
        quality_floor: lowest tier that serves.
        quality_score_floor: lowest score for `task` that serves, 0 to 1.
        task: the task class by which replicas' quality is scored; empty: their tier.
        price_nanousd_max: of one request. None: no limit.
        models: public names that may be asked for. None: every model that the deployments offer.
        weights: None: the defaults.
        lane: LANE_UNSPECIFIED: the best that the engine allows.
        on_tight_budget: None: refuse.
        wait_ms: how long WAIT waits.
        routes: deployments that share the model's requests by weight. Empty: scores alone decide.
    """

    residency: tuple[Residency, ...] = ()
    chips_required: tuple[ChipRule, ...] = ()
    chips_forbidden: tuple[ChipRule, ...] = ()
    chips_preferred: tuple[ChipRule, ...] = ()
    quality_floor: Quality.ValueType = Quality.QUALITY_UNSPECIFIED
    quality_score_floor: float = 0.0
    task: str = ""
    price_nanousd_max: int | None = None
    models: frozenset[str] | None = None
    weights: Weights | None = None
    lane: Lane.ValueType = Lane.LANE_UNSPECIFIED
    on_tight_budget: TightBudget | None = None
    wait_ms: int = 0
    routes: tuple[Route, ...] = ()


NO_POLICY = Policy()
NOTHING_ALLOWED = Policy(models=frozenset())
"""What holds for a tenant that nobody declared."""


@dataclass(frozen=True, slots=True)
class When:
    """To which requests a rule applies: to those that match every part. An empty part matches all.

    Tenants, projects and keys are resource names; a name matches what lies below it too.
    """

    principals: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()

    def matches(self, principal: Principal, names: frozenset[str]) -> bool:
        """Whether the rule applies to a request of `principal` for a model that has any of these names."""
        if self.models and self.models.isdisjoint(names):
            return False
        return not self.principals or any(_is_within(principal.key_name, name) for name in self.principals)


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A named rule: when it applies, and what it adds. `data_class` adds the class's own residency rule."""

    name: str
    when: When
    policy: Policy = NO_POLICY
    data_class: str = ""


@dataclass(frozen=True)
class PolicySet:
    """Every rule, in order, where data of each class may be, and who there is.

    Attributes:
        rules: all that apply are taken together: constraints add up, and of several preferences the last wins.
        data_classes: residency by class, for example "personal". A class that is not listed allows no place at all.
        tenants: resource names. Whoever belongs to no listed tenant is allowed nothing, whatever the rules say.
    """

    rules: tuple[PolicyRule, ...] = ()
    data_classes: Mapping[str, Residency] = field(default_factory=dict)
    tenants: frozenset[str] = frozenset()

    def policy(self, principal: Principal, names: frozenset[str]) -> Policy:
        """What holds for requests of `principal` for a model of any of these names, before their hints narrow it."""
        if principal.tenant_name not in self.tenants:
            return NOTHING_ALLOWED
        folded = NO_POLICY
        for rule in self.rules:
            if rule.when.matches(principal, names):
                folded = combine(folded, rule.policy)
                if rule.data_class:
                    folded = combine(folded, Policy(residency=(self._class_rule(rule.data_class),)))
        return folded

    def _class_rule(self, data_class: str) -> Residency:
        return self.data_classes.get(data_class, NOWHERE)


NOWHERE = Residency(allow=frozenset({"nowhere"}))
"""Permits no place: no jurisdiction is called so."""


def combine(one: Policy, other: Policy) -> Policy:
    """Both policies at once: whatever it permits, each of them permits. Of preferences, `other`'s win."""
    models = one.models if other.models is None else other.models if one.models is None else one.models & other.models
    return Policy(
        residency=one.residency + tuple(rule for rule in other.residency if rule not in one.residency),
        chips_required=one.chips_required + other.chips_required,
        chips_forbidden=one.chips_forbidden + other.chips_forbidden,
        chips_preferred=other.chips_preferred or one.chips_preferred,
        quality_floor=max(one.quality_floor, other.quality_floor),
        quality_score_floor=max(one.quality_score_floor, other.quality_score_floor),
        task=other.task or one.task,
        price_nanousd_max=lower(one.price_nanousd_max, other.price_nanousd_max),
        models=models,
        weights=other.weights or one.weights,
        lane=other.lane or one.lane,
        on_tight_budget=other.on_tight_budget or one.on_tight_budget,
        wait_ms=other.wait_ms or one.wait_ms,
        routes=other.routes or one.routes,
    )


@lru_cache(maxsize=_FOLDED_MAX)
def narrow(policy: Policy, hints: Hints) -> Policy:
    """The policy with the hints taken in. Whatever it permits, `policy` permits too."""
    return combine(
        policy,
        Policy(
            residency=(Residency(allow=hints.residency),) if hints.residency else (),
            chips_required=(ChipRule(classes=frozenset({hints.chip})),) if hints.chip else (),
            quality_floor=hints.quality,
            price_nanousd_max=hints.price_nanousd_max,
        ),
    )


def lower(one: int | None, other: int | None) -> int | None:
    """The lower of two highest values; None is none."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _is_within(name: str, scope: str) -> bool:
    return name == scope or name.startswith(scope + "/")
