"""Canonical answers in OpenAI's dialect, as server-sent events."""

from enginehouse.adapters._json import dumps
from enginehouse.adapters.head import AnswerHead
from enginehouse.adapters.openai.encode import UNKNOWN_USAGE, finish_members, head_members, id_members, usage_members
from enginehouse.adapters.openai.logprobs import write_chat_logprobs, write_completion_logprobs
from enginehouse.adapters.sse import encode_event
from enginehouse.v1 import common_pb2, inference_pb2

_Members = dict[str, object]
_DONE = b"[DONE]"


class StreamEncoder:
    """Writes one generation as server-sent events. What it writes ends with ``[DONE]`` only after `finished`.

    Args:
        operation: CHAT or COMPLETION.
        head: of this answer.
        include_usage: whether the client asked for the usage.
    """

    def __init__(self, operation: common_pb2.Operation.ValueType, head: AnswerHead, *, include_usage: bool) -> None:
        self._is_chat = operation == common_pb2.OPERATION_CHAT
        self._head = head_members(head, "chat.completion.chunk" if self._is_chat else "text_completion")
        self._include_usage = include_usage
        self._opened: set[int] = set()
        self._characters: dict[int, int] = {}

    def encode(self, step: inference_pb2.GenerateResponse) -> bytes:
        """The events for one step."""
        match step.WhichOneof("event"):
            case "delta":
                return self._chunk(self._delta(step.delta))
            case "choice_finished":
                return self._chunk(self._choice_finished(step.choice_finished))
            case "finished":
                return self._usage(step.finished.usage) + encode_event(_DONE)
            case _:
                return b""

    def _chunk(self, choice: _Members) -> bytes:
        usage: _Members = {"usage": None} if self._include_usage else {}  # as OpenAI does when it will come
        return encode_event(dumps(self._head | {"choices": [choice]} | usage))

    def _usage(self, usage: common_pb2.Usage) -> bytes:
        if not self._include_usage or usage.method in UNKNOWN_USAGE:
            return b""
        return encode_event(dumps(self._head | {"choices": [], "usage": usage_members(usage)}))

    def _delta(self, delta: inference_pb2.Delta) -> _Members:
        choice: _Members = {"index": delta.choice, "logprobs": None, "finish_reason": None}
        choice |= id_members(delta.token_ids)
        if not self._is_chat:
            offset = self._characters.get(delta.choice, 0)
            self._characters[delta.choice] = offset + len(delta.text)
            if delta.logprobs:
                choice["logprobs"] = write_completion_logprobs(delta.logprobs, offset)
            return choice | {"text": delta.text}
        content = self._role(delta.choice)
        if delta.text:
            content["content"] = delta.text
        if delta.reasoning:
            content["reasoning_content"] = delta.reasoning
        if delta.tool_calls:
            content["tool_calls"] = [_tool_call_piece(piece) for piece in delta.tool_calls]
        if delta.logprobs:
            choice["logprobs"] = write_chat_logprobs(delta.logprobs)
        return choice | {"delta": content}

    def _choice_finished(self, end: inference_pb2.ChoiceFinished) -> _Members:
        content: _Members = {"delta": self._role(end.choice)} if self._is_chat else {"text": ""}
        return {"index": end.choice, "logprobs": None} | content | finish_members(end.reason, end.stop_sequence)

    def _role(self, choice: int) -> _Members:
        if choice in self._opened:
            return {}
        self._opened.add(choice)
        return {"role": "assistant"}


def _tool_call_piece(piece: inference_pb2.ToolCall) -> _Members:
    function: _Members = {"arguments": piece.arguments}
    if piece.name:
        function["name"] = piece.name
    members: _Members = {"index": piece.index, "function": function}
    return members | {"id": piece.id, "type": "function"} if piece.id else members
