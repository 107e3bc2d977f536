"""A router's picture of the fleet and of its rules. It never changes; a new one takes its place."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from enginehouse.router.filters import Kind
from enginehouse.router.jurisdiction import Place
from enginehouse.router.limits import Limit
from enginehouse.router.policy import Policy, PolicySet
from enginehouse.router.replica import Replica
from enginehouse.router.request import Principal
from enginehouse.router.sift import Sifted, sift

_REMEMBERED_MAX = 10_000
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(slots=True)
class _Memory:
    """Answers that only depend on the view. Cleared when full: it is a memory, not a truth."""

    policies: dict[tuple[Principal, str], Policy] = field(default_factory=dict)
    limits: dict[tuple[Principal, str], tuple[Limit, ...]] = field(default_factory=dict)
    sifted: dict[Kind, Sifted] = field(default_factory=dict)


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
            known = self.policies.policy(principal, self._names(model))
            _remember(self._memory.policies, (principal, model), known)
        return known

    def sift(self, kind: Kind) -> Sifted:
        """What the rules over replicas leave for a kind of request."""
        known = self._memory.sifted.get(kind)
        if known is None:
            known = sift(kind, self.candidates(kind.model))
            _remember(self._memory.sifted, kind, known)
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
