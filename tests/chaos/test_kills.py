"""SIGKILL to each process of a mesh under load: what goes on, what breaks honestly, and what it costs."""

import asyncio
from dataclasses import dataclass

import pytest

from enginehouse.v1 import admin_pb2, ledger_pb2, router_pb2
from tests.chaos.traffic import CHAT_NANOUSD, WORDS, Chats, Streams, begin_streams, chatting
from tests.e2e.dialects import assert_error, assert_openai_error
from tests.support.caller import Caller, chat_body
from tests.support.operator import Operator
from tests.support.waiting import until, until_async

USD = ledger_pb2.LIMIT_UNIT_USD
EUROPE = admin_pb2.Policy(residency=router_pb2.Residency(allow=["eu"]))
CAP_NANOUSD = 100 * 10**9
SERVED_BEFORE = SERVED_AFTER = 20
BACK_S = 60.0
# Until a request that nobody reports is charged: its longest time, and what the check takes.
SETTLED_S = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """What went through the mesh while a process was killed."""

    limit: str
    streams: Streams
    ends: list[BaseException | None]
    chats: Chats

    @property
    def served_nanousd(self) -> int:
        """What was served costs."""
        return self.chats.served * CHAT_NANOUSD + self.streams.cost_nanousd


async def kill_under_load(operator: Operator, caller: Caller, member: str) -> Load:
    """Kills a process under streams and chats, and goes on until it is back and chats are served again."""
    mesh = operator.mesh
    limit = await operator.limit(caller, USD, CAP_NANOUSD, model="slow")
    async with chatting(caller) as chats:
        streams = await begin_streams(caller, "slow")
        await until(lambda: chats.served >= SERVED_BEFORE, "chats are served")
        pid = mesh.kill(member)
        await until(lambda: mesh.process_ids().get(member, pid) != pid, f"{member} was started again", BACK_S)
        await operator.until_control_answers()
        ends = await streams.ends()
        served = chats.served
        await until(lambda: chats.served >= served + SERVED_AFTER, "chats are served again", BACK_S)
    return Load(limit, streams, ends, chats)


async def until_spent_at_least(operator: Operator, limit: str, amount: int) -> int:
    """Waits until at least so much is spent or written off; returns how much it is."""
    counted = 0

    async def is_spent() -> bool:
        nonlocal counted
        status = await operator.status(limit)
        assert status.spent + status.allotted <= status.cap_effective
        counted = status.spent + status.written_off
        return counted >= amount

    await until_async(is_spent, f"{amount} spent or written off of {limit}", SETTLED_S)
    return counted


@pytest.mark.parametrize("member", ["nats", "control"])
async def test_nobody_notices_that_it_was_killed(operator: Operator, caller: Caller, member: str) -> None:
    load = await kill_under_load(operator, caller, member)
    assert load.ends == [None] * len(load.ends)
    assert all(stream.is_whole and stream.tokens == WORDS for stream in load.streams.seen)
    assert (load.chats.refused, load.chats.broken) == ([], 0)
    await operator.until_spent(load.limit, load.served_nanousd)
    newcomer = await operator.caller()
    assert (await newcomer.chat("echo")).status == 200


async def test_streams_survive_the_router_and_every_request_is_charged_once(operator: Operator, caller: Caller) -> None:
    load = await kill_under_load(operator, caller, "router-0")
    assert load.ends == [None] * len(load.ends)
    assert all(stream.is_whole and stream.tokens == WORDS for stream in load.streams.seen)
    assert load.chats.broken == 0
    for reply in load.chats.refused:  # by Envoy, and then by a router that Envoy does not follow yet
        assert reply.json["error"]["code"] in ("router_unavailable", "no_replica_available"), reply
        assert reply.status == 503
    await operator.until_spent(load.limit, load.served_nanousd, SETTLED_S)
    assert (await operator.status(load.limit)).written_off == 0


async def test_what_a_killed_router_had_leased_and_not_spent_can_be_spent_again(
    operator: Operator, caller: Caller
) -> None:
    limit = await operator.limit(caller, USD, 5 * CHAT_NANOUSD, model="echo")
    assert [(await caller.chat("echo")).status for _ in range(2)] == [200, 200]
    operator.mesh.kill("router-0")
    served = 2

    async def is_spent() -> bool:
        nonlocal served
        served += (await caller.chat("echo")).status == 200
        status = await operator.status(limit)
        assert status.spent + status.allotted <= status.cap_effective
        return served == 5  # refused until nobody can have spent it any more

    await until_async(is_spent, "the rest of the budget is served", SETTLED_S)
    assert_openai_error(await caller.chat("echo"), 402, "budget_exhausted")
    await operator.until_spent(limit, 5 * CHAT_NANOUSD)
    assert (await operator.status(limit)).written_off == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/embeddings"])
async def test_nothing_goes_anywhere_while_no_router_decides(operator: Operator, caller: Caller, path: str) -> None:
    european, mesh = await operator.caller(policy=EUROPE), operator.mesh
    engines = [await operator.engine(replica) for replica in ("echo-eu-de-0", "echo-us-va-0")]
    before = [await engine.counts() for engine in engines]
    pid = mesh.kill("router-0")
    body = {"model": "echo", "input": "one"} if path == "/v1/embeddings" else chat_body("echo", max_tokens=4)
    replies = await asyncio.gather(*(one.post(path, body) for one in (caller, european) for _ in range(5)))
    for reply in replies:
        assert_error(path, reply, 503, "router_unavailable")
        assert "retry-after" in reply.headers
    generated = [
        (await engine.counts()).generated_since(count, prompt_tokens=0)
        for engine, count in zip(engines, before, strict=True)
    ]
    assert generated == [0, 0]
    await until(lambda: mesh.process_ids().get("router-0", pid) != pid, "the router was started again", BACK_S)

    async def is_served() -> bool:
        return (await european.post(path, body)).status == 200

    await until_async(is_served, "service returns", BACK_S)
    assert (await engines[1].counts()).generated_since(before[1], prompt_tokens=0) == 0


@pytest.mark.parametrize("member", ["gateway", "envoy"])
async def test_streams_through_a_killed_door_raise_and_what_was_served_is_charged(
    operator: Operator, caller: Caller, member: str
) -> None:
    load = await kill_under_load(operator, caller, member)
    assert all(isinstance(end, Exception) for end in load.ends), load.ends
    assert not any(stream.is_whole for stream in load.streams.seen)
    assert load.chats.broken > 0
    assert {reply.status for reply in load.chats.replies} <= {200, 503}
    await until_spent_at_least(operator, load.limit, load.served_nanousd)


async def test_node_that_is_killed_takes_nobody_elses_streams_along(operator: Operator, caller: Caller) -> None:
    mesh, events = operator.mesh, await operator.events()
    european = await operator.caller(policy=EUROPE)
    here, there = await begin_streams(caller, "slow"), await begin_streams(caller, "far")
    pid = mesh.kill("node-eu-de")
    assert all(isinstance(end, Exception) for end in await here.ends())  # so its engines are dead, too
    reply = await european.chat("echo")
    message = assert_openai_error(reply, 503, "no_replica_available")
    assert "residency" in message
    assert "retry-after" in reply.headers
    async with chatting(european) as refused, chatting(caller) as chats:
        assert await there.ends() == [None] * len(there.seen)
        await until(lambda: mesh.process_ids().get("node-eu-de", pid) != pid, "the node was started again", BACK_S)
        await until(lambda: refused.served >= SERVED_AFTER, "the EU is served again", BACK_S)
    assert not any(stream.is_whole for stream in here.seen)
    assert all(stream.is_whole and stream.tokens == WORDS for stream in there.seen)
    assert (chats.refused, chats.broken, refused.broken) == ([], 0, 0)
    for reply in refused.refused:
        assert "residency" in assert_openai_error(reply, 503, "no_replica_available")
    decided = await events.decisions_of(european.tenant, 1 + len(refused.replies))
    assert {replica for one in decided for replica in one.replicas} == {"echo-eu-de-0"}
