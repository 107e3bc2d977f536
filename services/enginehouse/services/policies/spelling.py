"""Policies in the one spelling that rules are compared in: "eu/de" denies nothing to a place that is called "de"."""

from enginehouse.router import Jurisdictions
from enginehouse.v1 import admin_pb2, router_pb2


def canonical_policy(policy: admin_pb2.Policy, jurisdictions: Jurisdictions) -> admin_pb2.Policy:
    """A copy of a policy that was found right, with its jurisdictions in their one spelling."""
    spelled = admin_pb2.Policy()
    spelled.CopyFrom(policy)
    if policy.HasField("residency"):
        spelled.residency.CopyFrom(_canonical_residency(policy.residency, jurisdictions))
    return spelled


def canonical_set(policy_set: admin_pb2.PolicySet, jurisdictions: Jurisdictions) -> admin_pb2.PolicySet:
    """A copy of the rules and data classes of a set that was found right, likewise."""
    spelled = admin_pb2.PolicySet(rules=policy_set.rules)
    for rule in spelled.rules:
        if rule.HasField("policy"):
            rule.policy.CopyFrom(canonical_policy(rule.policy, jurisdictions))
    for name, residency in policy_set.data_classes.items():
        spelled.data_classes[name].CopyFrom(_canonical_residency(residency, jurisdictions))
    return spelled


def _canonical_residency(residency: router_pb2.Residency, jurisdictions: Jurisdictions) -> router_pb2.Residency:
    return router_pb2.Residency(
        allow=dict.fromkeys(jurisdictions.jurisdiction(name) for name in residency.allow),
        deny=dict.fromkeys(jurisdictions.jurisdiction(name) for name in residency.deny),
    )
