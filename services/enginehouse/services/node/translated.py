"""Requests of OpenAI's clients for engines that speak something else, by way of the canonical request."""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeAlias
from uuid import uuid4

from enginehouse.adapters import openai
from enginehouse.adapters.calls import GenerateCall
from enginehouse.adapters.collect import Collector
from enginehouse.adapters.engine import EngineGeneration
from enginehouse.adapters.head import AnswerHead
from enginehouse.services.node.calls import Call
from enginehouse.services.node.rest import EVENT_STREAM, JSON, HttpBody
from enginehouse.v1 import common_pb2

_PREFIXES: Mapping[common_pb2.Operation.ValueType, str] = {
    common_pb2.OPERATION_CHAT: "chatcmpl",
    common_pb2.OPERATION_COMPLETION: "cmpl",
    common_pb2.OPERATION_RERANK: "rerank",
}
_Operation: TypeAlias = common_pb2.Operation.ValueType


def translated(operation: _Operation, body: bytes, call: Call) -> AsyncIterator[HttpBody]:
    """The answer to a request of OpenAI's dialect, in that dialect, by whatever engine `call` has.

    Args:
        operation: CHAT, COMPLETION, EMBEDDING or RERANK.
        body: as received.
        call: its usage is set as it becomes known.

    Raises:
        EnginehouseError: while the answer is read; as the engine's client raises it.
    """
    match operation:
        case common_pb2.OPERATION_EMBEDDING:
            return _embeddings(body, call)
        case common_pb2.OPERATION_RERANK:
            return _ranking(body, call)
        case common_pb2.OPERATION_COMPLETION:
            return _generated(openai.parse_completion, operation, body, call)
        case _:
            return _generated(openai.parse_chat, operation, body, call)


async def _generated(
    parse: Callable[[bytes], GenerateCall], operation: _Operation, body: bytes, call: Call
) -> AsyncIterator[HttpBody]:
    parsed = parse(body)
    generation = call.client.generate(
        parsed.request,
        served_model=call.attempt.served_model,
        output_tokens_max=call.ticket.output_tokens_max,
        generation_id=call.ticket.request_id,
        headers=call.headers,
    )
    head = _head(operation, call)
    try:
        async with generation:
            if parsed.stream:
                encoder = openai.StreamEncoder(operation, head, include_usage=parsed.include_usage)
                async for written in _streamed(encoder, generation, call):
                    yield written
            else:
                yield await _whole(operation, head, generation, call)
        call.is_whole = True
    finally:
        call.usage = generation.usage


async def _streamed(encoder: openai.StreamEncoder, generation: EngineGeneration, call: Call) -> AsyncIterator[HttpBody]:
    async for step in generation:
        call.generated()
        call.usage = generation.usage
        if events := encoder.encode(step):
            call.sends()
            yield HttpBody(content_type=EVENT_STREAM, data=events)


async def _whole(operation: _Operation, head: AnswerHead, generation: EngineGeneration, call: Call) -> HttpBody:
    collector = Collector()
    async for step in generation:
        call.generated()
        collector.add(step)
    return HttpBody(content_type=JSON, data=openai.encode_unary(operation, head, collector.answer()))


async def _embeddings(body: bytes, call: Call) -> AsyncIterator[HttpBody]:
    parsed = openai.parse_embedding(body)
    with call.unknown_usage():
        answer = await call.client.embed(parsed.request, served_model=call.attempt.served_model, headers=call.headers)
    answer.model = call.ticket.requested_model
    call.usage, call.is_whole = answer.usage, True
    yield HttpBody(content_type=JSON, data=openai.encode_embeddings(answer, parsed.encoding))


async def _ranking(body: bytes, call: Call) -> AsyncIterator[HttpBody]:
    parsed = openai.parse_rerank(body)
    with call.unknown_usage():
        answer = await call.client.rerank(parsed.request, served_model=call.attempt.served_model, headers=call.headers)
    call.usage, call.is_whole = answer.usage, True
    documents = parsed.request.documents if parsed.return_documents else ()
    head = _head(common_pb2.OPERATION_RERANK, call)
    yield HttpBody(content_type=JSON, data=openai.encode_ranking(answer, head, documents))


def _head(operation: _Operation, call: Call) -> AnswerHead:
    identifier = f"{_PREFIXES[operation]}-{uuid4().hex}"
    return AnswerHead(id=identifier, model=call.ticket.requested_model, created_s=int(time.time()))
