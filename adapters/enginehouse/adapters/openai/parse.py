"""Requests in OpenAI's dialect, as canonical requests.

What has no canonical field is refused by name: dropping it would answer another question than the one that was asked.
"""

import base64
import binascii

from enginehouse.adapters._fields import (
    INT32_MAX,
    Fields,
    as_list,
    as_object,
    as_text,
    as_texts,
    as_whole,
    malformed,
    missing,
    unsupported,
)
from enginehouse.adapters._json import dumps, guarded, parse_object
from enginehouse.adapters.calls import EmbedCall, EmbeddingEncoding, GenerateCall, RerankCall
from enginehouse.adapters.canonical import CHOICES_MAX, check_embed, check_generate, check_rerank
from enginehouse.adapters.hints import hints_from_member
from enginehouse.adapters.splices import HINTS_MEMBER, OUTPUT_LIMIT_MEMBERS
from enginehouse.contract import RequestError
from enginehouse.v1 import inference_pb2

_MODEL = "the name of a model"
_NO_CANONICAL = "no engine here can be asked for it; leave it out"
# They change where or how fast an answer is made, or how its bytes are padded, and nothing in it.
_IGNORED = (
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
)
_ROLES = {
    "system": inference_pb2.ROLE_SYSTEM,
    "developer": inference_pb2.ROLE_SYSTEM,
    "user": inference_pb2.ROLE_USER,
    "assistant": inference_pb2.ROLE_ASSISTANT,
    "tool": inference_pb2.ROLE_TOOL,
}
_MODE = inference_pb2.ToolChoice
_TOOL_MODES = {"auto": _MODE.MODE_AUTO, "none": _MODE.MODE_NONE, "required": _MODE.MODE_REQUIRED}
_EFFORT = inference_pb2.Reasoning
_EFFORTS = {
    "none": _EFFORT.EFFORT_NONE,
    "low": _EFFORT.EFFORT_LOW,
    "medium": _EFFORT.EFFORT_MEDIUM,
    "high": _EFFORT.EFFORT_HIGH,
}
_DATA_URL = "data:"


def parse_chat(body: bytes) -> GenerateCall:
    """The body of `/v1/chat/completions`.

    Raises:
        RequestError: MALFORMED_REQUEST, UNKNOWN_HINT or UNSUPPORTED_FIELD; the message names the member.
    """
    return guarded(lambda: _parse_chat(Fields(parse_object(body).members)))


def parse_completion(body: bytes) -> GenerateCall:
    """The body of `/v1/completions`, with one prompt of text.

    Raises:
        RequestError: as `parse_chat`.
    """
    return guarded(lambda: _parse_completion(Fields(parse_object(body).members)))


def parse_embedding(body: bytes) -> EmbedCall:
    """The body of `/v1/embeddings`, with texts.

    Raises:
        RequestError: as `parse_chat`.
    """
    return guarded(lambda: _parse_embedding(Fields(parse_object(body).members)))


def parse_rerank(body: bytes) -> RerankCall:
    """The body of `/v1/rerank`.

    Raises:
        RequestError: as `parse_chat`.
    """
    return guarded(lambda: _parse_rerank(Fields(parse_object(body).members)))


def _parse_chat(fields: Fields) -> GenerateCall:
    request = inference_pb2.GenerateRequest(model=fields.required_text("model", _MODEL))
    messages = fields.items("messages")
    if not messages:
        raise missing("messages", "at least one message")
    request.conversation.messages.extend(_message(item, f"messages[{i}]") for i, item in enumerate(messages))
    request.tools.extend(_tool(item, f"tools[{i}]") for i, item in enumerate(fields.items("tools") or ()))
    _read_tool_choice(fields, request.tool_choice)
    _read_response_format(fields, request.response_format)
    if fields.flag("logprobs"):
        request.sampling.top_logprobs = fields.whole("top_logprobs", 0) or 0
    effort = fields.choice("reasoning_effort", list(_EFFORTS))
    if effort is not None:
        request.reasoning.effort = _EFFORTS[effort]
    fields.refuse_unless("modalities", [["text"]], "this door answers in text")
    return _finished(fields, request)


def _parse_completion(fields: Fields) -> GenerateCall:
    request = inference_pb2.GenerateRequest(model=fields.required_text("model", _MODEL))
    _read_prompt(fields.take("prompt"), request)
    alternatives = fields.whole("logprobs", 0)
    if alternatives is not None:
        request.sampling.top_logprobs = alternatives
    fields.refuse_unless("best_of", [1], _NO_CANONICAL)
    fields.refuse_unless("echo", [False], _NO_CANONICAL)
    fields.refuse_unless("suffix", [""], _NO_CANONICAL)
    return _finished(fields, request)


def _read_prompt(prompt: object, request: inference_pb2.GenerateRequest) -> None:
    """One prompt, of text or of token ids; it may be the only one of a list."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if not isinstance(prompt, list):
        request.prompt = as_text(prompt, "prompt")
    elif all(type(item) is int for item in prompt):
        request.prompt_tokens.ids.extend(as_whole(item, f"prompt[{i}]", 0) for i, item in enumerate(prompt))
    else:
        raise unsupported("prompt", "one prompt is expected here, of text or of token ids")


def _parse_embedding(fields: Fields) -> EmbedCall:
    request = inference_pb2.EmbedRequest(model=fields.required_text("model", _MODEL))
    given = fields.take("input")
    if isinstance(given, list) and given and not isinstance(given[0], str):
        raise unsupported("input", "text is expected here, not token ids")
    request.input.extend([given] if isinstance(given, str) else as_texts(given or [], "input"))
    dimensions = fields.whole("dimensions", 1)
    if dimensions is not None:
        request.dimensions = dimensions
    request.user = fields.text("user") or ""
    encoding = fields.choice("encoding_format", [item.value for item in EmbeddingEncoding])
    hints = fields.take(HINTS_MEMBER)
    if hints is not None:
        request.hints.CopyFrom(hints_from_member(hints))
    fields.ignore(_IGNORED)
    fields.finish()
    check_embed(request)
    return EmbedCall(request, EmbeddingEncoding(encoding or EmbeddingEncoding.FLOAT.value))


def _parse_rerank(fields: Fields) -> RerankCall:
    request = inference_pb2.RerankRequest(model=fields.required_text("model", _MODEL))
    request.query = fields.required_text("query", "a text")
    for index, item in enumerate(fields.items("documents") or ()):
        path = f"documents[{index}]"
        text = item if isinstance(item, str) else as_object(item, path).get("text")
        request.documents.append(as_text(text, path))
    request.top_n = fields.whole("top_n", 1) or 0
    return_documents = fields.flag("return_documents") or False
    hints = fields.take(HINTS_MEMBER)
    if hints is not None:
        request.hints.CopyFrom(hints_from_member(hints))
    fields.finish()
    check_rerank(request)
    return RerankCall(request, return_documents)


def _finished(fields: Fields, request: inference_pb2.GenerateRequest) -> GenerateCall:
    """Reads what chats and completions share, and refuses the rest."""
    _read_sampling(fields, request.sampling)
    request.user = fields.text("user") or ""
    request.lora = fields.text("lora") or ""
    request.priority = fields.whole("priority", -INT32_MAX) or 0
    request.return_token_ids = fields.flag("return_token_ids") or False
    for name, value in (fields.members("metadata") or {}).items():
        request.metadata[name] = as_text(value, f"metadata.{name[:40]}")
    hints = fields.take(HINTS_MEMBER)
    if hints is not None:
        request.hints.CopyFrom(hints_from_member(hints))
    stream = fields.flag("stream") or False
    options = Fields(fields.members("stream_options") or {}, "stream_options")
    include_usage = options.flag("include_usage") or False
    options.ignore(["include_obfuscation"])
    options.finish()
    fields.refuse_unless("store", [False], "answers are not stored")
    fields.refuse_unless("logit_bias", [{}], _NO_CANONICAL)
    fields.ignore(_IGNORED)
    fields.finish()
    check_generate(request)
    return GenerateCall(request, stream, include_usage)


def _read_sampling(fields: Fields, sampling: inference_pb2.Sampling) -> None:
    limits = [limit for name in OUTPUT_LIMIT_MEMBERS if (limit := fields.whole(name, 1)) is not None]
    if limits:
        sampling.max_output_tokens = min(limits)
    for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty"):
        number = fields.number(name)
        if number is not None:
            setattr(sampling, name, number)
    top_k, seed = fields.whole("top_k", -1), fields.whole("seed", -(2**63), 2**63 - 1)
    if top_k is not None:
        sampling.top_k = top_k
    if seed is not None:
        sampling.seed = seed
    sampling.choices = fields.whole("n", 1, CHOICES_MAX) or 0
    stop = fields.take("stop")
    if stop is not None:
        sampling.stop.extend([stop] if isinstance(stop, str) else as_texts(stop, "stop"))


def _message(value: object, path: str) -> inference_pb2.Message:
    fields = Fields.of(value, path)
    role = fields.choice("role", list(_ROLES))
    if role is None:
        raise missing(f"{path}.role", f"one of {', '.join(_ROLES)}")
    message = inference_pb2.Message(role=_ROLES[role], name=fields.text("name") or "")
    for name in ("reasoning_content", "reasoning"):
        if reasoning := fields.text(name):
            message.parts.add(reasoning=reasoning)
    _read_content(fields.take("content"), message, f"{path}.content")
    if refusal := fields.text("refusal"):
        message.parts.add(text=refusal)
    if role == "assistant":
        calls = fields.items("tool_calls") or ()
        message.tool_calls.extend(_tool_call(item, index, path) for index, item in enumerate(calls))
    if role == "tool":
        message.tool_call_id = fields.required_text("tool_call_id", "the id of the call that this message answers")
    fields.finish()
    return message


def _read_content(content: object, message: inference_pb2.Message, path: str) -> None:
    if content is None:
        return
    if isinstance(content, str):
        message.parts.add(text=content)
        return
    for index, item in enumerate(as_list(content, path)):
        _read_part(Fields.of(item, f"{path}[{index}]"), message)


def _read_part(fields: Fields, message: inference_pb2.Message) -> None:
    kind = fields.choice("type", ["text", "refusal", "image_url", "input_audio", "file"])
    match kind:
        case "text" | "refusal":
            message.parts.add(text=as_text(fields.take(kind), fields.path(kind)))
        case "image_url":
            image = Fields(fields.members("image_url") or {}, fields.path("image_url"))
            message.parts.add(image=_image(image.required_text("url", "a URL"), image.path("url")))
            image.ignore(["detail"])  # no engine behind this door looks at it
            image.finish()
        case None:
            raise missing(fields.path("type"), "text or image_url")
        case _:
            raise unsupported(fields.path("type"), f"{kind} cannot be translated; send text or images")
    fields.ignore(["prompt_cache_breakpoint"])
    fields.finish()


def _image(url: str, path: str) -> inference_pb2.Image:
    if not url.startswith(_DATA_URL):
        return inference_pb2.Image(url=url)
    head, comma, data = url.removeprefix(_DATA_URL).partition(",")
    media_type, _, encoding = head.partition(";")
    if not comma or encoding != "base64" or not media_type:
        raise RequestError(f"{path} is a data URL of another form than data:<type>;base64,<data>")
    try:
        return inference_pb2.Image(data=base64.b64decode(data, validate=True), media_type=media_type)
    except binascii.Error:
        raise RequestError(f"{path} holds data that is not base64") from None


def _tool_call(value: object, index: int, path: str) -> inference_pb2.ToolCall:
    fields = Fields.of(value, f"{path}.tool_calls[{index}]")
    fields.refuse_unless("type", ["function"], "only functions can be called")
    function = Fields(fields.members("function") or {}, fields.path("function"))
    call = inference_pb2.ToolCall(
        id=fields.required_text("id", "the id of the call"),
        name=function.required_text("name", "the name of a tool"),
        arguments=function.text("arguments") or "",
        index=index,
    )
    function.finish()
    fields.finish()
    return call


def _tool(value: object, path: str) -> inference_pb2.Tool:
    fields = Fields.of(value, path)
    fields.refuse_unless("type", ["function"], "only functions can be offered")
    function = Fields(fields.members("function") or {}, fields.path("function"))
    tool = inference_pb2.Tool(
        name=function.required_text("name", "the name of a tool"), description=function.text("description") or ""
    )
    parameters = function.members("parameters")
    if parameters is not None:
        tool.parameters = dumps(parameters).decode()
    tool.strict = function.flag("strict") or False
    function.finish()
    fields.finish()
    return tool


def _read_tool_choice(fields: Fields, choice: inference_pb2.ToolChoice) -> None:
    value = fields.take("tool_choice")
    if isinstance(value, str):
        if value not in _TOOL_MODES:
            raise malformed("tool_choice", value, f"one of {', '.join(_TOOL_MODES)}, or a function")
        choice.mode = _TOOL_MODES[value]
    elif value is not None:
        named = Fields.of(value, "tool_choice")
        named.refuse_unless("type", ["function"], "only a function can be named")
        function = Fields(named.members("function") or {}, "tool_choice.function")
        choice.mode, choice.name = _MODE.MODE_NAMED, function.required_text("name", "the name of a tool")
        function.finish()
        named.finish()
    if fields.flag("parallel_tool_calls") is False:
        choice.disable_parallel = True


def _read_response_format(fields: Fields, response_format: inference_pb2.ResponseFormat) -> None:
    wanted = Fields(fields.members("response_format") or {}, "response_format")
    kind = wanted.choice("type", ["text", "json_object", "json_schema"])
    if kind == "json_object":
        response_format.json_object = True
    if kind == "json_schema":
        described = Fields(wanted.members("json_schema") or {}, "response_format.json_schema")
        schema = described.members("schema")
        if schema is None:
            raise missing("response_format.json_schema.schema", "a JSON Schema")
        read = response_format.json_schema
        read.name, read.description = described.text("name") or "", described.text("description") or ""
        read.schema = dumps(schema).decode()
        read.strict = described.flag("strict") or False
        described.finish()
    wanted.finish()
