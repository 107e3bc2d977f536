"""mlx_lm.server's answers (mlx_lm/server.py, 0.32.2)."""

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from aiohttp import web

from enginehouse.engines.emulators.core.answers import DONE, EngineTrouble, Json, StreamShape, dump, event
from enginehouse.engines.emulators.core.bodies import GenerationBody
from enginehouse.engines.emulators.core.engine import Admitted
from enginehouse.engines.emulators.core.generation import Step
from enginehouse.engines.emulators.core.plan import Finish, FinishKind, Token

_FINGERPRINT = "0.32.2-0.32.0-emulated"
_STREAM_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "*",
    "Access-Control-Allow-Headers": "*",
}


class SizedResponse(web.Response):
    """An answer that says how long it is. Others end with their connection."""


def sized(data: Json) -> SizedResponse:
    """A whole generation as an answer."""
    return SizedResponse(body=dump(data), headers={"Content-Type": "application/json"})


@dataclass(frozen=True)
class Head:
    """What every part of one answer repeats."""

    prefix: str
    model: str
    number: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: int = field(default_factory=lambda: int(time.time()))

    def of(self, kind: str) -> Json:
        """The members before `choices`."""
        return {
            "id": f"{self.prefix}-{self.number}",
            "system_fingerprint": _FINGERPRINT,
            "object": kind,
            "model": self.model,
            "created": self.created,
        }


def usage(admitted: Admitted) -> Json:
    """`usage`; there is one choice."""
    prompt_tokens, completion_tokens = admitted.generation.work.prompt_tokens, admitted.generation.generated_tokens
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def finish_reason(finish: Finish) -> str:
    """OpenAI's word for it."""
    return "length" if finish.kind is FinishKind.LENGTH else "stop"


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Whether numbers were asked for, and how many alternatives; there is one, the token itself."""

    are_wanted: bool
    alternatives: int = 0

    def of(self, tokens: Iterable[Token]) -> Json | None:
        """As a choice has them."""
        if self.alternatives > 0:
            named: list[Json] = [{"id": token.id, "token": token.raw, "logprob": token.logprob} for token in tokens]
            return {"content": [{**one, "top_logprobs": [one]} for one in named]}
        if self.are_wanted:
            return {"content": [{"id": token.id, "logprob": token.logprob} for token in tokens]}
        return None


def whole(head: Head, kind: str, logprobs: Logprobs, admitted: Admitted) -> Json:
    """A whole answer, of a chat or a completion. A stream has no logprobs."""
    plan = admitted.generation.work.plans[0]
    choice: Json = {"index": 0, "finish_reason": finish_reason(plan.finish)}
    if (found := logprobs.of(plan.tokens)) is not None:
        choice["logprobs"] = found
    is_chat = kind == "chat.completion"
    choice |= {"message": {"role": "assistant", "content": plan.text or None}} if is_chat else {"text": plan.text}
    return {**head.of(kind), "choices": [choice], "usage": usage(admitted)}


class MlxStream(StreamShape):
    """A stream. It is delimited by the end of the connection, so one that breaks ends cleanly, without [DONE]."""

    headers = _STREAM_HEADERS
    is_close_delimited = True

    def __init__(self, head: Head, kind: str, body: GenerationBody, prompt_tokens: int) -> None:
        self._head = head
        self._kind = kind
        self._body = body
        self._prompt_tokens = prompt_tokens

    def opening(self) -> Iterable[bytes]:
        """How far the prompt was read, in a comment."""
        yield f": keepalive {self._prompt_tokens}/{self._prompt_tokens}\n\n".encode()

    def step(self, step: Step, admitted: Admitted) -> Iterable[bytes]:
        """One token; one without text has no chunk."""
        if step.token.text:
            yield self._chunk(step.token.text, None)

    def closing(self, admitted: Admitted) -> Iterable[bytes]:
        """The finish reason, usage for those who asked (as "chat.completion", whatever it is), and [DONE]."""
        yield self._chunk("", finish_reason(admitted.generation.work.plans[0].finish))
        if self._body.wants_usage:
            yield event({**self._head.of("chat.completion"), "choices": [], "usage": usage(admitted)})
        yield DONE

    def broken(self, error: EngineTrouble) -> Iterable[bytes]:
        """Nothing: the thread dies, and its connection is closed."""
        return ()

    def _chunk(self, text: str, finish: str | None) -> bytes:
        choice: Json = {"index": 0, "finish_reason": finish}
        if self._kind == "text_completion":
            choice["text"] = text
        else:
            choice["delta"] = {"role": "assistant", **({"content": text} if text else {})}
        return event({**self._head.of(self._kind), "choices": [choice]})
