"""TensorRT-LLM's answers (tensorrt_llm/serve/openai_protocol.py and postprocess_handlers.py, 1.2)."""

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from enginehouse.engines.emulators.core.answers import DONE, EngineTrouble, Json, StreamShape, event
from enginehouse.engines.emulators.core.bodies import GenerationBody
from enginehouse.engines.emulators.core.engine import Admitted
from enginehouse.engines.emulators.core.generation import Step
from enginehouse.engines.emulators.core.logprobs import asked_logprobs
from enginehouse.engines.emulators.core.plan import Finish, FinishKind


@dataclass(frozen=True)
class Head:
    """What every part of one answer repeats."""

    prefix: str
    model: str
    number: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def of(self, kind: str) -> Json:
        """The first members."""
        return {
            "id": f"{self.prefix}-{self.number}",
            "object": kind,
            "created": self.created,
            "model": self.model,
        }


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    """UsageInfo."""
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }


def finish_reason(finish: Finish) -> str:
    """OpenAI's word for it."""
    return "length" if finish.kind is FinishKind.LENGTH else "stop"


def whole(head: Head, kind: str, body: GenerationBody, admitted: Admitted) -> Json:
    """ChatCompletionResponse or CompletionResponse."""
    work = admitted.generation.work
    choices: list[Json] = []
    for index, plan in enumerate(work.plans):
        message: Json = {"role": "assistant", "content": plan.text, "reasoning_content": None, "tool_calls": []}
        choices.append(
            {
                "index": index,
                **({"message": message} if kind == "chat.completion" else {"text": plan.text, "token_ids": None}),
                "logprobs": asked_logprobs(body, plan.tokens),
                "finish_reason": finish_reason(plan.finish),
                "stop_reason": plan.finish.stop,
                "disaggregated_params": None,
            }
        )
    totals = {**usage(work.prompt_tokens, admitted.generation.generated_tokens), "prompt_tokens_details": None}
    return {**head.of(kind), "choices": choices, "usage": totals, "prompt_token_ids": None}


class TensorRtLlmStream(StreamShape):
    """A stream. One that breaks is an exception in its generator, so its connection is cut."""

    def __init__(self, head: Head, kind: str, body: GenerationBody, prompt_tokens: int) -> None:
        self._head = head
        self._kind = kind
        self._body = body
        self._prompt_tokens = prompt_tokens

    def opening(self) -> Iterable[bytes]:
        """A chunk for each choice that names the role, of a chat."""
        if self._kind != "chat.completion.chunk":
            return
        for index in range(self._body.choices):
            choice = {"index": index, "delta": {"role": "assistant"}, "logprobs": None, "finish_reason": None}
            yield event({**self._head.of(self._kind), "choices": [choice]})

    def step(self, step: Step, admitted: Admitted) -> Iterable[bytes]:
        """One token, with the finish reason in the last one's own chunk."""
        text = step.token.text
        choice: Json = {
            "index": step.choice,
            **({"delta": {"content": text}} if self._kind == "chat.completion.chunk" else {"text": text}),
            "logprobs": asked_logprobs(self._body, [step.token]),
            "finish_reason": None if step.finish is None else finish_reason(step.finish),
        }
        if step.finish is not None:
            choice["stop_reason"] = step.finish.stop
        chunk: Json = {**self._head.of(self._kind), "choices": [choice]}
        if self._body.wants_usage_in_every_chunk:
            chunk["usage"] = usage(self._prompt_tokens, admitted.generation.generated[step.choice])
        yield event(chunk)

    def closing(self, admitted: Admitted) -> Iterable[bytes]:
        """Usage for those who asked, and [DONE]."""
        if self._body.wants_usage:
            totals = usage(self._prompt_tokens, admitted.generation.generated_tokens)
            yield event({**self._head.of(self._kind), "choices": [], "usage": totals})
        yield DONE

    def broken(self, error: EngineTrouble) -> None:
        """The connection is cut."""
