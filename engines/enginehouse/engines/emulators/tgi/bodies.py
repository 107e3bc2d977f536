"""TGI's request bodies and what its validation says of them (router/src/lib.rs and validation.rs)."""

import json
from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from enginehouse.engines.emulators.core import chatml
from enginehouse.engines.emulators.core.answers import HttpError
from enginehouse.engines.emulators.core.bodies import Message
from enginehouse.engines.emulators.core.structured import json_answer
from enginehouse.engines.emulators.tgi.words import not_valid

_LENIENT = ConfigDict(extra="ignore", frozen=True)
BEST_OF_MAX = 2
STOPS_MAX = 4
TOP_N_TOKENS_MAX = 5
_OUTPUT_DEFAULT = 1024


class Parameters(BaseModel):
    """GenerateParameters."""

    model_config = _LENIENT
    best_of: int | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    do_sample: bool = False
    max_new_tokens: Annotated[int, Field(ge=0)] | None = None
    return_full_text: bool | None = None
    stop: list[str] = []
    truncate: Annotated[int, Field(ge=0)] | None = None
    watermark: bool = False
    details: bool = False
    decoder_input_details: bool = False
    seed: Annotated[int, Field(ge=0)] | None = None
    top_n_tokens: int | None = None
    grammar: dict[str, object] | None = None
    adapter_id: str | None = None

    @property
    def samples(self) -> bool:
        """The answer would differ from one time to the next."""
        chosen = (self.temperature, self.top_k, self.top_p, self.typical_p)
        return self.do_sample or any(value is not None for value in chosen)

    @property
    def sequences(self) -> int:
        """How many are generated, of which the best is answered."""
        return self.best_of or 1


class GenerateBody(BaseModel):
    """POST /generate, /generate_stream and /tokenize; with `stream` POST /."""

    model_config = _LENIENT
    inputs: str
    parameters: Parameters = Parameters()
    stream: bool = False


class CompletionBody(BaseModel):
    """POST /v1/completions."""

    model_config = _LENIENT
    prompt: str | list[str]
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    stop: list[str] | None = None
    stream: bool = False
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    suffix: str | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None

    @property
    def prompts(self) -> list[str]:
        """The prompts; each gets one choice."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    def parameters(self) -> Parameters:
        """What it asks for, in TGI's own terms."""
        return Parameters(
            max_new_tokens=100 if self.max_tokens is None else self.max_tokens,
            stop=self.stop or [],
            seed=self.seed,
            temperature=self.temperature or None,
            top_p=self.top_p,
            do_sample=self.temperature != 0,
            repetition_penalty=self.repetition_penalty,
            frequency_penalty=self.frequency_penalty,
            details=True,
            decoder_input_details=not self.stream,
        )


def constrained_answer(grammar: dict[str, object] | None) -> str | None:
    """A value of the form of a GrammarType; None without one.

    Raises:
        HttpError: 422, no JSON, or a regular expression, which is not emulated.
    """
    if grammar is None:
        return None
    value = grammar.get("value")
    if grammar.get("type") == "json":
        try:
            return json_answer(json.loads(value) if isinstance(value, str) else value)
        except ValueError:
            raise not_valid("Invalid grammar: the value is no JSON") from None
    if grammar.get("type") == "json_schema" and isinstance(value, dict):
        return json_answer(value.get("schema"))
    raise not_valid("the emulator knows grammars of type json and json_schema alone")


class StreamOptions(BaseModel):
    """Of a chat."""

    model_config = _LENIENT
    include_usage: bool = True


class ChatBody(BaseModel):
    """POST /v1/chat/completions and /chat_tokenize. `model` names a LoRA adapter, unless it is "tgi"; `n` is unused."""

    model_config = _LENIENT
    messages: list[Message]
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    stop: list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    tools: list[dict[str, object]] | None = None
    tool_choice: str | dict[str, object] | None = None
    response_format: dict[str, object] | None = None

    @property
    def templated(self) -> str:
        """The conversation as one text, in ChatML."""
        return chatml.templated(self.messages)

    @property
    def echoed(self) -> str:
        """What is answered: the last message, of the user if there is one, or a value of the form asked for."""
        constrained = constrained_answer(self.response_format)
        if constrained is not None:
            return constrained
        said = [message.text for message in self.messages if message.role == "user"]
        return (said or [message.text for message in self.messages] or [""])[-1]

    @property
    def has_usage(self) -> bool:
        """Usage was asked for in a stream."""
        return self.stream_options is not None and self.stream_options.include_usage

    def parameters(self) -> Parameters:
        """What it asks for, in TGI's own terms."""
        return Parameters(
            max_new_tokens=self.max_tokens,
            stop=self.stop or [],
            seed=self.seed,
            temperature=self.temperature or None,
            top_p=self.top_p,
            do_sample=self.temperature != 0,
            repetition_penalty=self.repetition_penalty,
            frequency_penalty=self.frequency_penalty,
            top_n_tokens=self.top_logprobs,
            details=True,
            decoder_input_details=not self.stream,
        )


def check(parameters: Parameters, inputs: str, input_tokens_max: int) -> None:
    """TGI's validation, in its order and words.

    Raises:
        HttpError: 422.
    """
    failure = _failure(parameters, inputs, input_tokens_max)
    if failure is not None:
        raise failure


def _failure(parameters: Parameters, inputs: str, input_tokens_max: int) -> HttpError | None:
    return _sampling_failure(parameters) or _length_failure(parameters, inputs, input_tokens_max)


def _sampling_failure(parameters: Parameters) -> HttpError | None:
    """What is wrong with the way of sampling."""
    rules = (
        (parameters.sequences > 1 and not parameters.samples, "you must use sampling when `best_of` is > 1"),
        (_is(parameters.temperature, lambda value: value <= 0), "`temperature` must be strictly positive"),
        (
            _is(parameters.repetition_penalty, lambda value: value <= 0),
            "`repetition_penalty` must be strictly positive",
        ),
        (
            _is(parameters.frequency_penalty, lambda value: abs(value) > 2),
            "`frequency_penalty` must be >= -2.0 and <= 2.0",
        ),
        (_is(parameters.top_p, lambda value: not 0 < value < 1), "`top_p` must be > 0.0 and < 1.0"),
        (_is(parameters.typical_p, lambda value: not 0 < value < 1), "`typical_p` must be > 0.0 and < 1.0"),
        (_is(parameters.top_k, lambda value: value <= 0), "`top_k` must be strictly positive"),
    )
    return next((not_valid(message) for is_broken, message in rules if is_broken), None)


def _length_failure(parameters: Parameters, inputs: str, input_tokens_max: int) -> HttpError | None:
    """What is wrong with how much is asked for, before tokens are counted."""
    top_n, best_of, truncate = parameters.top_n_tokens, parameters.sequences, parameters.truncate
    rules = (
        (parameters.max_new_tokens == 0, "`max_new_tokens` must be strictly positive"),
        (
            len(parameters.stop) > STOPS_MAX,
            f"`stop` supports up to {STOPS_MAX} stop sequences. Given: {len(parameters.stop)}",
        ),
        (parameters.seed is not None and best_of > 1, "`seed` must not be set when `best_of` > 1"),
        (
            _is(top_n, lambda value: value > TOP_N_TOKENS_MAX),
            f"`top_n_tokens` must be >= 0 and <= {TOP_N_TOKENS_MAX}. Given: {top_n}",
        ),
        (not inputs, "`inputs` cannot be empty"),
        (
            _is(truncate, lambda value: value == 0 or value > input_tokens_max),
            f"`truncate` must be strictly positive and less than {input_tokens_max}. Given: {truncate}",
        ),
        (best_of > BEST_OF_MAX, f"`best_of` must be > 0 and <= {BEST_OF_MAX}. Given: {best_of}"),
    )
    return next((not_valid(message) for is_broken, message in rules if is_broken), None)


def _is(value: float | None, breaks: Callable[[float], bool]) -> bool:
    return value is not None and breaks(value)


def tokens_max(parameters: Parameters, input_tokens: int, input_tokens_max: int, total_tokens_max: int) -> int:
    """How many tokens are generated at most.

    Raises:
        HttpError: 422, the prompt or what is asked for is too long.
    """
    asked = parameters.max_new_tokens
    limit = min(max(0, total_tokens_max - input_tokens), _OUTPUT_DEFAULT) if asked is None else asked
    if input_tokens + limit > total_tokens_max:
        raise not_valid(
            f"`inputs` tokens + `max_new_tokens` must be <= {total_tokens_max}. Given: {input_tokens} `inputs` tokens "
            f"and {limit} `max_new_tokens`"
        )
    if input_tokens > input_tokens_max or limit == 0:
        raise not_valid(f"`inputs` must have less than {input_tokens_max} tokens. Given: {input_tokens}")
    return limit
