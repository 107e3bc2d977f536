"""Drops replicas of deployments that the model's routes leave out."""

from enginehouse.contract import Reason
from enginehouse.router.filters.filter import Kind
from enginehouse.router.replica import Replica


class RouteFilter:
    """Where the policy shares a model's requests out by weight, a deployment without a weight gets none."""

    name = "route"
    refusal = Reason.NO_REPLICA_AVAILABLE

    def drop(self, replica: Replica, kind: Kind) -> str | None:
        """See `Filter`."""
        routes = kind.policy.routes
        if not routes or any(route.deployment == replica.deployment and route.weight > 0 for route in routes):
            return None
        return f"deployment {replica.deployment} has no weight in the model's routes"
