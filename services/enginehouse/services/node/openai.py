"""OpenAIService: OpenAI's own bytes, passed on to an engine that speaks them."""

from collections.abc import AsyncIterator
from typing import TypeAlias

from enginehouse.adapters import Inspection, openai
from enginehouse.adapters.openai.failures import error_from_answer
from enginehouse.adapters.splices import add_members, apply, cap_output, combine, remove_hints, set_model
from enginehouse.contract import EngineError
from enginehouse.services.node.calls import Call, Calls, initial_metadata
from enginehouse.services.node.rest import NEXT_MAY_SERVE, Context, HttpBody, in_dialect
from enginehouse.v1 import common_pb2, openai_pb2_grpc

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
            body = _rewritten(inspection, request.data, call)
            call.usage = common_pb2.Usage(method=common_pb2.USAGE_METHOD_UPPER_BOUND)
            try:
                answer = await call.client.forward(path, body, call.headers, choices=_choices(inspection))
            except EngineError:  # the client is owed an answer, and owes nothing for none
                call.usage = common_pb2.Usage(method=common_pb2.USAGE_METHOD_NONE)
                raise
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
                    yield HttpBody(content_type=headers.get("content-type", "application/json"), data=chunk)
            finally:
                call.usage, call.is_whole = answer.usage, answer.is_whole


def _choices(inspection: Inspection) -> int:
    """How many choices a whole stream shows at least; with `best_of` more are generated than shown."""
    hides_some = inspection.layout is not None and inspection.layout.find("best_of") is not None
    return 1 if hides_some else inspection.choices


def _rewritten(inspection: Inspection, body: bytes, call: Call) -> bytes:
    """The body with the served name, the output bound and running usage; without our own member."""
    layout = inspection.layout
    if layout is None:
        return body
    groups = [remove_hints(layout), set_model(layout, call.attempt.served_model)]
    if inspection.operation in _GENERATING:
        groups.append(cap_output(layout, call.ticket.output_tokens_max))
        if inspection.stream and (members := call.replica.capabilities.stream_usage_members):
            groups.append(add_members(layout, members))
    return apply(body, combine(*groups))
