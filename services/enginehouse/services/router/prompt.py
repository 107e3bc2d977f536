"""A prompt on its way through the router: hashed at once, counted if need be, never kept and never printed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from enginehouse.adapters import anthropic, grpc, openai
from enginehouse.contract import RequestError
from enginehouse.v1 import common_pb2, inference_pb2


@dataclass(frozen=True, slots=True)
class Prompt:
    """The body of one request and how to read it.

    Attributes:
        beginning: the first bytes of its text.
    """

    dialect: common_pb2.Dialect.ValueType = common_pb2.DIALECT_UNSPECIFIED
    operation: common_pb2.Operation.ValueType = common_pb2.OPERATION_UNSPECIFIED
    beginning: bytes = field(default=b"", repr=False)
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def to_count(self) -> inference_pb2.CountTokensRequest | None:
        """What to ask a node, so that it counts exactly what the engine will read. None: that cannot be known.

        Whatever may add to the prompt in a way of the template's own (schemas, reasoning, forced tools, images) is not
        counted: an exact count that is too low would be worse than none.
        """
        try:
            request = self._parsed()
        except RequestError:
            return None
        if request is None or not _is_plain(request):
            return None
        count = inference_pb2.CountTokensRequest(model=request.model, tools=request.tools)
        if request.HasField("conversation"):
            count.conversation.CopyFrom(request.conversation)
        else:
            count.prompt = request.prompt
        return count

    def _parsed(self) -> inference_pb2.GenerateRequest | None:
        match self.dialect, self.operation:
            case common_pb2.DIALECT_OPENAI, common_pb2.OPERATION_CHAT:
                return openai.parse_chat(self.body).request
            case common_pb2.DIALECT_OPENAI, common_pb2.OPERATION_COMPLETION:
                return openai.parse_completion(self.body).request
            case common_pb2.DIALECT_ANTHROPIC, common_pb2.OPERATION_CHAT:
                return anthropic.parse_messages(self.body).request
            case common_pb2.DIALECT_GRPC, common_pb2.OPERATION_CHAT | common_pb2.OPERATION_COMPLETION:
                message = grpc.unframe(self.body, self.headers.get("grpc-encoding", "gzip"))
                return inference_pb2.GenerateRequest.FromString(message)
        return None


NO_PROMPT = Prompt()


def _is_plain(request: inference_pb2.GenerateRequest) -> bool:
    choice = request.tool_choice.mode
    return (
        not request.lora
        and not request.HasField("prompt_tokens")
        and not request.HasField("response_format")
        and not request.HasField("reasoning")
        and choice in (inference_pb2.ToolChoice.MODE_UNSPECIFIED, inference_pb2.ToolChoice.MODE_AUTO)
        and not any(
            part.WhichOneof("content") != "text" for message in request.conversation.messages for part in message.parts
        )
    )
