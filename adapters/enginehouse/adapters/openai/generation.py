"""One generation, whose steps arrive in pieces."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Self

from enginehouse.adapters.openai.connection import EngineConnection
from enginehouse.adapters.openai.read import AnswerReader
from enginehouse.adapters.openai.write import EngineCall
from enginehouse.adapters.sse import SseParser
from enginehouse.contract import EnginehouseError
from enginehouse.v1 import common_pb2, inference_pb2

_EVENT_STREAM = "text/event-stream"


class Generation(AsyncIterator[inference_pb2.GenerateResponse]):
    """The steps of one generation: they end with `finished`, or with an error. Closing it aborts the engine's work.

    Args:
        connection: to the engine.
        call: what is posted, once the first step is asked for.
        reader: reads the answer.
        headers: sent along.
    """

    def __init__(
        self, connection: EngineConnection, call: EngineCall, reader: AnswerReader, headers: Mapping[str, str]
    ) -> None:
        self._connection = connection
        self._call = call
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

        ENGINE after the end, ENGINE_PARTIAL while the engine counts along, NONE when it was not asked or failed before
        its first token, and UPPER_BOUND when it may have generated and has not said.
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
            RequestError: CONTEXT_TOO_LONG.
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
        self._asked = True
        response = await self._connection.open(self._call, self._headers)
        try:
            await self._connection.accept(response)
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
