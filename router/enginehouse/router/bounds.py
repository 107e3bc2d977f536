"""Upper bounds of what a request may use on a replica, and so what has to be held for it."""

from typing import NamedTuple

from enginehouse.router.limits import IN_FLIGHT, REQUESTS, TOKENS, USD
from enginehouse.router.replica import Replica
from enginehouse.router.request import Request
from enginehouse.v1.common_pb2 import Operation
from enginehouse.v1.ledger_pb2 import LimitUnit

_GENERATING = frozenset({Operation.OPERATION_CHAT, Operation.OPERATION_COMPLETION})


class Bounds(NamedTuple):
    """The most that a request can use: tokens read, tokens written over all choices, and their price in nano-USD."""

    input_tokens: int
    output_tokens: int
    cost_nanousd: int

    def amount(self, unit: LimitUnit.ValueType) -> int:
        """What to hold of a limit in `unit`."""
        if unit == USD:
            return self.cost_nanousd
        if unit == TOKENS:
            return self.input_tokens + self.output_tokens
        if unit in (REQUESTS, IN_FLIGHT):
            return 1
        raise ValueError(f"unknown unit {unit}")


def output_tokens_bound(request: Request, replica: Replica) -> int:
    """The most tokens of one choice: what the request allows, within what the deployment allows."""
    if request.operation not in _GENERATING:
        return 0
    declared = replica.capabilities.output_tokens_max
    return declared if request.output_tokens_max is None else min(request.output_tokens_max, declared)


def input_tokens_bound(request: Request, replica: Replica) -> int:
    """The most tokens of everything that is read: of one prompt, or of all texts of a request that has several.

    A byte of text bounds a token from above only for the text itself; the chat template adds its own, as measured at
    readiness. The context bounds each text. A ranked document is read together with the query, whose bytes count for
    each. A count that the deployment made of this very prompt is exact.
    """
    can, texts = replica.capabilities, max(1, request.input_count)
    context_tokens = can.context_tokens_max * texts
    for deployment, tokens in request.prompt_tokens:
        if deployment == replica.deployment:
            return min(context_tokens, tokens)
    if request.image_count and not can.image_tokens_max:
        return context_tokens  # what an image costs is unknown; whatever it is, it must fit
    return min(
        context_tokens,
        request.prompt_text_bytes
        + can.template_tokens * texts
        + can.message_tokens * request.message_count
        + can.image_tokens_max * request.image_count,
    )


def bounds(request: Request, replica: Replica, output_tokens_max: int | None = None) -> Bounds:
    """The bounds of `request` on `replica`; the price of an unpriced replica is 0 here, and a filter drops it.

    Args:
        request: what is asked.
        replica: where.
        output_tokens_max: a lower bound on the output of one choice, set to make the request fit. None: none.
    """
    input_tokens = input_tokens_bound(request, replica)
    output_tokens = output_tokens_bound(request, replica)
    if output_tokens_max is not None:
        output_tokens = min(output_tokens, output_tokens_max)
    output_tokens *= request.choices
    cost = replica.price.most_nanousd(input_tokens, output_tokens) if replica.price else 0
    return Bounds(input_tokens, output_tokens, cost)
