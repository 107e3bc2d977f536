"""An engine's own answer, passed on as it is to a client that speaks the same dialect."""

from collections.abc import AsyncGenerator
from enum import Enum, unique
from http import HTTPStatus
from typing import Protocol

import aiohttp

from enginehouse.adapters.http import ERROR_STATUS_MIN, EngineConnection, error_from_payload, find_error
from enginehouse.adapters.sse import EventCutter
from enginehouse.adapters.usage import UsageMeter, UsageScope
from enginehouse.contract import EngineError, EnginehouseError
from enginehouse.v1 import common_pb2

_EVENT_STREAM = "text/event-stream"
_FORWARDED = frozenset({"cache-control", "content-encoding", "content-type", "retry-after"})


@unique
class UsageFrame(Enum):
    """What becomes of the frame of a stream that tells the usage and nothing else."""

    PASSED = "passed"
    # The client did not ask for it, and reads the first choice of every frame.
    KEPT_BACK = "kept-back"


class _Passage(Protocol):
    """What an answer's bytes go through. `is_over`: whatever still comes means nothing."""

    is_over: bool
    is_whole: bool

    def feed(self, chunk: bytes) -> bytes:
        """Takes the next bytes and returns those that may be passed on."""
        ...

    def finish(self) -> bytes:
        """Takes the end of the bytes and returns what was held back.

        Raises:
            EnginehouseError: the client must hear that the answer is not whole.
        """
        ...


class BodyPassage:
    """An answer that is no stream: its own form shows whether it is whole."""

    def __init__(self, meter: UsageMeter) -> None:
        self.is_over = False
        self.is_whole = False
        self._meter = meter

    def feed(self, chunk: bytes) -> bytes:
        """Passes everything."""
        self._meter.feed(chunk)
        return chunk

    def finish(self) -> bytes:
        """Holds nothing back."""
        self._meter.finish()
        self.is_whole = True
        return b""


class StreamPassage:
    """A stream of events that never looks finished when it is not.

    Events pass one by one, so that ``[DONE]`` can be held back until every choice has its finish reason: vLLM says it
    after an error too (ran).

    Args:
        engine: its name, for messages.
        meter: reads the events; nobody else feeds it.
        usage_frame: what becomes of it.
    """

    def __init__(self, engine: str, meter: UsageMeter, usage_frame: UsageFrame = UsageFrame.PASSED) -> None:
        self.is_over = False
        self.is_whole = False
        self._engine = engine
        self._meter = meter
        self._keeps_usage_back = usage_frame is UsageFrame.KEPT_BACK
        self._cutter = EventCutter()
        self._end = b""
        self._error: EnginehouseError | None = None

    def feed(self, chunk: bytes) -> bytes:
        """Passes whole events, up to the engine's last word.

        Raises:
            EngineError: an event is larger than its bound.
        """
        passed: list[bytes] = []
        for event in self._cutter.feed(chunk):
            self._meter.feed(event)
            if self._meter.failure is not None:
                self._error = self._error_to_tell(self._meter.failure)
                passed += [event] if self._error is None else []
            elif self._meter.is_done:
                self._end = event
            else:
                if not (self._keeps_usage_back and self._meter.told_usage_alone):
                    passed.append(event)
                continue
            self.is_over = True
            break
        return b"".join(passed)

    def finish(self) -> bytes:
        """The engine's ``[DONE]``, or whatever it ended with, if the answer is whole.

        Raises:
            EngineError: the engine failed in words that no client hears, or ended its stream early, however cleanly.
            RequestError: CONTEXT_TOO_LONG, when that is the engine's error.
        """
        if self._error is not None:
            raise self._error
        if self._meter.failure is not None:
            return b""  # the engine's own error was the last word
        if not self._meter.is_whole:
            message = f"the engine {self._engine} ended its stream early"
            raise EngineError(message, metadata={"engine": self._engine})
        self.is_whole = True
        return self._end or self._cutter.rest

    def _error_to_tell(self, said: object) -> EnginehouseError | None:
        """The error to tell the client in place of what the engine said; None when that is best passed on.

        The official SDKs raise on a member `error` and on nothing else: neither on the flat form, nor on llama.cpp's
        old field. And while nothing was generated another replica may serve.
        """
        frame = said if isinstance(said, dict) else {}
        found = find_error(frame)
        error = error_from_payload(self._engine, HTTPStatus.OK, said if found is None else found)
        is_heard = bool(frame.get("error"))
        another_may_serve = not self._meter.began and error.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR
        return None if is_heard and not another_may_serve else error


class ForwardedAnswer:
    """An engine's own answer; its usage is read as it passes.

    Args:
        connection: to the engine.
        response: its answer, of which the headers are here.
        scope: what the engine's counts cover.
        choices: how many a whole stream has at least.
        usage_frame: what becomes of it.

    Attributes:
        status: HTTP status.
        headers: what its body is and when to come back, names in lower case; nothing else of the engine is passed on.
    """

    def __init__(
        self,
        connection: EngineConnection,
        response: aiohttp.ClientResponse,
        scope: UsageScope,
        choices: int,
        usage_frame: UsageFrame = UsageFrame.PASSED,
    ) -> None:
        self.status = response.status
        self.headers = tuple(
            (name.lower(), value) for name, value in response.headers.items() if name.lower() in _FORWARDED
        )
        self._connection = connection
        self._response = response
        self._failed = False
        self._meter = UsageMeter(response.content_type, scope, choices)
        self._streams = response.content_type == _EVENT_STREAM and self.status < ERROR_STATUS_MIN
        self._passage: _Passage = (
            StreamPassage(connection.engine, self._meter, usage_frame) if self._streams else BodyPassage(self._meter)
        )

    @property
    def is_whole(self) -> bool:
        """Whether the client has all of the answer, and nothing in it says that the engine failed on the way."""
        return self._passage.is_whole

    @property
    def usage(self) -> common_pb2.Usage:
        """What was used so far; NONE when the engine refused, or failed before the first event of a stream."""
        failed = self._failed or self._meter.failure is not None
        if self.status >= ERROR_STATUS_MIN or (self._streams and failed and not self._meter.began):
            return common_pb2.Usage(method=common_pb2.USAGE_METHOD_NONE)
        return self._meter.usage

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes; a stream event by event, and its ``[DONE]`` only if it is whole.

        An error that the engine tells in its stream is the last that comes, and `is_whole` stays false.

        Raises:
            EngineError: it broke off, nothing came for too long, or a stream ended early, however cleanly.
            RequestError: CONTEXT_TOO_LONG, told in the stream in words that no client hears.
        """
        try:
            while not self._passage.is_over and (chunk := await self._connection.read_some(self._response)):
                if passed := self._passage.feed(chunk):
                    yield passed
            if held := self._passage.finish():
                yield held
        except EnginehouseError:
            self._failed = True
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Aborts the request if it still runs."""
        self._response.close()
