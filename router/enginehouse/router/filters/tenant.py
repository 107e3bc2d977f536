"""Drops replicas that the tenant, or its policy, leaves out."""

from enginehouse.contract import Reason
from enginehouse.router.question import Option, Question


class TenantFilter:
    """The deployment must admit the tenant, and the tenant's policy the model. To others the model does not exist."""

    name = "tenant"
    refusal = Reason.MODEL_NOT_FOUND

    def drop(self, option: Option, question: Question) -> str | None:
        """See `Filter`."""
        tenants = option.replica.tenants
        if tenants and question.request.principal.tenant_name not in tenants:
            return "the deployment does not admit this tenant"
        models = question.policy.models
        if models is not None and option.replica.model not in models:
            return "the tenant's policy does not list this model"
        return None
