"""One generation, whose steps arrive in tokens."""

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from enginehouse.adapters._token_engine.channel import EngineChannel
from enginehouse.adapters._token_engine.dialect import AskedTokens, TokenDialect
from enginehouse.adapters._token_engine.knowledge import Knowledge, Learning
from enginehouse.adapters._token_engine.reader import AnswerReader
from enginehouse.contract import EngineError, EnginehouseError, Reason, RequestError
from enginehouse.v1 import common_pb2, inference_pb2

# An engine that hangs does not hold up whoever leaves it.
_ABORT_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be generated.

    Attributes:
        request: canonical.
        output_tokens_max: the bound that the decision held for, for one choice.
        generation_id: written into every step.
        headers: sent along.
    """

    request: inference_pb2.GenerateRequest
    output_tokens_max: int
    generation_id: str
    headers: Mapping[str, str]


class TokenGeneration(AsyncIterator[inference_pb2.GenerateResponse]):
    """The steps of one generation: they end with `finished`, or with an error. Closing it aborts the engine's work.

    Args:
        dialect: the engine's.
        channel: to the engine.
        learning: its tokenizer.
        order: what is asked for.
    """

    def __init__(self, dialect: TokenDialect, channel: EngineChannel, learning: Learning, order: Order) -> None:
        self._dialect = dialect
        self._channel = channel
        self._learning = learning
        self._order = order
        self._failed = False
        self._final: common_pb2.Usage | None = None
        self._reader: AnswerReader | None = None
        self._steps = self._run()

    @property
    def usage(self) -> common_pb2.Usage:
        """What was used so far, also after an error or a close.

        ENGINE after the end, ENGINE_PARTIAL while the engine counts along, NONE when it was not asked or failed before
        its first token, and UPPER_BOUND when it may have generated and has not said.
        """
        if self._final:
            return self._final
        if self._reader is None or (self._failed and not self._reader.began):
            return common_pb2.Usage(method=common_pb2.USAGE_METHOD_NONE)
        return self._reader.usage

    async def __anext__(self) -> inference_pb2.GenerateResponse:
        """The next step.

        Raises:
            EngineError: the engine refused, failed, hung, or ended early.
            RequestError: CONTEXT_TOO_LONG, or the model has no chat template for the conversation.
        """
        try:
            return await anext(self._steps)
        except EnginehouseError as error:
            self._failed = True
            if isinstance(error, EngineError):
                self._learning.forget()
            raise

    async def aclose(self) -> None:
        """Aborts the request if it still runs."""
        await self._steps.aclose()

    async def __aenter__(self) -> Self:
        """Itself, to be closed on exit."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        await self.aclose()

    async def _run(self) -> AsyncGenerator[inference_pb2.GenerateResponse, None]:
        dialect, order = self._dialect, self._order
        known = await self._learning.get()
        asked = await self._asked(known)
        message = dialect.write(order.request, asked)
        self._reader = reader = AnswerReader(
            order.request,
            asked.prompt,
            known.tokenizer,
            generation_id=order.generation_id,
            engine=dialect.engine,
        )
        answer, is_over = dialect.answer(), False
        call = self._channel.open(dialect.method("Generate"), message, dialect.response, order.headers)
        try:
            async for received in self._channel.messages(call):
                for part in answer.read(received):
                    for step in reader.read(part):
                        yield step
                if reader.has_overrun:
                    break
            else:
                is_over = True
        finally:
            if not is_over:
                call.cancel()
                # The call's end frees the place as well; an engine that does not look at it is told.
                with suppress(EnginehouseError):
                    await dialect.abort(self._channel, asked.request_id, timeout_s=_ABORT_TIMEOUT_S)
        finished = reader.finish()
        self._final = finished.finished.usage
        yield finished

    async def _asked(self, known: Knowledge) -> AskedTokens:
        """The request in tokens.

        Raises:
            RequestError: the prompt is nothing, or leaves no room in the context for an answer.
        """
        order, engine = self._order, self._dialect.engine
        prompt = await known.encode(order.request)
        if not prompt:
            raise RequestError(f"the prompt is empty, and the engine {engine} needs a token to go on from; write one")
        output_tokens_max = order.request.sampling.max_output_tokens or order.output_tokens_max
        output_tokens_max = min(output_tokens_max, order.output_tokens_max)
        if context := known.facts.context_tokens_max:
            if len(prompt) >= context:
                raise RequestError(
                    f"the prompt does not fit the context of the engine {engine}: {len(prompt)} tokens of {context}, "
                    "and an answer needs one at least; shorten it",
                    Reason.CONTEXT_TOO_LONG,
                    metadata={"engine": engine},
                )
            output_tokens_max = min(output_tokens_max, context - len(prompt))
        request_id = f"{order.generation_id}-{secrets.token_hex(8)}"
        return AskedTokens(request_id, prompt, output_tokens_max, known.facts.sampling)
