"""A router's picture of the fleet and of its rules, at one moment. It never changes; a new one takes its place."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from enginehouse.router.jurisdiction import Place
from enginehouse.router.limits import Limit
from enginehouse.router.policy import Policy
from enginehouse.router.replica import Replica
from enginehouse.router.request import Principal

_NOTHING_ALLOWED = Policy(models=frozenset())


@dataclass(frozen=True, slots=True)
class View:
    """What decisions are made on.

    Attributes:
        fleet_version, policy_version: hashes of what the two halves were built from.
        models: the deployments of each public name and alias.
        replicas: of each deployment, those that are unavailable included.
        policies: by tenant resource name.
        limits: all of them.
        here: the places that a request passes on its way: Envoy's and the router's.
    """

    fleet_version: str = ""
    policy_version: str = ""
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    replicas: Mapping[str, tuple[Replica, ...]] = field(default_factory=dict)
    policies: Mapping[str, Policy] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()
    here: tuple[Place | None, ...] = ()

    def candidates(self, model: str) -> tuple[Replica, ...]:
        """Every replica of every deployment that answers to `model`, in a fixed order."""
        return tuple(
            replica for deployment in self.models.get(model, ()) for replica in self.replicas.get(deployment, ())
        )

    def policy(self, principal: Principal) -> Policy:
        """The policy of the principal's tenant; of a tenant that is not known, one that allows no model."""
        return self.policies.get(principal.tenant_name, _NOTHING_ALLOWED)

    def limits_over(self, principal: Principal, model: str, deployment: str) -> tuple[Limit, ...]:
        """Every limit that a request of `principal` for `model` is charged to on a replica of `deployment`."""
        resources = (principal.key_name, f"models/{model}", f"deployments/{deployment}")
        return tuple(limit for limit in self.limits if any(limit.covers(resource) for resource in resources))


def by_deployment(replicas: Iterable[Replica]) -> dict[str, tuple[Replica, ...]]:
    """Groups replicas as `View.replicas` wants them, ordered by id."""
    groups: defaultdict[str, list[Replica]] = defaultdict(list)
    for replica in sorted(replicas, key=lambda replica: replica.id):
        groups[replica.deployment].append(replica)
    return {deployment: tuple(group) for deployment, group in groups.items()}
