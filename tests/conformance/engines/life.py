"""Cases: load, and every end that an engine can have."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import psutil
import pytest

from enginehouse.adapters.collect import collect
from enginehouse.contract import EngineError
from enginehouse.engines import FAILED, PENDING, READY, FailureClass, Transition, state_name
from enginehouse.v1 import common_pb2, inference_pb2
from tests.conformance.engines.case import Cell, case
from tests.conformance.engines.columns import Column
from tests.conformance.engines.subject import CRASHING, LONG, SHORT, Running, Subject, chat, gathered, started
from tests.support.waiting import until

_CHAT, _EMBEDDING = common_pb2.OPERATION_CHAT, common_pb2.OPERATION_EMBEDDING
_AT_ONCE = 64
_EMBEDDINGS = 8
_LONG_TOKENS = 100


@asynccontextmanager
async def generating(running: Running, count: int) -> AsyncIterator[None]:
    """So many long generations are under way inside; leaving the block is leaving the engine."""
    async with asyncio.timeout(running.subject.start_s), asyncio.TaskGroup() as group, AsyncExitStack() as stack:
        tasks = [group.create_task(_generate_until_cancelled(running)) for _ in range(count)]
        stack.callback(lambda: [task.cancel() for task in tasks])
        yield


async def _generate_until_cancelled(running: Running) -> None:
    while True:  # an engine with a quick pace is kept at work by the next one
        await running.steps(chat(running.engine.model, LONG, _LONG_TOKENS))


async def embedded(running: Running, text: str) -> inference_pb2.EmbedResponse:
    """One embedding."""
    model = running.engine.model
    async with running.client() as client:
        return await client.embed(inference_pb2.EmbedRequest(model=model, input=[text]), served_model=model)


class LoadCases(Subject):
    """One request more, and many."""

    @case(Column.CANCEL, _CHAT)
    async def test_client_that_leaves_frees_its_place(self, running: Running, cell: Cell) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(self.parallel):  # all of its places
                steps = await stack.enter_async_context(running.stream(chat(running.engine.model, LONG, _LONG_TOKENS)))
                await anext(steps)
            if running.has_metrics:
                await until(lambda: running.load.running_requests > 0, "a request runs")
        if running.has_metrics:
            await until(lambda: running.load.running_requests == 0, "no request runs")
        async with asyncio.timeout(self.start_s):
            assert (await running.ask(chat(running.engine.model, SHORT, 2))).usage.output_tokens > 0

    @case(Column.METRICS)
    async def test_load_that_it_reports_moves(self, running: Running, cell: Cell) -> None:
        if Column.METRICS in self.refused:
            assert not running.has_metrics
            cell.not_applicable(self.refused[Column.METRICS].reason)
            return
        if running.does(_CHAT):
            async with generating(running, self.parallel + 4):
                await until(lambda: running.load.running_requests > 0, "requests run", self.start_s)
                await until(lambda: running.load.waiting_requests > 0, "requests wait", self.start_s)
            await until(lambda: running.load.running_requests == 0, "no request runs", self.start_s)
            await until(lambda: running.load.waiting_requests == 0, "no request waits", self.start_s)
            await running.ask(chat(running.engine.model, SHORT, self.tokens))
        else:
            await gathered_embeddings(running, self.parallel + 4)
        mapping = running.mapping
        assert mapping is not None
        if running.does(_CHAT) and mapping.generated_tokens_total:
            await until(lambda: running.load.decode_tokens_per_second > 0, "it generates at some rate")
        if mapping.prompt_tokens_total:
            await until(lambda: running.load.prefill_tokens_per_second > 0, "it reads at some rate")
        else:
            cell.note("it does not tell how many tokens of prompts it reads")
        await until(lambda: running.load.memory_bytes > 0, "it takes memory")

    @case(Column.AT_ONCE)
    async def test_64_requests_at_once_are_all_answered_whole(self, running: Running, cell: Cell) -> None:
        if not running.does(_CHAT):
            await gathered_embeddings(running, _AT_ONCE)
            return
        tokens = 2
        tasks = [
            asyncio.create_task(running.ask(chat(running.engine.model, f"{SHORT} {number}", tokens)))
            for number in range(_AT_ONCE)
        ]
        async with asyncio.timeout(self.start_s):
            answers = await gathered(tasks)
        assert all(answer.choices[0].finish_reason and answer.usage.output_tokens for answer in answers)
        assert len(answers) == _AT_ONCE


async def gathered_embeddings(running: Running, count: int) -> None:
    """So many embeddings at once; each is there."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(embedded(running, f"text number {number}")) for number in range(count)]
    assert all(len(task.result().embeddings) == 1 for task in tasks)


async def _embeds(running: Running, begun: asyncio.Event, enough: asyncio.Event) -> None:
    """One embedding after the other, each of which is there; the last one is under way when it is enough.

    An embedding is too short to be met in an engine's gauges: vLLM's never show one (ran).
    """
    while not enough.is_set():
        assert len((await embedded(running, LONG)).embeddings) == 1
        begun.set()


async def _hears_all(running: Running, request: inference_pb2.GenerateRequest, begun: asyncio.Event) -> None:
    heard = []
    async with running.stream(request) as steps:
        async for step in steps:
            heard.append(step)
            begun.set()
    answer = collect(heard)
    assert answer.usage.output_tokens > 0
    assert answer.usage.method == common_pb2.USAGE_METHOD_ENGINE


def _ends(edge: Transition) -> bool:
    return edge.ending is not None and edge.to_state in (PENDING, FAILED)


class LifeCases(Subject):
    """Ends, asked for and not."""

    @case(Column.SIGTERM)
    async def test_engine_that_somebody_ended_is_started_again(self, running: Running, cell: Cell) -> None:
        await self._end(running, signal.SIGTERM)

    @case(Column.SIGKILL)
    async def test_engine_that_was_killed_has_crashed_and_is_started_again(self, running: Running, cell: Cell) -> None:
        ending = (await self._end(running, signal.SIGKILL)).ending
        assert ending is not None
        assert (ending.failure_class, ending.exit_code) == (FailureClass.CRASH, -signal.SIGKILL)

    @case(Column.DRAIN)
    async def test_what_is_in_flight_ends_whole_before_the_engine_ends(self, running: Running, cell: Cell) -> None:
        edges: list[Transition] = []
        async with started(self, running.folder / "drained", edges=edges) as drained:
            pid = drained.pid
            if drained.does(_CHAT):
                work = await self._streams(drained)
            else:
                begun, enough = [asyncio.Event() for _ in range(_EMBEDDINGS)], asyncio.Event()
                work = [asyncio.create_task(_embeds(drained, event, enough)) for event in begun]
                await until(lambda: all(event.is_set() for event in begun), "all embed", self.start_s)
                enough.set()
        await gathered(work)
        assert not psutil.pid_exists(pid)
        assert [state_name(edge.to_state) for edge in edges][-2:] == ["draining", "stopped"]

    @case(Column.CRASH_LOOP)
    async def test_engine_that_does_not_start_is_given_up_with_its_log(self, running: Running, cell: Cell) -> None:
        edges: list[Transition] = []
        folder, argument = running.folder / "crashing", self.unknown_argument
        with pytest.raises(EngineError, match="failed"):
            async with started(self, folder, config=CRASHING, arguments=[argument], edges=edges):
                pass
        states = [state_name(edge.to_state) for edge in edges]
        assert states == ["starting", "pending", "starting", "failed", "stopped"]
        given_up = edges[3]
        ending = given_up.ending
        assert ending is not None
        assert ending.failure_class is FailureClass.EXIT
        assert (ending.exit_code or 0) > 0
        assert argument in (folder / given_up.log_reference).read_text()

    async def _streams(self, running: Running) -> "list[asyncio.Task[None]]":
        """As many streams as it has places, each of which has begun."""
        begun = [asyncio.Event() for _ in range(self.parallel)]
        request = chat(running.engine.model, LONG, 2 * self.tokens)
        tasks = [asyncio.create_task(_hears_all(running, request, event)) for event in begun]
        try:
            async with asyncio.timeout(self.start_s):
                await asyncio.gather(*(event.wait() for event in begun))
        except BaseException:
            for task in tasks:
                task.cancel()
            raise
        return tasks

    async def _end(self, running: Running, number: signal.Signals) -> Transition:
        """The edge that the end of the engine took; the engine is ready again afterwards, and answers."""
        since = len(running.edges)
        await running.signal(number)
        edge = await running.until_edge(_ends, "the end is noticed", since)
        await running.until_edge(lambda one: one.to_state == READY, "it is ready again", since)
        if running.does(_CHAT):
            assert (await running.ask(chat(running.engine.model, SHORT, 2))).usage.output_tokens > 0
        else:
            assert len((await embedded(running, SHORT)).embeddings) == 1
        return edge
