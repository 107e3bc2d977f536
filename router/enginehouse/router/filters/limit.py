"""Drops replicas for which a request's upper bound does not fit into what is left of a limit."""

from enginehouse.contract import Reason
from enginehouse.router.filters.size import Offer
from enginehouse.router.limits import IN_FLIGHT, REQUESTS, TOKENS, USD, Limit
from enginehouse.router.moment import Moment
from enginehouse.router.price import NANOUSD_PER_USD
from enginehouse.v1.ledger_pb2 import LimitUnit


class LimitFilter:
    """The limits of some units must be able to hold the request's upper bound."""

    def __init__(self, name: str, units: frozenset[LimitUnit.ValueType], refusal: Reason) -> None:
        self.name = name
        self.refusal = refusal
        self._units = units

    def drop(self, offer: Offer, moment: Moment) -> str | None:
        """See `SizeFilter`."""
        for limit in offer.limits:
            if limit.unit in self._units:
                amount, left = offer.bounds.amount(limit.unit), moment.headroom(limit.id)
                if amount > left:
                    return f"limit {limit.id}: up to {_written(limit, amount)} needed, {_written(limit, left)} left"
        return None


RATE_FILTER = LimitFilter("rate_limit", frozenset({TOKENS, REQUESTS, IN_FLIGHT}), Reason.RATE_LIMITED)
BUDGET_FILTER = LimitFilter("budget", frozenset({USD}), Reason.BUDGET_EXHAUSTED)


def _written(limit: Limit, amount: int) -> str:
    if limit.unit == USD:
        return f"{amount / NANOUSD_PER_USD:.9f} USD"
    return f"{amount} {LimitUnit.Name(limit.unit).removeprefix('LIMIT_UNIT_').lower().replace('_', ' ')}"
