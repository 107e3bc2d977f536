"""Drops replicas that the data may not reach."""

from enginehouse.contract import Reason
from enginehouse.router.question import Option, Question


class ResidencyFilter:
    """Every residency rule must permit the replica's place. An unlabelled place is nowhere, so it never qualifies."""

    name = "residency"
    refusal = Reason.RESIDENCY_UNSATISFIABLE

    def drop(self, option: Option, question: Question) -> str | None:
        """See `Filter`."""
        place = option.replica.place
        if place is None:
            return "its node has no place, so no data may be sent to it"
        for rule in question.policy.residency:
            if not rule.permits(place):
                return f"is in {place.label}; the rule is: {rule}"
        return None
