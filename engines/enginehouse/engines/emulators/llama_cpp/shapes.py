"""llama.cpp's answers, member for member as xllamacpp 2026.10 sends them (tests/integration/adapters/recordings)."""

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from enginehouse.engines.emulators.core.answers import DONE, EngineTrouble, Json, KeepAlive, Opens, StreamShape, event
from enginehouse.engines.emulators.core.bodies import ChatBody, GenerationBody
from enginehouse.engines.emulators.core.engine import Admitted
from enginehouse.engines.emulators.core.generation import Step
from enginehouse.engines.emulators.core.plan import Finish, FinishKind, Plan, Token
from enginehouse.engines.emulators.llama_cpp.words import LlamaCppWords

_FINGERPRINT = "b0-unknown"
_HEADERS = {"Content-Type": "text/event-stream"}


@dataclass(frozen=True)
class Head:
    """What every part of one answer repeats."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def of(self, kind: str) -> Json:
        """The members after `choices`."""
        return {
            "created": self.created,
            "id": self.id,
            "model": self.model,
            "system_fingerprint": _FINGERPRINT,
            "object": kind,
        }


def usage(admitted: Admitted) -> Json:
    """With several choices only the first is counted (ran)."""
    prompt_tokens = admitted.generation.work.prompt_tokens
    completion_tokens = admitted.generation.generated[0]
    return {
        "completion_tokens": completion_tokens,
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def timings(admitted: Admitted) -> Json:
    """How fast it was; the counts are those of usage."""
    times, generation = admitted.times, admitted.generation
    return {
        "cache_n": 0,
        **_rate("prompt", generation.work.prompt_tokens, times.prefill_s),
        **_rate("predicted", generation.generated[0], times.decode_s),
    }


def _rate(name: str, count: int, seconds: float) -> Json:
    milliseconds = max(seconds * 1000, 0.001)
    return {
        f"{name}_n": count,
        f"{name}_ms": milliseconds,
        f"{name}_per_token_ms": milliseconds / max(1, count),
        f"{name}_per_second": count * 1000 / milliseconds,
    }


def finish_reason(finish: Finish) -> str:
    """OpenAI's word for it."""
    return "length" if finish.kind is FinishKind.LENGTH else "stop"


def logprobs(tokens: Iterable[Token], alternatives: int) -> Json:
    """The same form for chats and completions."""
    return {
        "content": [
            {**_logprob(token), "top_logprobs": [_logprob(token)] if alternatives else []}
            for token in tokens
            if not token.is_special
        ]
    }


def _logprob(token: Token) -> Json:
    return {"id": token.id, "token": token.raw, "bytes": list(token.raw.encode()), "logprob": token.logprob}


def whole_chat(head: Head, body: ChatBody, admitted: Admitted) -> Json:
    """POST /v1/chat/completions."""
    choices = [_whole_chat_choice(index, plan, body) for index, plan in enumerate(admitted.generation.work.plans)]
    return {
        "choices": choices,
        **head.of("chat.completion"),
        "usage": usage(admitted),
        "timings": timings(admitted),
    }


def _whole_chat_choice(index: int, plan: Plan, body: ChatBody) -> Json:
    choice: Json = {
        "finish_reason": finish_reason(plan.finish),
        "index": index,
        "message": {"role": "assistant", "content": plan.text},
    }
    return {**choice, "logprobs": logprobs(plan.tokens, body.top_logprobs or 0)} if body.logprobs else choice


def whole_completion(head: Head, wanted: int | None, admitted: Admitted) -> Json:
    """POST /v1/completions."""
    choices = [
        {
            "text": plan.text,
            "index": index,
            "logprobs": None if wanted is None else logprobs(plan.tokens, wanted),
            "finish_reason": finish_reason(plan.finish),
        }
        for index, plan in enumerate(admitted.generation.work.plans)
    ]
    return {
        "choices": choices,
        **head.of("text_completion"),
        "usage": usage(admitted),
        "timings": timings(admitted),
    }


class LlamaCppStream(StreamShape):
    """What both streams have in common: the status goes out with the first token, an error ends it without [DONE]."""

    opens = Opens.WITH_FIRST_TOKEN
    headers = _HEADERS
    keep_alive = KeepAlive(30.0)

    def broken(self, error: EngineTrouble) -> Iterable[bytes]:
        """The error, and nothing after it."""
        return (event(LlamaCppWords().trouble(error).payload),)


class ChatStream(LlamaCppStream):
    """/v1/chat/completions."""

    kind = "chat.completion.chunk"

    def __init__(self, head: Head, body: ChatBody, *, has_timings: bool) -> None:
        self._head = head
        self._body = body
        self._has_timings = has_timings

    def opening(self) -> Iterable[bytes]:
        """A chunk for each choice that names the role, with content null."""
        for index in range(self._body.choices):
            yield self._chunk(index, {"role": "assistant", "content": None}, None)

    def step(self, step: Step, admitted: Admitted) -> Iterable[bytes]:
        """One token. The end-of-sequence token has no chunk; the finish reason has one of its own."""
        if step.token.text:
            yield self._token(step, admitted)
        if step.finish is not None:
            yield self._chunk(step.choice, {}, finish_reason(step.finish))

    def _token(self, step: Step, admitted: Admitted) -> bytes:
        choice: Json = {"finish_reason": None, "index": step.choice, "delta": {"content": step.token.text}}
        if self._body.logprobs:
            choice["logprobs"] = logprobs([step.token], self._body.top_logprobs or 0)
        chunk = {"choices": [choice], **self._head.of(self.kind)}
        return event({**chunk, "timings": timings(admitted)} if self._has_timings else chunk)

    def closing(self, admitted: Admitted) -> Iterable[bytes]:
        """Usage for those who asked, and [DONE]."""
        if self._body.wants_usage:
            last = {"choices": [], **self._head.of(self.kind), "usage": usage(admitted), "timings": timings(admitted)}
            yield event(last)
        yield DONE

    def _chunk(self, index: int, delta: Json, finish: str | None) -> bytes:
        choice = {"finish_reason": finish, "index": index, "delta": delta}
        return event({"choices": [choice], **self._head.of(self.kind)})


class CompletionStream(LlamaCppStream):
    """/v1/completions. The chunk with the finish reason has usage, asked for or not."""

    def __init__(self, head: Head, body: GenerationBody, wanted: int | None) -> None:
        self._head = head
        self._body = body
        self._wanted = wanted

    def step(self, step: Step, admitted: Admitted) -> Iterable[bytes]:
        """One token; then the finish reason, in a chunk of its own."""
        if step.token.text:
            probabilities = None if self._wanted is None else logprobs([step.token], self._wanted)
            yield event(self._chunk(step, step.token.text, probabilities, None))
        if step.finish is not None:
            last = self._chunk(step, "", None, finish_reason(step.finish))
            yield event({**last, "usage": usage(admitted), "timings": timings(admitted)})

    def closing(self, admitted: Admitted) -> Iterable[bytes]:
        """[DONE]."""
        return (DONE,)

    def _chunk(self, step: Step, text: str, probabilities: Json | None, finish: str | None) -> Json:
        choice = {"text": text, "index": step.choice, "logprobs": probabilities, "finish_reason": finish}
        return {"choices": [choice], **self._head.of("text_completion")}
