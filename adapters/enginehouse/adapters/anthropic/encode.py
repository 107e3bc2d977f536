"""Canonical answers in Anthropic's dialect, whole."""

from collections.abc import Mapping

from enginehouse.adapters._json import dumps, loads
from enginehouse.adapters.collect import CollectedAnswer, CollectedChoice
from enginehouse.adapters.head import AnswerHead
from enginehouse.contract import EngineError, InternalError
from enginehouse.v1 import common_pb2, inference_pb2

_Members = dict[str, object]
_STOP_REASONS: Mapping[inference_pb2.FinishReason.ValueType, str] = {
    inference_pb2.FINISH_REASON_STOP: "end_turn",
    inference_pb2.FINISH_REASON_LENGTH: "max_tokens",
    inference_pb2.FINISH_REASON_TOOL_CALLS: "tool_use",
    inference_pb2.FINISH_REASON_CONTENT_FILTER: "refusal",
}


def encode_message(head: AnswerHead, answer: CollectedAnswer) -> bytes:
    """One generation of one choice as one message.

    Raises:
        EngineError: a tool call's arguments are not a JSON object.
    """
    if len(answer.choices) != 1:
        raise InternalError(f"Anthropic's dialect has one choice, and this answer {len(answer.choices)}")
    choice = answer.choices[0]
    stop = stop_members(choice.finish_reason, choice.stop_sequence, called_tools=bool(choice.tool_calls))
    return dumps(message_members(head, _content(choice)) | stop | {"usage": usage_members(answer.usage)})


def encode_token_count(response: inference_pb2.CountTokensResponse) -> bytes:
    """The answer of `/v1/messages/count_tokens`."""
    return dumps({"input_tokens": response.input_tokens})


def message_members(head: AnswerHead, content: list[_Members]) -> _Members:
    """A message without its end."""
    return {
        "id": head.id,
        "type": "message",
        "role": "assistant",
        "model": head.model,
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
    }


def stop_members(reason: inference_pb2.FinishReason.ValueType, stop_sequence: str, *, called_tools: bool) -> _Members:
    """`stop_reason` and `stop_sequence`.

    Engines disagree on whether an answer that ended by itself after a call ended for it (OpenAI's own says "stop" when
    the call was forced by name); in Anthropic's words it has: "tool_use: the model invoked one or more tools".
    """
    if reason not in _STOP_REASONS:
        raise InternalError("the choice ended without a finish reason")
    name = _STOP_REASONS[reason]
    if reason == inference_pb2.FINISH_REASON_STOP and called_tools:
        name = "tool_use"
    elif reason == inference_pb2.FINISH_REASON_STOP and stop_sequence:
        name = "stop_sequence"
    return {"stop_reason": name, "stop_sequence": stop_sequence or None}


def usage_members(usage: common_pb2.Usage) -> _Members:
    """`usage`, whose `input_tokens` are those that no cache served."""
    return {
        "input_tokens": usage.input_tokens - usage.cached_input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
    }


def _content(choice: CollectedChoice) -> list[_Members]:
    content: list[_Members] = []
    if choice.reasoning:
        content.append({"type": "thinking", "thinking": choice.reasoning, "signature": ""})
    if choice.text:
        content.append({"type": "text", "text": choice.text})
    for _, call in sorted(choice.tool_calls.items()):
        content.append({"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call, choice)})
    return content


def _input(call: inference_pb2.ToolCall, choice: CollectedChoice) -> object:
    arguments = loads(call.arguments or "{}")
    if isinstance(arguments, dict):
        return arguments
    if choice.finish_reason == inference_pb2.FINISH_REASON_LENGTH:
        return {}  # the stop reason says that the call is not whole, and there is no place for half an object
    raise EngineError(f"the arguments of a tool call are not a JSON object; they have {len(call.arguments)} characters")
