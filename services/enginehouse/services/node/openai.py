"""OpenAIService: OpenAI's own bytes, passed on to an engine that speaks them, and translated for any other."""

import json
from collections.abc import AsyncIterator
from typing import TypeAlias

from enginehouse.adapters import Inspection, openai
from enginehouse.adapters.http import error_from_answer
from enginehouse.adapters.splices import add_members, apply, cap_output, combine, remove_hints, set_model
from enginehouse.services.node.calls import Call, Calls, initial_metadata
from enginehouse.services.node.rest import JSON, NEXT_MAY_SERVE, Context, HttpBody, in_dialect
from enginehouse.services.node.translated import translated
from enginehouse.v1 import common_pb2, node_pb2, openai_pb2_grpc

_ERROR_STATUS_MIN = 400
_GENERATING = frozenset({common_pb2.OPERATION_CHAT, common_pb2.OPERATION_COMPLETION})
_Operation: TypeAlias = common_pb2.Operation.ValueType


class OpenAIServicer(openai_pb2_grpc.OpenAIServiceServicer):
    """See protos/enginehouse/v1/openai.proto."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def CreateChatCompletion(self, request: HttpBody, context: Context) -> AsyncIterator[HttpBody]:  # noqa: N802
        """POST /v1/chat/completions."""
        async for body in self._forwarded("/v1/chat/completions", common_pb2.OPERATION_CHAT, request, context):
            yield body

    async def CreateCompletion(self, request: HttpBody, context: Context) -> AsyncIterator[HttpBody]:  # noqa: N802
        """POST /v1/completions."""
        async for body in self._forwarded("/v1/completions", common_pb2.OPERATION_COMPLETION, request, context):
            yield body

    async def CreateEmbedding(self, request: HttpBody, context: Context) -> AsyncIterator[HttpBody]:  # noqa: N802
        """POST /v1/embeddings."""
        async for body in self._forwarded("/v1/embeddings", common_pb2.OPERATION_EMBEDDING, request, context):
            yield body

    async def CreateRerank(self, request: HttpBody, context: Context) -> AsyncIterator[HttpBody]:  # noqa: N802
        """POST /v1/rerank."""
        async for body in self._forwarded("/v1/rerank", common_pb2.OPERATION_RERANK, request, context):
            yield body

    async def _forwarded(
        self, path: str, operation: _Operation, request: HttpBody, context: Context
    ) -> AsyncIterator[HttpBody]:
        answer = self._answer(path, operation, request, context)
        async for body in in_dialect(common_pb2.DIALECT_OPENAI, answer, context):
            yield body

    async def _answer(
        self, path: str, operation: _Operation, request: HttpBody, context: Context
    ) -> AsyncIterator[HttpBody]:
        async with self._calls.call(context) as call:
            inspection = openai.inspect(operation, request.data, {})
            engine = call.client
            if (
                isinstance(engine, openai.OpenAIEngine)
                and engine.can_forward
                and not _has_own_members(inspection, request.data)
            ):
                bodies = _passed_on(engine, path, inspection, request.data, call, context)
            else:
                bodies = translated(operation, request.data, call)
            async for body in bodies:
                yield body


async def _passed_on(
    engine: openai.OpenAIEngine, path: str, inspection: Inspection, received: bytes, call: Call, context: Context
) -> AsyncIterator[HttpBody]:
    body = _rewritten(inspection, received, call, engine)
    wants_usage = inspection.stream_options.get("include_usage", False)
    with call.unknown_usage():
        answer = await engine.forward(
            path,
            body,
            call.headers,
            choices=_choices(inspection),
            usage_frame=openai.UsageFrame.PASSED if wants_usage else openai.UsageFrame.KEPT_BACK,
        )
    headers = dict(answer.headers)
    if answer.status in NEXT_MAY_SERVE:
        answer.close()
        call.usage = common_pb2.Usage(method=common_pb2.USAGE_METHOD_NONE)
        raise error_from_answer(call.replica.engine, answer.status, None)
    if answer.status >= _ERROR_STATUS_MIN:
        await context.send_initial_metadata(initial_metadata(answer.status, answer.headers))
    try:
        async for chunk in answer.chunks():
            call.sends()
            yield HttpBody(content_type=headers.get("content-type", JSON), data=chunk)
    finally:
        call.usage, call.is_whole = answer.usage, answer.is_whole


def _has_own_members(inspection: Inspection, body: bytes) -> bool:
    """Whether the body names a LoRA adapter in our way, which every engine has another word for."""
    named = inspection.layout.find("lora") if inspection.layout is not None else None
    return named is not None and body[named.value_start : named.value_start + 1] == b'"'


def _choices(inspection: Inspection) -> int:
    """How many choices a whole stream shows at least; with `best_of` more are generated than shown."""
    hides_some = inspection.layout is not None and inspection.layout.find("best_of") is not None
    return 1 if hides_some else inspection.choices


def _rewritten(inspection: Inspection, body: bytes, call: Call, engine: openai.OpenAIEngine) -> bytes:
    """The body with the served name, the output bound and running usage; without our own member."""
    layout = inspection.layout
    if layout is None:
        return body
    groups = [remove_hints(layout), set_model(layout, call.attempt.served_model)]
    if inspection.operation in _GENERATING:
        groups.append(cap_output(layout, call.ticket.output_tokens_max))
        if inspection.stream:
            groups.append(add_members(layout, _usage_members(engine, call.replica.capabilities)))
    return apply(body, combine(*groups))


def _usage_members(engine: openai.OpenAIEngine, capabilities: node_pb2.Capabilities) -> str:
    """What makes a stream tell its usage: while it runs, as its kind of engine says, and at its end."""
    at_end: dict[str, object] = json.loads(f"{{{engine.stream_members}}}")
    running: dict[str, object] = json.loads(f"{{{capabilities.stream_usage_members}}}")
    return json.dumps(at_end | running)[1:-1]
