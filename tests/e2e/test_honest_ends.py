"""A stream that died never looks finished; what broke before its first byte is served by another, silently."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from openai.types.chat import ChatCompletionMessageParam

from enginehouse.v1 import admin_pb2, common_pb2, events_pb2, node_pb2, router_pb2
from tests.e2e.dialects import assert_anthropic_error, assert_openai_error
from tests.support.caller import Caller, chat_body, generate_request
from tests.support.echo import FaultKind
from tests.support.happenings import Event
from tests.support.operator import Operator
from tests.support.waiting import until, until_async

TEXT = " ".join(f"w{number}" for number in range(100))
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": TEXT}]
TEMPLATE_TOKENS = 4 + 3
READ = 3
DIRECT, ADAPTER = common_pb2.LANE_DIRECT, common_pb2.LANE_ADAPTER


@dataclass
class Seen:
    """What a client has read of a stream."""

    tokens: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)


async def openai_stream(caller: Caller, model: str, seen: Seen) -> None:
    """Reads with the OpenAI SDK to what it takes for the end."""
    stream = await caller.openai.chat.completions.create(model=model, messages=MESSAGES, stream=True)
    async for chunk in stream:
        for choice in chunk.choices:
            seen.tokens += [choice.delta.content] if choice.delta.content else []
            seen.ends += [choice.finish_reason] if choice.finish_reason else []


async def completion_stream(caller: Caller, model: str, seen: Seen) -> None:
    """The same for a raw completion."""
    stream = await caller.openai.completions.create(model=model, prompt=TEXT, stream=True)
    async for chunk in stream:
        for choice in chunk.choices:
            seen.tokens += [choice.text] if choice.text else []
            seen.ends += [end] if (end := str(choice.finish_reason)) != "None" else []


async def anthropic_stream(caller: Caller, model: str, seen: Seen) -> None:
    """Reads with the Anthropic SDK to what it takes for the end."""
    stream = await caller.anthropic.messages.create(
        model=model, max_tokens=128, messages=[{"role": "user", "content": TEXT}], stream=True
    )
    async for event in stream:
        if event.type == "content_block_delta" and event.delta.type == "text_delta":
            seen.tokens.append(event.delta.text)
        if event.type in ("message_delta", "message_stop"):
            seen.ends.append(event.type)


async def grpc_stream(caller: Caller, model: str, seen: Seen) -> None:
    """Reads with a gRPC client to the end of the call."""
    async for step in caller.grpc.Generate(generate_request(model, TEXT), metadata=caller.metadata):
        seen.tokens += [step.delta.text] if step.delta.text else []
        seen.ends += [step.WhichOneof("event") or ""] if not step.HasField("delta") else []


@dataclass(frozen=True)
class Door:
    """One way to stream: through which client, and in which lane."""

    name: str
    lane: common_pb2.Lane.ValueType
    read: Callable[[Caller, str, Seen], Awaitable[None]]
    prompt_tokens: int = 100 + TEMPLATE_TOKENS


DOORS = [
    Door("openai-direct", DIRECT, openai_stream),
    Door("openai-adapter", ADAPTER, openai_stream),
    Door("completion-direct", DIRECT, completion_stream, prompt_tokens=100),
    Door("completion-adapter", ADAPTER, completion_stream, prompt_tokens=100),
    Door("anthropic", ADAPTER, anthropic_stream),
    Door("grpc", ADAPTER, grpc_stream),
]
every_door = pytest.mark.parametrize("door", DOORS, ids=[door.name for door in DOORS])


async def caller_in(operator: Operator, lane: common_pb2.Lane.ValueType) -> Caller:
    """A caller whose OpenAI requests take that lane."""
    return await operator.caller(policy=admin_pb2.Policy(lane=lane))


def is_about(caller: Caller) -> Callable[[Event], bool]:
    """Whether an event is about a request of the caller."""
    return lambda event: caller.tenant.encode() in event.data


async def settled_of(operator: Operator, caller: Caller, ask: Awaitable[None]) -> events_pb2.RequestSettled:
    """How the one request that `ask` makes is settled; `ask` must raise."""
    events = await operator.events()
    with pytest.raises(Exception) as raised:  # noqa: PT011 (the SDKs' own classes, and those of their transports)
        await ask
    assert not isinstance(raised.value, AssertionError), raised.value
    event = await events.until("request.settled", is_about(caller))
    return event.payload(events_pb2.RequestSettled)


async def until_serving(operator: Operator, caller: Caller, model: str) -> None:
    """Waits until a model that was broken is served again."""

    async def is_served() -> bool:
        return (await caller.chat(model)).status == 200

    await until_async(is_served, f"{model} is served again", deadline_s=60)


@every_door
async def test_stream_whose_engine_fails_raises(operator: Operator, door: Door) -> None:
    caller, seen = await caller_in(operator, door.lane), Seen()
    engine = await operator.engine("fragile-eu-de-0")
    await engine.plan_fault("error_frame", after_tokens=READ)
    settled = await settled_of(operator, caller, door.read(caller, "fragile", seen))
    assert (len(seen.tokens), seen.ends) == (READ, [])
    assert (settled.usage.input_tokens, settled.usage.output_tokens) == (door.prompt_tokens, READ)
    assert settled.charged_nanousd == door.prompt_tokens * 1000 + READ * 2000


async def test_streams_whose_engine_is_killed_raise_at_every_door(operator: Operator) -> None:
    replica = (await operator.replicas())["fragile-eu-de-0"]
    callers = [await caller_in(operator, door.lane) for door in DOORS]
    views = [Seen() for _ in DOORS]
    events = await operator.events()
    await (await operator.engine("fragile-eu-de-0")).plan_fault("hang", after_tokens=READ, requests=len(DOORS))
    reads = [
        asyncio.ensure_future(door.read(caller, "fragile", seen))
        for door, caller, seen in zip(DOORS, callers, views, strict=True)
    ]
    await until(lambda: all(len(seen.tokens) == READ for seen in views), "every stream has begun")
    operator.mesh.kill_engine(replica.address)
    ends = await asyncio.gather(*reads, return_exceptions=True)
    assert all(isinstance(end, Exception) for end in ends), ends
    assert [seen.ends for seen in views] == [[]] * len(DOORS)
    for caller in callers:
        event = await events.until("request.settled", is_about(caller))
        settled = event.payload(events_pb2.RequestSettled)
        assert settled.usage.output_tokens == READ
        assert settled.outcome == "engine_failed"
    await until_serving(operator, callers[0], "fragile")


@every_door
async def test_engine_that_refuses_before_its_first_token_is_an_error_and_costs_nothing(
    operator: Operator, door: Door
) -> None:
    caller, seen = await caller_in(operator, door.lane), Seen()
    await (await operator.engine("fragile-eu-de-0")).plan_fault("unavailable")
    settled = await settled_of(operator, caller, door.read(caller, "fragile", seen))
    assert (seen.tokens, seen.ends) == ([], [])
    assert (settled.charged_nanousd, settled.usage.output_tokens) == (0, 0)


@pytest.mark.parametrize("lane", [DIRECT, ADAPTER], ids=["direct", "adapter"])
async def test_unary_answer_whose_engine_fails_is_an_error(operator: Operator, lane: common_pb2.Lane.ValueType) -> None:
    caller = await caller_in(operator, lane)
    engine = await operator.engine("fragile-eu-de-0")
    await engine.plan_fault("error_frame", after_tokens=READ)
    reply = await caller.chat("fragile", TEXT)
    assert reply.status >= 500
    assert reply.json["error"]["message"]


@pytest.mark.parametrize("kind", ["unavailable", "error_frame"])
async def test_error_of_a_node_reaches_a_rest_client_in_its_dialect(operator: Operator, kind: FaultKind) -> None:
    caller = await caller_in(operator, ADAPTER)
    engine = await operator.engine("fragile-eu-de-0")
    await engine.plan_fault(kind)
    assert_anthropic_error(await caller.post("/v1/messages", chat_body("fragile", TEXT, max_tokens=9)), 503)
    await engine.plan_fault("unavailable")
    assert_openai_error(await caller.chat("fragile", TEXT), 503, "no_replica_available")


@every_door
@pytest.mark.parametrize("kind", ["unavailable", "refuse"])
async def test_replica_that_does_not_answer_is_replaced_silently(
    operator: Operator, door: Door, kind: FaultKind
) -> None:
    caller, seen = await caller_in(operator, door.lane), Seen()
    events = await operator.events()
    await (await operator.engine("twin-eu-de-0")).plan_fault(kind)
    await door.read(caller, "twin", seen)
    assert "".join(seen.tokens) == TEXT
    event = await events.until("request.settled", is_about(caller))
    settled = event.payload(events_pb2.RequestSettled)
    assert settled.replica == "twin-us-va-0"
    assert settled.charged_nanousd == 2_000_000


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/messages"])
async def test_unary_request_is_replaced_silently_too(operator: Operator, caller: Caller, path: str) -> None:
    events = await operator.events()
    await (await operator.engine("twin-eu-de-0")).plan_fault("unavailable")
    extra = {} if path == "/v1/messages" else {"prompt": "one", "input": "one"}
    reply = await caller.post(path, chat_body("twin", max_tokens=9, **extra))
    assert reply.status == 200
    assert (await events.settled(reply.request_id)).replica == "twin-us-va-0"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_unary_request_that_broke_in_the_middle_is_billed_by_who_answered(operator: Operator, path: str) -> None:
    caller, events = await caller_in(operator, ADAPTER), await operator.events()
    await (await operator.engine("twin-eu-de-0")).plan_fault("error_frame", after_tokens=READ)
    reply = await caller.post(path, chat_body("twin", TEXT, max_tokens=128))
    settled = await events.settled(reply.request_id)
    if reply.status == 200:
        assert settled.replica == "twin-us-va-0"
        assert settled.usage.output_tokens == 100
        assert settled.charged_nanousd == 2_000_000
    else:
        assert settled.charged_nanousd == 0
    assert events.settlements(reply.request_id) == 1


@every_door
async def test_stream_that_broke_is_never_begun_again_on_another_replica(operator: Operator, door: Door) -> None:
    caller, seen = await caller_in(operator, door.lane), Seen()
    other = await operator.engine("twin-us-va-0")
    before = await other.counts()
    await (await operator.engine("twin-eu-de-0")).plan_fault("error_frame", after_tokens=READ)
    settled = await settled_of(operator, caller, door.read(caller, "twin", seen))
    assert (len(seen.tokens), seen.ends) == (READ, [])
    assert settled.replica == "twin-eu-de-0"
    assert (await other.counts()).generated_since(before, prompt_tokens=0) == 0


@every_door
async def test_failover_never_leaves_the_jurisdiction(operator: Operator, door: Door) -> None:
    rule = router_pb2.Residency(allow=["eu"])
    caller, seen = await operator.caller(policy=admin_pb2.Policy(lane=door.lane, residency=rule)), Seen()
    other = await operator.engine("twin-us-va-0")
    before = await other.counts()
    await (await operator.engine("twin-eu-de-0")).plan_fault("unavailable")
    settled = await settled_of(operator, caller, door.read(caller, "twin", seen))
    assert settled.charged_nanousd == 0
    assert (await other.counts()).generated_since(before, prompt_tokens=0) == 0


async def test_503_of_a_lawful_replica_names_the_rule_that_kept_the_others_out(operator: Operator) -> None:
    caller = await operator.caller(policy=admin_pb2.Policy(residency=router_pb2.Residency(allow=["eu"])))
    await (await operator.engine("twin-eu-de-0")).plan_fault("refuse")
    reply = await caller.chat("twin")
    message = assert_openai_error(reply, 503, "no_replica_available")
    assert "residency" in message
    assert "retry-after" in reply.headers


async def test_engine_that_dies_before_its_first_token_is_replaced_silently(operator: Operator, caller: Caller) -> None:
    events = await operator.events()
    await (await operator.engine("twin-eu-de-0")).plan_fault("die")
    reply = await caller.chat("twin")
    assert reply.status == 200
    assert (await events.settled(reply.request_id)).replica == "twin-us-va-0"
    while_it_is_away = [await caller.chat("twin") for _ in range(10)]
    assert {reply.status for reply in while_it_is_away} == {200}

    async def is_ready() -> bool:
        return (await operator.replicas())["twin-eu-de-0"].state == node_pb2.REPLICA_STATE_READY

    await until_async(is_ready, "the engine was started again", deadline_s=60)


async def test_client_of_an_engine_that_hangs_times_out_and_pays_what_was_generated(
    operator: Operator, caller: Caller
) -> None:
    seen = Seen()
    await (await operator.engine("fragile-eu-de-0")).plan_fault("hang", after_tokens=READ)

    async def read() -> None:
        async with asyncio.timeout(1):
            await openai_stream(caller, "fragile", seen)

    settled = await settled_of(operator, caller, read())
    assert (len(seen.tokens), seen.ends) == (READ, [])
    assert settled.usage.output_tokens == READ
    assert settled.outcome == "client_left"
