"""TGI's answers (router/src/lib.rs, server.rs and chat.rs, 3.3), which the OpenAPI document of 3.3.6 describes."""

import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from enginehouse.engines.emulators.core.answers import (
    DONE,
    EngineTrouble,
    Json,
    KeepAlive,
    Opens,
    StreamShape,
    event,
)
from enginehouse.engines.emulators.core.engine import Admitted
from enginehouse.engines.emulators.core.generation import Step
from enginehouse.engines.emulators.core.plan import Finish, FinishKind, Plan, Token, token_id
from enginehouse.engines.emulators.tgi.words import TgiWords

_OWN_WORDS = {
    FinishKind.LENGTH: "length",
    FinishKind.EOS: "eos_token",
    FinishKind.STOP_SEQUENCE: "stop_sequence",
}
_OPENAI_WORDS = {**_OWN_WORDS, FinishKind.EOS: "stop"}


@dataclass(frozen=True)
class Asked:
    """One request in TGI's terms, after validation.

    Attributes:
        inputs: the prompt, templated for a chat.
        input_tokens: of `inputs`.
        prompt_shown: what comes before the generated text, for those who asked for the full text.
    """

    inputs: str
    input_tokens: int
    prompt_tokens_shown: tuple[str, ...]
    has_details: bool
    seed: int | None
    top_n_tokens: int
    prompt_shown: str = ""


@dataclass(frozen=True)
class Head:
    """What every part of an answer in OpenAI's form repeats. Ids are empty in TGI."""

    model: str
    fingerprint: str
    created: int = field(default_factory=lambda: int(time.time()))

    def of(self, kind: str) -> Json:
        """The first members."""
        return {
            "object": kind,
            "id": "",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def own_finish(finish: Finish) -> str:
    """TGI's word for it, which streamed completions carry too."""
    return _OWN_WORDS[finish.kind]


def openai_finish(finish: Finish) -> str:
    """OpenAI's word for it, as far as TGI uses it."""
    return _OPENAI_WORDS[finish.kind]


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    """Usage."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def token_json(token: Token) -> Json:
    """Token."""
    return {"id": token.id, "text": token.raw, "logprob": token.logprob, "special": token.is_special}


def _top_tokens(token: Token, wanted: int) -> list[Json]:
    return [token_json(token)] if wanted else []


def sequence(plan: Plan, asked: Asked) -> Json:
    """What Details and BestOfSequence have in common."""
    top = [_top_tokens(token, asked.top_n_tokens) for token in plan.tokens]
    return {
        "finish_reason": own_finish(plan.finish),
        "generated_tokens": len(plan.tokens),
        "seed": asked.seed,
        "prefill": [
            {"id": token_id(text), "text": text, "logprob": None if index == 0 else -0.5}
            for index, text in enumerate(asked.prompt_tokens_shown)
        ],
        "tokens": [token_json(token) for token in plan.tokens],
        **({"top_tokens": top} if asked.top_n_tokens else {}),
    }


def generate_response(asked: Asked, admitted: Admitted) -> Json:
    """GenerateResponse: the best of the sequences, and the others within its details."""
    best, *others = admitted.generation.work.plans
    text = asked.prompt_shown + best.raw_text
    if not asked.has_details:
        return {"generated_text": text}
    details = sequence(best, asked)
    if others:
        details["best_of_sequences"] = [
            {"generated_text": asked.prompt_shown + plan.raw_text, **sequence(plan, asked)} for plan in others
        ]
    return {"generated_text": text, "details": details}


def chat_logprobs(tokens: Iterable[Token], wanted: int) -> Json:
    """ChatCompletionLogprobs."""
    content = [
        {"token": token.raw, "logprob": token.logprob, "top_logprobs": _alternatives(token, wanted)} for token in tokens
    ]
    return {"content": content}


def _alternatives(token: Token, wanted: int) -> list[Json]:
    return [{"token": token.raw, "logprob": token.logprob}] if wanted else []


def whole_chat(head: Head, asked: Asked, has_logprobs: bool, admitted: Admitted) -> Json:
    """ChatCompletion."""
    plan = admitted.generation.work.plans[0]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": plan.raw_text},
        "logprobs": chat_logprobs(plan.tokens, asked.top_n_tokens) if has_logprobs else None,
        "finish_reason": openai_finish(plan.finish),
    }
    return {
        **head.of("chat.completion"),
        "choices": [choice],
        "usage": usage(asked.input_tokens, len(plan.tokens)),
    }


def whole_completion(head: Head, input_tokens: int, admitted: Admitted) -> Json:
    """CompletionFinal."""
    choices = [
        {"index": index, "text": plan.raw_text, "logprobs": None, "finish_reason": openai_finish(plan.finish)}
        for index, plan in enumerate(admitted.generation.work.plans)
    ]
    return {
        **head.of("text_completion"),
        "choices": choices,
        "usage": usage(input_tokens, admitted.generation.generated_tokens),
    }


class TgiStream(StreamShape):
    """What TGI's streams have in common: the status goes out before anything is looked at, so errors are events."""

    opens = Opens.BEFORE_ADMISSION
    keep_alive = KeepAlive(15.0)  # axum's KeepAlive::default()

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = self.base_headers(headers)

    @staticmethod
    def base_headers(headers: Mapping[str, str]) -> dict[str, str]:
        """The headers of a stream, with those of one request."""
        return {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", **headers}


class GenerateStream(TgiStream):
    """/generate_stream. There is no [DONE], and the last event is the one with the whole text."""

    def __init__(self, headers: Mapping[str, str], asked: Asked) -> None:
        super().__init__(headers)
        self._asked = asked

    def step(self, step: Step, admitted: Admitted) -> Iterable[bytes]:
        """StreamResponse."""
        plan, finish = admitted.generation.work.plans[step.choice], step.finish
        count = admitted.generation.generated[step.choice]
        details = None
        if finish is not None and self._asked.has_details:
            details = {
                "finish_reason": own_finish(finish),
                "generated_tokens": count,
                "seed": self._asked.seed,
                "input_length": self._asked.input_tokens,
            }
        top = {"top_tokens": _top_tokens(step.token, 1)} if self._asked.top_n_tokens else {}
        text = None if finish is None else self._asked.prompt_shown + plan.raw_text
        yield event(
            {"index": count, "token": token_json(step.token), **top, "generated_text": text, "details": details}
        )

    def closing(self, admitted: Admitted) -> Iterable[bytes]:
        """Nothing."""
        return ()

    def broken(self, error: EngineTrouble) -> Iterable[bytes]:
        """An ErrorResponse as an event."""
        return (event(TgiWords().trouble(error).payload),)


class OpenAiStream(TgiStream):
    """What the streams in OpenAI's form have in common: [DONE] at the end, also after an error."""

    def closing(self, admitted: Admitted) -> Iterable[bytes]:
        """[DONE]."""
        return (DONE,)

    @abstractmethod
    def broken(self, error: EngineTrouble) -> Iterable[bytes]: ...


class ChatStream(OpenAiStream):
    """/v1/chat/completions."""

    def __init__(
        self, headers: Mapping[str, str], head: Head, asked: Asked, *, has_logprobs: bool, has_usage: bool
    ) -> None:
        super().__init__(headers)
        self._head = head
        self._asked = asked
        self._has_logprobs = has_logprobs
        self._has_usage = has_usage

    def step(self, step: Step, admitted: Admitted) -> Iterable[bytes]:
        """ChatCompletionChunk; role and content are in each of them."""
        choice = {
            "index": 0,
            "delta": {"role": "assistant", "content": "" if step.token.is_special else step.token.raw},
            "logprobs": chat_logprobs([step.token], self._asked.top_n_tokens) if self._has_logprobs else None,
            "finish_reason": None if step.finish is None else openai_finish(step.finish),
        }
        yield event({**self._head.of("chat.completion.chunk"), "choices": [choice], "usage": None})

    def closing(self, admitted: Admitted) -> Iterable[bytes]:
        """Usage for those who asked, and [DONE]."""
        if self._has_usage:
            totals = usage(self._asked.input_tokens, admitted.generation.generated_tokens)
            yield event({**self._head.of("chat.completion.chunk"), "choices": [], "usage": totals})
        yield DONE

    def broken(self, error: EngineTrouble) -> Iterable[bytes]:
        """An error in the form that OpenAI's client reads (pull request 2668), and [DONE]."""
        worded = TgiWords().trouble(error)
        message = worded.payload["error"] if isinstance(worded.payload, dict) else ""
        return (event({"error": {"message": message, "http_status_code": worded.status}}), DONE)


class CompletionStream(OpenAiStream):
    """/v1/completions. Each choice's last chunk is a CompletionFinal, with the usage of that choice."""

    def __init__(self, headers: Mapping[str, str], head: Head, input_lengths: list[int]) -> None:
        super().__init__(headers)
        self._head = head
        self._input_lengths = input_lengths

    def step(self, step: Step, admitted: Admitted) -> Iterable[bytes]:
        """Chunk or CompletionFinal."""
        choice = {
            "index": step.choice,
            "text": step.token.raw,
            "logprobs": None,
            "finish_reason": "" if step.finish is None else own_finish(step.finish),
        }
        chunk: Json = {**self._head.of("text_completion"), "choices": [choice]}
        if step.finish is not None:
            chunk["usage"] = usage(self._input_lengths[step.choice], admitted.generation.generated[step.choice])
        yield event(chunk)

    def broken(self, error: EngineTrouble) -> Iterable[bytes]:
        """An ErrorResponse as an event, and [DONE]."""
        return (event(TgiWords().trouble(error).payload), DONE)
