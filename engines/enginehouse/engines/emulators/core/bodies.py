"""OpenAI's request bodies as the engines read them: what they use is checked, what they do not know is let through."""

from collections.abc import Sequence
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from enginehouse.engines.echo._tokens import count_chat_tokens, count_tokens
from enginehouse.engines.emulators.core.plan import Plan, plan_echo
from enginehouse.engines.emulators.core.structured import json_answer

_LENIENT = ConfigDict(extra="allow", frozen=True)
_MESSAGES_MAX = 4096


class StreamOptions(BaseModel):
    """`continuous_usage_stats` is vLLM's and SGLang's."""

    model_config = _LENIENT
    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class GenerationBody(BaseModel):
    """What chat and completion have in common."""

    model_config = _LENIENT
    model: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = 1
    stop: str | list[str] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    ignore_eos: bool = False

    @property
    def stops(self) -> list[str]:
        """The stop sequences."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def choices(self) -> int:
        """How many answers to each prompt."""
        return self.n or 1

    @property
    def tokens_max(self) -> int | None:
        """What the request allows each choice."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def wants_usage(self) -> bool:
        """A last chunk with usage was asked for."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def wants_usage_in_every_chunk(self) -> bool:
        """Usage in every chunk was asked for."""
        options = self.stream_options
        return options is not None and bool(options.include_usage) and bool(options.continuous_usage_stats)

    def limit(self, left: int, default: int | None = None) -> int:
        """How many tokens each choice gets, of those that are `left` in the context."""
        asked = default if self.tokens_max is None else self.tokens_max
        return left if asked is None else min(asked, left)

    def plans(self, prompts: Sequence[str], tokens_max: int) -> tuple[Plan, ...]:
        """The answers: all choices of the first prompt, then those of the next."""
        planned = [plan_echo(prompt, tokens_max, self.stops, ends=not self.ignore_eos) for prompt in prompts]
        return tuple(plan for plan in planned for _ in range(self.choices))


class ContentPart(BaseModel):
    """One part of a message. Of a part that is no text nothing is read."""

    model_config = _LENIENT
    type: str
    text: str = ""


class Message(BaseModel):
    """One message of a conversation."""

    model_config = _LENIENT
    role: str
    content: str | list[ContentPart] | None = None

    @property
    def text(self) -> str:
        """The message's text, its parts joined."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class ResponseFormat(BaseModel):
    """`response_format`: "text", "json_object", or "json_schema" with the schema."""

    model_config = _LENIENT
    type: str
    json_schema: dict[str, object] | None = None

    @property
    def schema_asked(self) -> object:
        """The JSON Schema, if there is one."""
        return None if self.json_schema is None else self.json_schema.get("schema")


class ChatBody(GenerationBody):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=_MESSAGES_MAX)]
    logprobs: bool | None = False
    top_logprobs: int | None = 0
    response_format: ResponseFormat | None = None

    @property
    def said(self) -> str:
        """The last message of the user, or the last one if there is none."""
        said = [message.text for message in self.messages if message.role == "user"]
        return said[-1] if said else self.messages[-1].text

    @property
    def echoed(self) -> str:
        """What is answered: what was said, or a value of the form that was asked for."""
        wanted = self.response_format
        if wanted is None or wanted.type == "text":
            return self.said
        return json_answer(wanted.schema_asked)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the conversation, the template's included."""
        return count_chat_tokens([message.text for message in self.messages])


class CompletionBody(GenerationBody):
    """POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool | None = False
    logprobs: int | None = None

    @property
    def prompts(self) -> list[str]:
        """The prompts; token ids are shown as numbers, for there is no vocabulary to look them up in."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        if all(isinstance(item, int) for item in prompt):
            return [" ".join(map(str, prompt))]
        return [item if isinstance(item, str) else " ".join(map(str, _ids(item))) for item in prompt]

    @property
    def prompt_lengths(self) -> list[int]:
        """Tokens of each prompt, at least one."""
        return [max(1, count_tokens(prompt)) for prompt in self.prompts]


def _ids(item: object) -> Sequence[object]:
    return item if isinstance(item, list) else [item]


Body = TypeVar("Body", bound=BaseModel)


class BodyError(Exception):
    """A body that is not of the form asked for.

    Attributes:
        is_json: it is JSON at least.
        first: the first thing that is wrong with it.
    """

    def __init__(self, is_json: bool, errors: list[ErrorDetails]) -> None:
        super().__init__("the body is not of the form asked for")
        self.is_json = is_json
        self.errors = errors

    @property
    def first(self) -> ErrorDetails:
        """The first of its errors."""
        return self.errors[0]

    @property
    def path(self) -> str:
        """Where the first error is, for example "messages.0.role". Names of types are left out."""
        types = ("str", "int", "float", "bool", "list", "dict")
        kept = [str(part) for part in self.first["loc"] if not str(part).startswith((*types, "function-"))]
        return ".".join(kept)


def parse_body(raw: bytes, kind: type[Body]) -> Body:
    """The body as `kind`.

    Raises:
        BodyError: it is no JSON, or not of that form.
    """
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        raise BodyError(errors[0]["type"] != "json_invalid", errors) from None
