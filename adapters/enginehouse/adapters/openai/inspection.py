"""What a router must know of an OpenAI request."""

from collections.abc import Callable, Mapping

from enginehouse.adapters._body import Body, count_content
from enginehouse.adapters._fields import (
    INT32_MAX,
    as_choice,
    as_flag,
    as_list,
    as_object,
    as_text,
    as_whole,
    malformed,
    unsupported,
)
from enginehouse.adapters._json import guarded
from enginehouse.adapters._meter import PromptMeter
from enginehouse.adapters.canonical import CHOICES_MAX
from enginehouse.adapters.inspection import Inspection
from enginehouse.adapters.splices import HINTS_MEMBER, OUTPUT_LIMIT_MEMBERS
from enginehouse.contract import InternalError
from enginehouse.v1 import common_pb2

ROLES = ("system", "developer", "user", "assistant", "tool", "function")

# Known to reach the engine and never the model's context. Any other member counts as text.
_NOT_PROMPT = frozenset(
    {
        "best_of", "dimensions", "encoding_format", "frequency_penalty", "logit_bias", "logprobs",
        "max_completion_tokens", "max_tokens", "metadata", "model", "n", "parallel_tool_calls",
        "presence_penalty", "priority", "return_token_ids", "seed", "service_tier", "stop", "store", "stream",
        "stream_options", "temperature", "top_k", "top_logprobs", "top_n", "top_p", "user", HINTS_MEMBER,
    }
)  # fmt: skip
_STREAM_OPTIONS = frozenset({"include_usage", "include_obfuscation", "continuous_usage_stats"})
_GUIDED = (
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "structured_outputs",
    "json_schema",
    "grammar",
)
# Ours, SGLang's and TensorRT-LLM's.
_LORA = ("lora", "lora_path", "lora_request")
_TEXT_PARTS = {"text": "text", "refusal": "refusal", "thinking": "thinking", "reasoning": "text"}


def inspect(
    operation: common_pb2.Operation.ValueType, body: bytes, headers: Mapping[str, str] | None = None
) -> Inspection:
    """Looks at the JSON body of an OpenAI request.

    Args:
        operation: CHAT, COMPLETION, EMBEDDING or RERANK.
        body: as received, decompressed.
        headers: names in lower case; hints are taken from them.

    Raises:
        RequestError: MALFORMED_REQUEST, UNKNOWN_HINT or UNSUPPORTED_FIELD; the message names the member.
    """
    reader = _READERS.get(operation)
    if reader is None:
        raise InternalError(f"OpenAI has no {common_pb2.Operation.Name(operation)}")
    return guarded(lambda: reader(Body(body, headers or {})))


def _inspection(
    body: Body,
    operation: common_pb2.Operation.ValueType,
    *,
    stream: bool = False,
    message_count: int = 0,
    output_tokens_max: int | None = None,
    choices: int = 1,
    input_count: int = 1,
) -> Inspection:
    return Inspection(
        dialect=common_pb2.DIALECT_OPENAI,
        operation=operation,
        model=body.model(),
        stream=stream,
        stream_options=_stream_options(body),
        features=frozenset(body.meter.features),
        prompt_text_bytes=body.meter.text_bytes,
        message_count=message_count,
        image_count=body.meter.image_count,
        output_tokens_max=output_tokens_max,
        choices=choices,
        input_count=input_count,
        hints=body.hints,
        layout=body.layout,
        prompt_beginning=bytes(body.meter.beginning),
    )


def _inspect_chat(body: Body) -> Inspection:
    body.model()
    messages = as_list(body.required("messages", "a list of messages"), "messages")
    if not messages:
        raise malformed("messages", messages, "at least one message")
    for index, message in enumerate(messages):
        _count_message(body.meter, message, f"messages[{index}]")
    for name in ("tools", "functions"):
        if tools := as_list(body.members.get(name, []), name):
            body.meter.needs(common_pb2.FEATURE_TOOLS, tools)
    body.count_rest(_NOT_PROMPT | {"messages"})
    stream = body.flag("stream")
    choices = _choices(body)
    _note_features(body, choices=choices, stream=stream)
    body.meter.needs(common_pb2.FEATURE_LOGPROBS, body.flag("logprobs") or "top_logprobs" in body.members)
    return _inspection(
        body,
        common_pb2.OPERATION_CHAT,
        stream=stream,
        message_count=len(messages),
        output_tokens_max=_output_limit(body),
        choices=choices,
    )


def _inspect_completion(body: Body) -> Inspection:
    body.model()
    prompts = _count_texts(body.meter, body.required("prompt", "a string"), "prompt")
    body.count_rest(_NOT_PROMPT | {"prompt"})
    stream = body.flag("stream")
    choices = _choices(body) * prompts
    _note_features(body, choices=choices, stream=stream)
    body.meter.needs(common_pb2.FEATURE_LOGPROBS, body.whole("logprobs", 0) is not None)
    return _inspection(
        body,
        common_pb2.OPERATION_COMPLETION,
        stream=stream,
        output_tokens_max=_output_limit(body),
        choices=choices,
        input_count=prompts,
    )


def _inspect_embedding(body: Body) -> Inspection:
    body.model()
    count = _count_texts(body.meter, body.required("input", "a string or a list of strings"), "input")
    body.count_rest(_NOT_PROMPT | {"input"})
    body.meter.needs(common_pb2.FEATURE_EMBEDDING_DIMENSIONS, body.whole("dimensions", 1))
    return _inspection(body, common_pb2.OPERATION_EMBEDDING, input_count=count)


def _inspect_rerank(body: Body) -> Inspection:
    body.model()
    query = as_text(body.required("query", "a string"), "query")
    documents = as_list(body.required("documents", "a list of strings"), "documents")
    if not documents:
        raise malformed("documents", documents, "at least one document")
    body.meter.text(query, times=len(documents))  # each document is read together with the query
    for index, document in enumerate(documents):
        if isinstance(document, str):
            body.meter.text(document)
        else:
            body.meter.rendered(as_object(document, f"documents[{index}]"))
    body.whole("top_n", 1)
    body.count_rest(_NOT_PROMPT | {"query", "documents"})
    return _inspection(body, common_pb2.OPERATION_RERANK, input_count=len(documents))


_READERS: Mapping[common_pb2.Operation.ValueType, Callable[[Body], Inspection]] = {
    common_pb2.OPERATION_CHAT: _inspect_chat,
    common_pb2.OPERATION_COMPLETION: _inspect_completion,
    common_pb2.OPERATION_EMBEDDING: _inspect_embedding,
    common_pb2.OPERATION_RERANK: _inspect_rerank,
}


def _output_limit(body: Body) -> int | None:
    limits = [limit for name in OUTPUT_LIMIT_MEMBERS if (limit := body.whole(name, 1)) is not None]
    return max(limits, default=None)  # engines differ in which of the two wins


def _stream_options(body: Body) -> Mapping[str, bool]:
    options = as_object(body.members.get("stream_options", {}), "stream_options")
    for name in options.keys() - _STREAM_OPTIONS:
        raise unsupported(f"stream_options.{name[:40]}", f"the options are {', '.join(sorted(_STREAM_OPTIONS))}")
    return {name: as_flag(value, f"stream_options.{name}") for name, value in options.items() if value is not None}


def _choices(body: Body) -> int:
    return max(body.whole("n", 1, CHOICES_MAX) or 1, body.whole("best_of", 1, CHOICES_MAX) or 1)


def _note_features(body: Body, *, choices: int, stream: bool) -> None:
    members, needs = body.members, body.meter.needs
    needs(common_pb2.FEATURE_STREAM, stream)
    needs(common_pb2.FEATURE_MULTIPLE_CHOICES, choices > 1)
    needs(common_pb2.FEATURE_SEED, "seed" in members)
    needs(common_pb2.FEATURE_STOP_SEQUENCES, members.get("stop"))
    needs(common_pb2.FEATURE_PENALTIES, members.get("presence_penalty") or members.get("frequency_penalty"))
    needs(common_pb2.FEATURE_PRESENCE_PENALTY, members.get("presence_penalty"))
    needs(common_pb2.FEATURE_LORA, any(members.get(name) for name in _LORA))
    needs(common_pb2.FEATURE_PRIORITY, members.get("priority"))
    needs(common_pb2.FEATURE_REASONING, members.get("reasoning_effort") or members.get("reasoning"))
    needs(common_pb2.FEATURE_OUTPUT_TOKEN_IDS, members.get("return_token_ids") or members.get("return_tokens"))
    needs(common_pb2.FEATURE_JSON_SCHEMA, any(members.get(name) for name in _GUIDED))
    response_format = as_object(members.get("response_format", {}), "response_format")
    needs(common_pb2.FEATURE_JSON_SCHEMA, response_format.get("type", "text") != "text")


def _count_message(meter: PromptMeter, value: object, path: str) -> None:
    message = as_object(value, path)
    role = as_choice(message.get("role"), f"{path}.role", ROLES)
    count_content(meter, message.get("content"), f"{path}.content", _count_part)
    rest = {name: item for name, item in message.items() if name not in ("role", "content") and item is not None}
    if rest:
        meter.rendered(rest)
    meter.needs(common_pb2.FEATURE_TOOLS, role in ("tool", "function") or "tool_calls" in rest)


def _count_part(meter: PromptMeter, part: dict[str, object], path: str) -> None:
    kind = as_text(part.get("type"), f"{path}.type")
    if kind == "image_url":
        meter.image()
    elif kind == "input_audio":
        # Base64 of a second of sound is always longer than the tokens that a model makes of it.
        meter.rendered(part)
        meter.needs(common_pb2.FEATURE_AUDIO, condition=True)
    elif kind in _TEXT_PARTS:
        meter.text(as_text(part.get(_TEXT_PARTS[kind]), f"{path}.{_TEXT_PARTS[kind]}"))
    else:
        raise unsupported(
            f"{path}.type", f"expected text, image_url or input_audio; the cost of {kind[:40]!r} has no bound"
        )


def _count_texts(meter: PromptMeter, value: object, path: str) -> int:
    """Counts a prompt or an input in any of its forms: text, token ids, or a list of either. Returns how many."""
    if isinstance(value, str):
        meter.text(value)
        return 1
    items = as_list(value, path)
    if not items:
        raise malformed(path, items, "at least one item")
    if _count_ids(meter, items, path):
        return 1
    for index, item in enumerate(items):
        if isinstance(item, str):
            meter.text(item)
        elif not isinstance(item, list) or not _count_ids(meter, item, f"{path}[{index}]"):
            raise malformed(f"{path}[{index}]", item, "a string or a list of token ids")
    return len(items)


def _count_ids(meter: PromptMeter, items: list[object], path: str) -> bool:
    """Counts a list of token ids, each one token; False when it does not begin with one."""
    if not items or not isinstance(items[0], int):
        return False
    if any(type(item) is not int or item < 0 or item > INT32_MAX for item in items):  # which one, if it is worth asking
        for index, item in enumerate(items):
            as_whole(item, f"{path}[{index}]", 0)
    meter.text_bytes += len(items)
    meter.features.add(common_pb2.FEATURE_TOKEN_IDS)
    return True
