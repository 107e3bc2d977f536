"""What one service that takes token ids has of its own: its messages."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from google.protobuf.message import Message

from enginehouse.adapters._token_engine.answer import ChoiceEnd, TokenPiece
from enginehouse.adapters._token_engine.channel import EngineChannel
from enginehouse.v1 import common_pb2, inference_pb2


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What the model's author wants where a request does not say. None: nothing."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What an engine says of its model.

    Attributes:
        context_tokens_max: prompt and output of one request. 0: it does not say.
        tokenizer_folder: on the engine's host. None: it does not say.
        sampling: defaults that the engine leaves to whoever asks it.
    """

    context_tokens_max: int = 0
    tokenizer_folder: Path | None = None
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)


@dataclass(frozen=True, slots=True)
class AskedTokens:
    """A request whose text has become tokens.

    Attributes:
        request_id: by which it can be aborted; no other request of the engine has it.
        prompt: token ids.
        output_tokens_max: of each choice.
        sampling_defaults: for what the request leaves out.
    """

    request_id: str
    prompt: Sequence[int]
    output_tokens_max: int
    sampling_defaults: SamplingDefaults


class TokenAnswer(ABC):
    """Reads the messages of one answer."""

    @abstractmethod
    def read(self, message: Message) -> Iterable[TokenPiece | ChoiceEnd]:
        """What a message says.

        Raises:
            EngineError: it says nothing that this service could say.
        """


class TokenDialect(ABC):
    """One service.

    Attributes:
        engine: its name, for messages.
        service: its full name.
        features: what requests may need of it, beyond streaming.
        response: the message that `Generate` answers with.
    """

    engine: ClassVar[str]
    service: ClassVar[str]
    features: ClassVar[frozenset[common_pb2.Feature.ValueType]]
    response: ClassVar[type[Message]]

    def method(self, name: str) -> str:
        """The path of a method."""
        return f"/{self.service}/{name}"

    @abstractmethod
    def check(self, request: inference_pb2.GenerateRequest) -> None:
        """Refuses values that the service's messages cannot hold.

        Raises:
            RequestError: UNSUPPORTED_FIELD, naming the field and the engine.
        """

    @abstractmethod
    def write(self, request: inference_pb2.GenerateRequest, asked: AskedTokens) -> Message:
        """The message that asks for a streamed generation."""

    @abstractmethod
    def answer(self) -> TokenAnswer:
        """A reader for one answer."""

    @abstractmethod
    async def abort(self, channel: EngineChannel, request_id: str, *, timeout_s: float) -> None:
        """Makes the engine give a request up.

        Raises:
            EngineError: it could not be told.
        """

    @abstractmethod
    async def facts(self, channel: EngineChannel) -> ModelFacts:
        """What the engine says of its model.

        Raises:
            EngineError: it was not reached, or failed.
        """
