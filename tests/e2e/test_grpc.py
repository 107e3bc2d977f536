"""InferenceService on the door's port: answers, errors with details, and a client's deadline and cancel."""

import asyncio

import grpc

from enginehouse.v1 import admin_pb2, common_pb2, inference_pb2, ledger_pb2, router_pb2
from tests.e2e.dialects import details_of
from tests.support.caller import Caller, generate_request, refused
from tests.support.echo import EchoControls
from tests.support.operator import Operator
from tests.support.waiting import until_async

TEXT = "one two three"
PROMPT_TOKENS = 3 + 4 + 3
LONG = "word " * 50


async def until_idle(engine: EchoControls) -> None:
    """Waits until the engine works on nothing."""

    async def is_idle() -> bool:
        return (await engine.counts()).running == 0

    await until_async(is_idle, "the engine works on nothing")


async def test_generate_streams_steps_and_ends_with_usage(caller: Caller) -> None:
    steps = [step async for step in caller.grpc.Generate(generate_request("echo", TEXT), metadata=caller.metadata)]
    assert "".join(step.delta.text for step in steps) == TEXT
    assert len({step.id for step in steps}) == 1
    assert {step.model for step in steps} == {"echo"}
    finished = [step.choice_finished.reason for step in steps if step.HasField("choice_finished")]
    assert finished == [inference_pb2.FINISH_REASON_STOP]
    usage = steps[-1].finished.usage
    assert (usage.input_tokens, usage.output_tokens) == (PROMPT_TOKENS, 3)
    assert usage.method == common_pb2.USAGE_METHOD_ENGINE


async def test_generate_of_a_raw_prompt(caller: Caller) -> None:
    request = inference_pb2.GenerateRequest(model="echo", prompt=TEXT)
    steps = [step async for step in caller.grpc.Generate(request, metadata=caller.metadata)]
    assert "".join(step.delta.text for step in steps) == TEXT
    assert steps[-1].finished.usage.input_tokens == 3


async def test_output_limit_is_kept(caller: Caller) -> None:
    steps = [step async for step in caller.grpc.Generate(generate_request("echo", TEXT, 2), metadata=caller.metadata)]
    assert steps[-1].finished.usage.output_tokens == 2
    finished = [step.choice_finished.reason for step in steps if step.HasField("choice_finished")]
    assert finished == [inference_pb2.FINISH_REASON_LENGTH]


async def test_embed(caller: Caller) -> None:
    request = inference_pb2.EmbedRequest(model="echo", input=["one", "two"])
    answer = await caller.grpc.Embed(request, metadata=caller.metadata)
    assert [len(one.values) for one in answer.embeddings] == [64, 64]
    assert answer.usage.input_tokens == 2


async def test_rerank(caller: Caller) -> None:
    request = inference_pb2.RerankRequest(model="echo", query="red car", documents=["blue sky", "red car", "red sky"])
    answer = await caller.grpc.Rerank(request, metadata=caller.metadata)
    assert answer.results[0].index == 1
    assert len(answer.results) == 3


async def test_count_tokens(caller: Caller) -> None:
    message = inference_pb2.Message(role=inference_pb2.ROLE_USER, parts=[inference_pb2.Part(text=TEXT)])
    request = inference_pb2.CountTokensRequest(
        model="echo", conversation=inference_pb2.Conversation(messages=[message])
    )
    answer = await caller.grpc.CountTokens(request, metadata=caller.metadata)
    assert answer.input_tokens == PROMPT_TOKENS


async def test_deadline_of_the_client_ends_the_engine_work(operator: Operator, caller: Caller) -> None:
    engine = await operator.engine("fragile-eu-de-0")
    await engine.plan_fault("hang", after_tokens=2)
    call = caller.grpc.Generate(generate_request("fragile", LONG), metadata=caller.metadata, timeout=1.5)
    error = await refused(call)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await until_idle(engine)


async def test_cancel_of_the_client_ends_the_engine_work(operator: Operator, caller: Caller) -> None:
    engine = await operator.engine("fragile-eu-de-0")
    await engine.plan_fault("hang", after_tokens=2)
    call = caller.grpc.Generate(generate_request("fragile", LONG), metadata=caller.metadata)
    steps = [await anext(aiter(call)) for _ in range(2)]
    assert all(step.delta.text for step in steps)
    assert (await engine.counts()).running == 1
    call.cancel()
    await until_idle(engine)


async def test_unary_call_that_is_cancelled_ends_the_engine_work(operator: Operator, caller: Caller) -> None:
    engine = await operator.engine("gated-eu-de-0")
    await engine.close_gate()
    try:
        request = inference_pb2.EmbedRequest(model="gated", input=["one"])
        call = asyncio.ensure_future(caller.grpc.Embed(request, metadata=caller.metadata))
        await engine.until_waiting_at_gate(1)
        call.cancel()
        await asyncio.wait({call})

        async def is_free() -> bool:
            return (await engine.counts()).waiting == 0

        await until_async(is_free, "nobody waits at the gate")
    finally:
        await engine.open_gate()


async def test_spent_budget_is_resource_exhausted(operator: Operator, caller: Caller) -> None:
    limit = await operator.limit(caller, ledger_pb2.LIMIT_UNIT_USD, 999_999, model="echo")
    error = await refused(caller.grpc.Generate(generate_request("echo"), metadata=caller.metadata))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    details = details_of(error)
    assert details.reason == "BUDGET_EXHAUSTED"
    assert details.metadata["limit"] == limit.removeprefix("limits/")
    assert (details.metadata["needed"], details.metadata["left"]) == ("1000000", "999999")
    assert details.retry_after_s is None


async def test_rate_limit_says_when_to_come_back(operator: Operator, caller: Caller) -> None:
    day = ledger_pb2.LIMIT_WINDOW_DAY
    await operator.limit(caller, ledger_pb2.LIMIT_UNIT_REQUESTS, 1, model="echo", window=day)
    embed = inference_pb2.EmbedRequest(model="echo", input=["one"])
    await caller.grpc.Embed(embed, metadata=caller.metadata)
    error = await refused(caller.grpc.Embed(embed, metadata=caller.metadata))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    details = details_of(error)
    assert details.reason == "RATE_LIMITED"
    assert details.retry_after_s is not None
    assert 0 < details.retry_after_s <= 86_400


async def test_unlawful_place_is_a_failed_precondition(operator: Operator) -> None:
    caller = await operator.caller(policy=admin_pb2.Policy(residency=router_pb2.Residency(allow=["eu"])))
    error = await refused(caller.grpc.Generate(generate_request("american"), metadata=caller.metadata))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert details_of(error).reason == "RESIDENCY_UNSATISFIABLE"
    assert details_of(error).metadata["rule"] == "residency"


async def test_malformed_request_is_an_invalid_argument(caller: Caller) -> None:
    request = inference_pb2.GenerateRequest(model="echo", conversation=inference_pb2.Conversation())
    error = await refused(caller.grpc.Generate(request, metadata=caller.metadata))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert details_of(error).reason == "MALFORMED_REQUEST"


async def test_engine_that_is_not_there_is_unavailable(operator: Operator, caller: Caller) -> None:
    engine = await operator.engine("gated-eu-de-0")
    await engine.plan_fault("unavailable")
    error = await refused(caller.grpc.Generate(generate_request("gated"), metadata=caller.metadata))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
