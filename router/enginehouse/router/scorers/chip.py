"""Prefers the chips that policy prefers."""

from collections.abc import Sequence

from enginehouse.router.policy import Weights
from enginehouse.router.question import Option, Question


class ChipScorer:
    """1 for a preferred chip class, 0 for any other."""

    name = "chip"

    def weight(self, weights: Weights) -> float:
        """See `Scorer`."""
        return weights.chip

    def score(self, options: Sequence[Option], question: Question) -> list[float]:
        """See `Scorer`."""
        preferred = question.policy.chips_preferred
        return [1.0 if option.replica.chip.chip_class in preferred else 0.0 for option in options]
