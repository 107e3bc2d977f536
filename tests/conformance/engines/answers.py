"""Cases: what an engine answers, and what it counts."""

import asyncio

import pytest

from enginehouse.adapters.collect import CollectedAnswer, collect
from enginehouse.contract import Reason, RequestError
from enginehouse.engines import SERVING, state_name
from enginehouse.v1 import common_pb2, inference_pb2
from tests.conformance.engines.case import Cell, case
from tests.conformance.engines.columns import Column
from tests.conformance.engines.subject import LONG, SHORT, TOO_LONG, Running, Subject, chat

_CHAT = common_pb2.OPERATION_CHAT
_ENDS = (inference_pb2.FINISH_REASON_STOP, inference_pb2.FINISH_REASON_LENGTH)


def only_text(answer: CollectedAnswer) -> str:
    """The text of an answer of one choice."""
    (choice,) = answer.choices
    return choice.text


async def _ask_too_long(running: Running) -> None:
    model = running.engine.model
    if running.does(_CHAT):
        await running.ask(chat(model, TOO_LONG, 2))
        return
    async with running.client() as client:
        await client.embed(inference_pb2.EmbedRequest(model=model, input=[TOO_LONG]), served_model=model)


class AnswerCases(Subject):
    """Generation."""

    @case(Column.START)
    async def test_it_is_ready_once_it_has_generated_a_token(self, running: Running, cell: Cell) -> None:
        states = [state_name(edge.to_state) for edge in running.edges]
        assert states[:3] == ["starting", "loading", "ready"]
        assert running.replica.capabilities.template_tokens > 0  # which only an answer can have told

    @case(Column.UNARY, _CHAT)
    async def test_whole_answer_has_text_and_counts(self, running: Running, cell: Cell) -> None:
        whole = await self.whole(running, SHORT, self.tokens)
        assert whole.text
        assert whole.input_tokens > 0
        assert 0 < whole.output_tokens <= self.tokens

    @case(Column.STREAM, _CHAT)
    async def test_stream_comes_in_pieces_and_ends_with_a_reason_and_the_usage(
        self, running: Running, cell: Cell
    ) -> None:
        steps = await running.steps(chat(running.engine.model, SHORT, self.tokens))
        events = [step.WhichOneof("event") for step in steps]
        assert sum(bool(step.delta.text) for step in steps) > 1
        assert (events.count("choice_finished"), events.count("finished"), events[-1]) == (1, 1, "finished")
        (choice,) = collect(steps).choices
        assert choice.finish_reason in _ENDS
        assert len({step.id for step in steps}) == 1

    @case(Column.USAGE, _CHAT)
    async def test_usage_of_one_prompt_is_the_same_streamed_and_whole(self, running: Running, cell: Cell) -> None:
        request = chat(running.engine.model, SHORT, self.tokens)
        first, second = [(await running.ask(request)).usage for _ in range(2)]
        whole = await self.whole(running, SHORT, self.tokens)
        assert first.method == common_pb2.USAGE_METHOD_ENGINE
        assert 0 < first.output_tokens <= self.tokens
        counts = [(usage.input_tokens, usage.output_tokens) for usage in (first, second)]
        assert counts == [(whole.input_tokens, whole.output_tokens)] * 2

    @case(Column.STOP, _CHAT)
    async def test_stop_sequence_ends_the_answer_and_is_not_in_it(self, running: Running, cell: Cell) -> None:
        request = chat(running.engine.model, SHORT, self.tokens)
        pieces = [step.delta.text for step in await running.steps(request) if step.delta.text]
        text = "".join(pieces)
        stop = next(piece for piece in pieces[len(pieces) // 2 :] if text.index(piece) > 0)
        request.sampling.stop.append(stop)
        (choice,) = (await running.ask(request)).choices
        assert choice.finish_reason == inference_pb2.FINISH_REASON_STOP
        assert choice.text == text[: text.index(stop)]

    @case(Column.DETERMINISM, _CHAT)
    async def test_same_request_has_the_same_answer_at_temperature_zero(self, running: Running, cell: Cell) -> None:
        request = chat(running.engine.model, SHORT, self.tokens)
        if running.offers(common_pb2.FEATURE_SEED):
            request.sampling.seed = 7
        else:
            cell.note("temperature 0 alone: it takes no seed")
        first, second = [only_text(await running.ask(request)) for _ in range(2)]
        assert first
        assert first == second

    @case(Column.ERRORS)
    async def test_body_that_it_refuses_leaves_it_at_work(self, running: Running, cell: Cell) -> None:
        assert await self.is_refused(running)
        if running.does(_CHAT):
            assert only_text(await running.ask(chat(running.engine.model, SHORT, 2)))
        assert running.replica.state in SERVING

    @case(Column.LONG_PROMPT)
    async def test_prompt_beyond_the_context_is_the_callers_error(self, running: Running, cell: Cell) -> None:
        if Column.LONG_PROMPT in self.refused:
            text = LONG * (self.context_tokens // 100 + 1)  # it has 100 words
            assert (await running.ask(chat(running.engine.model, text, 2))).usage.input_tokens > self.context_tokens
            cell.not_applicable(self.refused[Column.LONG_PROMPT].reason)
            return
        with pytest.raises(RequestError) as refusal:
            await asyncio.wait_for(_ask_too_long(running), self.start_s)
        assert refusal.value.reason is Reason.CONTEXT_TOO_LONG
        assert TOO_LONG[:20] not in refusal.value.message
