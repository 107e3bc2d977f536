"""The official Anthropic SDK against the mesh, whose engines speak OpenAI's dialect: every answer is translated."""

import anthropic
import pytest
from anthropic.types import MessageParam, TextBlock

from enginehouse.v1 import admin_pb2, ledger_pb2, router_pb2
from tests.support.caller import Caller
from tests.support.operator import Operator

TEXT = "one two three"
PROMPT_TOKENS = 3 + 4 + 3
MESSAGES: list[MessageParam] = [{"role": "user", "content": TEXT}]


def text_of(message: anthropic.types.Message) -> str:
    """The text of a message of one block."""
    (block,) = message.content
    assert isinstance(block, TextBlock)
    return block.text


async def test_message(caller: Caller) -> None:
    answer = await caller.anthropic.messages.create(model="echo", max_tokens=16, messages=MESSAGES)
    assert text_of(answer) == TEXT
    assert (answer.type, answer.role, answer.model, answer.stop_reason) == ("message", "assistant", "echo", "end_turn")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (PROMPT_TOKENS, 3)


async def test_message_that_reaches_its_output_limit_says_max_tokens(caller: Caller) -> None:
    answer = await caller.anthropic.messages.create(model="echo", max_tokens=2, messages=MESSAGES)
    assert text_of(answer) == "one two"
    assert answer.stop_reason == "max_tokens"


async def test_system_prompt_is_read(caller: Caller) -> None:
    answer = await caller.anthropic.messages.create(model="echo", max_tokens=16, system="four five", messages=MESSAGES)
    assert text_of(answer) == TEXT
    assert answer.usage.input_tokens == PROMPT_TOKENS + 2 + 4


async def test_stream(caller: Caller) -> None:
    async with caller.anthropic.messages.stream(model="echo", max_tokens=16, messages=MESSAGES) as stream:
        pieces = [piece async for piece in stream.text_stream]
        final = await stream.get_final_message()
    assert "".join(pieces) == text_of(final) == TEXT
    assert len(pieces) == 3
    assert final.stop_reason == "end_turn"
    assert (final.usage.input_tokens, final.usage.output_tokens) == (PROMPT_TOKENS, 3)


async def test_stream_has_the_events_of_the_api_in_their_order(caller: Caller) -> None:
    stream = await caller.anthropic.messages.create(model="echo", max_tokens=16, messages=MESSAGES, stream=True)
    kinds = [event.type async for event in stream]
    assert [kind for kind in kinds if kind != "content_block_delta"] == [
        "message_start",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_count_tokens(caller: Caller) -> None:
    answer = await caller.anthropic.messages.count_tokens(model="echo", messages=MESSAGES)
    assert answer.input_tokens == PROMPT_TOKENS


async def test_wrong_key_is_an_authentication_error(caller: Caller) -> None:
    async with anthropic.AsyncAnthropic(base_url=f"http://{caller.door}", api_key="wrong", max_retries=0) as client:
        with pytest.raises(anthropic.AuthenticationError, match="not known"):
            await client.messages.create(model="echo", max_tokens=16, messages=MESSAGES)


async def test_unknown_model_is_a_not_found_error(caller: Caller) -> None:
    with pytest.raises(anthropic.NotFoundError, match="no-such-model"):
        await caller.anthropic.messages.create(model="no-such-model", max_tokens=16, messages=MESSAGES)


async def test_bad_request_is_a_bad_request_error(caller: Caller) -> None:
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        await caller.anthropic.messages.create(model="echo", max_tokens=16, messages=[])


async def test_spent_budget_is_a_402(operator: Operator, caller: Caller) -> None:
    await operator.limit(caller, ledger_pb2.LIMIT_UNIT_USD, 999_999, model="echo")
    with pytest.raises(anthropic.APIStatusError, match="budget") as raised:
        await caller.anthropic.messages.create(model="echo", max_tokens=16, messages=MESSAGES)
    assert raised.value.status_code == 402


async def test_rate_limit_is_a_rate_limit_error(operator: Operator, caller: Caller) -> None:
    day = ledger_pb2.LIMIT_WINDOW_DAY
    await operator.limit(caller, ledger_pb2.LIMIT_UNIT_REQUESTS, 1, model="echo", window=day)
    await caller.anthropic.messages.create(model="echo", max_tokens=16, messages=MESSAGES)
    with pytest.raises(anthropic.RateLimitError) as raised:
        await caller.anthropic.messages.create(model="echo", max_tokens=16, messages=MESSAGES)
    assert 0 < int(raised.value.response.headers["retry-after"]) <= 86_400


async def test_unlawful_place_is_a_451(operator: Operator) -> None:
    caller = await operator.caller(policy=admin_pb2.Policy(residency=router_pb2.Residency(allow=["eu"])))
    with pytest.raises(anthropic.APIStatusError, match="residency") as raised:
        await caller.anthropic.messages.create(model="american", max_tokens=16, messages=MESSAGES)
    assert raised.value.status_code == 451


async def test_body_above_the_limit_is_a_content_too_large_error(caller: Caller) -> None:
    with pytest.raises(anthropic.APIStatusError, match="larger than") as raised:
        await caller.anthropic.messages.create(
            model="echo", max_tokens=16, messages=[{"role": "user", "content": "x" * 2_000_000}]
        )
    assert raised.value.status_code == 413


async def test_engine_that_is_not_there_is_an_internal_server_error(operator: Operator, caller: Caller) -> None:
    engine = await operator.engine("gated-eu-de-0")
    await engine.plan_fault("unavailable")
    with pytest.raises(anthropic.InternalServerError) as raised:
        await caller.anthropic.messages.create(model="gated", max_tokens=16, messages=MESSAGES)
    assert raised.value.status_code == 503
