"""Prefers what is cheap."""

from collections.abc import Sequence

from enginehouse.router.policy import Weights
from enginehouse.router.question import Option, Question


class CostScorer:
    """1 for the cheapest upper bound, and for the others its share in theirs."""

    name = "cost"

    def weight(self, weights: Weights) -> float:
        """See `Scorer`."""
        return weights.cost

    def score(self, options: Sequence[Option], question: Question) -> list[float]:
        """See `Scorer`."""
        cheapest = min(option.bounds.cost_nanousd for option in options)
        return [cheapest / option.bounds.cost_nanousd if option.bounds.cost_nanousd else 1.0 for option in options]
