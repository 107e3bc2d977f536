from collections.abc import Callable

import pytest

from enginehouse.adapters import openai
from enginehouse.adapters._json import parse_text
from enginehouse.adapters.canonical import (
    check_count_tokens,
    check_embed,
    check_generate,
    check_rerank,
    features_of,
)
from enginehouse.contract import Reason, RequestError
from enginehouse.v1 import common_pb2, inference_pb2
from tests.unit.adapters.build import generate_request

Change = Callable[[inference_pb2.GenerateRequest], object]
CALL = inference_pb2.ToolCall(id="c")
SAID = inference_pb2.Message(role=inference_pb2.ROLE_USER)


def last(request: inference_pb2.GenerateRequest) -> inference_pb2.Message:
    return request.conversation.messages[-1]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda r: setattr(r, "model", "m" * 257), "model"),
        (lambda r: setattr(last(r), "role", 9), "conversation.messages[0].role"),
        (lambda r: last(r).parts.add(), "conversation.messages[0].parts[1].content"),
        (
            lambda r: last(r).parts.add(image=inference_pb2.Image(media_type="image/png")),
            "conversation.messages[0].parts[1].image.source",
        ),
        (
            lambda r: last(r).parts.add(image=inference_pb2.Image(data=b"x")),
            "conversation.messages[0].parts[1].image.media_type",
        ),
        (lambda r: last(r).tool_calls.append(CALL), "conversation.messages[0].tool_calls[0].name"),
        (lambda r: setattr(last(r), "role", inference_pb2.ROLE_TOOL), "conversation.messages[0].tool_call_id"),
        (lambda r: setattr(r.sampling, "top_logprobs", -1), "sampling.top_logprobs"),
        (lambda r: setattr(r.sampling, "choices", 129), "sampling.choices"),
        (lambda r: setattr(r.sampling, "temperature", -0.1), "sampling.temperature"),
        (lambda r: setattr(r.sampling, "top_p", float("inf")), "sampling.top_p"),
        (lambda r: setattr(last(r), "is_error", True), "conversation.messages[0].is_error"),
        (lambda r: setattr(r.reasoning, "effort", 9), "reasoning.effort"),
        (lambda r: setattr(r.reasoning, "budget_tokens", -1), "reasoning.budget_tokens"),
        (
            lambda r: r.reasoning.MergeFrom(
                inference_pb2.Reasoning(effort=inference_pb2.Reasoning.EFFORT_NONE, budget_tokens=5)
            ),
            "reasoning.budget_tokens",
        ),
        (lambda r: r.tools.add(), "tools[0].name"),
        (lambda r: r.tools.add(name="f", parameters="no JSON"), "tools[0].parameters"),
        (lambda r: (r.tools.add(name="f"), r.tools.add(name="f")), "tools[1].name"),
        (lambda r: setattr(r.tool_choice, "mode", inference_pb2.ToolChoice.MODE_REQUIRED), "tools"),
        (
            lambda r: r.tool_choice.MergeFrom(
                inference_pb2.ToolChoice(mode=inference_pb2.ToolChoice.MODE_NAMED, name="g")
            ),
            "tool_choice.name",
        ),
        (
            lambda r: setattr(r.response_format.json_schema, "name", "x"),
            "response_format.json_schema.schema",
        ),
        (
            lambda r: setattr(r.response_format.json_schema, "schema", "7"),
            "response_format.json_schema.schema",
        ),
    ],
)
def test_a_generation_that_no_engine_could_be_asked_is_refused_by_field(change: Change, field: str) -> None:
    request = generate_request()
    check_generate(request)
    change(request)
    with pytest.raises(RequestError) as caught:
        check_generate(request)
    assert caught.value.metadata["field"] == field


def test_the_other_requests_have_rules_too() -> None:
    refused: list[tuple[Callable[[], None], str]] = [
        (lambda: check_embed(inference_pb2.EmbedRequest(model="m")), "input"),
        (lambda: check_embed(inference_pb2.EmbedRequest(model="m", input=["x"], dimensions=0)), "dimensions"),
        (lambda: check_rerank(inference_pb2.RerankRequest(model="m", documents=["x"])), "query"),
        (lambda: check_rerank(inference_pb2.RerankRequest(model="m", query="x")), "documents"),
        (lambda: check_rerank(inference_pb2.RerankRequest(model="m", query="x", documents=["x"], top_n=-1)), "top_n"),
        (lambda: check_count_tokens(inference_pb2.CountTokensRequest(model="m")), "input"),
    ]
    for check, field in refused:
        with pytest.raises(RequestError) as caught:
            check()
        assert caught.value.metadata["field"] == field


def test_a_plain_generation_needs_no_feature() -> None:
    assert features_of(generate_request()) == frozenset()


def test_calls_in_earlier_turns_need_tools_too() -> None:
    request = generate_request()
    last(request).tool_calls.add(id="c", name="f")
    assert features_of(request) == {common_pb2.FEATURE_TOOLS}


def test_how_much_to_reason_is_a_feature_and_nothing_said_is_none() -> None:
    request = generate_request()
    request.reasoning.SetInParent()
    assert features_of(request) == frozenset()
    request.reasoning.budget_tokens = 5
    assert features_of(request) == {common_pb2.FEATURE_REASONING}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda r: r.tools.add(name="f"), "tools"),
        (lambda r: setattr(r.reasoning, "budget_tokens", 5), "reasoning"),
    ],
)
def test_a_prompt_without_a_template_has_no_place_for_it(change: Change, field: str) -> None:
    request = inference_pb2.GenerateRequest(model="m", prompt="Once")
    check_generate(request)
    change(request)
    with pytest.raises(RequestError) as caught:
        check_generate(request)
    assert (caught.value.reason, caught.value.metadata["field"]) == (Reason.UNSUPPORTED_FIELD, field)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not JSON"),
        ("[]", "expected a JSON object as text"),
        ('"{}"', "expected a JSON object as text"),
        ("{} {}", "is not JSON"),
        ('{"a": 1, "a": 2}', "given twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": 1e999}', "too large"),
        ('{"a": "\\ud83d"}', "surrogate"),
        ('{"a":' * 101 + "0" + "}" * 101, "deeper than 100 levels"),
        ('{"a":' * 30_000, "nested too deeply"),
        ('{"a":[' + "[]," * 40_000 + "[]]}", "more than 32768 lists and objects"),
    ],
)
def test_a_text_that_is_not_one_plain_json_object_is_refused(text: str, says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        parse_text(text, "schema")
    assert caught.value.reason is Reason.MALFORMED_REQUEST
    assert caught.value.message.startswith("schema is ")


def test_a_hundred_levels_are_read_and_written() -> None:
    request = generate_request()
    request.tools.add(name="f", parameters='{"a":' * 100 + "0" + "}" * 100)
    body = openai.write_generate(request, served_model="m", output_tokens_max=5, quirks=openai.OpenAIQuirks("any")).body
    assert request.tools[0].parameters.encode() in body


@pytest.mark.parametrize(
    "messages",
    [
        [SAID] * 20_000,
        [inference_pb2.Message(role=inference_pb2.ROLE_USER, parts=[inference_pb2.Part(text="")] * 20_000)],
        [inference_pb2.Message(role=inference_pb2.ROLE_ASSISTANT, tool_calls=[CALL] * 20_000)],
    ],
)
def test_a_conversation_of_nothing_many_times_is_refused(messages: list[inference_pb2.Message]) -> None:
    request = inference_pb2.GenerateRequest(model="m", conversation=inference_pb2.Conversation(messages=messages))
    with pytest.raises(RequestError, match="more than 16384 messages") as caught:
        check_generate(request)
    assert caught.value.reason is Reason.MALFORMED_REQUEST


def test_texts_without_number_are_refused() -> None:
    with pytest.raises(RequestError, match="input has 20000 texts"):
        check_embed(inference_pb2.EmbedRequest(model="m", input=[""] * 20_000))
    with pytest.raises(RequestError, match="documents has 20000 texts"):
        check_rerank(inference_pb2.RerankRequest(model="m", query="q", documents=[""] * 20_000))
