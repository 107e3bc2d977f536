"""Explaining is executing: the same candidates, verdicts, scores, holds and order, and nothing is held or charged."""

from collections.abc import Mapping

import pytest

from enginehouse.v1 import admin_pb2, common_pb2, ledger_pb2, router_pb2
from tests.support.caller import Caller, Reply, chat_body
from tests.support.operator import Operator

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
USD, COUNT = ledger_pb2.LIMIT_UNIT_USD, ledger_pb2.LIMIT_UNIT_REQUESTS
EUROPE = router_pb2.Residency(allow=["eu"])
POLICIES = {
    "none": admin_pb2.Policy(),
    "residency": admin_pb2.Policy(residency=EUROPE),
    "adapter-lane": admin_pb2.Policy(lane=common_pb2.LANE_ADAPTER),
    "weights": admin_pb2.Policy(weights=admin_pb2.ScorerWeights(quality=1, cost=0.2)),
    "price": admin_pb2.Policy(price_nanousd_max=1_500_000),
    "quality": admin_pb2.Policy(quality_floor=common_pb2.QUALITY_HIGH),
}
REQUESTS: dict[str, tuple[str, dict[str, object], Mapping[str, str]]] = {
    "chat": (CHAT, chat_body("twin", "one two three"), {}),
    "stream": (CHAT, chat_body("twin", stream=True, max_tokens=7, n=2), {}),
    "message": (MESSAGES, chat_body("twin", max_tokens=9), {"x-enginehouse-session": "s"}),
    "embedding": ("/v1/embeddings", {"model": "twin", "input": ["one", "two"]}, {}),
    "low": (CHAT, chat_body("twin"), {"x-enginehouse-quality": "low", "x-enginehouse-max-price": "0.001"}),
    "no-chip": (CHAT, chat_body("twin"), {"x-enginehouse-chip": "tpu"}),
    "unlawful": (CHAT, chat_body("american"), {"x-enginehouse-residency": "eu"}),
    "no-model": (CHAT, chat_body("nothing-of-that-name"), {}),
}


def plain(decision: router_pb2.Decision) -> str:
    """A decision as text, without what names this one, what only a hold has, and what only an explanation has."""
    copied = router_pb2.Decision()
    copied.CopyFrom(decision)
    copied.id = ""
    copied.ClearField("decided_at")
    copied.ClearField("candidates")
    for hold in copied.holds:
        hold.allowance = ""
        hold.ClearField("window_start")
    return str(copied)


async def decided(operator: Operator, caller: Caller, name: str) -> tuple[Reply, router_pb2.Decision]:
    """The answer to a request, and the decision that was made about it; nothing of it runs any more."""
    decisions, events = await operator.decisions(caller, "echo"), await operator.events()
    reply = await caller.post(*REQUESTS[name])
    decision = await decisions.of(reply.decision_id)
    if not decision.HasField("refusal"):
        await events.settled(reply.request_id)
    return reply, decision


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
async def test_what_is_explained_is_what_is_executed(operator: Operator, policy: admin_pb2.Policy, name: str) -> None:
    caller = await operator.caller(policy=policy)
    reply, executed = await decided(operator, caller, name)
    explained = await operator.explain(executed.request)
    assert plain(explained) == plain(executed)
    assert explained.id != executed.id
    kept = [candidate.replica for candidate in explained.candidates if not candidate.dropped_by]
    assert kept[:1] == [attempt.replica for attempt in executed.attempts][:1]
    assert explained.candidates or name == "no-model"
    assert reply.status == (executed.refusal.http_status if executed.HasField("refusal") else 200)


async def test_refusal_by_a_budget_is_explained_as_it_is_executed(operator: Operator, caller: Caller) -> None:
    await operator.limit(caller, USD, 500_000, model="echo")
    decisions = await operator.decisions(caller, "slow")
    executed = await decisions.of((await caller.chat("echo")).decision_id)
    explained = await operator.explain(executed.request)
    assert executed.refusal.reason == "BUDGET_EXHAUSTED"
    assert plain(explained) == plain(executed)


async def test_explaining_holds_nothing(operator: Operator, caller: Caller) -> None:
    budget = await operator.limit(caller, USD, 2_000_000, model="echo")
    requests = await operator.limit(caller, COUNT, 2, model="echo", window=ledger_pb2.LIMIT_WINDOW_DAY)
    for _ in range(20):
        decision = await operator.explain(operator.routing_request(caller, "echo"))
        assert {hold.amount for hold in decision.holds if hold.limit in requests} == {1}
    assert [(await caller.chat("echo")).status for _ in range(3)] == [200, 200, 429]
    await operator.until_spent(budget, 2_000_000)
    await operator.until_spent(requests, 2)
