"""Canonical answers in Anthropic's dialect, as server-sent events."""

import json
from dataclasses import dataclass

from enginehouse.adapters._json import dumps
from enginehouse.adapters.anthropic.encode import message_members, stop_members, usage_members
from enginehouse.adapters.head import AnswerHead
from enginehouse.adapters.sse import encode_event
from enginehouse.contract import EngineError, InternalError
from enginehouse.v1 import common_pb2, inference_pb2

_Members = dict[str, object]
_TEXT, _THINKING = "text", "thinking"


@dataclass(frozen=True, slots=True)
class _Piece:
    """The next bit of one content block. `block` is "text", "thinking", or the index of a tool call."""

    block: str | int
    text: str
    call_id: str = ""
    name: str = ""


class StreamEncoder:
    """Writes one generation as the events of Anthropic's Messages API.

    Blocks there come one after the other. Engines may interleave tool calls, so what belongs to another block waits
    while the arguments of the open call are not whole.

    The first event must tell the prompt's tokens, which most engines only tell at the end. Unless the caller knows
    them it says 0, and the last event has the true number: usage there is cumulative, and the official SDKs take it
    over (`accumulate_event` in anthropic 2.12).

    Args:
        head: of this answer.
        usage: of the prompt, if it is known before the first token.
    """

    def __init__(self, head: AnswerHead, usage: common_pb2.Usage | None = None) -> None:
        self._head = head
        self._usage_at_start = usage or common_pb2.Usage()
        self._started = False
        self._open: str | int | None = None
        self._closed_calls: set[int] = set()
        self._arguments: list[str] = []
        self._waiting: list[_Piece] = []
        self._blocks = 0
        self._called_tools = False
        self._end: inference_pb2.ChoiceFinished | None = None

    def encode(self, step: inference_pb2.GenerateResponse) -> bytes:
        """The events for one step.

        Raises:
            EngineError: a tool call went on after its arguments were whole.
            InternalError: the step belongs to another choice than the first, or ends what has no finish reason.
        """
        start = self.start()
        match step.WhichOneof("event"):
            case "delta":
                _only_choice(step.delta.choice)
                return start + b"".join(self._take(piece) for piece in _pieces(step.delta))
            case "choice_finished":
                _only_choice(step.choice_finished.choice)
                self._end = step.choice_finished
                return start + self._flush() + self._close()
            case "finished":
                return start + self._stop(step.finished.usage)
            case _:
                return start

    def start(self) -> bytes:
        """`message_start`, once; nothing after that."""
        if self._started:
            return b""
        self._started = True
        usage = usage_members(self._usage_at_start)
        return _event("message_start", {"message": message_members(self._head, []) | {"usage": usage}}) + self.ping()

    def ping(self) -> bytes:
        """An event that keeps the connection alive and means nothing."""
        return _event("ping", {})

    def _take(self, piece: _Piece) -> bytes:
        if piece.block != self._open and self._is_call_open():
            self._waiting.append(piece)
            return b""
        written = self._write(piece)
        if self._waiting and not self._is_call_open():
            waiting, self._waiting = self._waiting, []
            written += b"".join(self._take(item) for item in waiting)
        return written

    def _is_call_open(self) -> bool:
        """Whether more is expected of the open block's arguments."""
        return isinstance(self._open, int) and not _is_whole("".join(self._arguments))

    def _flush(self) -> bytes:
        """Writes what still waits, block by block: nothing more will come for any of them."""
        waiting, self._waiting = self._waiting, []
        blocks = dict.fromkeys(piece.block for piece in waiting)
        return b"".join(self._write(piece) for block in blocks for piece in waiting if piece.block == block)

    def _write(self, piece: _Piece) -> bytes:
        if piece.block == self._open:
            return self._delta(piece)
        if piece.block in self._closed_calls:
            if piece.text.strip():
                raise EngineError("a tool call went on after its arguments were whole")
            return b""
        closed = self._close()
        self._open = piece.block
        self._arguments = []
        self._called_tools = self._called_tools or isinstance(piece.block, int)
        start = {"index": self._blocks, "content_block": _block(piece)}
        return closed + _event("content_block_start", start) + self._delta(piece)

    def _delta(self, piece: _Piece) -> bytes:
        if not piece.text:
            return b""
        if piece.block == _TEXT:
            delta = {"type": "text_delta", "text": piece.text}
        elif piece.block == _THINKING:
            delta = {"type": "thinking_delta", "thinking": piece.text}
        else:
            self._arguments.append(piece.text)
            delta = {"type": "input_json_delta", "partial_json": piece.text}
        return _event("content_block_delta", {"index": self._blocks, "delta": delta})

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        if isinstance(self._open, int):
            self._closed_calls.add(self._open)
        self._open = None
        self._blocks += 1
        return _event("content_block_stop", {"index": self._blocks - 1})

    def _stop(self, usage: common_pb2.Usage) -> bytes:
        if self._end is None:
            raise InternalError("the generation finished without a finish reason")
        stop = stop_members(self._end.reason, self._end.stop_sequence, called_tools=self._called_tools)
        return _event("message_delta", {"delta": stop, "usage": usage_members(usage)}) + _event("message_stop", {})


def _pieces(delta: inference_pb2.Delta) -> list[_Piece]:
    pieces = []
    if delta.reasoning:
        pieces.append(_Piece(_THINKING, delta.reasoning))
    if delta.text:
        pieces.append(_Piece(_TEXT, delta.text))
    return pieces + [_Piece(call.index, call.arguments, call.id, call.name) for call in delta.tool_calls]


def _block(piece: _Piece) -> _Members:
    if piece.block == _TEXT:
        return {"type": "text", "text": ""}
    if piece.block == _THINKING:
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "tool_use", "id": piece.call_id, "name": piece.name, "input": {}}


def _is_whole(arguments: str) -> bool:
    try:
        json.loads(arguments)
    except ValueError:
        return False
    return True


def _only_choice(choice: int) -> None:
    if choice:
        raise InternalError(f"Anthropic's dialect has one choice; there is no place for choice {choice}")


def _event(kind: str, members: _Members) -> bytes:
    return encode_event(dumps({"type": kind} | members), kind)
