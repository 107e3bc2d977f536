"""Cases: what requests may need of an engine, and what else it can be asked."""

import json
from collections.abc import Mapping

import pytest

from enginehouse.contract import EngineError, Reason, RequestError
from enginehouse.v1 import common_pb2, inference_pb2
from tests.conformance.engines.case import Cell, answer_or_refusal, case, refusing
from tests.conformance.engines.columns import Column
from tests.conformance.engines.subject import SHORT, RefusedBy, Running, Subject, chat

_CHAT = common_pb2.OPERATION_CHAT
_PIXEL = inference_pb2.Image(data=b"\x89PNG\r\n\x1a\n", media_type="image/png")
_PARAMETERS = '{"type":"object","properties":{"city":{"type":"string","enum":["Paris"]}},"required":["city"]}'
_SCHEMA = '{"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"],"additionalProperties":false}'
_SCHEMA_TOKENS = 24
_CALL_TOKENS = 64


def _other_requests(model: str) -> Mapping[str, tuple[common_pb2.Feature.ValueType, inference_pb2.GenerateRequest]]:
    """A request for each feature that has no column of its own, by what users call it."""
    image, lora, reasoning, priority, output_ids = (chat(model, SHORT, 2) for _ in range(5))
    image.conversation.messages[0].parts.add(image=_PIXEL)
    lora.lora = "style"
    reasoning.reasoning.effort = inference_pb2.Reasoning.EFFORT_LOW
    priority.priority = 1
    output_ids.return_token_ids = True
    prompt_ids = inference_pb2.GenerateRequest(model=model, prompt_tokens=inference_pb2.TokenIds(ids=[5, 6, 7]))
    prompt_ids.sampling.max_output_tokens = 2
    return {
        "seed": (common_pb2.FEATURE_SEED, chat(model, SHORT, 2, seed=7)),
        "penalties": (common_pb2.FEATURE_PENALTIES, chat(model, SHORT, 2, frequency_penalty=0.5)),
        "presence_penalty": (common_pb2.FEATURE_PRESENCE_PENALTY, chat(model, SHORT, 2, presence_penalty=0.5)),
        "images": (common_pb2.FEATURE_VISION, image),
        "LoRA": (common_pb2.FEATURE_LORA, lora),
        "reasoning": (common_pb2.FEATURE_REASONING, reasoning),
        "token ids as the prompt": (common_pb2.FEATURE_TOKEN_IDS, prompt_ids),
        "token ids of the answer": (common_pb2.FEATURE_OUTPUT_TOKEN_IDS, output_ids),
        "priority": (common_pb2.FEATURE_PRIORITY, priority),
    }


class FeatureCases(Subject):
    """Features of a generation."""

    @case(Column.TOOLS, _CHAT)
    async def test_tool_that_must_be_called_is_called_with_arguments(self, running: Running, cell: Cell) -> None:
        request = chat(running.engine.model, "What is the weather in Paris?", _CALL_TOKENS)
        request.tools.add(name="weather", description="The weather of a city.", parameters=_PARAMETERS)
        request.tool_choice.mode = inference_pb2.ToolChoice.MODE_NAMED
        request.tool_choice.name = "weather"
        answer = await answer_or_refusal(running, cell, Column.TOOLS, common_pb2.FEATURE_TOOLS, request)
        if answer is not None:
            calls = list(answer.choices[0].tool_calls.values())
            assert len(calls) == 1
            call = calls[0]
            assert call.name == "weather"
            # vLLM 0.32 holds a call to the schema only where the tool is strict, and small models forget it.
            assert "Paris" in json.dumps(json.loads(call.arguments))

    @case(Column.SCHEMA, _CHAT)
    async def test_answer_has_the_form_of_the_schema(self, running: Running, cell: Cell) -> None:
        request = chat(running.engine.model, "Is it raining? Answer in JSON.", _SCHEMA_TOKENS)
        request.response_format.json_schema.name = "rain"
        request.response_format.json_schema.schema = _SCHEMA
        answer = await answer_or_refusal(running, cell, Column.SCHEMA, common_pb2.FEATURE_JSON_SCHEMA, request)
        if answer is not None:
            value = json.loads(answer.choices[0].text)
            assert [*value] == ["ok"]
            assert isinstance(value["ok"], bool)

    @case(Column.LOGPROBS, _CHAT)
    async def test_each_token_has_its_log_probability(self, running: Running, cell: Cell) -> None:
        request = chat(running.engine.model, SHORT, self.tokens, top_logprobs=2)
        answer = await answer_or_refusal(running, cell, Column.LOGPROBS, common_pb2.FEATURE_LOGPROBS, request)
        if answer is not None:
            (choice,) = answer.choices
            assert 0 < len(choice.logprobs) <= answer.usage.output_tokens
            assert all(one.logprob <= 0 for one in choice.logprobs)
            assert all(one.top for one in choice.logprobs)

    @case(Column.CHOICES, _CHAT)
    async def test_two_choices_are_both_there_and_both_counted(self, running: Running, cell: Cell) -> None:
        model = running.engine.model
        # Several greedy choices would be one; vLLM refuses them.
        request = chat(model, SHORT, self.tokens, choices=2, temperature=1.0)
        feature = common_pb2.FEATURE_MULTIPLE_CHOICES
        answer = await answer_or_refusal(running, cell, Column.CHOICES, feature, request)
        if answer is not None:
            assert [choice.index for choice in answer.choices] == [0, 1]
            assert all(choice.text for choice in answer.choices)
            assert answer.usage.output_tokens > self.tokens  # than one of them may have

    @case(Column.OTHER_FEATURES, _CHAT)
    async def test_feature_that_it_lacks_is_refused_by_name(self, running: Running, cell: Cell) -> None:
        refused: dict[RefusedBy, list[str]] = {by: [] for by in RefusedBy}
        for name, (feature, request) in _other_requests(running.engine.model).items():
            if running.offers(feature):
                assert (await running.ask(request)).usage.output_tokens > 0
            else:
                refused[await refusing(running, feature, request)].append(name)
        remarks = [f"refused by the {by.value}: {', '.join(names)}" for by, names in refused.items() if names]
        cell.note("; ".join(remarks))


class OtherOperationCases(Subject):
    """What is no generation."""

    @case(Column.EMBEDDINGS, common_pb2.OPERATION_EMBEDDING)
    async def test_texts_become_vectors_that_are_equal_for_equal_texts(self, running: Running, cell: Cell) -> None:
        model = running.engine.model
        request = inference_pb2.EmbedRequest(model=model, input=["a cat", "a dog", "a cat"])
        async with running.client() as client:
            answer = await client.embed(request, served_model=model)
            cat, dog, same_cat = (list(one.values) for one in answer.embeddings)
            assert len(cat) == len(dog) > 1
            assert cat == pytest.approx(same_cat, abs=1e-3)
            assert cat != dog
            assert answer.usage.input_tokens > 0
            request.dimensions = len(cat) // 2
            if running.offers(common_pb2.FEATURE_EMBEDDING_DIMENSIONS):
                shorter = await client.embed(request, served_model=model)
                assert {len(one.values) for one in shorter.embeddings} == {len(cat) // 2}
            else:
                with pytest.raises((RequestError, EngineError)) as refusal:
                    await client.embed(request, served_model=model)
                assert refusal.value.reason in (Reason.UNSUPPORTED_FIELD, Reason.ENGINE_REFUSED)
                by = "adapter" if refusal.value.reason is Reason.UNSUPPORTED_FIELD else "engine"
                cell.note(f"refused by the {by}: dimensions")

    @case(Column.RERANK, common_pb2.OPERATION_RERANK)
    async def test_documents_come_back_in_order_of_relevance(self, running: Running, cell: Cell) -> None:
        model = running.engine.model
        documents = ["stones are heavy", "cats drink milk", "cats drink milk at night"]
        request = inference_pb2.RerankRequest(model=model, query="what do cats drink", documents=documents)
        async with running.client() as client:
            answer = await client.rerank(request, served_model=model)
        scores = [result.relevance_score for result in answer.results]
        assert scores == sorted(scores, reverse=True)
        assert sorted(result.index for result in answer.results) == [0, 1, 2]
        assert answer.results[-1].index == 0

    @case(Column.TOKEN_COUNT, common_pb2.OPERATION_COUNT_TOKENS)
    async def test_count_of_a_prompt_is_what_its_generation_is_counted_as(self, running: Running, cell: Cell) -> None:
        model = running.engine.model
        request = chat(model, SHORT, 2)
        used = (await running.ask(request)).usage
        count = inference_pb2.CountTokensRequest(model=model, conversation=request.conversation)
        async with running.client() as client:
            counted = await client.count_tokens(count, served_model=model)
        assert counted.input_tokens == used.input_tokens
