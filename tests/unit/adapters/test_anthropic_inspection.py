from collections.abc import Mapping

import pytest

from enginehouse.adapters.anthropic import inspect
from enginehouse.contract import InternalError, Reason, RequestError
from enginehouse.v1 import common_pb2
from tests.unit.adapters.build import WEATHER_SCHEMA, messages_body

CHAT, COUNT = common_pb2.OPERATION_CHAT, common_pb2.OPERATION_COUNT_TOKENS


def user(*blocks: Mapping[str, object]) -> list[object]:
    return [{"role": "user", "content": list(blocks)}]


def test_a_message_tells_everything_that_routing_asks() -> None:
    seen = inspect(
        CHAT,
        messages_body(
            system="Be brief",
            stream=True,
            stop_sequences=["x"],
            tools=[{"name": "f", "input_schema": WEATHER_SCHEMA}],
            enginehouse={"residency": "eu"},
        ),
    )
    assert (seen.model, seen.stream, seen.output_tokens_max, seen.message_count) == ("public", True, 16, 2)
    assert seen.features == {
        common_pb2.FEATURE_STREAM,
        common_pb2.FEATURE_TOOLS,
        common_pb2.FEATURE_STOP_SEQUENCES,
    }
    assert list(seen.hints.residency) == ["eu"]
    assert seen.dialect == common_pb2.DIALECT_ANTHROPIC
    assert seen.layout


def test_text_is_counted_wherever_it_stands() -> None:
    words = "x" * 50
    result = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": words}]}
    call = {"type": "tool_use", "id": "1", "name": "f", "input": {"a": words}}
    seen = inspect(
        CHAT,
        messages_body(
            system=[{"type": "text", "text": words}],
            messages=[
                {"role": "assistant", "content": [{"type": "thinking", "thinking": words, "signature": "s"}, call]},
                *user(result),
            ],
        ),
    )
    assert seen.prompt_text_bytes >= 4 * 50
    assert common_pb2.FEATURE_TOOLS in seen.features


def test_images_are_counted_inside_tool_results_too() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 5000}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": [image]}
    seen = inspect(CHAT, messages_body(messages=user(image, result)))
    assert seen.image_count == 2
    assert seen.prompt_text_bytes < 200


@pytest.mark.parametrize("thinking", [{"type": "enabled", "budget_tokens": 1024}, {"type": "between_tools"}])
def test_budgeted_thinking_is_a_feature(thinking: dict[str, object]) -> None:
    assert common_pb2.FEATURE_REASONING in inspect(CHAT, messages_body(thinking=thinking)).features


def test_disabled_thinking_is_none() -> None:
    assert not inspect(CHAT, messages_body(thinking={"type": "disabled"})).features


def test_an_output_format_is_a_schema() -> None:
    output = {"format": {"type": "json_schema", "schema": WEATHER_SCHEMA}}
    assert inspect(CHAT, messages_body(output_config=output)).features == {common_pb2.FEATURE_JSON_SCHEMA}


def test_counting_tokens_needs_no_limit_and_nothing_of_what_shapes_an_answer() -> None:
    thinking, output = {"type": "enabled", "budget_tokens": 1024}, {"format": {"type": "json_schema"}}
    seen = inspect(COUNT, messages_body(max_tokens=None, thinking=thinking, output_config=output))
    assert (seen.output_tokens_max, seen.features) == (None, frozenset())
    with pytest.raises(RequestError, match="max_tokens is missing"):
        inspect(CHAT, messages_body(max_tokens=None))


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"system": 5}, "system"),
        ({"tools": "x"}, "tools"),
        ({"thinking": "x"}, "thinking"),
    ],
)
def test_a_member_that_does_not_fit_is_named(members: dict[str, object], field: str) -> None:
    with pytest.raises(RequestError) as caught:
        inspect(CHAT, messages_body(**members))
    assert caught.value.metadata["field"] == field


def test_a_block_without_a_bound_is_refused() -> None:
    document = {"type": "document", "source": {"type": "base64", "data": "AAAA"}}
    with pytest.raises(RequestError, match="document") as caught:
        inspect(CHAT, messages_body(messages=user(document)))
    assert caught.value.reason is Reason.UNSUPPORTED_FIELD


def test_an_operation_of_another_dialect_is_our_own_mistake() -> None:
    with pytest.raises(InternalError):
        inspect(common_pb2.OPERATION_EMBEDDING, messages_body())
