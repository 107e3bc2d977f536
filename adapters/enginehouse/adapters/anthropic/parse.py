"""Requests in Anthropic's dialect, as canonical requests.

What has no canonical field is refused by name: dropping it would answer another question than the one that was asked.
"""

import base64
import binascii
import json

from enginehouse.adapters._fields import Fields, as_object, as_text, as_texts, malformed, missing, unsupported
from enginehouse.adapters._json import dumps, guarded, parse_object
from enginehouse.adapters.anthropic.inspection import ROLES
from enginehouse.adapters.calls import GenerateCall
from enginehouse.adapters.canonical import check_count_tokens, check_generate
from enginehouse.adapters.hints import hints_from_member
from enginehouse.adapters.splices import HINTS_MEMBER
from enginehouse.contract import RequestError
from enginehouse.v1 import inference_pb2

# They change where or how fast an answer is made, and nothing in it. Engines cache prefixes by themselves.
IGNORED = ("cache_control", "service_tier")
# A count of tokens depends on these in Anthropic's own models alone.
IGNORED_IN_COUNTS = ("output_config", "thinking", "tool_choice")
_MODEL = "the name of a model"
_MODE = inference_pb2.ToolChoice
_TOOL_MODES = {
    "auto": _MODE.MODE_AUTO,
    "any": _MODE.MODE_REQUIRED,
    "tool": _MODE.MODE_NAMED,
    "none": _MODE.MODE_NONE,
}
_ROLES = {
    "user": inference_pb2.ROLE_USER,
    "assistant": inference_pb2.ROLE_ASSISTANT,
    "system": inference_pb2.ROLE_SYSTEM,
}


def parse_messages(body: bytes) -> GenerateCall:
    """The body of `/v1/messages`.

    A conversation that ends with the assistant's words asks to go on from them, in Anthropic's dialect as in ours.

    Raises:
        RequestError: MALFORMED_REQUEST, UNKNOWN_HINT or UNSUPPORTED_FIELD; the message names the member.
    """
    return guarded(lambda: _parse_messages(Fields(parse_object(body).members)))


def parse_count_tokens(body: bytes) -> inference_pb2.CountTokensRequest:
    """The body of `/v1/messages/count_tokens`.

    Raises:
        RequestError: as `parse_messages`.
    """
    return guarded(lambda: _parse_count_tokens(Fields(parse_object(body).members)))


def _parse_messages(fields: Fields) -> GenerateCall:
    request = inference_pb2.GenerateRequest(model=fields.required_text("model", _MODEL))
    _read_conversation(fields, request.conversation)
    request.tools.extend(_tool(item, f"tools[{i}]") for i, item in enumerate(fields.items("tools") or ()))
    _read_tool_choice(fields, request.tool_choice)
    _read_sampling(fields, request.sampling)
    _read_output(fields, request.response_format)
    _read_thinking(fields, request)
    metadata = Fields(fields.members("metadata") or {}, "metadata")
    request.user = metadata.text("user_id") or ""
    metadata.finish()
    hints = fields.take(HINTS_MEMBER)
    if hints is not None:
        request.hints.CopyFrom(hints_from_member(hints))
    stream = fields.flag("stream") or False
    fields.refuse_unless("inference_geo", [], f"say where with {HINTS_MEMBER}.residency")
    fields.ignore(IGNORED)
    fields.finish()
    check_generate(request)
    return GenerateCall(request, stream, include_usage=True)


def _parse_count_tokens(fields: Fields) -> inference_pb2.CountTokensRequest:
    request = inference_pb2.CountTokensRequest(model=fields.required_text("model", _MODEL))
    _read_conversation(fields, request.conversation)
    request.tools.extend(_tool(item, f"tools[{i}]") for i, item in enumerate(fields.items("tools") or ()))
    hints = fields.take(HINTS_MEMBER)
    if hints is not None:
        request.hints.CopyFrom(hints_from_member(hints))
    fields.ignore((*IGNORED, *IGNORED_IN_COUNTS))
    fields.finish()
    check_count_tokens(request)
    return request


def _read_sampling(fields: Fields, sampling: inference_pb2.Sampling) -> None:
    limit = fields.whole("max_tokens", 1)
    if limit is None:
        raise missing("max_tokens", "a whole number above 0")
    sampling.max_output_tokens = limit
    for name in ("temperature", "top_p"):
        number = fields.number(name)
        if number is not None:
            setattr(sampling, name, number)
    top_k = fields.whole("top_k", 0)
    if top_k is not None:
        sampling.top_k = top_k
    sampling.stop.extend(as_texts(fields.take("stop_sequences") or [], "stop_sequences"))


def _read_conversation(fields: Fields, conversation: inference_pb2.Conversation) -> None:
    system = fields.take("system")
    if system is not None:
        message = conversation.messages.add(role=inference_pb2.ROLE_SYSTEM)
        for block in _blocks(system, "system"):
            _read_text_block(block, message)
    messages = fields.items("messages")
    if not messages:
        raise missing("messages", "at least one message")
    for index, item in enumerate(messages):
        _read_turn(Fields.of(item, f"messages[{index}]"), conversation)


def _blocks(content: object, path: str) -> list[Fields]:
    if isinstance(content, str):
        return [Fields({"type": "text", "text": content}, path)]
    if not isinstance(content, list):
        raise malformed(path, content, "a string or a list of blocks")
    return [Fields.of(item, f"{path}[{index}]") for index, item in enumerate(content)]


def _read_turn(fields: Fields, conversation: inference_pb2.Conversation) -> None:
    role = fields.choice("role", ROLES)
    if role is None:
        raise missing(fields.path("role"), f"one of {', '.join(ROLES)}")
    blocks = _blocks(fields.take("content"), fields.path("content"))
    fields.finish()
    for block in blocks:
        kind = block.text("type")
        if kind == "tool_result" and role == "user":
            _read_tool_result(block, conversation.messages.add(role=inference_pb2.ROLE_TOOL))
        elif kind == "tool_use" and role == "assistant":
            _read_tool_use(block, _message(conversation, role))
        elif kind == "thinking" and role == "assistant":
            _message(conversation, role).parts.add(reasoning=as_text(block.take("thinking"), block.path("thinking")))
            block.ignore(["signature"])  # ours are empty, and other models' cannot be checked
            block.finish()
        elif kind == "image" and role != "system":
            _read_image(block, _message(conversation, role))
        elif kind == "text":
            _read_text_block(block, _message(conversation, role))
        else:
            raise unsupported(block.path("type"), f"a block of this type cannot be translated in a turn of the {role}")
    if not blocks:
        _message(conversation, role)


def _message(conversation: inference_pb2.Conversation, role: str) -> inference_pb2.Message:
    """The message to add to: Anthropic joins turns of one role that follow each other."""
    if conversation.messages and conversation.messages[-1].role == _ROLES[role] != inference_pb2.ROLE_SYSTEM:
        return conversation.messages[-1]
    return conversation.messages.add(role=_ROLES[role])


def _read_text_block(block: Fields, message: inference_pb2.Message) -> None:
    block.refuse_unless("type", ["text"], "text is expected here")
    message.parts.add(text=as_text(block.take("text"), block.path("text")))
    block.refuse_unless("citations", [[]], "sources are not cited by engines here")
    block.ignore(IGNORED)
    block.finish()


def _read_image(block: Fields, message: inference_pb2.Message) -> None:
    source = Fields(block.members("source") or {}, block.path("source"))
    kind = source.choice("type", ["base64", "url", "file"])
    if kind == "url":
        image = inference_pb2.Image(url=source.required_text("url", "a URL"))
    elif kind == "base64":
        media_type = source.required_text("media_type", "like image/png")
        try:
            data = base64.b64decode(source.required_text("data", "base64"), validate=True)
        except binascii.Error:
            raise RequestError(f"{source.path('data')} is not base64") from None
        image = inference_pb2.Image(data=data, media_type=media_type)
    else:
        raise unsupported(source.path("type"), "send the image as base64 or by URL")
    source.finish()
    message.parts.add(image=image)
    block.refuse_unless("transformations", [{}], "images reach engines as they are")
    block.ignore(IGNORED)
    block.finish()


def _read_tool_use(block: Fields, message: inference_pb2.Message) -> None:
    arguments = as_object(block.take("input") or {}, block.path("input"))
    message.tool_calls.add(
        id=block.required_text("id", "the id of the call"),
        name=block.required_text("name", "the name of a tool"),
        arguments=json.dumps(arguments, ensure_ascii=False),
        index=len(message.tool_calls),
    )
    block.refuse_unless("caller", [{"type": "direct"}], "only the model itself calls tools here")
    block.ignore(IGNORED)
    block.finish()


def _read_tool_result(block: Fields, message: inference_pb2.Message) -> None:
    message.tool_call_id = block.required_text("tool_use_id", "the id of the call that this answers")
    message.is_error = block.flag("is_error") or False
    content = block.take("content")
    for item in _blocks("" if content is None else content, block.path("content")):
        kind = item.text("type")
        if kind == "image":
            _read_image(item, message)
        elif kind == "text":
            _read_text_block(item, message)
        else:
            raise unsupported(item.path("type"), "a tool's result can be text and images")
    block.ignore(IGNORED)
    block.finish()


def _tool(value: object, path: str) -> inference_pb2.Tool:
    fields = Fields.of(value, path)
    fields.refuse_unless("type", ["custom"], "only tools with an input_schema of your own can be offered")
    tool = inference_pb2.Tool(
        name=fields.required_text("name", "the name of the tool"), description=fields.text("description") or ""
    )
    schema = fields.members("input_schema")
    if schema is None:
        raise missing(fields.path("input_schema"), "a JSON Schema")
    tool.parameters = dumps(schema).decode()
    tool.strict = fields.flag("strict") or False
    fields.refuse_unless("defer_loading", [False], "every tool is shown to the model")
    fields.refuse_unless("allowed_callers", [["direct"]], "only the model itself calls tools here")
    fields.ignore((*IGNORED, "eager_input_streaming"))
    fields.finish()
    return tool


def _read_tool_choice(fields: Fields, choice: inference_pb2.ToolChoice) -> None:
    value = fields.members("tool_choice")
    if value is None:
        return
    wanted = Fields(value, "tool_choice")
    kind = wanted.choice("type", list(_TOOL_MODES))
    if kind is None:
        raise missing("tool_choice.type", f"one of {', '.join(_TOOL_MODES)}")
    choice.mode = _TOOL_MODES[kind]
    if kind == "tool":
        choice.name = wanted.required_text("name", "the name of a tool")
    choice.disable_parallel = wanted.flag("disable_parallel_tool_use") or False
    wanted.finish()


def _read_output(fields: Fields, response_format: inference_pb2.ResponseFormat) -> None:
    output = Fields(fields.members("output_config") or {}, "output_config")
    wanted = output.members("format")
    if wanted is not None:
        described = Fields(wanted, "output_config.format")
        described.refuse_unless("type", ["json_schema"], "a format is a JSON Schema here")
        schema = described.members("schema")
        if schema is None:
            raise missing("output_config.format.schema", "a JSON Schema")
        response_format.json_schema.schema = dumps(schema).decode()
        response_format.json_schema.strict = True  # Anthropic's formats always bind
        described.finish()
    output.finish()


def _read_thinking(fields: Fields, request: inference_pb2.GenerateRequest) -> None:
    """A budget for thinking; "disabled" and "adaptive" leave the model to think as it does."""
    thinking = Fields(fields.members("thinking") or {}, "thinking")
    kind = thinking.choice("type", ["enabled", "disabled", "adaptive"])
    if kind == "enabled":
        budget = thinking.whole("budget_tokens", 1)
        if budget is None:
            raise missing("thinking.budget_tokens", "a whole number above 0")
        request.reasoning.budget_tokens = budget
    thinking.refuse_unless("display", ["summarized"], "thinking is shown as the engine writes it")
    thinking.finish()
