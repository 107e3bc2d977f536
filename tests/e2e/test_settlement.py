"""What was generated is billed, exactly and once, also when the client leaves in the middle."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import pytest

from enginehouse.v1 import common_pb2, events_pb2, inference_pb2, ledger_pb2
from tests.support.caller import Caller, chat_body, generate_request
from tests.support.echo import EchoControls
from tests.support.happenings import Events
from tests.support.operator import Operator
from tests.support.waiting import until, until_async

TEXT = " ".join(f"w{number}" for number in range(120))
PROMPT_TOKENS = 120 + 4 + 3
INPUT_NANOUSD, OUTPUT_NANOUSD = 1000, 2000  # a token's price: 1 and 2 USD per million
USD, IN_FLIGHT = ledger_pb2.LIMIT_UNIT_USD, ledger_pb2.LIMIT_UNIT_IN_FLIGHT
SLOTS = 8
PARTIAL = common_pb2.USAGE_METHOD_ENGINE_PARTIAL

Tokens = AsyncGenerator[str, None]
Door = Callable[[Caller, str], Tokens]


async def by_openai(caller: Caller, model: str) -> Tokens:
    """A stream in the direct lane. The first item is the request's id, every other one token."""
    body = chat_body(model, TEXT, stream=True, max_tokens=120)
    async with caller.open("/v1/chat/completions", body) as answer:
        assert answer.status == 200, await answer.text()
        yield answer.headers["x-request-id"]
        async for line in answer.content:
            if b'"content":"w' in line or b'"content":" w' in line:
                yield line.decode()


async def by_anthropic(caller: Caller, model: str) -> Tokens:
    """A stream in the adapter lane; likewise."""
    async with caller.open("/v1/messages", chat_body(model, TEXT, stream=True, max_tokens=120)) as answer:
        assert answer.status == 200, await answer.text()
        yield answer.headers["x-request-id"]
        async for line in answer.content:
            if b'"text_delta"' in line:
                yield line.decode()


async def by_grpc(caller: Caller, model: str) -> Tokens:
    """A stream of canonical steps; likewise."""
    call = caller.grpc.Generate(generate_request(model, TEXT, 120), metadata=caller.metadata)
    try:
        yield str(dict(await call.initial_metadata() or ())["x-request-id"])
        async for step in call:
            if step.delta.text:
                yield step.delta.text
    finally:
        call.cancel()


DOORS = [by_openai, by_anthropic, by_grpc]
every_door = pytest.mark.parametrize("door", DOORS)


async def cut_after(caller: Caller, door: Door, model: str, tokens: int) -> str:
    """Reads so many tokens and leaves. Returns the request's id."""
    async with aclosing(door(caller, model)) as stream:
        request_id = await anext(stream)
        for _ in range(tokens):
            await anext(stream)
    return request_id


async def until_idle(engine: EchoControls) -> None:
    """Waits until the engine works on nothing."""

    async def is_idle() -> bool:
        return (await engine.counts()).running == 0

    await until_async(is_idle, "the engine works on nothing")


async def assert_free_slots(operator: Operator, caller: Caller, slots: int) -> None:
    """Exactly so many requests of the caller can be in flight: none is still counted, and none was given back twice."""
    engine = await operator.engine("gated-eu-de-0")
    await engine.close_gate()
    try:
        asked = [asyncio.ensure_future(caller.chat("gated")) for _ in range(slots + 2)]
        await engine.until_waiting_at_gate(slots)
        await until(lambda: sum(one.done() for one in asked) == 2, "two find no slot")
    finally:
        await engine.open_gate()
    assert sorted([(await one).status for one in asked]) == [*[200] * slots, 429, 429]


async def settled_once(events: Events, request_id: str) -> events_pb2.RequestSettled:
    """How a request was settled, and that it was only once: whoever reports late has had the time."""
    settled = await events.settled(request_id)
    assert events.settlements(request_id) == 1
    return settled


@every_door
@pytest.mark.parametrize("tokens", [1, 7, 64])
async def test_stream_cut_while_the_engine_pauses_is_billed_to_the_token(
    operator: Operator, caller: Caller, door: Door, tokens: int
) -> None:
    engine, events = await operator.engine("slow-eu-de-0"), await operator.events()
    limit = await operator.limit(caller, USD, 10**9, model="slow")
    await engine.plan_fault("hang", after_tokens=tokens)
    before = await engine.counts()
    request_id = await cut_after(caller, door, "slow", tokens)
    settled = await settled_once(events, request_id)
    generated = (await engine.counts()).generated_since(before, PROMPT_TOKENS)
    assert generated == tokens
    assert (settled.usage.input_tokens, settled.usage.output_tokens) == (PROMPT_TOKENS, generated)
    assert settled.usage.method == PARTIAL
    assert settled.charged_nanousd == PROMPT_TOKENS * INPUT_NANOUSD + generated * OUTPUT_NANOUSD
    assert settled.outcome == "client_left"
    await operator.until_spent(limit, settled.charged_nanousd)


@every_door
async def test_streams_cut_at_random_points_are_billed_between_what_was_read_and_what_was_generated(
    operator: Operator, caller: Caller, door: Door
) -> None:
    engine, events = await operator.engine("slow-eu-de-0"), await operator.events()
    limit = await operator.limit(caller, USD, 10**9, model="slow")
    await operator.limit(caller, IN_FLIGHT, SLOTS, model="slow")
    chance = random.Random(door.__name__)
    points = [chance.randint(1, 60) for _ in range(SLOTS)]
    before = await engine.counts()
    ids = await asyncio.gather(*(cut_after(caller, door, "slow", point) for point in points))
    settled = [await settled_once(events, request_id) for request_id in ids]
    await until_idle(engine)
    generated = (await engine.counts()).generated_since(before, PROMPT_TOKENS * len(points))
    billed = [one.usage.output_tokens for one in settled]
    assert all(one.usage.method == PARTIAL for one in settled)
    assert all(read <= count for read, count in zip(points, billed, strict=True))
    # What the engine makes after its last count has left it: a token for each stream, at the pace of the test.
    assert sum(billed) <= generated
    await operator.until_spent(limit, sum(one.charged_nanousd for one in settled))
    await assert_free_slots(operator, caller, SLOTS)


@every_door
async def test_stream_read_to_its_end_is_billed_whole(operator: Operator, caller: Caller, door: Door) -> None:
    engine, events = await operator.engine("slow-eu-de-0"), await operator.events()
    before = await engine.counts()
    stream = door(caller, "slow")
    request_id = await anext(stream)
    read = len([token async for token in stream])
    settled = await settled_once(events, request_id)
    assert settled.usage.output_tokens == read == (await engine.counts()).generated_since(before, PROMPT_TOKENS)
    assert settled.usage.method == common_pb2.USAGE_METHOD_ENGINE
    assert settled.outcome == "complete"
    assert settled.http_status == 200


@every_door
async def test_hold_of_a_cut_stream_is_given_back_once(operator: Operator, caller: Caller, door: Door) -> None:
    engine, events = await operator.engine("slow-eu-de-0"), await operator.events()
    first = await cut_after(caller, door, "slow", 1)
    hold_nanousd = (await events.decided(first)).hold_nanousd
    limit = await operator.limit(caller, USD, hold_nanousd, model="slow")
    await engine.plan_fault("hang", after_tokens=5)
    settled = await settled_once(events, await cut_after(caller, door, "slow", 5))
    await operator.until_spent(limit, settled.charged_nanousd)
    # Too much for what is left, however few tokens the prompt turns out to have.
    reply = await caller.post("/v1/messages", chat_body("slow", TEXT, stream=True, max_tokens=256))
    assert reply.status == 402
    left = reply.json["error"]["enginehouse"]["metadata"]["left"]
    assert int(left) == hold_nanousd - settled.charged_nanousd


async def test_client_that_leaves_before_anything_was_counted_pays_the_bound_by_that_name(
    operator: Operator, caller: Caller
) -> None:
    engine, events = await operator.engine("gated-eu-de-0"), await operator.events()
    await engine.close_gate()
    try:
        asked = asyncio.ensure_future(caller.chat("gated", stream=True))
        await engine.until_waiting_at_gate(1)
        asked.cancel()
        event = await events.until("request.settled", lambda event: caller.tenant.encode() in event.data)
    finally:
        await engine.open_gate()
    settled = event.payload(events_pb2.RequestSettled)
    assert settled.usage.method == common_pb2.USAGE_METHOD_UPPER_BOUND
    (decided,) = await events.decisions_of(caller.tenant, 1)
    assert settled.charged_nanousd == decided.hold_nanousd
    assert settled.outcome == "client_left"


async def test_call_that_is_cancelled_before_anything_was_counted_pays_the_bound_by_that_name(
    operator: Operator, caller: Caller
) -> None:
    engine, events = await operator.engine("slow-eu-de-0"), await operator.events()
    await engine.close_gate()
    try:
        request = inference_pb2.EmbedRequest(model="slow", input=["one two three"])
        asked = asyncio.ensure_future(caller.grpc.Embed(request, metadata=caller.metadata))
        await engine.until_waiting_at_gate(1)
        asked.cancel()
        await asyncio.wait({asked})
        event = await events.until("request.settled", lambda event: caller.tenant.encode() in event.data)
    finally:
        await engine.open_gate()
    settled = event.payload(events_pb2.RequestSettled)
    assert settled.usage.method == common_pb2.USAGE_METHOD_UPPER_BOUND
    (decided,) = await events.decisions_of(caller.tenant, 1)
    assert settled.charged_nanousd == decided.hold_nanousd > 0
    assert settled.outcome == "client_left"


async def test_embedding_and_ranking_are_billed_by_what_they_read(operator: Operator, caller: Caller) -> None:
    limit = await operator.limit(caller, ledger_pb2.LIMIT_UNIT_TOKENS, 10**6, model="slow")
    reply = await caller.post("/v1/embeddings", {"model": "slow", "input": ["one two", "three"]})
    assert reply.json["usage"]["total_tokens"] == 3
    await operator.until_spent(limit, 3)
    reply = await caller.post("/v1/rerank", {"model": "slow", "query": "one", "documents": ["one two", "three"]})
    assert reply.json["usage"]["total_tokens"] == 5
    await operator.until_spent(limit, 8)


async def test_counting_tokens_costs_nothing(operator: Operator, caller: Caller) -> None:
    limit, events = await operator.limit(caller, USD, 10**9, model="echo"), await operator.events()
    reply = await caller.post("/v1/messages/count_tokens", chat_body("echo", TEXT))
    assert reply.json == {"input_tokens": PROMPT_TOKENS}
    assert (await settled_once(events, reply.request_id)).charged_nanousd == 0
    assert (await operator.status(limit)).spent == 0


async def test_request_that_the_engine_refuses_costs_nothing(operator: Operator, caller: Caller) -> None:
    events = await operator.events()
    reply = await caller.chat("slow", TEXT, n=17)
    assert reply.status == 400
    settled = await settled_once(events, reply.request_id)
    assert (settled.charged_nanousd, settled.usage.output_tokens) == (0, 0)
    assert settled.outcome == "refused_by_engine"
