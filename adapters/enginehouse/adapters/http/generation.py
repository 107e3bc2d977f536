"""One generation, whose steps arrive in pieces."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Protocol, Self

from enginehouse.adapters.http.connection import EngineCall, EngineConnection
from enginehouse.adapters.sse import SseEvent, SseParser
from enginehouse.contract import EnginehouseError
from enginehouse.v1 import common_pb2, inference_pb2

_EVENT_STREAM = "text/event-stream"


class AnswerSteps(Protocol):
    """What an answer says, in the words of one dialect. Its methods raise what `Generation` raises."""

    @property
    def done(self) -> bool:
        """Whether nothing that still comes means anything."""
        ...

    @property
    def began(self) -> bool:
        """Whether the engine has generated, or counted, anything."""
        ...

    @property
    def usage(self) -> common_pb2.Usage:
        """For a generation that is cut now."""
        ...

    def read_event(self, event: SseEvent) -> Iterable[inference_pb2.GenerateResponse]:
        """The responses in one event of a stream."""
        ...

    def read_whole(self, body: bytes) -> Iterable[inference_pb2.GenerateResponse]:
        """The responses in an answer that was not streamed."""
        ...

    def finish(self) -> inference_pb2.GenerateResponse:
        """The last response, once the engine has nothing more to say."""
        ...


class Generation(AsyncIterator[inference_pb2.GenerateResponse]):
    """The steps of one generation: they end with `finished`, or with an error. Closing it aborts the engine's work.

    Args:
        connection: to the engine.
        prepare: makes what is posted, once the first step is asked for. It may ask the engine something before.
        reader: reads the answer.
        headers: sent along.
        conclude: called when the answer was left before its end, so that what was used can still be counted.
    """

    def __init__(
        self,
        connection: EngineConnection,
        prepare: Callable[[], Awaitable[EngineCall]],
        reader: AnswerSteps,
        headers: Mapping[str, str],
        conclude: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._connection = connection
        self._prepare = prepare
        self._conclude = conclude
        self._reader = reader
        self._headers = headers
        self._asked = False
        self._failed = False
        self._final: common_pb2.Usage | None = None
        self._events = SseParser()
        self._steps = self._run()

    @property
    def usage(self) -> common_pb2.Usage:
        """What was used so far, also after an error or a close.

        ENGINE after the end, ENGINE_PARTIAL while the engine counts along, ADAPTER where tokens were counted as they
        passed, NONE when it was not asked or failed before its first token, and UPPER_BOUND when it may have generated
        and nobody has counted.
        """
        if self._final:
            return self._final
        if not self._asked or (self._failed and not self._reader.began):
            return common_pb2.Usage(method=common_pb2.USAGE_METHOD_NONE)
        return self._reader.usage

    async def __anext__(self) -> inference_pb2.GenerateResponse:
        """The next step.

        Raises:
            EngineError: the engine refused, failed, hung, or ended early.
            RequestError: CONTEXT_TOO_LONG, or MODEL_NOT_FOUND for what the client named.
        """
        try:
            return await anext(self._steps)
        except EnginehouseError:
            self._failed = True
            raise

    async def aclose(self) -> None:
        """Aborts the request if it still runs."""
        await self._steps.aclose()

    async def __aenter__(self) -> Self:
        """Itself, to be closed on exit."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes it."""
        await self.aclose()

    async def _run(self) -> AsyncGenerator[inference_pb2.GenerateResponse, None]:
        call = await self._prepare()
        self._asked = True
        response = await self._connection.open(call, self._headers)
        try:
            await self._connection.accept(response, call)
            if response.content_type != _EVENT_STREAM:
                for step in self._reader.read_whole(await self._connection.read_all(response)):
                    yield step
            while not self._reader.done and (chunk := await self._connection.read_some(response)):
                for event in self._events.feed(chunk):
                    for step in self._reader.read_event(event):
                        yield step
            finished = self._reader.finish()
            self._final = finished.finished.usage
            yield finished
        finally:
            response.close()
            if self._final is None and self._conclude is not None:
                await self._conclude()
