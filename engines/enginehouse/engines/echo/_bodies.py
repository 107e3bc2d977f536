"""The request bodies that the echo engine takes, in OpenAI's form, and what it refuses of them."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from enginehouse.engines.serving import ApiError, RequestBody

_STOPS_MAX = 16
_ITEMS_MAX = 2048  # as OpenAI's embeddings

Stop = Annotated[str, Field(min_length=1, max_length=1000)]

# Members that ask for what this engine cannot do, with the values that ask for nothing.
_REFUSED: Mapping[str, tuple[object, ...]] = {
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "top_logprobs": (),
    "logit_bias": ({},),
    "presence_penalty": (0, 0.0),
    "frequency_penalty": (0, 0.0),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
}


class StreamOptions(BaseModel):
    """`continuous_usage_stats` is vLLM's: usage in every chunk, if `include_usage` is set too."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)
    include_usage: bool = False
    continuous_usage_stats: bool = False


class GenerationBody(RequestBody):
    """What chat and completion have in common.

    `usage_per_chunk` is this engine's own: usage in every chunk, and no chunk that the client did not ask for. With it
    in a streaming body, usage is known wherever the stream is cut. `ignore_eos` is vLLM's and llama.cpp's: the text is
    repeated until a limit ends it.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=_STOPS_MAX)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    usage_per_chunk: bool = False
    ignore_eos: bool = False

    @property
    def stops(self) -> list[str]:
        """The stop sequences."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def wants_usage_chunk(self) -> bool:
        """A last chunk with usage and no choices was asked for."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def wants_usage_in_every_chunk(self) -> bool:
        """Usage in every chunk was asked for, in vLLM's way or in ours."""
        options = self.stream_options
        return self.usage_per_chunk or (
            options is not None and options.include_usage and options.continuous_usage_stats
        )

    def refuse_unsupported(self) -> None:
        """Refuses what would otherwise be dropped silently.

        Raises:
            ApiError: naming the member.
        """
        extra: Mapping[str, object] = self.model_extra or {}
        for member, harmless in _REFUSED.items():
            value = extra.get(member)
            if value is not None and not any(value == other and type(value) is type(other) for other in harmless):
                raise ApiError(f"the echo engine does not support '{member}'", param=member, code="unsupported_member")
        if self.stream_options is not None and not self.stream:
            raise ApiError("'stream_options' is only allowed when 'stream' is true", param="stream_options")


class TextPart(BaseModel):
    """One part of a message."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)
    role: Annotated[str, Field(min_length=1, max_length=64)]
    content: str | list[TextPart] | None = None

    @property
    def text(self) -> str:
        """The message's text, its parts joined."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class ChatBody(GenerationBody):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=_ITEMS_MAX)]

    @property
    def echoed(self) -> str:
        """What is said back: the last message of the user, or the last one if there is none."""
        said = [message.text for message in self.messages if message.role == "user"]
        return said[-1] if said else self.messages[-1].text


class CompletionBody(GenerationBody):
    """POST /v1/completions."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=_ITEMS_MAX)]

    @property
    def prompts(self) -> list[str]:
        """The prompts; each gets `n` choices."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class EmbeddingBody(RequestBody):
    """POST /v1/embeddings."""

    model: str | None = None
    input: str | Annotated[list[str], Field(min_length=1, max_length=_ITEMS_MAX)]
    dimensions: Annotated[int, Field(ge=1, le=4096)] | None = None
    encoding_format: Literal["float", "base64"] = "float"

    @property
    def texts(self) -> list[str]:
        """The texts to embed."""
        return [self.input] if isinstance(self.input, str) else self.input


class Document(BaseModel):
    """A document that is wrapped, as Cohere's API allows."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)
    text: str


class RerankBody(RequestBody):
    """POST /v1/rerank, in the form of vLLM, Jina and Cohere."""

    model: str | None = None
    query: str
    documents: Annotated[list[str | Document], Field(min_length=1, max_length=_ITEMS_MAX)]
    top_n: Annotated[int, Field(ge=1)] | None = None

    @property
    def texts(self) -> list[str]:
        """The documents' texts."""
        return [document if isinstance(document, str) else document.text for document in self.documents]


class TokenizeBody(RequestBody):
    """POST /tokenize, in vLLM's form: a prompt, or messages to which the template is applied."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
