"""One request through one of the doors, and what its client saw."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum

import aiohttp
import grpc.aio

from tests.e2e.dialects import details_of
from tests.guarantees.tariff import LEFT_AFTER_TOKENS, OUTPUT_TOKENS, TEXT
from tests.support.caller import Caller, chat_body, generate_request

_OK, _PAYMENT_REQUIRED, _UNAVAILABLE = 200, 402, 503


class Door(Enum):
    """How a client asks. By number, so that they take turns."""

    OPENAI_UNARY = 0
    OPENAI_STREAM = 1
    ANTHROPIC_STREAM = 2
    GRPC_STREAM = 3


class Outcome(Enum):
    """How a request ended for its client."""

    WHOLE = "read to its end"
    LEFT = "the client left in the middle"
    REFUSED = "refused: the budget is exhausted"
    UNAVAILABLE = "refused: nobody can decide or serve now"
    BROKEN = "broken: the connection, or the stream in its middle"
    WRONG = "answered as nothing should be"


@dataclass(frozen=True, slots=True)
class Order:
    """One request.

    Attributes:
        model: which deployment is asked.
        is_cut: the client leaves after some tokens.
    """

    door: Door
    model: str
    is_cut: bool


class _RefusedError(Exception):
    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome


async def ask(caller: Caller, order: Order, begun: Callable[[], None]) -> Outcome:
    """Asks once, and reads as far as the order says. `begun` is called with the first token."""
    tokens = 0
    try:
        async with aclosing(_DOORS[order.door](caller, order.model)) as stream:
            async for _ in stream:
                tokens += 1
                if tokens == 1:
                    begun()
                if order.is_cut and tokens == LEFT_AFTER_TOKENS:
                    return Outcome.LEFT
    except _RefusedError as error:
        return error.outcome
    except (aiohttp.ClientError, TimeoutError):
        return Outcome.BROKEN
    except grpc.aio.AioRpcError as error:
        return _of_call(error) if tokens == 0 else Outcome.BROKEN
    return Outcome.WHOLE if tokens == OUTPUT_TOKENS else Outcome.BROKEN


async def _by_openai(caller: Caller, model: str) -> AsyncGenerator[str, None]:
    """A chat in one piece, in the direct lane."""
    reply = await caller.chat(model, TEXT, max_tokens=OUTPUT_TOKENS)
    _check(reply.status)
    for word in reply.json["choices"][0]["message"]["content"].split():
        yield word


async def _by_openai_stream(caller: Caller, model: str) -> AsyncGenerator[str, None]:
    """A stream in the direct lane."""
    body = chat_body(model, TEXT, stream=True, max_tokens=OUTPUT_TOKENS)
    async with caller.open("/v1/chat/completions", body) as answer:
        _check(answer.status)
        async for line in answer.content:
            if b'"content":"w' in line or b'"content":" w' in line:
                yield line.decode()


async def _by_anthropic(caller: Caller, model: str) -> AsyncGenerator[str, None]:
    """A stream in the adapter lane."""
    body = chat_body(model, TEXT, stream=True, max_tokens=OUTPUT_TOKENS)
    async with caller.open("/v1/messages", body) as answer:
        _check(answer.status)
        async for line in answer.content:
            if b'"text_delta"' in line:
                yield line.decode()


async def _by_grpc(caller: Caller, model: str) -> AsyncGenerator[str, None]:
    """A stream of canonical steps."""
    call = caller.grpc.Generate(generate_request(model, TEXT, OUTPUT_TOKENS), metadata=caller.metadata)
    try:
        async for step in call:
            if step.delta.text:
                yield step.delta.text
    finally:
        call.cancel()


_DOORS: dict[Door, Callable[[Caller, str], AsyncGenerator[str, None]]] = {
    Door.OPENAI_UNARY: _by_openai,
    Door.OPENAI_STREAM: _by_openai_stream,
    Door.ANTHROPIC_STREAM: _by_anthropic,
    Door.GRPC_STREAM: _by_grpc,
}


def _check(status: int) -> None:
    refusals = {_PAYMENT_REQUIRED: Outcome.REFUSED, _UNAVAILABLE: Outcome.UNAVAILABLE}
    if status != _OK:
        raise _RefusedError(refusals.get(status, Outcome.WRONG))


def _of_call(error: grpc.aio.AioRpcError) -> Outcome:
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return Outcome.UNAVAILABLE
    is_refused = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return Outcome.REFUSED if is_refused and details_of(error).reason == "BUDGET_EXHAUSTED" else Outcome.WRONG
