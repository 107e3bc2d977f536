"""Prefers replicas that will begin soon."""

from collections.abc import Sequence

from enginehouse.router.policy import Weights
from enginehouse.router.question import Option, Question


class WaitScorer:
    """1 for an idle replica, falling with the requests in front for each that it works on side by side."""

    name = "wait"

    def weight(self, weights: Weights) -> float:
        """See `Scorer`."""
        return weights.wait

    def score(self, options: Sequence[Option], question: Question) -> list[float]:
        """See `Scorer`."""
        return [_score(option, question) for option in options]


def _score(option: Option, question: Question) -> float:
    replica = option.replica
    in_front = max(question.in_flight.get(replica.id, 0), replica.waiting)
    return 1 / (1 + in_front / max(1, replica.parallel))
