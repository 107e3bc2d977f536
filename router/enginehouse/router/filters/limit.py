"""Drops replicas whose upper bound does not fit into what is left of a limit."""

from enginehouse.contract import Reason
from enginehouse.router.limits import IN_FLIGHT, REQUESTS, TOKENS, USD, Limit
from enginehouse.router.price import NANOUSD_PER_USD
from enginehouse.router.question import Option, Question
from enginehouse.v1.ledger_pb2 import LimitUnit


class LimitFilter:
    """One unit's limits must be able to hold the request's upper bound."""

    def __init__(self, name: str, units: frozenset[LimitUnit.ValueType], refusal: Reason) -> None:
        self.name = name
        self.refusal = refusal
        self._units = units

    def drop(self, option: Option, question: Question) -> str | None:
        """See `Filter`."""
        for limit in option.limits:
            if limit.unit in self._units:
                amount, left = option.bounds.amount(limit.unit), question.headroom(limit.id)
                if amount > left:
                    return f"limit {limit.id}: up to {_written(limit, amount)} needed, {_written(limit, left)} left"
        return None


RATE_FILTER = LimitFilter("rate_limit", frozenset({TOKENS, REQUESTS, IN_FLIGHT}), Reason.RATE_LIMITED)
BUDGET_FILTER = LimitFilter("budget", frozenset({USD}), Reason.BUDGET_EXHAUSTED)


def _written(limit: Limit, amount: int) -> str:
    if limit.unit == USD:
        return f"{amount / NANOUSD_PER_USD:.9f} USD"
    return f"{amount} {LimitUnit.Name(limit.unit).removeprefix('LIMIT_UNIT_').lower().replace('_', ' ')}"
