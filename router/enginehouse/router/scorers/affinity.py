"""Prefers the replica that a session has used before."""

from collections.abc import Sequence

from enginehouse.router.pick import sticky_fraction
from enginehouse.router.policy import Weights
from enginehouse.router.question import Option, Question


class AffinityScorer:
    """Rendezvous hashing: a session ranks all replicas in its own order, and a replica that leaves moves nobody else.

    Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998. Without a session all are equal.
    """

    name = "affinity"

    def weight(self, weights: Weights) -> float:
        """See `Scorer`."""
        return weights.affinity

    def score(self, options: Sequence[Option], question: Question) -> list[float]:
        """See `Scorer`."""
        if not question.request.hints.session:
            return [0.0] * len(options)
        return [sticky_fraction(question.request, option.replica) for option in options]
