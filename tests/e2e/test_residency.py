"""Data stays where its rule allows: at every door, in every lane, and once more at the node itself."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import grpc
import pytest
from google.api import httpbody_pb2

from enginehouse.cli.running import RunningMesh
from enginehouse.services.access_log import ticket_text
from enginehouse.services.server import channel
from enginehouse.v1 import (
    admin_pb2,
    anthropic_pb2_grpc,
    common_pb2,
    inference_pb2,
    inference_pb2_grpc,
    openai_pb2_grpc,
    router_pb2,
)
from tests.e2e.dialects import assert_anthropic_error, assert_openai_error, details_of
from tests.support.caller import Caller, chat_body, generate_request, refused
from tests.support.operator import Operator

EUROPE = router_pb2.Residency(allow=["eu"])
REQUESTS = 12
Ask = Callable[[Caller], Awaitable[object]]


async def by_openai(caller: Caller) -> object:
    """A chat in the direct lane, or in the adapter lane if the caller's policy says so."""
    reply = await caller.chat("echo")
    assert reply.status == 200, reply
    return reply


async def by_openai_stream(caller: Caller) -> object:
    """A streamed chat."""
    reply = await caller.chat("echo", stream=True)
    assert reply.status == 200, reply
    return reply


async def by_embedding(caller: Caller) -> object:
    """An embedding."""
    return await caller.openai.embeddings.create(model="echo", input="one")


async def by_anthropic(caller: Caller) -> object:
    """A message."""
    return await caller.anthropic.messages.create(
        model="echo", max_tokens=4, messages=[{"role": "user", "content": "one"}]
    )


async def by_grpc(caller: Caller) -> object:
    """A generation."""
    return [step async for step in caller.grpc.Generate(generate_request("echo"), metadata=caller.metadata)]


EVERY_DOOR = [by_openai, by_openai_stream, by_embedding, by_anthropic, by_grpc]


@pytest.mark.parametrize("lane", [common_pb2.LANE_UNSPECIFIED, common_pb2.LANE_ADAPTER], ids=["any", "adapter"])
@pytest.mark.parametrize(
    "rule", [EUROPE, router_pb2.Residency(deny=["us"]), router_pb2.Residency(allow=["de"])], ids=str
)
async def test_tenant_with_a_rule_is_never_served_elsewhere(
    operator: Operator, lane: common_pb2.Lane.ValueType, rule: router_pb2.Residency
) -> None:
    caller = await operator.caller(policy=admin_pb2.Policy(residency=rule, lane=lane))
    elsewhere = await operator.engine("echo-us-va-0")
    events, before = await operator.events(), await elsewhere.counts()
    await asyncio.gather(*(ask(caller) for ask in EVERY_DOOR for _ in range(REQUESTS)))
    assert (await elsewhere.counts()).generated_since(before, prompt_tokens=0) == 0
    decided = await events.decisions_of(caller.tenant, REQUESTS * len(EVERY_DOOR))
    assert {tuple(one.replicas) for one in decided} == {("echo-eu-de-0",)}


async def test_tenant_without_a_rule_is_served_in_both_regions(operator: Operator, caller: Caller) -> None:
    events = await operator.events()
    replies = [await caller.chat("echo") for _ in range(40)]
    served = {(await events.settled(reply.request_id)).replica for reply in replies}
    assert served == {"echo-eu-de-0", "echo-us-va-0"}


async def tried(operator: Operator, caller: Caller, body: object, headers: Mapping[str, str]) -> set[str]:
    """The replicas that ten requests might have gone to, each of which was served."""
    events = await operator.events()
    for _ in range(10):
        assert (await caller.post("/v1/chat/completions", body, headers)).status == 200
    return {replica for one in await events.decisions_of(caller.tenant, 10) for replica in one.replicas}


async def test_hint_in_a_header_narrows(operator: Operator, caller: Caller) -> None:
    assert await tried(operator, caller, chat_body("echo"), {"x-enginehouse-residency": "eu"}) == {"echo-eu-de-0"}


async def test_hint_in_the_body_narrows(operator: Operator, caller: Caller) -> None:
    body = chat_body("echo", enginehouse={"residency": ["eu"]})
    assert await tried(operator, caller, body, {}) == {"echo-eu-de-0"}


async def test_hint_in_the_message_narrows(operator: Operator, caller: Caller) -> None:
    events = await operator.events()
    request = generate_request("echo")
    request.hints.residency.append("eu")
    steps = [step async for step in caller.grpc.Generate(request, metadata=caller.metadata)]
    decided = await events.decided(steps[0].id)
    assert list(decided.replicas) == ["echo-eu-de-0"]


async def test_hint_never_widens_the_rule_of_the_tenant(operator: Operator) -> None:
    caller = await operator.caller(policy=admin_pb2.Policy(residency=EUROPE))
    for name in ("us", "us/va"):
        reply = await caller.post("/v1/chat/completions", chat_body("echo"), {"x-enginehouse-residency": name})
        assert_openai_error(reply, 451, "residency_unsatisfiable")
    assert await tried(operator, caller, chat_body("echo"), {"x-enginehouse-residency": "eu,us"}) == {"echo-eu-de-0"}


async def test_hint_that_names_no_jurisdiction_is_400(caller: Caller) -> None:
    reply = await caller.post("/v1/chat/completions", chat_body("echo"), {"x-enginehouse-residency": "narnia"})
    assert "narnia" in assert_openai_error(reply, 400, "unknown_hint")


async def test_model_that_could_never_be_served_lawfully_is_451(operator: Operator) -> None:
    caller = await operator.caller(policy=admin_pb2.Policy(residency=EUROPE))
    reply = await caller.chat("american")
    message = assert_openai_error(reply, 451, "residency_unsatisfiable")
    assert "us/va" in message
    assert "allow eu" in message
    assert "retry-after" not in reply.headers
    assert reply.json["error"]["enginehouse"]["rule"] == "residency"
    assert_anthropic_error(await caller.post("/v1/messages", chat_body("american", max_tokens=4)), 451)


async def test_door_outside_the_rule_refuses_although_a_lawful_replica_is_there(caller: Caller) -> None:
    reply = await caller.post("/v1/chat/completions", chat_body("american"), {"x-enginehouse-residency": "us"})
    assert "this door is in eu/de" in assert_openai_error(reply, 451, "residency_unsatisfiable")


def ticket_of(running: RunningMesh, node: str, *rules: router_pb2.Residency) -> tuple[str, str]:
    """A ticket as a router would write it, for a replica on `node`, under these rules; as metadata."""
    port = next(one.port for one in running.settings.nodes if one.name == node)
    attempt = router_pb2.Attempt(
        replica=f"echo-{node}-0", address=f"127.0.0.1:{port}", served_model="echo", deployment="echo"
    )
    ticket = router_pb2.Ticket(
        request_id="by-hand",
        router="router-0",
        router_address=running.router,
        lane=common_pb2.LANE_ADAPTER,
        attempts=[attempt],
        output_tokens_max=16,
        residency=rules,
        operation=common_pb2.OPERATION_CHAT,
        requested_model="echo",
    )
    return "x-enginehouse-internal-ticket", ticket_text(ticket)


async def call_node(operator: Operator, node: str, *metadata: tuple[str, str]) -> str:
    """Asks a node's own gRPC server to generate, past Envoy and the routers; returns what it generated."""
    port = next(one.port for one in operator.mesh.running.settings.nodes if one.name == node)
    async with channel(f"127.0.0.1:{port}") as connection:
        stub = inference_pb2_grpc.InferenceServiceStub(connection)
        return "".join([step.delta.text async for step in stub.Generate(generate_request("echo"), metadata=metadata)])


async def test_node_serves_what_a_ticket_allows_it(operator: Operator) -> None:
    running = operator.mesh.running
    assert await call_node(operator, "eu-de", ticket_of(running, "eu-de", EUROPE)) == "one"
    assert await call_node(operator, "us-va", ticket_of(running, "us-va")) == "one"


async def test_node_refuses_data_that_may_not_be_where_it_is(operator: Operator) -> None:
    for rules in ([EUROPE], [router_pb2.Residency(deny=["us"])], [router_pb2.Residency(allow=["us"]), EUROPE]):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call_node(operator, "us-va", ticket_of(operator.mesh.running, "us-va", *rules))
        assert raised.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert details_of(raised.value).reason == "RESIDENCY_REFUSED_BY_NODE"


async def test_node_refuses_a_call_without_a_ticket(operator: Operator) -> None:
    for metadata in ((), (("x-enginehouse-internal-ticket", "none"),), (("authorization", "Bearer x"),)):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call_node(operator, "eu-de", *metadata)
        assert raised.value.code() == grpc.StatusCode.PERMISSION_DENIED
        assert details_of(raised.value).reason == "PERMISSION_DENIED"


async def test_node_refuses_in_every_service(operator: Operator) -> None:
    metadata = (ticket_of(operator.mesh.running, "us-va", EUROPE),)
    port = next(one.port for one in operator.mesh.running.settings.nodes if one.name == "us-va")
    async with channel(f"127.0.0.1:{port}") as connection:
        inference = inference_pb2_grpc.InferenceServiceStub(connection)
        message = inference_pb2.EmbedRequest(model="echo", input=["one"])
        assert (
            await refused(inference.Embed(message, metadata=metadata))
        ).code() == grpc.StatusCode.FAILED_PRECONDITION
        body = httpbody_pb2.HttpBody(
            content_type="application/json", data=b'{"model":"echo","messages":[],"prompt":"x"}'
        )
        for call in (
            openai_pb2_grpc.OpenAIServiceStub(connection).CreateChatCompletion(body, metadata=metadata),
            anthropic_pb2_grpc.AnthropicServiceStub(connection).CreateMessage(body, metadata=metadata),
        ):
            answer = [one async for one in call]
            assert dict(await call.initial_metadata() or ())["x-http-status"] == "451"
            assert b"RESIDENCY_REFUSED_BY_NODE" in answer[0].data
