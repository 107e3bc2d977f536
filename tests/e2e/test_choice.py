"""Chip, quality and price: asked for in a hint, and obeyed or refused with the reason."""

import pytest

from enginehouse.v1 import admin_pb2, common_pb2
from tests.e2e.dialects import assert_openai_error
from tests.support.caller import Caller, chat_body
from tests.support.operator import Operator

CHAT = "/v1/chat/completions"


async def test_chip_that_is_not_there_is_404_with_the_reason(caller: Caller) -> None:
    reply = await caller.post(CHAT, chat_body("twin"), {"x-enginehouse-chip": "tpu"})
    assert "tpu" in assert_openai_error(reply, 404, "chip_not_found")


async def test_chip_that_is_there_is_served(caller: Caller) -> None:
    assert (await caller.post(CHAT, chat_body("twin"), {"x-enginehouse-chip": "cpu"})).status == 200


@pytest.mark.parametrize(("quality", "replica"), [("low", "twin-eu-de-0"), ("high", "twin-us-va-0")])
async def test_cheapest_replica_of_the_quality_asked_serves(
    operator: Operator, caller: Caller, quality: str, replica: str
) -> None:
    events = await operator.events()
    reply = await caller.post(CHAT, chat_body("twin"), {"x-enginehouse-quality": quality})
    assert (await events.settled(reply.request_id)).replica == replica


async def test_price_above_the_highest_of_the_request_is_402(caller: Caller) -> None:
    assert (await caller.post(CHAT, chat_body("twin"), {"x-enginehouse-max-price": "0.001"})).status == 200
    reply = await caller.post(CHAT, chat_body("twin"), {"x-enginehouse-max-price": "0.0009"})
    assert_openai_error(reply, 402, "price_above_maximum")


async def test_policy_keeps_what_a_hint_would_give_away(operator: Operator) -> None:
    policy = admin_pb2.Policy(quality_floor=common_pb2.QUALITY_HIGH, price_nanousd_max=1_500_000)
    caller = await operator.caller(policy=policy)
    headers = {"x-enginehouse-quality": "low", "x-enginehouse-max-price": "1"}
    reply = await caller.post(CHAT, chat_body("twin"), headers)
    assert_openai_error(reply, 402, "price_above_maximum")


async def test_model_that_the_policy_does_not_list_does_not_exist(operator: Operator) -> None:
    caller = await operator.caller(policy=admin_pb2.Policy(models=["slow"]))
    assert_openai_error(await caller.chat("echo"), 404, "model_not_found")
    assert [model.id async for model in caller.openai.models.list()] == ["slow"]


async def test_turns_of_a_session_meet_the_same_replica(operator: Operator, caller: Caller) -> None:
    events = await operator.events()
    for session in ("s-one", "s-two", "s-three"):
        served = set()
        for _ in range(4):  # a request that has not ended yet is a load, and may count for more than the session
            reply = await caller.post(CHAT, chat_body("echo"), {"x-enginehouse-session": session})
            served.add((await events.settled(reply.request_id)).replica)
        assert len(served) == 1
