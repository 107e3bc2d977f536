"""Drops replicas below the quality that is asked for."""

from enginehouse.contract import Reason
from enginehouse.router.filters.filter import Kind
from enginehouse.router.replica import Replica
from enginehouse.v1.common_pb2 import Quality


class QualityFilter:
    """The replica's tier must reach the floor, and its score for the task the score's floor."""

    name = "quality"
    refusal = Reason.QUALITY_NOT_FOUND

    def drop(self, replica: Replica, kind: Kind) -> str | None:
        """See `Filter`."""
        policy = kind.policy
        if replica.quality < policy.quality_floor:
            return f"its quality is {_name(replica.quality)}; at least {_name(policy.quality_floor)} is asked"
        score = replica.quality_score(policy.task)
        if score < policy.quality_score_floor:
            task = policy.task or "any task"
            return f"its quality for {task} is {score:g}; at least {policy.quality_score_floor:g} is asked"
        return None


def _name(quality: Quality.ValueType) -> str:
    return Quality.Name(quality).removeprefix("QUALITY_").lower()
