"""Drops replicas that the tenant, or its policy, leaves out."""

from enginehouse.contract import Reason
from enginehouse.router.filters.filter import Kind
from enginehouse.router.replica import Replica


class TenantFilter:
    """The deployment must admit the tenant, and policy the model. To others the model does not exist."""

    name = "tenant"
    refusal = Reason.MODEL_NOT_FOUND

    def drop(self, replica: Replica, kind: Kind) -> str | None:
        """See `Filter`."""
        if replica.tenants and kind.tenant not in replica.tenants:
            return "the deployment does not admit this tenant"
        models = kind.policy.models
        if models is not None and replica.model not in models:
            return "the policy does not list this model"
        return None
