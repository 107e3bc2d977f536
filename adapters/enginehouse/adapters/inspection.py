"""What a router must know of a request before it decides: numbers, names and offsets, never its text."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from enginehouse.adapters.splices import BodyLayout
from enginehouse.v1 import common_pb2, router_pb2


@dataclass(frozen=True, slots=True)
class Inspection:
    """One request, seen from outside.

    Attributes:
        model: the name that the client wrote.
        stream_options: OpenAI's, as the client set them; to be kept when ours are added.
        features: what the engine must be able to do.
        prompt_text_bytes: an upper bound on the UTF-8 bytes of the request's text that reach the model.
        output_tokens_max: the largest limit that the request sets on one choice. None: it sets none.
        choices: how many answers are generated, over all prompts of the request.
        input_count: texts to embed, prompts to complete, or documents to rank.
        layout: where the body's members are. None: the body cannot be rewritten by splices.
        prompt_beginning: the first text that the model reads, up to 8 KiB, to be hashed at once and never kept.
    """

    dialect: common_pb2.Dialect.ValueType
    operation: common_pb2.Operation.ValueType
    model: str
    stream: bool = False
    stream_options: Mapping[str, bool] = field(default_factory=dict)
    features: frozenset[common_pb2.Feature.ValueType] = frozenset()
    prompt_text_bytes: int = 0
    message_count: int = 0
    image_count: int = 0
    output_tokens_max: int | None = None
    choices: int = 1
    input_count: int = 1
    hints: common_pb2.Hints = field(default_factory=common_pb2.Hints)
    layout: BodyLayout | None = None
    prompt_beginning: bytes = field(default=b"", repr=False)

    def routing_request(self, request_id: str, principal: router_pb2.Principal) -> router_pb2.RoutingRequest:
        """The same as a message, for `principal`."""
        return router_pb2.RoutingRequest(
            request_id=request_id,
            operation=self.operation,
            dialect=self.dialect,
            model=self.model,
            stream=self.stream,
            features=sorted(self.features),
            prompt_text_bytes=self.prompt_text_bytes,
            message_count=self.message_count,
            image_count=self.image_count,
            output_tokens_max=self.output_tokens_max,
            choices=self.choices,
            input_count=self.input_count,
            hints=self.hints,
            principal=principal,
        )
