"""Drops replicas without a price, or above the highest price."""

from enginehouse.contract import Reason
from enginehouse.router.price import NANOUSD_PER_USD
from enginehouse.router.question import Option, Question


class PriceKnownFilter:
    """A replica without a price is refused, never free."""

    name = "price_known"
    refusal = Reason.PRICE_UNKNOWN

    def drop(self, option: Option, question: Question) -> str | None:
        """See `Filter`."""
        return None if option.replica.price else "its price is unknown"


class PriceMaximumFilter:
    """What the request may cost at most must not exceed the highest price that policy or caller allow."""

    name = "price_maximum"
    refusal = Reason.PRICE_ABOVE_MAXIMUM

    def drop(self, option: Option, question: Question) -> str | None:
        """See `Filter`."""
        highest = question.policy.price_nanousd_max
        if highest is None or option.bounds.cost_nanousd <= highest:
            return None
        return (
            f"may cost up to {option.bounds.cost_nanousd / NANOUSD_PER_USD:.9f} USD; "
            f"the highest price is {highest / NANOUSD_PER_USD:.9f} USD"
        )
