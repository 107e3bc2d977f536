"""Drops replicas that the data may not reach."""

from enginehouse.contract import Reason
from enginehouse.router.filters.filter import Kind
from enginehouse.router.replica import Replica


class ResidencyFilter:
    """Every residency rule must permit the replica's place. An unlabelled place is nowhere, so it never qualifies."""

    name = "residency"
    refusal = Reason.RESIDENCY_UNSATISFIABLE

    def drop(self, replica: Replica, kind: Kind) -> str | None:
        """See `Filter`."""
        if replica.place is None:
            return "its node has no place, so no data may be sent to it"
        for rule in kind.policy.residency:
            if not rule.permits(replica.place):
                return f"is in {replica.place.label}; the rule is: {rule}"
        return None
