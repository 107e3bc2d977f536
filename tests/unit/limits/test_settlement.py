"""What a finished request is charged."""

import pytest

from enginehouse.router import Ending, settle
from enginehouse.router.limits import IN_FLIGHT, REQUESTS, TOKENS, USD
from enginehouse.v1 import common_pb2, router_pb2

PRICE = common_pb2.Price(
    input_nanousd_per_million_tokens=2_000_000,
    cached_input_nanousd_per_million_tokens=1_000_000,
    output_nanousd_per_million_tokens=3_000_000,
)
HELD = {"usd": (USD, 900), "tokens": (TOKENS, 400), "requests": (REQUESTS, 1), "slots": (IN_FLIGHT, 1)}
TICKET = router_pb2.Ticket(
    request_id="q1",
    attempts=[
        router_pb2.Attempt(replica="a", address="10.0.0.1:80", price=PRICE, deployment="one"),
        router_pb2.Attempt(replica="b", address="10.0.0.2:80", price=PRICE, deployment="two"),
    ],
    holds=[router_pb2.Hold(limit=limit, unit=unit, amount=amount) for limit, (unit, amount) in HELD.items()],
    input_tokens_max=100,
    output_tokens_max=100,
    choices=3,
)


def usage(method: common_pb2.UsageMethod.ValueType = common_pb2.USAGE_METHOD_ENGINE) -> common_pb2.Usage:
    return common_pb2.Usage(input_tokens=40, cached_input_tokens=10, output_tokens=30, method=method)


def test_a_count_is_charged_at_the_price_of_the_replica_that_answered() -> None:
    settlement = settle(TICKET, Ending(address="10.0.0.2:80", http_status=200, usage=usage()))
    assert settlement.used == {"usd": 30 * 2 + 10 + 30 * 3, "tokens": 70, "requests": 1}
    assert (settlement.replica, settlement.deployment) == ("b", "two")
    assert settlement.is_certain


@pytest.mark.parametrize("known", [None, usage(common_pb2.USAGE_METHOD_UPPER_BOUND)])
def test_work_that_nobody_counted_costs_the_whole_hold_and_no_slot(known: common_pb2.Usage | None) -> None:
    settlement = settle(TICKET, Ending(replica="a", http_status=200, usage=known))
    assert settlement.used == {"usd": 900, "tokens": 400, "requests": 1}
    assert settlement.usage.output_tokens == 300
    assert not settlement.is_certain


@pytest.mark.parametrize(
    "ending",
    [
        Ending(),
        Ending(address="10.0.0.9:80", http_status=200, usage=usage()),
        Ending(address="10.0.0.1:80", http_status=503),
        Ending(replica="a", usage=usage(common_pb2.USAGE_METHOD_NONE)),
    ],
)
def test_what_reached_no_engine_or_was_not_worked_on_costs_nothing(ending: Ending) -> None:
    assert settle(TICKET, ending).used == {}


def test_an_engine_that_failed_after_counting_is_paid_for_what_it_counted() -> None:
    settlement = settle(TICKET, Ending(replica="a", http_status=500, usage=usage()))
    assert settlement.used["tokens"] == 70


def test_more_cached_than_read_is_taken_for_all_that_was_read() -> None:
    odd = common_pb2.Usage(input_tokens=5, cached_input_tokens=50, method=common_pb2.USAGE_METHOD_ENGINE)
    assert settle(TICKET, Ending(replica="a", usage=odd)).used["usd"] == 5
