"""Answers over HTTP: errors in an engine's own words, whole answers, and streams of server-sent events."""

import asyncio
import json
import logging
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import ClassVar

from aiohttp import HttpVersion10, web
from aiohttp.typedefs import Handler, Middleware

from enginehouse.engines.emulators.core.engine import Admitted, EmulatedEngine
from enginehouse.engines.emulators.core.errors import (
    BrokenBy,
    ConnectionCut,
    GenerationBroken,
    Overloaded,
    Unavailable,
)
from enginehouse.engines.emulators.core.generation import Step, Work

_LOG = logging.getLogger(__name__)

Json = dict[str, object]
EngineTrouble = Overloaded | Unavailable | GenerationBroken
TROUBLES = (Overloaded, Unavailable, GenerationBroken)
_GARBAGE = b'{"id":"\xff\xfe","choices":[{"ind'


class HttpError(Exception):
    """A refusal or failure as one engine words it.

    Args:
        payload: a JSON body, a plain text, or None for a body without a byte.
    """

    def __init__(
        self, status: int, payload: Json | str | None = None, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.payload = payload
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        """The whole answer."""
        if isinstance(self.payload, dict):
            return json_response(self.payload, status=self.status, headers=self.headers)
        if self.payload is None:
            return web.Response(status=self.status, headers=self.headers)
        return web.Response(text=self.payload, status=self.status, headers=self.headers)


class ErrorWords(ABC):
    """How an engine words what goes wrong."""

    @abstractmethod
    def trouble(self, error: EngineTrouble) -> HttpError:
        """For what goes wrong inside it."""

    @abstractmethod
    def of_http(self, error: web.HTTPException) -> HttpError:
        """For an unknown path, a wrong method and the like."""

    @abstractmethod
    def internal(self) -> HttpError:
        """For what should not happen."""


def errors_in(words: ErrorWords) -> Middleware:
    """A middleware that answers every failure in the words of an engine."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except HttpError as error:
            return error.response()
        except TROUBLES as error:
            return words.trouble(error).response()
        except ConnectionCut:
            return await _cut(request)
        except web.HTTPException as error:
            return words.of_http(error).response()
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 (the last resort of a server; the text may hold a prompt)
            _LOG.error("%s %s failed: %s", request.method, request.path, type(error).__name__)
            return words.internal().response()

    return answer


def fastapi_error(error: web.HTTPException) -> HttpError:
    """What FastAPI says of an unknown path or a wrong method."""
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return HttpError(error.status, {"detail": HTTPStatus(error.status).phrase}, headers=headers)


async def _cut(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        # Without lingering the kernel sends a reset; otherwise a stream that its end delimits would seem finished.
        reset = struct.pack("ii", 1, 0)
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        request.transport.abort()
    await asyncio.Event().wait()  # the lost connection cancels the handler
    raise AssertionError("unreachable")


def dump(data: object) -> bytes:
    """JSON as engines in Python and Rust write it: compact, and not escaped."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def json_response(
    data: object, *, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON answer without a charset, as none of the engines sends one."""
    return web.Response(body=dump(data), status=status, headers={"Content-Type": "application/json", **(headers or {})})


def event(data: object) -> bytes:
    """One server-sent event with JSON data."""
    return b"data: " + dump(data) + b"\n\n"


DONE = b"data: [DONE]\n\n"


class Opens(Enum):
    """When a stream's status and headers go out."""

    BEFORE_ADMISSION = auto()
    ON_ADMISSION = auto()
    WITH_FIRST_TOKEN = auto()


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """A comment that is sent whenever nothing else was for a while."""

    interval_s: float
    comment: bytes = b":\n\n"


class StreamShape(ABC):
    """How an engine's stream looks. Each method gives the bytes of whole events."""

    opens: ClassVar[Opens] = Opens.ON_ADMISSION
    headers: Mapping[str, str] = {"Content-Type": "text/event-stream; charset=utf-8"}
    keep_alive: ClassVar[KeepAlive | None] = None
    refuses_within: ClassVar[bool] = False
    """What goes wrong before the first token is said within the stream all the same, under status 200."""
    is_close_delimited: ClassVar[bool] = False
    """The stream ends with its connection, as HTTP/1.0 has it, so a stream that breaks ends like any other."""

    def opening(self) -> Iterable[bytes]:
        """What comes before the first token, at the moment it is there."""
        return ()

    @abstractmethod
    def step(self, step: Step, admitted: Admitted) -> Iterable[bytes]:
        """One token."""

    @abstractmethod
    def closing(self, admitted: Admitted) -> Iterable[bytes]:
        """What comes after the last token."""

    @abstractmethod
    def broken(self, error: EngineTrouble) -> Iterable[bytes] | None:
        """The end of a stream that breaks. None: the connection is cut."""


class StreamSender:
    """One stream on its way to the client."""

    def __init__(self, request: web.Request, shape: StreamShape) -> None:
        if shape.is_close_delimited:
            request._version = HttpVersion10  # noqa: SLF001 (aiohttp has no other way to leave chunks out)
        self._request = request
        self._shape = shape
        self._response = web.StreamResponse(headers=shape.headers)

    async def send(self, engine: EmulatedEngine, work: Work) -> web.StreamResponse:
        """Generates and sends.

        Raises:
            Overloaded, Unavailable, GenerationBroken: before the status went out.
            ConnectionCut: the connection is to be cut.
        """
        shape = self._shape
        if shape.opens is Opens.BEFORE_ADMISSION:
            await self._open()
        try:
            async with engine.admitted(work, self._on_taken) as admitted:
                await self._send_steps(admitted)
                await self._write(shape.closing(admitted))
        except TROUBLES as error:
            if not self._response.prepared and not shape.refuses_within:
                raise
            frames = shape.broken(error)
            if frames is None:
                raise ConnectionCut from error
            await self._open()
            await self._write(frames)
        return self._response

    async def _send_steps(self, admitted: Admitted) -> None:
        is_first = True
        async for step in self._kept_alive(admitted.steps()):
            if is_first:
                await self._open()
                await self._write(self._shape.opening())
                is_first = False
            frames = [b"data: " + _GARBAGE + b"\n\n"] if step.is_garbage else self._shape.step(step, admitted)
            await self._write(frames)

    async def _kept_alive(self, steps: AsyncIterator[Step]) -> AsyncIterator[Step]:
        """The steps, with comments on the wire while the next one is not there."""
        keep_alive = self._shape.keep_alive
        if keep_alive is None:
            async for step in steps:
                yield step
            return
        upcoming: asyncio.Future[Step] | None = None
        try:
            while True:
                upcoming = asyncio.ensure_future(anext(steps))
                while not (await asyncio.wait({upcoming}, timeout=keep_alive.interval_s))[0]:
                    if self._response.prepared:
                        await self._response.write(keep_alive.comment)
                try:
                    step = await upcoming
                except StopAsyncIteration:
                    return
                yield step
        finally:
            if upcoming is not None and not upcoming.done():
                upcoming.cancel()
                await asyncio.wait({upcoming})

    async def _on_taken(self) -> None:
        if self._shape.opens is Opens.ON_ADMISSION:
            await self._open()

    async def _open(self) -> None:
        if not self._response.prepared:
            await self._response.prepare(self._request)

    async def _write(self, frames: Iterable[bytes]) -> None:
        for frame in frames:
            await self._response.write(frame)


async def send_whole(
    engine: EmulatedEngine,
    work: Work,
    shape: Callable[[Admitted], web.Response],
    forgiven: Collection[BrokenBy] = (),
) -> web.StreamResponse:
    """Generates, and answers in one piece. What breaks for a cause that is `forgiven` is answered as far as it came.

    Raises:
        Overloaded, Unavailable, GenerationBroken, ConnectionCut: as `EmulatedEngine.admitted`.
    """
    async with engine.admitted(work, _nothing) as admitted:
        is_garbage = False
        try:
            async for step in admitted.steps():
                is_garbage |= step.is_garbage
        except GenerationBroken as error:
            if error.cause not in forgiven:
                raise
            engine.counts.failed[error.cause.value] += 1
        if is_garbage:
            return web.Response(body=_GARBAGE, headers={"Content-Type": "application/json"})
        return shape(admitted)


async def _nothing() -> None:
    """For answers of which nothing goes out early."""
