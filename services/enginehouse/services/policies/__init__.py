"""What a policy must be: one validator for each message, for control and for the settings file alike."""

from enginehouse.services.policies.catalog import Catalog
from enginehouse.services.policies.problem import InvalidPolicyError, Path, Problem, read_problem
from enginehouse.services.policies.spelling import canonical_policy, canonical_set
from enginehouse.services.policies.validation import WAIT_S_MAX, policy_problems, policy_set_problems

__all__ = [
    "WAIT_S_MAX",
    "Catalog",
    "InvalidPolicyError",
    "Path",
    "Problem",
    "canonical_policy",
    "canonical_set",
    "policy_problems",
    "policy_set_problems",
    "read_problem",
]
