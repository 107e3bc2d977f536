"""SGLang's answers (sglang/srt/entrypoints/openai/protocol.py, sse_utils.py and serving_*.py, 0.5.23)."""

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from enginehouse.engines.emulators.core.answers import DONE, EngineTrouble, Json, Opens, StreamShape, event
from enginehouse.engines.emulators.core.bodies import ChatBody, GenerationBody
from enginehouse.engines.emulators.core.engine import Admitted
from enginehouse.engines.emulators.core.errors import BrokenBy, GenerationBroken
from enginehouse.engines.emulators.core.generation import Step
from enginehouse.engines.emulators.core.logprobs import asked_logprobs
from enginehouse.engines.emulators.core.plan import EOS_ID, Finish, FinishKind, Plan
from enginehouse.engines.emulators.sglang.words import SglangWords


@dataclass(frozen=True)
class Head:
    """What every part of one answer repeats."""

    model: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def of(self, kind: str) -> Json:
        """The first members."""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    """UsageInfo."""
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
        "prompt_tokens_details": None,
        "reasoning_tokens": 0,
        "completion_tokens_details": None,
    }


def finish_reason(finish: Finish) -> str:
    """OpenAI's word for it."""
    return "length" if finish.kind is FinishKind.LENGTH else "stop"


def matched_stop(finish: Finish) -> int | str | None:
    """What ended the choice: a stop sequence, or the number of the end-of-sequence token."""
    return EOS_ID if finish.kind is FinishKind.EOS else finish.stop


def native_finish(plan: Plan) -> Json:
    """`finish_reason` of /generate."""
    if plan.finish.kind is FinishKind.LENGTH:
        return {"type": "length", "length": len(plan.tokens)}
    return {"type": "stop", "matched": matched_stop(plan.finish)}


def whole_chat(head: Head, body: ChatBody, admitted: Admitted) -> Json:
    """ChatCompletionResponse."""
    work = admitted.generation.work
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": plan.text, "reasoning_content": None},
            "logprobs": asked_logprobs(body, plan.tokens),
            "finish_reason": finish_reason(plan.finish),
            "matched_stop": matched_stop(plan.finish),
        }
        for index, plan in enumerate(work.plans)
    ]
    totals = usage(work.prompt_tokens, admitted.generation.generated_tokens)
    return {
        **head.of("chat.completion"),
        "choices": choices,
        "usage": totals,
        "metadata": {"weight_version": "default"},
    }


def whole_completion(head: Head, admitted: Admitted) -> Json:
    """CompletionResponse."""
    work = admitted.generation.work
    choices = [_completion_choice(index, plan.text, plan.finish) for index, plan in enumerate(work.plans)]
    totals = usage(work.prompt_tokens, admitted.generation.generated_tokens)
    return {
        **head.of("text_completion"),
        "choices": choices,
        "usage": totals,
        "metadata": {"weight_version": "default"},
    }


def _completion_choice(index: int, text: str, finish: Finish | None) -> Json:
    return {
        "index": index,
        "text": text,
        "logprobs": None,
        "finish_reason": None if finish is None else finish_reason(finish),
        "matched_stop": None if finish is None else matched_stop(finish),
    }


class SglangStream(StreamShape):
    """What SGLang's streams have in common: the first chunk is awaited before the status goes out, but what it says may
    be an error; [DONE] comes after it all the same."""

    opens = Opens.WITH_FIRST_TOKEN
    refuses_within = True

    def broken(self, error: EngineTrouble) -> Iterable[bytes]:
        """The error within an object, and [DONE]."""
        return (event({"error": SglangWords().trouble(error).payload}), DONE)


class OpenAiStream(SglangStream):
    """What the streams in OpenAI's form have in common."""

    def __init__(self, head: Head, body: GenerationBody, prompt_tokens: int, forces_usage: bool) -> None:
        self._head = head
        self._prompt_tokens = prompt_tokens
        self._has_usage = body.wants_usage or forces_usage
        self._has_usage_in_every_chunk = body.wants_usage_in_every_chunk

    def _usage_so_far(self, step: Step, admitted: Admitted) -> Json | None:
        if not self._has_usage_in_every_chunk:
            return None
        return usage(self._prompt_tokens, admitted.generation.generated[step.choice])

    def _ending(self, kind: str, admitted: Admitted) -> Iterable[bytes]:
        if self._has_usage:
            totals = usage(self._prompt_tokens, admitted.generation.generated_tokens)
            yield event({**self._head.of(kind), "choices": [], "usage": totals})
        yield DONE


class ChatStream(OpenAiStream):
    """/v1/chat/completions. The finish reasons of all choices come at the end."""

    kind = "chat.completion.chunk"

    def __init__(self, head: Head, body: GenerationBody, prompt_tokens: int, forces_usage: bool) -> None:
        super().__init__(head, body, prompt_tokens, forces_usage)
        self._body = body
        self._begun: set[int] = set()

    def step(self, step: Step, admitted: Admitted) -> Iterable[bytes]:
        """A chunk with the role before a choice's first one."""
        if step.choice not in self._begun:
            self._begun.add(step.choice)
            yield self._chunk(step.choice, role="assistant", content="")
        if step.token.text:
            so_far, logprobs = self._usage_so_far(step, admitted), asked_logprobs(self._body, [step.token])
            yield self._chunk(step.choice, content=step.token.text, so_far=so_far, logprobs=logprobs)

    def closing(self, admitted: Admitted) -> Iterable[bytes]:
        """The finish reasons, usage for those who asked, and [DONE]."""
        for index, plan in enumerate(admitted.generation.work.plans):
            yield self._chunk(index, finish=finish_reason(plan.finish), matched=matched_stop(plan.finish))
        yield from self._ending(self.kind, admitted)

    def broken(self, error: EngineTrouble) -> Iterable[bytes]:
        """An abort by its id ends a stream properly, with a finish reason of its own."""
        if isinstance(error, GenerationBroken) and error.cause is BrokenBy.ABORT:
            return (*(self._chunk(index, finish="abort") for index in sorted(self._begun)), DONE)
        return super().broken(error)

    def _chunk(
        self,
        index: int,
        *,
        role: str | None = None,
        content: str | None = None,
        finish: str | None = None,
        matched: int | str | None = None,
        so_far: Json | None = None,
        logprobs: Json | None = None,
    ) -> bytes:
        choice = {
            "index": index,
            "delta": {"reasoning_content": None, "role": role, "content": content},
            "logprobs": logprobs,
            "finish_reason": finish,
            "matched_stop": matched,
        }
        chunk: Json = {**self._head.of(self.kind), "choices": [choice]}
        return event(chunk if so_far is None else {**chunk, "usage": so_far})


class CompletionStream(OpenAiStream):
    """/v1/completions."""

    kind = "text_completion"

    def step(self, step: Step, admitted: Admitted) -> Iterable[bytes]:
        """One token, with the finish reason in the last one's own chunk."""
        choice = _completion_choice(step.choice, step.token.text, step.finish)
        so_far = self._usage_so_far(step, admitted)
        yield event({**self._head.of(self.kind), "choices": [choice], "usage": so_far})

    def closing(self, admitted: Admitted) -> Iterable[bytes]:
        """Usage for those who asked, and [DONE]."""
        return self._ending(self.kind, admitted)


def native(request_id: str, plan: Plan, count: int, prompt_tokens: int, latency_s: float) -> Json:
    """One answer of /generate, or an event of its stream: the whole text so far."""
    is_last = count == len(plan.tokens)
    tokens = plan.tokens[:count]
    return {
        "text": "".join(token.text for token in tokens),
        "output_ids": [token.id for token in tokens],
        "meta_info": {
            "id": request_id,
            "finish_reason": native_finish(plan) if is_last else None,
            "prompt_tokens": prompt_tokens,
            "weight_version": "default",
            "completion_tokens": count,
            "cached_tokens": 0,
            "e2e_latency": latency_s,
        },
    }


class NativeStream(SglangStream):
    """/generate with `stream`. Each event repeats the text from its beginning."""

    opens = Opens.ON_ADMISSION

    def __init__(self, request_id: str) -> None:
        self._id = request_id

    def step(self, step: Step, admitted: Admitted) -> Iterable[bytes]:
        """The text so far."""
        work = admitted.generation.work
        count = admitted.generation.generated[step.choice]
        yield event(native(self._id, work.plans[step.choice], count, work.prompt_tokens, 0.0))

    def closing(self, admitted: Admitted) -> Iterable[bytes]:
        """[DONE]."""
        return (DONE,)

    def broken(self, error: EngineTrouble) -> Iterable[bytes]:
        """The error in the words of /generate, and [DONE]."""
        worded = SglangWords().trouble(error)
        message = worded.payload["message"] if isinstance(worded.payload, dict) else ""
        failure = {"message": message, "type": "invalid_request_error", "code": int(worded.status), "retryable": False}
        return (event({"error": failure}), DONE)
