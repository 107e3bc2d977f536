import base64
import json

import pytest

from enginehouse.adapters import EmbeddingEncoding
from enginehouse.adapters.openai import parse_chat, parse_completion, parse_embedding, parse_rerank
from enginehouse.contract import Reason, RequestError
from enginehouse.v1 import common_pb2, inference_pb2
from tests.unit.adapters.build import WEATHER_SCHEMA, WEATHER_TOOL, chat_body, completion_body


def test_a_chat_is_read_whole() -> None:
    call = parse_chat(
        chat_body(
            max_tokens=9,
            max_completion_tokens=7,
            temperature=0.5,
            top_p=1,
            top_k=40,
            seed=3,
            n=2,
            stop="x",
            presence_penalty=0.1,
            frequency_penalty=0.2,
            logprobs=True,
            top_logprobs=2,
            user="u",
            metadata={"k": "v"},
            stream=True,
            stream_options={"include_usage": True},
            enginehouse={"quality": "low"},
        )
    )
    sampling = inference_pb2.Sampling(
        max_output_tokens=7,
        temperature=0.5,
        top_p=1,
        top_k=40,
        seed=3,
        choices=2,
        stop=["x"],
        presence_penalty=0.1,
        frequency_penalty=0.2,
        top_logprobs=2,
    )
    assert call.request.sampling == sampling
    assert (call.stream, call.include_usage) == (True, True)
    assert (call.request.user, dict(call.request.metadata)) == ("u", {"k": "v"})
    assert call.request.hints.quality == common_pb2.QUALITY_LOW
    assert call.request.conversation.messages[0].parts[0].text == "Hi"


def test_turns_of_every_role_are_read() -> None:
    data = base64.b64encode(b"abc").decode()
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "Be brief"},
        {"role": "user", "name": "ann", "content": [
            {"type": "text", "text": "see"},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        ]},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]  # fmt: skip
    read = parse_chat(chat_body(messages=messages)).request.conversation.messages
    assert [message.role for message in read] == [
        inference_pb2.ROLE_SYSTEM,
        inference_pb2.ROLE_USER,
        inference_pb2.ROLE_ASSISTANT,
        inference_pb2.ROLE_TOOL,
    ]
    assert read[1].name == "ann"
    assert read[1].parts[1].image.url == "https://example.com/a.png"
    assert (read[1].parts[2].image.data, read[1].parts[2].image.media_type) == (b"abc", "image/png")
    assert read[2].parts[0].reasoning == "hm"
    assert read[2].tool_calls[0] == inference_pb2.ToolCall(id="c1", name="f", arguments="{}")
    assert read[3].tool_call_id == "c1"


@pytest.mark.parametrize(
    ("choice", "mode"),
    [
        ("auto", inference_pb2.ToolChoice.MODE_AUTO),
        ("none", inference_pb2.ToolChoice.MODE_NONE),
        ("required", inference_pb2.ToolChoice.MODE_REQUIRED),
        ({"type": "function", "function": {"name": "get_weather"}}, inference_pb2.ToolChoice.MODE_NAMED),
    ],
)
def test_tools_and_their_choice_are_read(choice: object, mode: int) -> None:
    body = chat_body(tools=[WEATHER_TOOL], tool_choice=choice, parallel_tool_calls=False)
    request = parse_chat(body).request
    assert request.tool_choice.mode == mode
    assert request.tool_choice.disable_parallel
    assert (request.tools[0].name, request.tools[0].description) == ("get_weather", "The weather")
    assert json.loads(request.tools[0].parameters) == WEATHER_SCHEMA
    assert not request.tools[0].strict


def test_a_schema_is_read_as_it_was_written() -> None:
    schema = {"z": {"maximum": 2**60 + 1}, "a": [1.5, None, "é"], "m": {}}
    function = {"name": "f", "parameters": schema, "strict": True}
    tool = parse_chat(chat_body(tools=[{"type": "function", "function": function}])).request.tools[0]
    assert tool.parameters == json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    assert tool.strict
    assert parse_chat(chat_body(tools=[{"function": {"name": "f"}}])).request.tools[0].parameters == ""


@pytest.mark.parametrize(
    ("word", "effort"),
    [
        ("none", inference_pb2.Reasoning.EFFORT_NONE),
        ("low", inference_pb2.Reasoning.EFFORT_LOW),
        ("medium", inference_pb2.Reasoning.EFFORT_MEDIUM),
        ("high", inference_pb2.Reasoning.EFFORT_HIGH),
    ],
)
def test_the_effort_of_reasoning_is_read(word: str, effort: inference_pb2.Reasoning.Effort.ValueType) -> None:
    assert parse_chat(chat_body(reasoning_effort=word)).request.reasoning == inference_pb2.Reasoning(effort=effort)


def test_formats_are_read() -> None:
    described = {"name": "w", "description": "The weather", "schema": WEATHER_SCHEMA, "strict": True}
    wanted = {"type": "json_schema", "json_schema": described}
    read = parse_chat(chat_body(response_format=wanted)).request.response_format.json_schema
    assert (read.name, read.description, read.strict) == ("w", "The weather", True)
    assert json.loads(read.schema) == WEATHER_SCHEMA
    assert parse_chat(chat_body(response_format={"type": "json_object"})).request.response_format.json_object


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"functions": [{}]}, "functions"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        ({"store": True}, "store"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"min_p": 0.1}, "min_p"),
        ({"messages": [{"role": "user", "content": "x", "mood": 1}]}, "messages[0].mood"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}, "messages[0].content[0].type"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].type"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        ({"stream_options": {"x": 1}}, "stream_options.x"),
    ],
)
def test_what_has_no_canonical_field_is_refused_by_name(members: dict[str, object], field: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_chat(chat_body(**members))
    assert caught.value.reason is Reason.UNSUPPORTED_FIELD
    assert caught.value.metadata["field"] == field


@pytest.mark.parametrize(
    "members",
    [
        {"store": False, "logit_bias": {}, "modalities": ["text"], "service_tier": "auto", "prompt_cache_key": "k"},
        {"stream_options": {"include_obfuscation": False}, "parallel_tool_calls": True, "unknown": None},
    ],
)
def test_what_changes_nothing_passes(members: dict[str, object]) -> None:
    assert parse_chat(chat_body(**members)).request == parse_chat(chat_body()).request


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}]}, "messages[0].tool_calls[0].function.name"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "sampling.temperature"),
        ({"stop": [1]}, "stop[0]"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"tools": [{"function": {"name": "f", "parameters": "{}"}}]}, "tools[0].function.parameters"),
        ({"tools": [{"function": {"name": "f", "strict": 1}}]}, "tools[0].function.strict"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"tool_choice": "required"}, "tools"),
    ],
)
def test_a_member_that_does_not_fit_is_named(members: dict[str, object], field: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_chat(chat_body(**members))
    assert caught.value.reason is Reason.MALFORMED_REQUEST
    assert caught.value.metadata["field"] == field


@pytest.mark.parametrize("url", ["data:image/png;base64,$$", "data:image/png,abc", "data:;base64,YQ=="])
def test_an_image_whose_data_cannot_be_read_is_refused(url: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    with pytest.raises(RequestError, match=r"content\[0\].image_url.url"):
        parse_chat(chat_body(messages=[{"role": "user", "content": [part]}]))


@pytest.mark.parametrize("prompt", [[1, 22, 333], [[1, 22, 333]]])
def test_a_prompt_may_be_one_list_of_token_ids(prompt: object) -> None:
    call = parse_completion(completion_body(prompt=prompt))
    assert list(call.request.prompt_tokens.ids) == [1, 22, 333]


@pytest.mark.parametrize(
    ("prompt", "says"), [([1, -2], r"prompt\[1\] is -2"), ([2**31], r"prompt\[0\]"), ([], "at least one token")]
)
def test_a_token_id_that_is_none_is_refused(prompt: object, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        parse_completion(completion_body(prompt=prompt))


def test_wishes_beyond_openais_have_the_names_that_engines_gave_them() -> None:
    request = parse_chat(chat_body(lora="mine", priority=-3, return_token_ids=True)).request
    assert (request.lora, request.priority, request.return_token_ids) == ("mine", -3, True)
    with pytest.raises(RequestError, match="lora is a list"):
        parse_chat(chat_body(lora=[{"id": 0, "scale": 1.0}]))


def test_completions_take_one_prompt_of_text() -> None:
    call = parse_completion(completion_body(prompt=["Once"], logprobs=0, echo=False, best_of=1))
    assert call.request.prompt == "Once"
    assert call.request.sampling.HasField("top_logprobs")
    for prompt in ([[1], [2]], ["a", "b"], [1, "b"]):
        with pytest.raises(RequestError, match="prompt is not supported"):
            parse_completion(completion_body(prompt=prompt))
    with pytest.raises(RequestError, match="best_of"):
        parse_completion(completion_body(best_of=2))


def test_embeddings_take_texts_and_an_encoding() -> None:
    body = json.dumps({"model": "m", "input": "a", "encoding_format": "base64", "dimensions": 8}).encode()
    call = parse_embedding(body)
    assert (list(call.request.input), call.request.dimensions) == (["a"], 8)
    assert call.encoding is EmbeddingEncoding.BASE64
    with pytest.raises(RequestError, match="token ids"):
        parse_embedding(b'{"model": "m", "input": [1, 2]}')
    with pytest.raises(RequestError, match="input is missing"):
        parse_embedding(b'{"model": "m"}')


def test_rankings_take_documents_in_both_forms() -> None:
    body = {"model": "m", "query": "q", "documents": ["a", {"text": "b"}], "top_n": 1, "return_documents": True}
    call = parse_rerank(json.dumps(body).encode())
    assert (list(call.request.documents), call.request.top_n, call.return_documents) == (["a", "b"], 1, True)
    with pytest.raises(RequestError, match=r"documents\[0\]"):
        parse_rerank(json.dumps(body | {"documents": [{"title": "x"}]}).encode())
