"""What a router is told bounds what reaches a model, and nothing makes it fall over."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from enginehouse.adapters import ENDPOINTS, UsageMeter, UsageScope, anthropic, openai
from enginehouse.adapters.grpc import frame, inspect
from enginehouse.adapters.openai import AnswerReader
from enginehouse.adapters.sse import SseEvent
from enginehouse.contract import EnginehouseError, RequestError
from enginehouse.v1 import common_pb2, inference_pb2
from tests.property.adapters.strategies import JSON, NAME, SCHEMA, TEXT, generate_requests

CHAT = common_pb2.OPERATION_CHAT
PARSERS: Mapping[str, Callable[[bytes], object]] = {
    "chat": openai.parse_chat,
    "completion": openai.parse_completion,
    "embedding": openai.parse_embedding,
    "rerank": openai.parse_rerank,
    "messages": anthropic.parse_messages,
    "count": anthropic.parse_count_tokens,
}
# Members that requests have, so that arbitrary bodies reach further than "model is missing".
ROLE = st.sampled_from(["system", "user", "assistant", "tool"])
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "image", "tool_use", "tool_result", "thinking"]) | JSON},
    optional={"text": JSON, "image_url": JSON, "source": JSON, "content": JSON, "thinking": JSON, "input": JSON},
)
MESSAGE = st.fixed_dictionaries(
    {"role": ROLE, "content": TEXT | st.lists(PART | JSON, max_size=3) | JSON},
    optional={"tool_calls": JSON, "name": JSON, "tool_call_id": TEXT},
)
BODY = st.fixed_dictionaries(
    {"model": st.just("m"), "messages": st.lists(MESSAGE, max_size=3) | JSON, "max_tokens": st.just(5) | JSON},
    optional={
        "tools": st.lists(st.fixed_dictionaries({}, optional={"function": JSON, "name": TEXT}), max_size=2) | JSON,
        "tool_choice": JSON,
        "system": JSON,
        "prompt": JSON,
        "input": JSON,
        "query": JSON,
        "documents": JSON,
        "n": JSON,
        "stop": JSON,
        "stream": JSON,
        "stream_options": JSON,
        "response_format": JSON,
        "enginehouse": JSON,
        "metadata": JSON,
        "thinking": JSON,
    },
)


def utf8(*texts: str) -> int:
    return sum(len(text.encode()) for text in texts)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=4), st.lists(SCHEMA, max_size=2), TEXT)
def test_an_openai_bound_covers_every_text(
    turns: list[tuple[str, str, str]], schemas: list[dict[str, object]], other: str
) -> None:
    messages: list[dict[str, object]] = []
    for content, name, arguments in turns:
        call = {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}
        messages.append(
            {
                "role": "user",
                "name": name,
                "content": [{"type": "text", "text": content}, {"type": "text", "text": name}],
            }
        )
        messages.append({"role": "assistant", "content": content, "tool_calls": [call], "reasoning_content": arguments})
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}} for schema in schemas]
    body = json.dumps({"model": "m", "messages": messages, "tools": tools, "documents": [other]}).encode()
    text = sum(utf8(content, name, name, name, content, arguments, arguments) for content, name, arguments in turns)
    rendered = max(utf8(json.dumps(tools, indent=indent, ensure_ascii=False)) for indent in (None, 1, 4))
    assert openai.inspect(CHAT, body).prompt_text_bytes >= text + (rendered if tools else 0) + utf8(other)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, SCHEMA), min_size=1, max_size=4), TEXT, SCHEMA)
def test_an_anthropic_bound_covers_every_text(
    turns: list[tuple[str, str, dict[str, object]]], system: str, schema: dict[str, object]
) -> None:
    messages: list[dict[str, object]] = []
    for content, result, arguments in turns:
        use = {"type": "tool_use", "id": "t", "name": "f", "input": arguments}
        messages.append({"role": "assistant", "content": [{"type": "thinking", "thinking": content}, use]})
        answer = {"type": "tool_result", "tool_use_id": "t", "is_error": True, "content": result}
        messages.append({"role": "user", "content": [answer, {"type": "text", "text": content}]})
    tools = [{"name": "f", "description": system, "input_schema": schema}]
    body = {"model": "m", "max_tokens": 5, "system": system, "messages": messages, "tools": tools}
    text = sum(
        utf8(content, "Error: ", result, content, json.dumps(arguments, ensure_ascii=False))
        for content, result, arguments in turns
    )
    rendered = utf8(json.dumps(tools, ensure_ascii=False))
    seen = anthropic.inspect(CHAT, json.dumps(body).encode())
    assert seen.prompt_text_bytes >= text + utf8(system) + rendered


@settings(deadline=None)
@given(generate_requests())
def test_a_grpc_bound_covers_every_text(request: inference_pb2.GenerateRequest) -> None:
    texts = [request.prompt]
    for message in request.conversation.messages:
        texts += [message.name, message.tool_call_id, *(part.text + part.reasoning for part in message.parts)]
        texts += [call.name + call.arguments for call in message.tool_calls]
    texts += [tool.name + tool.description for tool in request.tools]
    seen = inspect(CHAT, frame(request.SerializeToString()))
    assert seen.prompt_text_bytes >= utf8(*texts)
    assert seen.image_count == sum(part.HasField("image") for m in request.conversation.messages for part in m.parts)


@settings(deadline=None, max_examples=150)
@given(
    BODY | st.dictionaries(NAME, JSON, max_size=4), st.sampled_from(sorted(ENDPOINTS)), st.sampled_from(sorted(PARSERS))
)
def test_any_json_is_read_or_refused(body: object, path: str, parser: str) -> None:
    encoded = json.dumps(body).encode()
    look = ENDPOINTS[path].inspect
    for read in (PARSERS[parser], lambda data: look(data, {}) if look else None):
        with suppress(RequestError):
            read(encoded)


@settings(deadline=None, max_examples=150)
@given(
    st.binary(max_size=80) | st.text('{}[]":,\\u1e5 ', max_size=40).map(str.encode), st.sampled_from(sorted(ENDPOINTS))
)
def test_any_bytes_are_read_or_refused(body: bytes, path: str) -> None:
    look = ENDPOINTS[path].inspect
    with suppress(RequestError):
        if look:
            look(body, {})


CHOICE = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(-1, 2) | JSON,
        "delta": st.fixed_dictionaries({}, optional={"content": JSON, "tool_calls": JSON, "reasoning": JSON}) | JSON,
        "finish_reason": st.sampled_from(["stop", "length", "abort"]) | JSON,
        "logprobs": st.fixed_dictionaries({}, optional={"content": JSON, "tokens": JSON, "token_logprobs": JSON})
        | JSON,
        "text": JSON,
    },
)
FRAME = st.fixed_dictionaries(
    {}, optional={"choices": st.lists(CHOICE | JSON, max_size=2) | JSON, "usage": JSON, "timings": JSON, "error": JSON}
)


@settings(deadline=None, max_examples=150)
@given(st.lists(FRAME | JSON, max_size=4))
def test_whatever_an_engine_says_is_read_or_its_failure(frames: list[object]) -> None:
    stream = AnswerReader(generation_id="g", model="m", choices=2, quirks=openai.LLAMA_CPP)
    meter = UsageMeter("text/event-stream", UsageScope.CHOICE)
    for frame_ in frames:
        text = json.dumps(frame_)
        meter.feed(b"data: " + text.encode() + b"\n\n")
        with suppress(EnginehouseError):
            stream.read_event(SseEvent(text))
    assert meter.finish().method
