"""What a finished request is charged, from nothing but its ticket and how it ended.

The router settles with it, and control does when the router is gone: the same rule, so the same amount.
"""

from dataclasses import dataclass

from enginehouse.router.limits import limit
from enginehouse.router.price import Price
from enginehouse.v1 import common_pb2, router_pb2

_HTTP_ERROR = 400


@dataclass(frozen=True, slots=True)
class Ending:
    """How a request ended, as Envoy's access log or a node's report tells it.

    Attributes:
        replica: who answered, if it is named; otherwise `address` tells.
        address: host:port that Envoy reached. Empty: none.
        http_status: what the client saw. 0: it left before a status.
        usage: what the engine or the adapter counted. None: nobody said.
    """

    replica: str = ""
    address: str = ""
    http_status: int = 0
    usage: common_pb2.Usage | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """What is charged: by limit in its unit, and the usage behind it. `deployment` is the one of `replica`."""

    replica: str
    usage: common_pb2.Usage
    cost_nanousd: int
    used: dict[str, int]
    deployment: str = ""

    @property
    def is_certain(self) -> bool:
        """False when the usage is unknown and the hold's upper bound stands in for it."""
        return self.usage.method != common_pb2.USAGE_METHOD_UPPER_BOUND


def settle(ticket: router_pb2.Ticket, ending: Ending) -> Settlement:
    """Computes the charge of every limit that the request holds in.

    Nothing was reached, or the engine did no work, or it answered with an error and no usage: nothing is charged. A
    count is known: its cost at the frozen price of the replica that answered. Work was done and nobody counted it: the
    whole hold, by the method UPPER_BOUND, because a charge is never below what was used.
    """
    attempt, usage = _answering(ticket, ending), ending.usage
    if attempt is None:
        return _nothing("")
    if usage is None and ending.http_status >= _HTTP_ERROR:
        return _nothing(attempt.replica)
    if usage is None or usage.method == common_pb2.USAGE_METHOD_UPPER_BOUND:
        return _upper_bound(ticket, attempt)
    if usage.method == common_pb2.USAGE_METHOD_NONE:
        return _nothing(attempt.replica)
    cost = Price.from_message(attempt.price).cost_nanousd(
        usage.input_tokens, usage.output_tokens, min(usage.cached_input_tokens, usage.input_tokens)
    )
    amounts = {
        limit.USD: cost,
        limit.TOKENS: usage.input_tokens + usage.output_tokens,
        limit.REQUESTS: 1,
    }
    used = {hold.limit: amounts[hold.unit] for hold in ticket.holds if hold.unit in amounts}
    return Settlement(attempt.replica, usage, cost, used, attempt.deployment)


def _answering(ticket: router_pb2.Ticket, ending: Ending) -> router_pb2.Attempt | None:
    for attempt in ticket.attempts:
        if attempt.replica == ending.replica if ending.replica else attempt.address == ending.address:
            return attempt
    return None


def _nothing(replica: str) -> Settlement:
    return Settlement(replica, common_pb2.Usage(method=common_pb2.USAGE_METHOD_NONE), 0, {})


def _upper_bound(ticket: router_pb2.Ticket, attempt: router_pb2.Attempt) -> Settlement:
    usage = common_pb2.Usage(
        input_tokens=ticket.input_tokens_max,
        output_tokens=ticket.output_tokens_max * max(1, ticket.choices),
        method=common_pb2.USAGE_METHOD_UPPER_BOUND,
    )
    used = {hold.limit: hold.amount for hold in ticket.holds if hold.unit != limit.IN_FLIGHT}
    cost = Price.from_message(attempt.price).cost_nanousd(usage.input_tokens, usage.output_tokens)
    return Settlement(attempt.replica, usage, cost, used, attempt.deployment)
