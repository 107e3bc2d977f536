from collections.abc import Callable

import pytest
from google.protobuf import struct_pb2

from enginehouse.adapters._struct import to_plain, to_struct
from enginehouse.adapters.canonical import (
    check_count_tokens,
    check_embed,
    check_generate,
    check_rerank,
    features_of,
)
from enginehouse.contract import RequestError
from enginehouse.v1 import common_pb2, inference_pb2
from tests.unit.adapters.build import generate_request

Change = Callable[[inference_pb2.GenerateRequest], object]
CALL = inference_pb2.ToolCall(id="c")


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
        (lambda r: r.tools.add(), "tools[0].name"),
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


@pytest.mark.parametrize("number", [2**53 + 1, 10**400, float("nan")])
def test_a_number_that_would_change_on_the_way_is_refused(number: float) -> None:
    with pytest.raises(RequestError, match="does not fit 64 bits exactly"):
        to_struct({"maximum": number}, "schema")


def test_the_key_that_holds_the_order_cannot_be_forged() -> None:
    with pytest.raises(RequestError, match="null character"):
        to_struct({"a": {"\0order": ["b"]}}, "schema")


def test_a_struct_that_nobody_ordered_is_sorted() -> None:
    struct = struct_pb2.Struct()
    struct.update({"b": 1, "a": [None, True, {"d": 1.5, "c": "x"}]})
    assert list(to_plain(struct)) == ["a", "b"]
    assert to_plain(struct) == {"a": [None, True, {"c": "x", "d": 1.5}], "b": 1}


def test_a_struct_with_a_number_that_json_has_not_is_refused() -> None:
    struct = struct_pb2.Struct()
    struct.fields["a"].number_value = float("inf")
    with pytest.raises(RequestError, match="not finite"):
        to_plain(struct)
