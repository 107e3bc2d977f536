"""Another engine under a deployment that serves: one line of YAML, and no request notices."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import psutil

from enginehouse.v1 import events_pb2
from tests.support.caller import Caller, chat_body, generate_request
from tests.support.happenings import Event, Events
from tests.support.mesh import UserMesh, run_command
from tests.support.operator import operate
from tests.support.waiting import until

ECHO = "{kind: echo, context_tokens_max: 1024, output_tokens_max: 64, parallel: 4}"
LLAMA = "{kind: llama-cpp, model: builtin:smollm2, context_tokens_max: 1024, output_tokens_max: 64, parallel: 4}"
SETTINGS = f"""\
place: eu/de
door: {{port: 0, drain_grace_s: 1, check_timeout_ms: 10000, longest_request_s: 60}}
nats: {{port: 0}}
nodes:
  - {{name: eu-de, place: eu/de, drain_grace_s: 1}}
deployments:
  - name: chat
    engine: {ECHO}
    placements:
      - {{node: eu-de, price: {{input: 1, output: 2}}}}
tenants:
  - name: anywhere
"""
TOKENS = 6
ENOUGH = 12
CALLERS = 3
DEADLINE_S = 60.0
FIRST, SECOND, LAST = "chat-eu-de-0", "chat-eu-de-0-r2", "chat-eu-de-0-r3"
_LLAMA = "enginehouse.engines.llama_cpp.server"


@dataclass
class Load:
    """What went through the mesh.

    Attributes:
        served: ids of requests that were answered in full.
        failed: what went wrong with others.
    """

    served: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


Ask = Callable[[Caller], Awaitable[tuple[str, bool, object]]]


async def unary(caller: Caller) -> tuple[str, bool, object]:
    """A chat in the direct lane, in one piece."""
    reply = await caller.chat("chat", max_tokens=TOKENS)
    return reply.request_id, reply.status == 200 and bool(reply.json["choices"][0]["finish_reason"]), reply


async def streamed(caller: Caller) -> tuple[str, bool, object]:
    """The same as a stream."""
    body = chat_body("chat", "Tell a story", max_tokens=TOKENS, stream=True)
    async with caller.open("/v1/chat/completions", body) as answer:
        data = await answer.read()
        is_whole = answer.status == 200 and data.rstrip().endswith(b"data: [DONE]") and b'"error"' not in data
        return answer.headers["x-request-id"], is_whole, data


async def translated(caller: Caller) -> tuple[str, bool, object]:
    """A stream in the adapter lane."""
    body = chat_body("chat", "Tell a story", max_tokens=TOKENS, stream=True)
    async with caller.open("/v1/messages", body) as answer:
        data = await answer.read()
        return answer.headers["x-request-id"], answer.status == 200 and b'"message_stop"' in data, data


async def canonical(caller: Caller) -> tuple[str, bool, object]:
    """A stream of canonical steps."""
    call = caller.grpc.Generate(generate_request("chat", "Tell a story", TOKENS), metadata=caller.metadata)
    request_id = str(dict(await call.initial_metadata() or ())["x-request-id"])
    steps = [step async for step in call]
    return request_id, steps[-1].HasField("finished"), steps[-1]


@asynccontextmanager
async def asking(caller: Caller) -> AsyncIterator[Load]:
    """Unary requests and streams through every door for as long as the block runs; none is left when it has ended."""
    load, over = Load(), asyncio.Event()

    async def ask(kinds: tuple[Ask, ...]) -> None:
        while not over.is_set():
            for kind in kinds:
                try:
                    request_id, is_whole, told = await kind(caller)
                except Exception as error:  # noqa: BLE001 (whatever it is, a client has noticed)
                    load.failed.append(f"{kind.__name__}: {error!r}")
                    continue
                if is_whole:
                    load.served.append(request_id)
                else:
                    load.failed.append(f"{kind.__name__}: {told!r}")

    kinds = (unary, streamed, translated, canonical)
    tasks = [asyncio.create_task(ask(kinds[number:] + kinds[:number])) for number in range(CALLERS)]
    try:
        yield load
    finally:
        over.set()
        await asyncio.gather(*tasks)


def apply(mesh: UserMesh, settings: str, *options: str) -> str:
    """The settings, as a user applies them; returns what the command prints."""
    mesh.config.write_text(settings)
    done = run_command(
        mesh, "deployments", "apply", str(mesh.config), *options, "--state", str(mesh.state.path), timeout_s=DEADLINE_S
    )
    assert done.returncode == 0, done
    return done.stdout


def steps(events: Events, revision: int) -> list[str]:
    """What was told of the replacement by a revision, in order."""
    told = [event for event in events.all if event.what.startswith("replacement.")]
    return [event.what for event in told if event.payload(events_pb2.ReplacementChanged).revision == revision]


async def until_replaced(events: Events, revision: int) -> events_pb2.ReplacementChanged:
    """The event that every replica runs a revision, waited for."""

    def is_it(event: Event) -> bool:
        return event.payload(events_pb2.ReplacementChanged).revision == revision

    await until(
        lambda: any(is_it(event) for event in events.of("replacement.completed")), f"revision {revision}", DEADLINE_S
    )
    (done,) = [event for event in events.of("replacement.completed") if is_it(event)]
    return done.payload(events_pb2.ReplacementChanged)


async def kill_while_it_starts(mesh: UserMesh) -> None:
    """SIGKILL to the engine that takes another's place, before it has generated a token."""

    def is_killed() -> bool:
        for process in mesh.processes():
            with suppress(psutil.Error):
                if _LLAMA in process.cmdline():
                    process.kill()
                    return True
        return False

    await until(is_killed, "the second engine starts", DEADLINE_S)


def states_of(events: Events, replica_id: str) -> list[str]:
    """The states that a replica went through, as events told them."""
    return [event.what.removeprefix("replica.") for event in events.all if event.id == replica_id]


async def test_engine_is_swapped_by_one_line_under_load_and_no_request_fails(
    new_mesh: Callable[[str], UserMesh],
) -> None:
    mesh = new_mesh(SETTINGS)
    mesh.start()
    async with operate(mesh) as operator:
        caller, events = await operator.caller(), await operator.events()
        async with asking(caller) as load:
            await until(lambda: len(load.served) >= ENOUGH, "the first engine serves", DEADLINE_S)

            killing = asyncio.create_task(kill_while_it_starts(mesh))
            assert await asyncio.to_thread(apply, mesh, SETTINGS.replace(ECHO, LLAMA)) == "~ chat, revision 2\n"
            await killing
            done = await until_replaced(events, 2)
            assert (list(done.old_replicas), list(done.new_replicas), done.node) == ([], [SECOND], "eu-de")
            served = len(load.served)
            await until(lambda: len(load.served) >= served + ENOUGH, "the second engine serves", DEADLINE_S)

            said = await asyncio.to_thread(apply, mesh, SETTINGS, "--wait")
            assert said.splitlines() == ["~ chat, revision 3", "every replica runs what the file says"]
            served = len(load.served)
            await until(lambda: len(load.served) >= served + ENOUGH, "the third engine serves", DEADLINE_S)
        assert load.failed == []
        settled = [await events.settled(request_id) for request_id in load.served]
        assert {one.outcome for one in settled} == {"complete"}
        by_replica = Counter(one.replica for one in settled)
        assert set(by_replica) == {FIRST, SECOND, LAST}
        assert "pending" in states_of(events, SECOND)  # it was killed, and started again
        assert steps(events, 2) == ["replacement.began", "replacement.completed"]
        assert states_of(events, FIRST) == ["draining", "stopped"]
        ends = [event.payload(events_pb2.ReplicaStateChanged) for event in events.of("replica.stopped")]
        assert {one.reason for one in ends} == {"drained"}
        assert set(await operator.replicas()) == {LAST}
    mesh.stop()
