"""Limits hold at every instant, whatever comes at once and through whichever door."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anthropic
import grpc
import pytest

from enginehouse.v1 import admin_pb2, common_pb2, ledger_pb2
from tests.e2e.dialects import assert_openai_error, details_of
from tests.support.caller import Caller, generate_request, refused
from tests.support.operator import Operator
from tests.support.waiting import until_async

PRICE_NANOUSD = 1_000_000
REQUESTS, HOLDS = 100, 37
USD, TOKENS = ledger_pb2.LIMIT_UNIT_USD, ledger_pb2.LIMIT_UNIT_TOKENS
COUNT, IN_FLIGHT = ledger_pb2.LIMIT_UNIT_REQUESTS, ledger_pb2.LIMIT_UNIT_IN_FLIGHT
DAY = ledger_pb2.LIMIT_WINDOW_DAY
CHAT_TOKENS_MAX = 4 + 8 + 256  # the text and what joins it, the template, the output: what a chat of "one" may use


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one of the hundred ended."""

    is_served: bool
    is_refused_by_budget: bool


SERVED, REFUSED = Outcome(is_served=True, is_refused_by_budget=False), Outcome(False, is_refused_by_budget=True)


async def by_openai(caller: Caller, *, stream: bool) -> Outcome:
    """A chat in the direct lane."""
    reply = await caller.chat("gated", stream=stream)
    if reply.status == 200:
        return SERVED if b"one" in reply.body else Outcome(False, False)
    assert_openai_error(reply, 402, "budget_exhausted")
    return REFUSED


async def by_anthropic(caller: Caller) -> Outcome:
    """A message in the adapter lane."""
    try:
        await caller.anthropic.messages.create(
            model="gated", max_tokens=4, messages=[{"role": "user", "content": "one"}]
        )
    except anthropic.APIStatusError as error:
        return REFUSED if error.status_code == 402 else Outcome(False, False)
    return SERVED


async def by_grpc(caller: Caller) -> Outcome:
    """A generation in the adapter lane."""
    try:
        steps = [step async for step in caller.grpc.Generate(generate_request("gated"), metadata=caller.metadata)]
    except grpc.aio.AioRpcError as error:
        return REFUSED if details_of(error).reason == "BUDGET_EXHAUSTED" else Outcome(False, False)
    return SERVED if steps[-1].HasField("finished") else Outcome(False, False)


def a_hundred(caller: Caller) -> list[Awaitable[Outcome]]:
    """A hundred requests through every door, mixed."""
    doors = (
        lambda: by_openai(caller, stream=False),
        lambda: by_openai(caller, stream=True),
        lambda: by_anthropic(caller),
        lambda: by_grpc(caller),
    )
    return [doors[number % len(doors)]() for number in range(REQUESTS)]


@asynccontextmanager
async def sampled(operator: Operator, limit: str) -> AsyncIterator[list[admin_pb2.LimitStatus]]:
    """Samples of the ledger, taken one after the other for as long as the block runs."""
    samples: list[admin_pb2.LimitStatus] = []

    async def sample() -> None:
        while True:
            samples.append(await operator.status(limit))
            await asyncio.sleep(0.005)

    task = asyncio.create_task(sample())
    try:
        yield samples
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("rest_nanousd", [0, PRICE_NANOUSD - 1])
async def test_hundred_at_once_against_a_budget_for_37(operator: Operator, caller: Caller, rest_nanousd: int) -> None:
    cap = HOLDS * PRICE_NANOUSD + rest_nanousd
    limit = await operator.limit(caller, USD, cap, model="gated")
    engine, events = await operator.engine("gated-eu-de-0"), await operator.events()
    await engine.close_gate()
    try:
        async with sampled(operator, limit) as samples:
            asked = [asyncio.ensure_future(request) for request in a_hundred(caller)]
            decided = await events.decisions_of(caller.tenant, REQUESTS)
            await engine.until_waiting_at_gate(HOLDS)
            held = await operator.status(limit)
            admitted = [one for one in decided if not one.HasField("refusal")]
            assert (len(decided), len(admitted)) == (REQUESTS, HOLDS)
            assert sum(one.hold_nanousd for one in admitted) == HOLDS * PRICE_NANOUSD
            assert (held.spent, held.allotted >= HOLDS * PRICE_NANOUSD) == (0, True)
            await engine.open_gate()
            outcomes = await asyncio.gather(*asked)
            await operator.until_spent(limit, HOLDS * PRICE_NANOUSD)
    finally:
        await engine.open_gate()
    assert (outcomes.count(SERVED), outcomes.count(REFUSED)) == (HOLDS, REQUESTS - HOLDS)
    assert max(one.spent + one.allotted for one in samples) <= cap
    end = await operator.status(limit)
    assert end.spent + end.allotted <= cap
    assert (end.overrun, end.written_off) == (0, 0)
    assert (await caller.chat("gated")).status == 402


async def test_402_says_what_is_left(operator: Operator, caller: Caller) -> None:
    await operator.limit(caller, USD, 2 * PRICE_NANOUSD + 5, model="echo")
    assert [(await caller.chat("echo")).status for _ in range(2)] == [200, 200]
    reply = await caller.chat("echo")
    assert "0.000000005 USD left" in assert_openai_error(reply, 402, "budget_exhausted")
    assert reply.json["error"]["enginehouse"]["metadata"]["left"] == "5"
    assert "retry-after" not in reply.headers


async def test_budget_that_is_raised_serves_at_once(operator: Operator, caller: Caller) -> None:
    limit = await operator.limit(caller, USD, PRICE_NANOUSD, model="echo")
    assert [(await caller.chat("echo")).status for _ in range(2)] == [200, 402]
    raised = admin_pb2.Limit(name=limit, cap=3 * PRICE_NANOUSD)
    await operator.admin.UpdateLimit(admin_pb2.UpdateLimitRequest(limit=raised))

    async def is_served() -> bool:
        return (await caller.chat("echo")).status == 200

    await until_async(is_served, "the raised budget is used", deadline_s=3)
    assert [(await caller.chat("echo")).status for _ in range(2)] == [200, 402]
    await operator.until_spent(limit, 3 * PRICE_NANOUSD)


async def test_budget_lowered_below_what_is_spent_serves_no_more(operator: Operator, caller: Caller) -> None:
    limit = await operator.limit(caller, USD, 10 * PRICE_NANOUSD, model="echo")
    assert (await caller.chat("echo")).status == 200
    await operator.until_spent(limit, PRICE_NANOUSD)
    lowered = admin_pb2.Limit(name=limit, cap=PRICE_NANOUSD // 2)
    await operator.admin.UpdateLimit(admin_pb2.UpdateLimitRequest(limit=lowered))

    async def is_refused() -> bool:
        status = await operator.status(limit)
        assert status.spent + status.allotted <= status.cap_effective
        return (await caller.chat("echo")).status == 402

    await until_async(is_refused, "nothing is served any more")


async def test_tenants_budget_is_not_its_neighbors(operator: Operator, caller: Caller) -> None:
    await operator.limit(caller, USD, PRICE_NANOUSD, model="echo")
    neighbor = await operator.caller()
    assert [(await caller.chat("echo")).status for _ in range(2)] == [200, 402]
    assert [(await neighbor.chat("echo")).status for _ in range(2)] == [200, 200]


async def test_requests_of_a_window_end_in_429_until_it_ends(operator: Operator, caller: Caller) -> None:
    limit = await operator.limit(caller, COUNT, 3, model="echo", window=DAY)
    replies = await asyncio.gather(*(caller.chat("echo") for _ in range(10)))
    refused = [reply for reply in replies if reply.status != 200]
    assert len(refused) == 7
    status = await operator.status(limit)
    for reply in refused:
        assert_openai_error(reply, 429, "rate_limited")
        assert 0 < int(reply.headers["retry-after"]) <= status.window_end.seconds - status.window_start.seconds
    await operator.until_spent(limit, 3)


async def test_tokens_are_held_by_their_bound_and_charged_by_their_count(operator: Operator, caller: Caller) -> None:
    limit = await operator.limit(caller, TOKENS, 2 * CHAT_TOKENS_MAX - 1, model="echo", window=DAY)
    reply = await caller.chat("echo")
    used = reply.json["usage"]["total_tokens"]
    assert used == 8 + 1
    await operator.until_spent(limit, used)
    cut_short = await caller.chat("echo", max_tokens=1)
    assert cut_short.status == 200
    await operator.until_spent(limit, 2 * used)
    while (reply := await caller.chat("echo")).status == 200:
        used += 9
    assert_openai_error(reply, 429, "rate_limited")
    assert "retry-after" in reply.headers


async def test_requests_in_flight_are_counted_while_they_last(operator: Operator, caller: Caller) -> None:
    limit = await operator.limit(caller, IN_FLIGHT, 2, model="gated")
    engine = await operator.engine("gated-eu-de-0")
    await engine.close_gate()
    try:
        held = [asyncio.ensure_future(caller.chat("gated")) for _ in range(2)]
        await engine.until_waiting_at_gate(2)
        reply = await caller.chat("gated")
        assert_openai_error(reply, 429, "rate_limited")
        assert "retry-after" not in reply.headers
    finally:
        await engine.open_gate()
    assert [reply.status for reply in await asyncio.gather(*held)] == [200, 200]

    async def is_free() -> bool:
        return (await caller.chat("gated")).status == 200

    await until_async(is_free, "slots are free again", deadline_s=3)
    status = await operator.status(limit)
    assert (status.spent, status.overrun) == (0, 0)


@pytest.mark.parametrize("price", [None, common_pb2.Price()], ids=["none", "zero"])
async def test_deployment_without_a_price_is_refused_and_never_free(
    operator: Operator, caller: Caller, price: common_pb2.Price | None
) -> None:
    deployment = admin_pb2.Deployment(
        model="unpriced",
        engine="echo",
        settings=admin_pb2.EngineSettings(context_tokens_max=512, output_tokens_max=64),
        placements=[admin_pb2.Placement(node="eu-de", price=price)],
    )
    request = admin_pb2.CreateDeploymentRequest(deployment_id="unpriced", deployment=deployment)
    error = await refused(operator.admin.CreateDeployment(request))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "price" in (error.details() or "")
    assert_openai_error(await caller.chat("unpriced"), 404, "model_not_found")


async def test_every_limit_over_a_request_is_charged_or_none(operator: Operator, caller: Caller) -> None:
    budget = await operator.limit(caller, USD, 100 * PRICE_NANOUSD, model="echo")
    requests = await operator.limit(caller, COUNT, 2, model="echo", window=DAY)
    replies = await asyncio.gather(*(caller.chat("echo") for _ in range(5)))
    assert sorted(reply.status for reply in replies) == [200, 200, 429, 429, 429]
    await operator.until_spent(requests, 2)
    await operator.until_spent(budget, 2 * PRICE_NANOUSD)
