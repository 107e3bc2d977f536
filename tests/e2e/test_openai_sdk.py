"""The official OpenAI SDK against the mesh: what it returns, and which of its own classes it raises."""

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from enginehouse.v1 import admin_pb2, common_pb2, ledger_pb2, router_pb2
from tests.support.caller import Caller
from tests.support.operator import Operator

TEXT = "one two three"
PROMPT_TOKENS = 3 + 4 + 3  # the words, their message, and the reply's opening: the echo engine's template
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": TEXT}]


@pytest.fixture(params=[common_pb2.LANE_DIRECT, common_pb2.LANE_ADAPTER], ids=["direct", "adapter"])
async def caller(operator: Operator, request: pytest.FixtureRequest) -> Caller:
    """A caller whose requests take the one lane or the other."""
    return await operator.caller(policy=admin_pb2.Policy(lane=request.param))


async def test_chat(caller: Caller) -> None:
    answer = await caller.openai.chat.completions.create(model="echo", messages=MESSAGES)
    assert answer.object == "chat.completion"
    assert answer.model == "echo"
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (PROMPT_TOKENS, 3)


async def test_chat_that_reaches_its_output_limit_says_length(caller: Caller) -> None:
    answer = await caller.openai.chat.completions.create(model="echo", messages=MESSAGES, max_tokens=2)
    assert answer.choices[0].message.content == "one two"
    assert answer.choices[0].finish_reason == "length"


async def test_chat_with_several_choices(caller: Caller) -> None:
    answer = await caller.openai.chat.completions.create(model="echo", messages=MESSAGES, n=3)
    assert [choice.message.content for choice in answer.choices] == [TEXT] * 3
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 9


async def test_stream_has_no_usage_chunk_that_was_not_asked_for(caller: Caller) -> None:
    stream = await caller.openai.chat.completions.create(model="echo", messages=MESSAGES, stream=True)
    chunks = [chunk async for chunk in stream]
    assert all(chunk.choices for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"]


async def test_stream_has_the_usage_chunk_that_was_asked_for(caller: Caller) -> None:
    stream = await caller.openai.chat.completions.create(
        model="echo", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    extra = [chunk for chunk in chunks if not chunk.choices]
    assert extra == chunks[-1:]
    assert extra[0].usage is not None
    assert (extra[0].usage.prompt_tokens, extra[0].usage.completion_tokens) == (PROMPT_TOKENS, 3)


async def test_completion(caller: Caller) -> None:
    answer = await caller.openai.completions.create(model="echo", prompt=TEXT)
    assert answer.choices[0].text == TEXT
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 3)


async def test_completion_stream(caller: Caller) -> None:
    stream = await caller.openai.completions.create(model="echo", prompt=TEXT, stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == TEXT


async def test_embeddings(caller: Caller) -> None:
    answer = await caller.openai.embeddings.create(model="echo", input=["one", "two"])
    assert [one.index for one in answer.data] == [0, 1]
    assert len(answer.data[0].embedding) == len(answer.data[1].embedding) == 64
    assert answer.data[0].embedding != answer.data[1].embedding
    assert answer.usage.prompt_tokens == 2


async def test_models_are_listed_with_their_aliases(caller: Caller) -> None:
    assert {"echo", "default", "slow"} <= {model.id async for model in caller.openai.models.list()}


async def test_alias_is_served(caller: Caller) -> None:
    answer = await caller.openai.chat.completions.create(model="default", messages=MESSAGES)
    assert answer.choices[0].message.content == TEXT


async def test_hints_in_the_body_are_obeyed(caller: Caller) -> None:
    cheap, dear = {"enginehouse": {"max_price": 0.0009}}, {"enginehouse": {"max_price": 0.001}}
    answer = await caller.openai.chat.completions.create(model="echo", messages=MESSAGES, extra_body=dear)
    assert answer.choices[0].message.content == TEXT
    with pytest.raises(openai.APIStatusError) as raised:
        await caller.openai.chat.completions.create(model="echo", messages=MESSAGES, extra_body=cheap)
    assert (raised.value.status_code, raised.value.code) == (402, "price_above_maximum")


async def test_missing_key_is_an_authentication_error(caller: Caller) -> None:
    async with openai.AsyncOpenAI(base_url=f"http://{caller.door}/v1", api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError, match="not known"):
            await client.chat.completions.create(model="echo", messages=MESSAGES)
        with pytest.raises(openai.AuthenticationError, match="not known"):
            await client.models.list()


async def test_unknown_model_is_a_not_found_error(caller: Caller) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        await caller.openai.chat.completions.create(model="no-such-model", messages=MESSAGES)
    assert raised.value.code == "model_not_found"


async def test_bad_request_is_a_bad_request_error(caller: Caller) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        await caller.openai.chat.completions.create(model="echo", messages=[])
    assert raised.value.code == "malformed_request"


async def test_what_the_engine_refuses_is_a_bad_request_error(caller: Caller) -> None:
    with pytest.raises(openai.BadRequestError):
        await caller.openai.chat.completions.create(model="echo", messages=MESSAGES, n=17)


async def test_feature_that_no_engine_has_is_a_not_found_error(caller: Caller) -> None:
    with pytest.raises(openai.NotFoundError, match="logprobs"):
        await caller.openai.chat.completions.create(model="echo", messages=MESSAGES, logprobs=True)


async def test_spent_budget_is_a_402(operator: Operator, caller: Caller) -> None:
    await operator.limit(caller, ledger_pb2.LIMIT_UNIT_USD, 999_999, model="echo")
    with pytest.raises(openai.APIStatusError, match="budget") as raised:
        await caller.openai.chat.completions.create(model="echo", messages=MESSAGES)
    assert raised.value.status_code == 402
    assert raised.value.code == "budget_exhausted"
    assert raised.value.type == "insufficient_quota"


async def test_rate_limit_is_a_rate_limit_error(operator: Operator, caller: Caller) -> None:
    day = ledger_pb2.LIMIT_WINDOW_DAY
    await operator.limit(caller, ledger_pb2.LIMIT_UNIT_REQUESTS, 1, model="echo", window=day)
    await caller.openai.chat.completions.create(model="echo", messages=MESSAGES)
    with pytest.raises(openai.RateLimitError) as raised:
        await caller.openai.chat.completions.create(model="echo", messages=MESSAGES)
    assert 0 < int(raised.value.response.headers["retry-after"]) <= 86_400


async def test_unlawful_place_is_a_451(caller: Caller) -> None:
    with pytest.raises(openai.APIStatusError, match="residency") as raised:
        await caller.openai.chat.completions.create(
            model="american", messages=MESSAGES, extra_headers={"x-enginehouse-residency": "eu"}
        )
    assert raised.value.status_code == 451
    assert raised.value.type == "permission_error"


async def test_engine_that_is_not_there_is_an_internal_server_error(operator: Operator, caller: Caller) -> None:
    engine = await operator.engine("gated-eu-de-0")
    await engine.plan_fault("unavailable")
    with pytest.raises(openai.InternalServerError) as raised:
        await caller.openai.chat.completions.create(model="gated", messages=MESSAGES)
    assert raised.value.status_code == 503


async def test_body_above_the_limit_is_a_413(caller: Caller) -> None:
    with pytest.raises(openai.APIStatusError, match="larger than") as raised:
        await caller.openai.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "x" * 2_000_000}]
        )
    assert raised.value.status_code == 413


async def test_residency_of_the_tenant_reaches_the_sdk_as_a_message(operator: Operator) -> None:
    caller = await operator.caller(policy=admin_pb2.Policy(residency=router_pb2.Residency(allow=["eu"])))
    with pytest.raises(openai.APIStatusError) as raised:
        await caller.openai.chat.completions.create(model="american", messages=MESSAGES)
    assert isinstance(raised.value.body, dict)
    assert raised.value.body["enginehouse"]["rule"] == "residency"
