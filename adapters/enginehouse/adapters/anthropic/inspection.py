"""What a router must know of an Anthropic request."""

from collections.abc import Mapping

from enginehouse.adapters._body import Body, count_content
from enginehouse.adapters._fields import as_choice, as_list, as_object, as_text, malformed, missing, unsupported
from enginehouse.adapters._json import guarded
from enginehouse.adapters._meter import PromptMeter
from enginehouse.adapters.inspection import Inspection
from enginehouse.adapters.splices import HINTS_MEMBER
from enginehouse.contract import InternalError
from enginehouse.v1 import common_pb2

ROLES = ("user", "assistant", "system")

# Known to reach the engine and never the model's context. Any other member counts as text.
_NOT_PROMPT = frozenset(
    {
        "cache_control", "max_tokens", "messages", "metadata", "model", "service_tier", "stop_sequences", "stream",
        "system", "temperature", "thinking", "top_k", "top_p", HINTS_MEMBER,
    }
)  # fmt: skip


def inspect(
    operation: common_pb2.Operation.ValueType, body: bytes, headers: Mapping[str, str] | None = None
) -> Inspection:
    """Looks at the JSON body of an Anthropic request.

    Args:
        operation: CHAT or COUNT_TOKENS.
        body: as received, decompressed.
        headers: names in lower case; hints are taken from them.

    Raises:
        RequestError: MALFORMED_REQUEST, UNKNOWN_HINT or UNSUPPORTED_FIELD; the message names the member.
    """
    if operation not in (common_pb2.OPERATION_CHAT, common_pb2.OPERATION_COUNT_TOKENS):
        raise InternalError(f"Anthropic has no {common_pb2.Operation.Name(operation)}")
    return guarded(lambda: _inspect(operation, Body(body, headers or {})))


def _inspect(operation: common_pb2.Operation.ValueType, body: Body) -> Inspection:
    model, meter, members = body.model(), body.meter, body.members
    messages = as_list(body.required("messages", "a list of messages"), "messages")
    if not messages:
        raise malformed("messages", messages, "at least one message")
    count_content(meter, members.get("system"), "system", _count_block)
    for index, message in enumerate(messages):
        _count_message(meter, message, f"messages[{index}]")
    body.count_rest(_NOT_PROMPT)
    stream = body.flag("stream")
    _note_features(operation, body, stream=stream)
    limit = body.whole("max_tokens", 1)
    if limit is None and operation == common_pb2.OPERATION_CHAT:
        raise missing("max_tokens", "a whole number above 0")
    return Inspection(
        dialect=common_pb2.DIALECT_ANTHROPIC,
        operation=operation,
        model=model,
        stream=stream,
        features=frozenset(meter.features),
        prompt_text_bytes=meter.text_bytes,
        message_count=len(messages) + ("system" in members),
        image_count=meter.image_count,
        output_tokens_max=limit,
        hints=body.hints,
        layout=body.layout,
        prompt_beginning=bytes(meter.beginning),
    )


def _note_features(operation: common_pb2.Operation.ValueType, body: Body, *, stream: bool) -> None:
    members, needs = body.members, body.meter.needs
    needs(common_pb2.FEATURE_STREAM, stream)
    needs(common_pb2.FEATURE_TOOLS, as_list(members.get("tools", []), "tools"))
    needs(common_pb2.FEATURE_STOP_SEQUENCES, members.get("stop_sequences"))
    thinking = as_object(members.get("thinking", {}), "thinking")
    output = as_object(members.get("output_config", {}), "output_config")
    if operation == common_pb2.OPERATION_COUNT_TOKENS:  # which generates nothing that these could change
        return
    needs(common_pb2.FEATURE_REASONING, thinking.get("type", "disabled") not in ("disabled", "adaptive"))
    needs(common_pb2.FEATURE_JSON_SCHEMA, output.get("format"))


def _count_message(meter: PromptMeter, value: object, path: str) -> None:
    message = as_object(value, path)
    as_choice(message.get("role"), f"{path}.role", ROLES)
    count_content(meter, message.get("content"), f"{path}.content", _count_block)
    if rest := {name: item for name, item in message.items() if name not in ("role", "content")}:
        meter.rendered(rest)


def _count_block(meter: PromptMeter, block: dict[str, object], path: str) -> None:
    kind = as_text(block.get("type"), f"{path}.type")
    counted = {"type", "cache_control"}
    match kind:
        case "text":
            meter.text(as_text(block.get("text"), f"{path}.text"))
            counted.add("text")
        case "image":
            meter.image()
            counted.add("source")
        case "thinking":
            meter.text(as_text(block.get("thinking"), f"{path}.thinking"))
            counted |= {"thinking", "signature"}
        case "tool_use":
            meter.needs(common_pb2.FEATURE_TOOLS, condition=True)
        case "tool_result":
            meter.needs(common_pb2.FEATURE_TOOLS, condition=True)
            count_content(meter, block.get("content"), f"{path}.content", _count_block)
            counted.add("content")
        case _:
            advice = f"expected text, image, thinking, tool_use or tool_result; the cost of {kind[:40]!r} has no bound"
            raise unsupported(f"{path}.type", advice)
    if rest := {name: item for name, item in block.items() if name not in counted}:
        meter.rendered(rest)
