"""What becomes of requests that do not fit by their bytes, through the whole mesh: counted, cut short, or waiting."""

import asyncio

import pytest
from google.protobuf import duration_pb2

from enginehouse.v1 import admin_pb2, ledger_pb2
from tests.support.operator import Operator, chat_body
from tests.support.waiting import until_async

TOKENS, IN_FLIGHT = ledger_pb2.LIMIT_UNIT_TOKENS, ledger_pb2.LIMIT_UNIT_IN_FLIGHT
CLAMP = admin_pb2.Policy(on_tight_budget=admin_pb2.TIGHT_BUDGET_CLAMP)
TEMPLATE_TOKENS = 7
WORDS = 30
TEXT = " ".join("w" * 99 for _ in range(WORDS))  # about 3000 bytes
PROMPT_TOKENS = WORDS + TEMPLATE_TOKENS


def waiting(wait_ms: int) -> admin_pb2.Policy:
    wait = duration_pb2.Duration()
    wait.FromMilliseconds(wait_ms)
    return admin_pb2.Policy(on_tight_budget=admin_pb2.TIGHT_BUDGET_WAIT, wait=wait)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_a_prompt_of_many_bytes_and_few_tokens_is_served_by_its_tokens(operator: Operator, path: str) -> None:
    caller = await operator.caller()
    limit = await operator.limit(caller, TOKENS, PROMPT_TOKENS + 40, model="echo")
    reply = await caller.post(path, chat_body("echo", TEXT, max_tokens=40))
    assert reply.status == 200
    await operator.until_spent(limit, PROMPT_TOKENS + WORDS)


async def test_a_prompt_of_too_many_tokens_is_refused_with_what_it_needs(operator: Operator) -> None:
    caller = await operator.caller()
    await operator.limit(caller, TOKENS, PROMPT_TOKENS + 39, model="echo")
    reply = await caller.chat("echo", TEXT, max_tokens=40)
    assert reply.status == 429
    assert reply.json["error"]["enginehouse"]["metadata"]["needed"] == str(PROMPT_TOKENS + 40)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_a_clamped_answer_is_as_long_as_the_limit_allows(operator: Operator, path: str) -> None:
    caller = await operator.caller(policy=CLAMP)
    limit = await operator.limit(caller, TOKENS, PROMPT_TOKENS + 13, model="echo")
    reply = await caller.post(path, chat_body("echo", TEXT, max_tokens=200))
    assert reply.status == 200
    usage = reply.json["usage"]
    assert usage.get("completion_tokens", usage.get("output_tokens")) == 13
    await operator.until_spent(limit, PROMPT_TOKENS + 13)
    assert (await caller.post(path, chat_body("echo", TEXT, max_tokens=200))).status == 429


async def test_requests_of_which_one_may_be_in_flight_wait_for_each_other(operator: Operator) -> None:
    caller = await operator.caller(policy=waiting(10_000))
    await operator.limit(caller, IN_FLIGHT, 1, model="echo")
    replies = await asyncio.gather(*(caller.chat("echo") for _ in range(3)))
    assert [reply.status for reply in replies] == [200] * 3


async def test_whoever_waits_in_vain_is_refused_by_the_limit_and_not_by_a_timeout(operator: Operator) -> None:
    caller, engine = await operator.caller(policy=waiting(10_000)), await operator.engine("echo-eu-de-0")
    limit = await operator.limit(caller, IN_FLIGHT, 1, model="echo")
    await engine.close_gate()
    try:
        first = asyncio.create_task(caller.chat("echo"))
        await engine.until_waiting_at_gate(1)
        reply = await caller.chat("echo")
    finally:
        await engine.open_gate()
    assert reply.status == 429
    assert reply.json["error"]["enginehouse"]["metadata"]["limit"] == limit.removeprefix("limits/")
    assert (await first).status == 200


async def test_an_explanation_tells_what_a_clamped_request_would_get(operator: Operator) -> None:
    caller = await operator.caller(policy=CLAMP)
    limit = await operator.limit(caller, TOKENS, 50, model="echo")
    request = operator.routing_request(caller, "echo")

    async def is_clamped() -> bool:
        return (await operator.explain(request)).output_tokens_max > 0

    await until_async(is_clamped, "a clamped decision")
    decision = await operator.explain(request)
    (hold,) = decision.holds
    assert (hold.limit, hold.amount) == (limit.removeprefix("limits/"), 50)
    assert decision.input_tokens_max + decision.output_tokens_max == 50
    assert [candidate.dropped_by for candidate in decision.candidates] == [""]
