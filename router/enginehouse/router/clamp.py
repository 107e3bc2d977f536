"""How much output what is left of the limits allows."""

from collections.abc import Iterable

from enginehouse.router.bounds import input_tokens_bound
from enginehouse.router.filters import Offer
from enginehouse.router.limits import TOKENS, USD
from enginehouse.router.moment import Moment
from enginehouse.router.price import Price


def clamped_output(offer: Offer, moment: Moment) -> int | None:
    """The most tokens of one choice for which the request fits into every limit in USD or tokens. None: not one."""
    output = min(_allowed(offer, moment), default=None)
    return output if output is None or output > 0 else None


def _allowed(offer: Offer, moment: Moment) -> Iterable[int]:
    price, choices = offer.sample.price, offer.request.choices
    input_tokens = input_tokens_bound(offer.request, offer.sample)
    for limit in offer.limits:
        left = moment.headroom(limit.id)
        if limit.unit == TOKENS:
            yield (left - input_tokens) // choices
        elif limit.unit == USD and price is not None:
            yield affordable_output(price, input_tokens, left) // choices


def affordable_output(price: Price, input_tokens: int, budget_nanousd: int) -> int:
    """The most output tokens whose cost, with the input's, is at most the budget. Negative: not even the input is."""
    spare = budget_nanousd - price.request_nanousd
    input_price = max(price.input_nanousd_per_million_tokens, price.cached_input_nanousd_per_million_tokens)
    per_million = spare * 1_000_000 - input_tokens * input_price
    if per_million < 0:
        return -1
    if price.output_nanousd_per_million_tokens == 0:
        return 1 << 62
    return per_million // price.output_nanousd_per_million_tokens
