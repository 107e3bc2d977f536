"""Drops replicas below the quality that is asked for."""

from enginehouse.contract import Reason
from enginehouse.router.question import Option, Question
from enginehouse.v1.common_pb2 import Quality


class QualityFilter:
    """The replica's tier must reach the floor."""

    name = "quality"
    refusal = Reason.QUALITY_NOT_FOUND

    def drop(self, option: Option, question: Question) -> str | None:
        """See `Filter`."""
        floor = question.policy.quality_floor
        if option.replica.quality >= floor:
            return None
        return f"its quality is {_name(option.replica.quality)}; at least {_name(floor)} is asked"


def _name(quality: Quality.ValueType) -> str:
    return Quality.Name(quality).removeprefix("QUALITY_").lower()
