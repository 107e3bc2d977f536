"""Drops replicas that cannot take a request now."""

from enginehouse.contract import Reason
from enginehouse.router.question import Option, Question


class AvailabilityFilter:
    """The replica must be ready: neither starting, draining, quarantined, failed nor out of reach."""

    name = "availability"
    refusal = Reason.NO_REPLICA_AVAILABLE

    def drop(self, option: Option, question: Question) -> str | None:
        """See `Filter`."""
        return option.replica.unavailable or None


class SlotFilter:
    """The replica must have room for one more request, running or waiting."""

    name = "slots"
    refusal = Reason.NO_REPLICA_AVAILABLE

    def drop(self, option: Option, question: Question) -> str | None:
        """See `Filter`."""
        running = question.in_flight.get(option.replica.id, 0)
        if running < option.replica.in_flight_max:
            return None
        return f"has {running} requests in flight, which is its maximum"
