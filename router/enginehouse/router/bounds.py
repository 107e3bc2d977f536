"""Upper bounds of what a request may use on a replica, and so what has to be held for it."""

from dataclasses import dataclass

from enginehouse.router.limits import IN_FLIGHT, REQUESTS, TOKENS, USD
from enginehouse.router.replica import Replica
from enginehouse.router.request import Request
from enginehouse.v1.common_pb2 import Operation
from enginehouse.v1.ledger_pb2 import LimitUnit

_MANY_TEXTS = frozenset({Operation.OPERATION_EMBEDDING, Operation.OPERATION_RERANK})
_GENERATING = frozenset({Operation.OPERATION_CHAT, Operation.OPERATION_COMPLETION})


@dataclass(frozen=True, slots=True)
class Bounds:
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
    """The most tokens of the prompt.

    A byte of text bounds a token from above only for the text itself; the chat template adds its own, as measured at
    readiness. The context bounds the whole. A ranked document is read together with the query, whose bytes count for
    each. A count that the deployment made of this very prompt is exact.
    """
    can = replica.capabilities
    for deployment, tokens in request.prompt_tokens:
        if deployment == replica.deployment:
            return min(can.context_tokens_max, tokens)
    if request.operation in _MANY_TEXTS:
        texts = request.input_count
        return min(can.context_tokens_max * texts, request.prompt_text_bytes + can.template_tokens * texts)
    return min(
        can.context_tokens_max,
        request.prompt_text_bytes
        + can.template_tokens
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
    cost = replica.price.cost_nanousd(input_tokens, output_tokens) if replica.price else 0
    return Bounds(input_tokens, output_tokens, cost)
