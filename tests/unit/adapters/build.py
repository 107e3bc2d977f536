"""Requests and answers that the tests begin from."""

import json
from collections.abc import Iterable
from typing import Any

from enginehouse.adapters import AnswerHead
from enginehouse.v1 import common_pb2, inference_pb2

HEAD = AnswerHead(id="answer-1", model="public", created_s=1_700_000_000)
WEATHER_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER_TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather", "parameters": WEATHER_SCHEMA},
}


def chat_body(**members: object) -> bytes:
    """A chat request; keywords add members or replace them."""
    basis: dict[str, object] = {"model": "public", "messages": [{"role": "user", "content": "Hi"}]}
    return json.dumps(basis | members).encode()


def completion_body(**members: object) -> bytes:
    """A completion request."""
    basis: dict[str, object] = {"model": "public", "prompt": "Once"}
    return json.dumps(basis | members).encode()


def messages_body(**members: object) -> bytes:
    """An Anthropic request."""
    basis: dict[str, object] = {
        "model": "public",
        "max_tokens": 16,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    return json.dumps(basis | members).encode()


def conversation(*turns: tuple[inference_pb2.Role.ValueType, str]) -> inference_pb2.Conversation:
    """A conversation of texts."""
    return inference_pb2.Conversation(
        messages=[inference_pb2.Message(role=role, parts=[inference_pb2.Part(text=text)]) for role, text in turns]
    )


def generate_request(text: str = "Hi") -> inference_pb2.GenerateRequest:
    """A canonical chat request of one message."""
    return inference_pb2.GenerateRequest(model="public", conversation=conversation((inference_pb2.ROLE_USER, text)))


def delta(text: str = "", choice: int = 0, reasoning: str = "") -> inference_pb2.GenerateResponse:
    """A piece of text or reasoning."""
    return inference_pb2.GenerateResponse(delta=inference_pb2.Delta(choice=choice, text=text, reasoning=reasoning))


def call_piece(index: int, arguments: str, call_id: str = "", name: str = "") -> inference_pb2.GenerateResponse:
    """A piece of a tool call."""
    piece = inference_pb2.ToolCall(index=index, arguments=arguments, id=call_id, name=name)
    return inference_pb2.GenerateResponse(delta=inference_pb2.Delta(tool_calls=[piece]))


def ended(
    reason: inference_pb2.FinishReason.ValueType = inference_pb2.FINISH_REASON_STOP,
    choice: int = 0,
    stop_sequence: str = "",
) -> inference_pb2.GenerateResponse:
    """The end of a choice."""
    end = inference_pb2.ChoiceFinished(choice=choice, reason=reason, stop_sequence=stop_sequence)
    return inference_pb2.GenerateResponse(choice_finished=end)


def finished(input_tokens: int = 10, cached: int = 4, output_tokens: int = 3) -> inference_pb2.GenerateResponse:
    """The end of a generation."""
    usage = common_pb2.Usage(
        input_tokens=input_tokens,
        cached_input_tokens=cached,
        output_tokens=output_tokens,
        method=common_pb2.USAGE_METHOD_ENGINE,
    )
    return inference_pb2.GenerateResponse(finished=inference_pb2.Finished(usage=usage))


def sse_objects(stream: bytes) -> list[dict[str, Any]]:
    """The JSON of every event in a stream, ``[DONE]`` left out."""
    lines = [line.removeprefix(b"data: ") for line in stream.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def texts(steps: Iterable[inference_pb2.GenerateResponse], choice: int = 0) -> str:
    """The text of one choice."""
    return "".join(step.delta.text for step in steps if step.HasField("delta") and step.delta.choice == choice)
