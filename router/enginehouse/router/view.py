"""A router's picture of the fleet and of its rules. It never changes; a new one takes its place."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from enginehouse.router.filters import Kind
from enginehouse.router.jurisdiction import Place, Residency
from enginehouse.router.limits import Limit
from enginehouse.router.policy import Policy, PolicySet, narrow
from enginehouse.router.replica import Replica
from enginehouse.router.request import Principal, Request
from enginehouse.router.sift import Sifted, sift, sort

_REMEMBERED_MAX = 10_000
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(slots=True)
class _Memory:
    """Answers that only depend on the view. Cleared when full: it is a memory, not a truth."""

    policies: dict[tuple[Principal, str], Policy] = field(default_factory=dict)
    limits: dict[tuple[Principal, str], tuple[Limit, ...]] = field(default_factory=dict)
    folded: dict[Policy, Policy] = field(default_factory=dict)
    sifted: dict[tuple[object, ...], Sifted] = field(default_factory=dict)
    sorts: dict[str, tuple[tuple[Replica, ...], ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """What decisions are made on.

    Attributes:
        fleet_version, policy_version: hashes of what the two halves were built from.
        models: the deployments of each public name and alias.
        replicas: of each deployment, those that are unavailable included.
        policies: every rule.
        limits: all of them.
        here: the places that a request passes on its way: Envoy's and the router's.
    """

    fleet_version: str = ""
    policy_version: str = ""
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    replicas: Mapping[str, tuple[Replica, ...]] = field(default_factory=dict)
    policies: PolicySet = field(default_factory=PolicySet)
    limits: tuple[Limit, ...] = ()
    here: tuple[Place | None, ...] = ()
    _memory: _Memory = field(default_factory=_Memory, init=False, compare=False, repr=False)

    def candidates(self, model: str) -> tuple[Replica, ...]:
        """Every replica of every deployment that answers to `model`, in a fixed order."""
        return tuple(
            replica for deployment in self.models.get(model, ()) for replica in self.replicas.get(deployment, ())
        )

    def policy(self, principal: Principal, model: str) -> Policy:
        """What holds for requests of `principal` for `model`, under whatever name it is asked for."""
        known = self._memory.policies.get((principal, model))
        if known is None:
            folded = self.policies.policy(principal, self._names(model))
            # One object for all that are equal, so that what is computed for one serves them all.
            known = self._memory.folded.setdefault(folded, folded)
            _remember(self._memory.policies, (principal, model), known)
        return known

    def sift(self, request: Request, policy: Policy) -> Sifted:
        """What the rules over replicas leave for a request and all others of its kind.

        Args:
            request: one of them.
            policy: what holds for it, before its hints narrow it.
        """
        hints, principal = request.hints, request.principal
        key = (
            id(policy),  # it cannot be another's: what is remembered keeps the policy alive
            hints.residency,
            hints.chip,
            hints.quality,
            request.model,
            principal.organization,
            principal.tenant,
            request.operation,
            request.dialect,
            request.features,
        )
        known = self._memory.sifted.get(key)
        if known is None:
            # Sessions and prices differ from request to request, and matter to no rule over replicas.
            narrowed = narrow(policy, replace(hints, session="", price_nanousd_max=None))
            kind = Kind(
                request.model,
                principal.tenant_name,
                request.operation,
                request.dialect,
                request.features,
                replace(narrowed, price_nanousd_max=None),
            )
            sorts = [one for deployment in self.models.get(request.model, ()) for one in self._sorts(deployment)]
            known = sift(kind, sorts, policy, self._forbidden(narrowed))
            _remember(self._memory.sifted, key, known)
        return known

    def limits_over(self, principal: Principal, deployment: str) -> tuple[Limit, ...]:
        """Every limit that a request of `principal` is charged to on a replica of `deployment`."""
        known = self._memory.limits.get((principal, deployment))
        if known is None:
            models = {f"models/{replica.model}" for replica in self.replicas.get(deployment, ())}
            resources = (principal.key_name, f"deployments/{deployment}", *sorted(models))
            known = tuple(limit for limit in self.limits if any(limit.covers(resource) for resource in resources))
            _remember(self._memory.limits, (principal, deployment), known)
        return known

    def _sorts(self, deployment: str) -> tuple[tuple[Replica, ...], ...]:
        known = self._memory.sorts.get(deployment)
        if known is None:
            known = self._memory.sorts[deployment] = sort(self.replicas.get(deployment, ()))
        return known

    def _forbidden(self, policy: Policy) -> tuple[Place | None, Residency] | None:
        """A place on the way that a rule does not permit, and the rule. Even without a rule it must be some place."""
        for place in self.here:
            for rule in policy.residency or (Residency(),):
                if not rule.permits(place):
                    return place, rule
        return None

    def _names(self, model: str) -> frozenset[str]:
        """The name that was asked for, and those of the models that it stands for: an alias escapes no rule."""
        return frozenset({model} | {replica.model for replica in self.candidates(model)})


def by_deployment(replicas: Iterable[Replica]) -> dict[str, tuple[Replica, ...]]:
    """Groups replicas as `View.replicas` wants them, ordered by id."""
    groups: defaultdict[str, list[Replica]] = defaultdict(list)
    for replica in sorted(replicas, key=lambda replica: replica.id):
        groups[replica.deployment].append(replica)
    return {deployment: tuple(group) for deployment, group in groups.items()}


def _remember(memory: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    if len(memory) >= _REMEMBERED_MAX:
        memory.clear()
    memory[key] = value
