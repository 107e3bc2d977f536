"""AnthropicService: the Messages API, translated through the canonical request."""

from collections.abc import AsyncIterator
from uuid import uuid4

from enginehouse.adapters import anthropic
from enginehouse.adapters.collect import Collector
from enginehouse.adapters.engine import EngineGeneration
from enginehouse.adapters.head import AnswerHead
from enginehouse.services.node.calls import Call, Calls
from enginehouse.services.node.rest import EVENT_STREAM, JSON, Context, HttpBody, in_dialect
from enginehouse.v1 import anthropic_pb2_grpc, common_pb2


class AnthropicServicer(anthropic_pb2_grpc.AnthropicServiceServicer):
    """See protos/enginehouse/v1/anthropic.proto."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def CreateMessage(self, request: HttpBody, context: Context) -> AsyncIterator[HttpBody]:  # noqa: N802
        """POST /v1/messages."""
        answer = self._message(request, context)
        async for body in in_dialect(common_pb2.DIALECT_ANTHROPIC, answer, context):
            yield body

    async def CountMessageTokens(self, request: HttpBody, context: Context) -> AsyncIterator[HttpBody]:  # noqa: N802
        """POST /v1/messages/count_tokens."""
        answer = self._count(request, context)
        async for body in in_dialect(common_pb2.DIALECT_ANTHROPIC, answer, context):
            yield body

    async def _message(self, request: HttpBody, context: Context) -> AsyncIterator[HttpBody]:
        async with self._calls.call(context) as call:
            parsed = anthropic.parse_messages(request.data)
            generation = call.client.generate(
                parsed.request,
                served_model=call.attempt.served_model,
                output_tokens_max=call.ticket.output_tokens_max,
                generation_id=call.ticket.request_id,
                headers=call.headers,
            )
            head = AnswerHead(id=f"msg_{uuid4().hex}", model=call.ticket.requested_model)
            try:
                async with generation:
                    bodies = _stream(head, generation, call) if parsed.stream else _whole(head, generation, call)
                    async for body in bodies:
                        yield body
                call.is_whole = True
            finally:
                call.usage = generation.usage

    async def _count(self, request: HttpBody, context: Context) -> AsyncIterator[HttpBody]:
        async with self._calls.call(context) as call:
            parsed = anthropic.parse_count_tokens(request.data)
            answer = await call.client.count_tokens(
                parsed, served_model=call.attempt.served_model, headers=call.headers
            )
            call.is_whole = True
            yield HttpBody(content_type=JSON, data=anthropic.encode_token_count(answer))


async def _stream(head: AnswerHead, generation: EngineGeneration, call: Call) -> AsyncIterator[HttpBody]:
    encoder = anthropic.StreamEncoder(head)
    async for step in generation:
        call.generated()
        call.usage = generation.usage
        if events := encoder.encode(step):
            call.sends()
            yield HttpBody(content_type=EVENT_STREAM, data=events)


async def _whole(head: AnswerHead, generation: EngineGeneration, call: Call) -> AsyncIterator[HttpBody]:
    collector = Collector()
    async for step in generation:
        call.generated()
        collector.add(step)
    yield HttpBody(content_type=JSON, data=anthropic.encode_message(head, collector.answer()))
