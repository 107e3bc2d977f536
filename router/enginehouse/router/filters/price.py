"""Drops replicas without a price."""

from enginehouse.contract import Reason
from enginehouse.router.filters.filter import Kind
from enginehouse.router.replica import Replica


class PriceFilter:
    """A replica without a price is refused, never free."""

    name = "price_known"
    refusal = Reason.PRICE_UNKNOWN

    def drop(self, replica: Replica, kind: Kind) -> str | None:
        """See `Filter`."""
        return None if replica.price else "its price is unknown"
