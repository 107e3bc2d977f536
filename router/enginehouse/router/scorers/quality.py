"""Prefers declared quality."""

from collections.abc import Sequence

from enginehouse.router.policy import Weights
from enginehouse.router.question import Option, Question
from enginehouse.v1.common_pb2 import Quality


class QualityScorer:
    """The tier's place between the lowest and the highest."""

    name = "quality"

    def weight(self, weights: Weights) -> float:
        """See `Scorer`."""
        return weights.quality

    def score(self, options: Sequence[Option], question: Question) -> list[float]:
        """See `Scorer`."""
        return [option.replica.quality / Quality.QUALITY_HIGH for option in options]
