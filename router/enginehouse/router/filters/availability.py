"""Drops replicas that cannot take a request now."""

from enginehouse.contract import Reason
from enginehouse.router.filters.filter import Kind
from enginehouse.router.replica import Replica


class AvailabilityFilter:
    """The replica must be ready: neither starting, draining, quarantined, failed nor out of reach."""

    name = "availability"
    refusal = Reason.NO_REPLICA_AVAILABLE

    def drop(self, replica: Replica, kind: Kind) -> str | None:
        """See `Filter`."""
        return replica.unavailable or None
