"""What makes a replica better than another whatever the request: its quality, its chip."""

from enginehouse.router.policy import Policy
from enginehouse.router.replica import Replica


def quality_score(replica: Replica, policy: Policy) -> float:
    """0 to 1: the replica's score for the policy's task class, or its tier."""
    return replica.quality_score(policy.task)


def chip_score(replica: Replica, policy: Policy) -> float:
    """1 on a preferred chip, 0 on any other."""
    return 1.0 if any(rule.matches(replica.chip) for rule in policy.chips_preferred) else 0.0
