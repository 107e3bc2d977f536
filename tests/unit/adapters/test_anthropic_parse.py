import base64
import json

import pytest

from enginehouse.adapters.anthropic import parse_count_tokens, parse_messages
from enginehouse.contract import Reason, RequestError
from enginehouse.v1 import common_pb2, inference_pb2
from tests.unit.adapters.build import WEATHER_SCHEMA, messages_body

TOOL = {"name": "get_weather", "description": "The weather", "input_schema": WEATHER_SCHEMA}


def roles_and_texts(conversation: inference_pb2.Conversation) -> list[tuple[str, str]]:
    return [
        (inference_pb2.Role.Name(message.role), "|".join(part.text or part.reasoning for part in message.parts))
        for message in conversation.messages
    ]


def test_a_message_is_read_whole() -> None:
    call = parse_messages(
        messages_body(
            system="Be brief",
            temperature=0.5,
            top_p=0.9,
            top_k=40,
            stop_sequences=["x"],
            metadata={"user_id": "u"},
            stream=True,
            tools=[TOOL],
            tool_choice={"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
            enginehouse={"chip": "cpu"},
        )
    )
    request = call.request
    assert call.stream
    assert call.include_usage
    assert request.sampling == inference_pb2.Sampling(
        max_output_tokens=16, temperature=0.5, top_p=0.9, top_k=40, stop=["x"]
    )
    assert roles_and_texts(request.conversation) == [("ROLE_SYSTEM", "Be brief"), ("ROLE_USER", "Hi")]
    assert request.user == "u"
    assert request.hints.chip == common_pb2.CHIP_CLASS_CPU
    assert json.loads(request.tools[0].parameters) == WEATHER_SCHEMA
    assert request.tool_choice == inference_pb2.ToolChoice(
        mode=inference_pb2.ToolChoice.MODE_NAMED, name="get_weather", disable_parallel=True
    )


def test_a_conversation_with_tools_is_read_in_order() -> None:
    data = base64.b64encode(b"abc").decode()
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "Let me see", "cache_control": {"type": "ephemeral"}},
            {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Rome"}},
            {"type": "tool_use", "id": "t2", "name": "get_weather", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"},
            {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "no"}, image],
             "is_error": True},
            {"type": "text", "text": "So?"},
        ]},
        {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://example.com/a"}}]},
    ]  # fmt: skip
    conversation = parse_messages(messages_body(messages=messages)).request.conversation
    assert roles_and_texts(conversation) == [
        ("ROLE_USER", "Weather?"),
        ("ROLE_ASSISTANT", "hm|Let me see"),
        ("ROLE_TOOL", "sunny"),
        ("ROLE_TOOL", "no|"),
        ("ROLE_USER", "So?|"),
    ]
    calls = conversation.messages[1].tool_calls
    assert [(call.id, json.loads(call.arguments), call.index) for call in calls] == [
        ("t1", {"city": "Rome"}, 0),
        ("t2", {}, 1),
    ]
    results = conversation.messages[2:4]
    assert [(message.tool_call_id, message.is_error) for message in results] == [("t1", False), ("t2", True)]
    assert conversation.messages[3].parts[1].image.data == b"abc"
    assert conversation.messages[4].parts[1].image.url == "https://example.com/a"


@pytest.mark.parametrize(
    ("choice", "mode"),
    [
        ("auto", inference_pb2.ToolChoice.MODE_AUTO),
        ("any", inference_pb2.ToolChoice.MODE_REQUIRED),
        ("none", inference_pb2.ToolChoice.MODE_NONE),
    ],
)
def test_every_way_to_choose_a_tool_is_read(choice: str, mode: int) -> None:
    body = messages_body(tools=[TOOL], tool_choice={"type": choice})
    assert parse_messages(body).request.tool_choice.mode == mode


def test_an_output_format_binds() -> None:
    output = {"format": {"type": "json_schema", "schema": WEATHER_SCHEMA}}
    wanted = parse_messages(messages_body(output_config=output)).request.response_format.json_schema
    assert (json.loads(wanted.schema), wanted.strict) == (WEATHER_SCHEMA, True)


def test_a_budget_for_thinking_is_read() -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    request = parse_messages(messages_body(max_tokens=2048, thinking=thinking)).request
    assert request.reasoning == inference_pb2.Reasoning(budget_tokens=1024)


def test_a_tool_may_be_held_to_its_schema() -> None:
    assert parse_messages(messages_body(tools=[TOOL | {"strict": True}])).request.tools[0].strict


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, "thinking.display"),
        ({"output_config": {"effort": "high"}}, "output_config.effort"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": []}, "mcp_servers"),
        ({"metadata": {"user_id": "u", "x": "y"}}, "metadata.x"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [TOOL | {"input_examples": [{}]}]}, "tools[0].input_examples"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]}]},
         "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "citations": [{}]}]}]},
         "messages[0].content[0].citations"),
        ({"messages": [{"role": "user", "content": [
            {"type": "image", "source": {"type": "file", "file_id": "f"}}]}]}, "messages[0].content[0].source.type"),
    ],
)  # fmt: skip
def test_what_has_no_canonical_field_is_refused_by_name(members: dict[str, object], field: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_messages(messages_body(**members))
    assert caught.value.reason is Reason.UNSUPPORTED_FIELD
    assert caught.value.metadata["field"] == field


@pytest.mark.parametrize(
    "members",
    [
        {"thinking": {"type": "disabled"}},
        {"thinking": {"type": "adaptive", "display": "summarized"}},
        {"cache_control": {"type": "ephemeral"}, "service_tier": "auto"},
    ],
)
def test_what_changes_nothing_passes(members: dict[str, object]) -> None:
    assert parse_messages(messages_body(**members)).request == parse_messages(messages_body()).request


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "messages[0].content[0].tool_use_id"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tool_choice": {}}, "tool_choice.type"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type"),
        ({"stop_sequences": "x"}, "stop_sequences"),
    ],
)
def test_a_member_that_does_not_fit_is_named(members: dict[str, object], field: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_messages(messages_body(**members))
    assert caught.value.reason is Reason.MALFORMED_REQUEST
    assert caught.value.metadata["field"] == field


def test_a_count_reads_the_prompt_alone() -> None:
    body = messages_body(
        max_tokens=None, system=[{"type": "text", "text": "Be brief"}], tools=[TOOL], tool_choice={"type": "auto"}
    )
    request = parse_count_tokens(body)
    assert roles_and_texts(request.conversation) == [("ROLE_SYSTEM", "Be brief"), ("ROLE_USER", "Hi")]
    assert request.tools[0].name == "get_weather"
    with pytest.raises(RequestError, match="temperature"):
        parse_count_tokens(messages_body(max_tokens=None, temperature=1))
