"""vLLM's answers (vllm/entrypoints/openai/*/protocol.py and serving.py, 0.32).

Whole answers carry every member, null where there is nothing to say; chunks carry only the members that were set.
"""

import time
import uuid
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from enginehouse.engines.emulators.core.answers import DONE, EngineTrouble, Json, StreamShape, event
from enginehouse.engines.emulators.core.bodies import ChatBody, GenerationBody
from enginehouse.engines.emulators.core.engine import Admitted
from enginehouse.engines.emulators.core.errors import BrokenBy, GenerationBroken
from enginehouse.engines.emulators.core.generation import Step
from enginehouse.engines.emulators.core.logprobs import chat_logprobs
from enginehouse.engines.emulators.core.plan import EOS_ID, Finish, FinishKind, Plan, Token
from enginehouse.engines.emulators.vllm.words import VllmWords

_REASONS = {
    FinishKind.LENGTH: "length",
    FinishKind.EOS: "stop",
    FinishKind.STOP_SEQUENCE: "stop",
    FinishKind.ABORT: "abort",
}


@dataclass(frozen=True)
class Head:
    """What every part of one answer repeats."""

    id: str
    model: str
    fingerprint: str
    created: int = field(default_factory=lambda: int(time.time()))

    def of(self, kind: str) -> Json:
        """The first members."""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def new_id(prefix: str) -> str:
    """An id as vLLM makes them: 16 hexadecimal digits behind a prefix."""
    return f"{prefix}-{uuid.uuid4().hex[:16]}"


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    """UsageInfo as chunks have it."""
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }


def whole_usage(prompt_tokens: int, completion_tokens: int) -> Json:
    """UsageInfo as whole answers have it."""
    return {
        **usage(prompt_tokens, completion_tokens),
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }


def model_card(name: str, root: str, max_model_len: int) -> Json:
    """ModelCard, as /v1/models lists it. It is made anew for every request."""
    created = int(time.time())
    permission: Json = {
        "id": new_id("modelperm"),
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    card: Json = {"id": name, "object": "model", "created": created, "owned_by": "vllm", "root": root, "parent": None}
    return {**card, "max_model_len": max_model_len, "permission": [permission]}


def plans_of(admitted: Admitted) -> list[Plan]:
    """The choices as far as they came."""
    generation = admitted.generation
    return [plan.cut(count) for plan, count in zip(generation.work.plans, generation.generated, strict=True)]


def finish_reason(finish: Finish) -> str:
    """OpenAI's word for it."""
    return _REASONS[finish.kind]


def completion_logprobs(tokens: Iterable[Token], offset: int) -> Json:
    """CompletionLogProbs, from a text offset on. Of alternatives there is the token itself, asked for or not."""
    listed = list(tokens)
    offsets: list[int] = []
    for token in listed:
        offsets.append(offset)
        offset += len(token.raw)
    return {
        "text_offset": offsets,
        "token_logprobs": [token.logprob for token in listed],
        "tokens": [token.raw for token in listed],
        "top_logprobs": [{token.raw: token.logprob} for token in listed],
    }


def whole_chat(head: Head, body: ChatBody, admitted: Admitted) -> Json:
    """ChatCompletionResponse."""
    work = admitted.generation.work
    choices = [
        {
            "index": index,
            "message": {
                "role": "assistant",
                "content": plan.text,
                "refusal": None,
                "annotations": None,
                "audio": None,
                "function_call": None,
                "reasoning": None,
            },
            "logprobs": chat_logprobs(plan.tokens, body.top_logprobs or 0) if body.logprobs else None,
            "finish_reason": finish_reason(plan.finish),
            "stop_reason": plan.finish.stop,
            "token_ids": None,
            "routed_experts": None,
        }
        for index, plan in enumerate(plans_of(admitted))
    ]
    return {
        **head.of("chat.completion"),
        "choices": choices,
        "service_tier": None,
        "system_fingerprint": head.fingerprint,
        "usage": whole_usage(work.prompt_tokens, admitted.generation.generated_tokens),
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "prompt_text": None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


def whole_completion(head: Head, echoes: Iterable[str], logprobs: int | None, admitted: Admitted) -> Json:
    """CompletionResponse. `echoes`: for each choice the prompt that is echoed before it, or ""."""
    plans = zip(echoes, plans_of(admitted), strict=True)
    choices = [
        {
            "index": index,
            "text": echoed + plan.text,
            "logprobs": None if logprobs is None else completion_logprobs(plan.tokens, len(echoed)),
            "finish_reason": finish_reason(plan.finish),
            "stop_reason": plan.finish.stop,
            "token_ids": None,
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "routed_experts": None,
        }
        for index, (echoed, plan) in enumerate(plans)
    ]
    generation = admitted.generation
    return {
        **head.of("text_completion"),
        "choices": choices,
        "service_tier": None,
        "system_fingerprint": head.fingerprint,
        "usage": whole_usage(generation.work.prompt_tokens, generation.generated_tokens),
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


class VllmStream(StreamShape):
    """What both of vLLM's streams have in common: an error is an event, and [DONE] comes after it all the same."""

    part: ClassVar[str]
    usage_details: ClassVar[Json] = {}

    def __init__(self, head: Head, body: GenerationBody, prompt_tokens: int, forces_usage: bool, choices: int) -> None:
        self._said = [0] * choices
        self._unfinished = set(range(choices))
        self._head = head
        self._prompt_tokens = prompt_tokens
        self._has_usage = body.wants_usage or forces_usage
        self._has_usage_in_every_chunk = body.wants_usage_in_every_chunk or forces_usage

    def step(self, step: Step, admitted: Admitted) -> Iterable[bytes]:
        """One token, with the finish reason in the last one's own chunk."""
        self._said[step.choice] += 1
        if step.finish is not None:
            self._unfinished.discard(step.choice)
        chunk: Json = {**self._head.of(self.part), "choices": [self._choice(step)]}
        if self._has_usage_in_every_chunk:
            so_far = usage(self._prompt_tokens, self._said[step.choice])
            chunk["usage"] = {**so_far, **self.usage_details}
        if step.finish is not None and not self._has_usage:
            chunk["system_fingerprint"] = self._head.fingerprint
        yield event(chunk)

    def closing(self, admitted: Admitted | None = None) -> Iterable[bytes]:
        """Usage for those who asked, and [DONE]."""
        if self._has_usage:
            totals = usage(self._prompt_tokens, sum(self._said))
            last = {"choices": [], "usage": totals, "system_fingerprint": self._head.fingerprint}
            yield event({**self._head.of(self.part), **last})
        yield DONE

    def broken(self, error: EngineTrouble) -> Iterable[bytes]:
        """The error as an event, and [DONE]. What was aborted ends like any other, but for its finish reason."""
        if isinstance(error, GenerationBroken) and error.cause is BrokenBy.ABORT:
            return self._aborted()
        payload = VllmWords().trouble(error).payload
        return (event(payload), DONE)

    def _aborted(self) -> Iterable[bytes]:
        for choice in sorted(self._unfinished):
            chunk: Json = {**self._head.of(self.part), "choices": [self._choice(_aborted(choice))]}
            if self._has_usage_in_every_chunk:
                chunk["usage"] = {**usage(self._prompt_tokens, self._said[choice]), **self.usage_details}
            yield event(chunk)
        yield from self.closing()

    @abstractmethod
    def _choice(self, step: Step) -> Json: ...


def _aborted(choice: int) -> Step:
    """The end of a choice that was aborted."""
    return Step(choice, Token(EOS_ID, "", ""), Finish(FinishKind.ABORT))


class ChatStream(VllmStream):
    """/v1/chat/completions."""

    part = "chat.completion.chunk"
    usage_details: ClassVar[Json] = {"completion_tokens_details": None}

    def __init__(self, head: Head, body: ChatBody, prompt_tokens: int, forces_usage: bool) -> None:
        super().__init__(head, body, prompt_tokens, forces_usage, body.choices)
        self._body = body

    def opening(self) -> Iterable[bytes]:
        """A chunk for each choice that names the role."""
        for index in range(self._body.choices):
            choice = {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None}
            chunk: Json = {**self._head.of(self.part), "choices": [{**choice, "finish_reason": None}]}
            if self._has_usage_in_every_chunk:
                chunk["usage"] = {**usage(self._prompt_tokens, 0), **self.usage_details}
            yield event({**chunk, "prompt_token_ids": None, "prompt_text": None})

    def _choice(self, step: Step) -> Json:
        logprobs = chat_logprobs([step.token], self._body.top_logprobs or 0) if self._body.logprobs else None
        choice: Json = {"index": step.choice, "delta": {"content": step.token.text}, "logprobs": logprobs}
        if step.finish is None:
            return {**choice, "finish_reason": None, "token_ids": None}
        ending = {"finish_reason": finish_reason(step.finish), "stop_reason": step.finish.stop}
        return {**choice, **ending, "token_ids": None}


class CompletionStream(VllmStream):
    """/v1/completions.

    Args:
        echoed: the prompt that comes before each choice's first token, or "".
    """

    part = "text_completion"

    def __init__(
        self,
        head: Head,
        body: GenerationBody,
        prompt_tokens: int,
        forces_usage: bool,
        echoed: list[str],
        logprobs: int | None,
    ) -> None:
        super().__init__(head, body, prompt_tokens, forces_usage, len(echoed))
        self._unsaid = list(echoed)
        self._offsets = [len(text) for text in echoed]
        self._logprobs = logprobs

    def _choice(self, step: Step) -> Json:
        text = self._unsaid[step.choice] + step.token.text
        self._unsaid[step.choice] = ""
        logprobs = None
        if self._logprobs is not None:
            logprobs = completion_logprobs([step.token], self._offsets[step.choice])
            self._offsets[step.choice] += len(step.token.raw)
        finish = step.finish
        return {
            "index": step.choice,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": None if finish is None else finish_reason(finish),
            "stop_reason": None if finish is None else finish.stop,
            "prompt_token_ids": None,
            "token_ids": None,
        }
