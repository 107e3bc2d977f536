"""Drops replicas above the highest price."""

from enginehouse.contract import Reason
from enginehouse.router.filters.size import Offer
from enginehouse.router.moment import Moment
from enginehouse.router.price import NANOUSD_PER_USD


class PriceMaximumFilter:
    """What the request may cost at most must not exceed the highest price that policy or caller allow."""

    name = "price_maximum"
    refusal = Reason.PRICE_ABOVE_MAXIMUM

    def drop(self, offer: Offer, moment: Moment) -> str | None:
        """See `SizeFilter`."""
        highest = offer.price_nanousd_max
        if highest is None or offer.bounds.cost_nanousd <= highest:
            return None
        return (
            f"may cost up to {offer.bounds.cost_nanousd / NANOUSD_PER_USD:.9f} USD; "
            f"the highest price is {highest / NANOUSD_PER_USD:.9f} USD"
        )
