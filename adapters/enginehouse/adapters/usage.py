"""What a generation used, read from engines' own counts in whatever form they come."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, unique

from enginehouse.adapters._json import loads
from enginehouse.adapters.sse import SseEvent, SseParser
from enginehouse.contract import EngineError
from enginehouse.v1 import common_pb2

JSON_BYTES_MAX = 64 * 1024 * 1024
_EVENT_STREAM = "text/event-stream"
_DONE = "[DONE]"
_ERROR_EVENT = "error"
# Ends that nobody asked for: vLLM and SGLang abort, vLLM fails with error, TensorRT-LLM cancels and times out.
_UNFINISHED = frozenset({"abort", "cancelled", "error", "timeout"})


@dataclass(frozen=True, slots=True)
class Count:
    """Tokens as one frame tells them; None for what it leaves out.

    Attributes:
        input: all of the prompt, cached or not.
        cached: the part of the prompt that came from a prefix cache.
    """

    input: int | None
    cached: int | None
    output: int | None

    def over(self, earlier: "Count | None") -> "Count":
        """This count, with what it leaves out taken from an earlier one."""
        if earlier is None:
            return self
        return Count(
            earlier.input if self.input is None else self.input,
            earlier.cached if self.cached is None else self.cached,
            earlier.output if self.output is None else self.output,
        )


@unique
class UsageScope(Enum):
    """What a count in a stream covers."""

    # Always the generation: all of its choices (the echo engine).
    GENERATION = "generation"
    # On a frame with a choice that choice, and without one the generation (vLLM and SGLang).
    CHOICE_WHILE_RUNNING = "choice-while-running"
    # Always one choice: on a frame without one the choice that ended last. With ``n: 2``, llama.cpp sends two such
    # frames in a stream, and in a whole answer it counts one choice and is silent about the other (ran).
    CHOICE = "choice"


@dataclass(slots=True)
class UsageTally:
    """Adds up counts over the choices of one generation."""

    scope: UsageScope = UsageScope.CHOICE_WHILE_RUNNING
    _choices: dict[int, Count] = field(default_factory=dict)
    _whole: Count | None = None
    _last_finished: int = 0

    def choice(self, index: int, count: Count) -> None:
        """Notes a running or final count on a frame that carries one choice."""
        if self.scope is UsageScope.GENERATION:
            self._whole = count.over(self._whole)
        else:
            self._choices[index] = count.over(self._choices.get(index))

    def finished(self, index: int) -> None:
        """Notes that a choice ended: a frame that follows may count for it."""
        self._last_finished = index

    def whole(self, count: Count) -> None:
        """Notes a count on a frame that carries no choice, or all of them."""
        if self.scope is UsageScope.CHOICE:
            self.choice(self._last_finished, count)
        else:
            self._whole = count.over(self._whole)

    def counts_whole_answer(self, choices: int) -> bool:
        """Whether the one count in an answer that was not streamed covers all of its `choices`."""
        return self.scope is not UsageScope.CHOICE or choices <= 1

    @property
    def known(self) -> bool:
        """Whether the engine has counted anything."""
        return self._whole is not None or bool(self._choices)

    def usage(self, method: common_pb2.UsageMethod.ValueType) -> common_pb2.Usage:
        """The sum: output over all choices, the prompt once. What was cached for some choices only is not cached."""
        counts = [self._whole] if self._whole else list(self._choices.values())
        return common_pb2.Usage(
            input_tokens=max((count.input or 0 for count in counts), default=0),
            cached_input_tokens=min((count.cached or 0 for count in counts), default=0),
            output_tokens=sum(count.output or 0 for count in counts),
            method=method,
        )


def read_count(frame: Mapping[str, object]) -> Count | None:
    """The count in one frame: OpenAI's or Anthropic's `usage`, or llama.cpp's `timings`; None when it has none."""
    usage = frame.get("usage")
    if isinstance(usage, dict):
        return (
            _anthropic_count(usage) if "input_tokens" in usage or "prompt_tokens" not in usage else _openai_count(usage)
        )
    timings = frame.get("timings")
    if isinstance(timings, dict):
        cached = _tokens(timings, "cache_n") or 0
        return Count((_tokens(timings, "prompt_n") or 0) + cached, cached, _tokens(timings, "predicted_n"))
    return None


def _openai_count(usage: Mapping[str, object]) -> Count:
    details = usage.get("prompt_tokens_details")
    cached = _tokens(details, "cached_tokens") if isinstance(details, dict) else None
    return Count(_tokens(usage, "prompt_tokens"), cached, _tokens(usage, "completion_tokens"))


def _anthropic_count(usage: Mapping[str, object]) -> Count:
    """Anthropic counts what was cached beside `input_tokens`; rerankers give a total alone."""
    cached = _tokens(usage, "cache_read_input_tokens")
    plain = _tokens(usage, "input_tokens")
    if plain is None:
        return Count(_tokens(usage, "total_tokens"), cached, _tokens(usage, "output_tokens"))
    written = _tokens(usage, "cache_creation_input_tokens") or 0
    return Count(plain + written + (cached or 0), cached, _tokens(usage, "output_tokens"))


def _tokens(counts: Mapping[str, object], name: str) -> int | None:
    value = counts.get(name)
    return value if isinstance(value, int) and value >= 0 else None


class UsageMeter:
    """Reads the usage of an answer from its bytes as they pass, and its end. It changes nothing and never fails.

    Args:
        content_type: the answer's header; `text/event-stream` is read event by event, anything else as one JSON value.
        scope: what the engine's counts cover.
        choices: how many a whole stream has at least.

    Attributes:
        began: an event of the answer itself has come.
        is_done: the engine said ``[DONE]``, which it may say after anything.
        told_usage_alone: the last event was a count and nothing else.
        failure: what the engine said when it failed in the stream: a frame, or its text if that is no object.
    """

    def __init__(
        self, content_type: str, scope: UsageScope = UsageScope.CHOICE_WHILE_RUNNING, choices: int = 1
    ) -> None:
        self.began = False
        self.is_done = False
        self.told_usage_alone = False
        self.failure: object | None = None
        self._choices = choices
        self._tally = UsageTally(scope)
        self._events = SseParser() if content_type.startswith(_EVENT_STREAM) else None
        self._json = bytearray()
        self._lost = False
        self._ended = False
        self._open: set[int] = set()
        self._finished: set[int] = set()

    def feed(self, chunk: bytes) -> None:
        """Looks at the next bytes."""
        if self._lost:
            return
        if self._events is None:
            self._lost = len(self._json) + len(chunk) > JSON_BYTES_MAX
            self._json += chunk if not self._lost else b""
            return
        try:
            for event in self._events.feed(chunk):
                self._look_at_event(event)
        except EngineError:
            self._lost = True

    def finish(self) -> common_pb2.Usage:
        """Takes the end of the bytes and returns what was used."""
        if self._events is None and not self._lost:
            self._look_at_json(bytes(self._json))
        return self.usage

    @property
    def is_whole(self) -> bool:
        """Whether a stream has told why each of its choices ended, and no error: to stop now is not to stop early."""
        return self._ended and self.failure is None

    @property
    def usage(self) -> common_pb2.Usage:
        """What is known so far: the engine's final or running count, or UPPER_BOUND when it told none."""
        if self._lost or not self._tally.known:
            return common_pb2.Usage(method=common_pb2.USAGE_METHOD_UPPER_BOUND)
        partial, final = common_pb2.USAGE_METHOD_ENGINE_PARTIAL, common_pb2.USAGE_METHOD_ENGINE
        return self._tally.usage(final if self.is_whole else partial)

    def _look_at_json(self, body: bytes) -> None:
        answer = loads(body)
        if not isinstance(answer, dict):
            return
        choices = answer.get("choices")
        self._lost = not self._tally.counts_whole_answer(len(choices) if isinstance(choices, list) else 0)
        if count := read_count(answer):
            self._tally.whole(count)
            self._ended = True

    def _look_at_event(self, event: SseEvent) -> None:
        self.is_done = self.is_done or event.data.startswith(_DONE)  # as the official SDKs read it
        self.told_usage_alone = False
        frame = loads(event.data)
        if event.name == _ERROR_EVENT or (
            isinstance(frame, dict) and (frame.get("error") or frame.get("object") == "error")
        ):
            self.failure = frame if isinstance(frame, dict) else event.data
        if not isinstance(frame, dict):
            return
        message, delta = frame.get("message"), frame.get("delta")
        self.began = self.began or isinstance(message, dict)
        count = read_count(message if isinstance(message, dict) else frame)  # Anthropic's message_start nests it
        self._ended = self._ended or (isinstance(delta, dict) and bool(delta.get("stop_reason")))
        choices = frame.get("choices")
        if count and not choices:
            self.told_usage_alone = choices == []
            self._tally.whole(count)
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._look_at_choice(choice, count)

    def _look_at_choice(self, choice: Mapping[str, object], count: Count | None) -> None:
        index = _tokens(choice, "index") or 0
        if count:
            self._tally.choice(index, count)
        self.began = True
        reason = choice.get("finish_reason")
        if reason:
            self._tally.finished(index)
        if isinstance(reason, str) and reason and reason not in _UNFINISHED:
            self._finished.add(index)
        self._open.add(index)
        self._open -= self._finished
        self._ended = not self._open and len(self._finished) >= self._choices
