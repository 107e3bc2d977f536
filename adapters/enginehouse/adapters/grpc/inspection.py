"""What a router must know of a gRPC request."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from enginehouse.adapters._json import loads
from enginehouse.adapters._meter import PromptMeter
from enginehouse.adapters.canonical import (
    ERROR_MARK,
    check_count_tokens,
    check_embed,
    check_generate,
    check_rerank,
    features_of,
)
from enginehouse.adapters.grpc.frames import MESSAGE_BYTES_MAX, unframe
from enginehouse.adapters.hints import check_hints, combine_hints, hints_from_headers
from enginehouse.adapters.inspection import Inspection
from enginehouse.contract import InternalError, RequestError
from enginehouse.v1 import common_pb2, inference_pb2

_Request = TypeVar("_Request", bound=Message)


def inspect(
    operation: common_pb2.Operation.ValueType,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    bytes_max: int = MESSAGE_BYTES_MAX,
) -> Inspection:
    """Looks at the body of a call to `InferenceService`. Its layout is None: a message cannot be spliced.

    Args:
        operation: CHAT (`Generate`), EMBEDDING, RERANK or COUNT_TOKENS.
        body: one frame, compressed or not.
        headers: names in lower case; `grpc-encoding` and hints are taken from them.
        bytes_max: bytes of the decompressed message.

    Raises:
        RequestError: MALFORMED_REQUEST, UNSUPPORTED_FIELD, UNKNOWN_HINT or REQUEST_TOO_LARGE; the message names the
            field.
    """
    headers = headers or {}
    reader = _READERS.get(operation)
    if reader is None:
        raise InternalError(f"InferenceService has no {common_pb2.Operation.Name(operation)}")
    message = unframe(body, headers.get("grpc-encoding", "gzip"), bytes_max=bytes_max)
    return reader(message, hints_from_headers(headers))


def _parsed(kind: type[_Request], message: bytes) -> _Request:
    try:
        return kind.FromString(message)
    except DecodeError:
        raise RequestError(f"the message is not an {kind.DESCRIPTOR.full_name}") from None


def _inspect_generate(message: bytes, hints: common_pb2.Hints) -> Inspection:
    request = _parsed(inference_pb2.GenerateRequest, message)
    check_generate(request)
    meter, sampling = PromptMeter(), request.sampling
    _count_input(meter, request, request.tools)
    meter.text_bytes += len(request.prompt_tokens.ids)  # each is one token, and a byte of text is one at most
    if request.response_format.HasField("json_schema"):
        wanted = request.response_format.json_schema
        meter.text(wanted.name)
        meter.text(wanted.description)
        meter.rendered(loads(wanted.schema))
    meter.text(request.lora)
    if request.reasoning.effort:  # some templates tell the model
        meter.text(inference_pb2.Reasoning.Effort.Name(request.reasoning.effort))
    is_chat = request.HasField("conversation")
    return Inspection(
        dialect=common_pb2.DIALECT_GRPC,
        operation=common_pb2.OPERATION_CHAT if is_chat else common_pb2.OPERATION_COMPLETION,
        model=request.model,
        stream=True,
        features=features_of(request) | {common_pb2.FEATURE_STREAM},
        prompt_text_bytes=meter.text_bytes,
        message_count=len(request.conversation.messages),
        image_count=meter.image_count,
        output_tokens_max=sampling.max_output_tokens if sampling.HasField("max_output_tokens") else None,
        choices=max(1, sampling.choices),
        hints=combine_hints(check_hints(request.hints), hints),
        prompt_beginning=bytes(meter.beginning),
    )


def _inspect_embed(message: bytes, hints: common_pb2.Hints) -> Inspection:
    request = _parsed(inference_pb2.EmbedRequest, message)
    check_embed(request)
    meter = PromptMeter()
    for text in request.input:
        meter.text(text)
    meter.needs(common_pb2.FEATURE_EMBEDDING_DIMENSIONS, request.HasField("dimensions"))
    return Inspection(
        dialect=common_pb2.DIALECT_GRPC,
        operation=common_pb2.OPERATION_EMBEDDING,
        model=request.model,
        features=frozenset(meter.features),
        prompt_text_bytes=meter.text_bytes,
        input_count=len(request.input),
        hints=combine_hints(check_hints(request.hints), hints),
    )


def _inspect_rerank(message: bytes, hints: common_pb2.Hints) -> Inspection:
    request = _parsed(inference_pb2.RerankRequest, message)
    check_rerank(request)
    meter = PromptMeter()
    meter.text(request.query, times=len(request.documents))  # each document is read together with the query
    for document in request.documents:
        meter.text(document)
    return Inspection(
        dialect=common_pb2.DIALECT_GRPC,
        operation=common_pb2.OPERATION_RERANK,
        model=request.model,
        prompt_text_bytes=meter.text_bytes,
        input_count=len(request.documents),
        hints=combine_hints(check_hints(request.hints), hints),
    )


def _inspect_count_tokens(message: bytes, hints: common_pb2.Hints) -> Inspection:
    request = _parsed(inference_pb2.CountTokensRequest, message)
    check_count_tokens(request)
    meter = PromptMeter()
    _count_input(meter, request, request.tools)
    return Inspection(
        dialect=common_pb2.DIALECT_GRPC,
        operation=common_pb2.OPERATION_COUNT_TOKENS,
        model=request.model,
        features=frozenset(meter.features),
        prompt_text_bytes=meter.text_bytes,
        message_count=len(request.conversation.messages),
        image_count=meter.image_count,
        hints=combine_hints(check_hints(request.hints), hints),
    )


_READERS: Mapping[common_pb2.Operation.ValueType, Callable[[bytes, common_pb2.Hints], Inspection]] = {
    common_pb2.OPERATION_CHAT: _inspect_generate,
    common_pb2.OPERATION_EMBEDDING: _inspect_embed,
    common_pb2.OPERATION_RERANK: _inspect_rerank,
    common_pb2.OPERATION_COUNT_TOKENS: _inspect_count_tokens,
}


def _count_input(
    meter: PromptMeter,
    request: inference_pb2.GenerateRequest | inference_pb2.CountTokensRequest,
    tools: Iterable[inference_pb2.Tool],
) -> None:
    meter.text(request.prompt)
    for message in request.conversation.messages:
        _count_message(meter, message)
    for tool in tools:
        # Written to engines as OpenAI writes it, with this much around it.
        schema = loads(tool.parameters) if tool.parameters else {}
        function = {"name": tool.name, "description": tool.description, "parameters": schema, "strict": tool.strict}
        meter.rendered({"type": "function", "function": function})
        meter.needs(common_pb2.FEATURE_TOOLS, condition=True)


def _count_message(meter: PromptMeter, message: inference_pb2.Message) -> None:
    for part in message.parts:
        if part.HasField("image"):
            meter.image()
        else:
            meter.text(part.text or part.reasoning)
    meter.text(message.name)
    meter.text(message.tool_call_id)
    if message.is_error:
        meter.text(ERROR_MARK)
    for call in message.tool_calls:
        function = {"name": call.name, "arguments": call.arguments}
        meter.rendered({"id": call.id, "type": "function", "function": function})
    meter.needs(common_pb2.FEATURE_TOOLS, message.role == inference_pb2.ROLE_TOOL or message.tool_calls)
