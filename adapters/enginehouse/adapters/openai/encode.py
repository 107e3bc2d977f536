"""Canonical answers in OpenAI's dialect, whole."""

import base64
import struct
from collections.abc import Mapping, Sequence

from enginehouse.adapters._json import dumps
from enginehouse.adapters.calls import EmbeddingEncoding
from enginehouse.adapters.collect import CollectedAnswer, CollectedChoice
from enginehouse.adapters.head import AnswerHead
from enginehouse.adapters.openai.logprobs import write_chat_logprobs, write_completion_logprobs
from enginehouse.contract import InternalError
from enginehouse.v1 import common_pb2, inference_pb2

_Members = dict[str, object]
_FINISH_REASONS: Mapping[inference_pb2.FinishReason.ValueType, str] = {
    inference_pb2.FINISH_REASON_STOP: "stop",
    inference_pb2.FINISH_REASON_LENGTH: "length",
    inference_pb2.FINISH_REASON_TOOL_CALLS: "tool_calls",
    inference_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
}
UNKNOWN_USAGE = (common_pb2.USAGE_METHOD_UNSPECIFIED, common_pb2.USAGE_METHOD_UPPER_BOUND)


def encode_unary(operation: common_pb2.Operation.ValueType, head: AnswerHead, answer: CollectedAnswer) -> bytes:
    """One generation as one object; `operation` is CHAT or COMPLETION."""
    is_chat = operation == common_pb2.OPERATION_CHAT
    members = head_members(head, "chat.completion" if is_chat else "text_completion")
    members["choices"] = [_chat_choice(item) if is_chat else _completion_choice(item) for item in answer.choices]
    if answer.usage.method not in UNKNOWN_USAGE:
        members["usage"] = usage_members(answer.usage)
    return dumps(members)


def encode_embeddings(response: inference_pb2.EmbedResponse, encoding: EmbeddingEncoding) -> bytes:
    """The answer of `/v1/embeddings`."""
    data = [
        {"object": "embedding", "index": item.index, "embedding": _vector(item.values, encoding)}
        for item in response.embeddings
    ]
    usage = {"prompt_tokens": response.usage.input_tokens, "total_tokens": response.usage.input_tokens}
    return dumps({"object": "list", "data": data, "model": response.model, "usage": usage})


def encode_ranking(response: inference_pb2.RerankResponse, head: AnswerHead, documents: Sequence[str] = ()) -> bytes:
    """The answer of `/v1/rerank`, with the documents when they are given."""
    results: list[_Members] = []
    for result in response.results:
        members: _Members = {"index": result.index, "relevance_score": result.relevance_score}
        if documents:
            members["document"] = {"text": documents[result.index]}
        results.append(members)
    usage = {"prompt_tokens": response.usage.input_tokens, "total_tokens": response.usage.input_tokens}
    return dumps({"id": head.id, "model": head.model, "results": results, "usage": usage})


def head_members(head: AnswerHead, kind: str) -> _Members:
    """What every object of an answer begins with; `kind` is its `object`."""
    return {"id": head.id, "object": kind, "created": head.created_s, "model": head.model}


def finish_members(reason: inference_pb2.FinishReason.ValueType, stop_sequence: str) -> _Members:
    """`finish_reason`, and `stop_reason` (vLLM's name) for a stop sequence that the engine named."""
    if reason not in _FINISH_REASONS:
        raise InternalError("a choice ended without a finish reason")
    members: _Members = {"finish_reason": _FINISH_REASONS[reason]}
    if stop_sequence:
        members["stop_reason"] = stop_sequence
    return members


def id_members(token_ids: Sequence[int]) -> _Members:
    """`token_ids` (vLLM's name), where there are any."""
    return {"token_ids": list(token_ids)} if token_ids else {}


def usage_members(usage: common_pb2.Usage) -> _Members:
    """`usage`, whose `prompt_tokens` hold those that a cache served."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
    }


def _chat_choice(choice: CollectedChoice) -> _Members:
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for _, call in sorted(choice.tool_calls.items())
    ]
    message: _Members = {"role": "assistant", "content": choice.text or (None if calls else ""), "refusal": None}
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    if calls:
        message["tool_calls"] = calls
    logprobs = write_chat_logprobs(choice.logprobs) if choice.logprobs else None
    members: _Members = {"index": choice.index, "message": message, "logprobs": logprobs}
    return members | id_members(choice.token_ids) | finish_members(choice.finish_reason, choice.stop_sequence)


def _completion_choice(choice: CollectedChoice) -> _Members:
    logprobs = write_completion_logprobs(choice.logprobs, 0) if choice.logprobs else None
    members: _Members = {"index": choice.index, "text": choice.text, "logprobs": logprobs}
    return members | id_members(choice.token_ids) | finish_members(choice.finish_reason, choice.stop_sequence)


def _vector(values: Sequence[float], encoding: EmbeddingEncoding) -> object:
    if encoding is EmbeddingEncoding.BASE64:
        return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
    return list(values)
