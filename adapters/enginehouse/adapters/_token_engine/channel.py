"""gRPC to one engine: messages out, messages back, and gRPC's errors turned into ours in one place.

An engine's words are not passed on: engines quote the prompt in them.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from enginehouse.contract import EngineError, EnginehouseError, Reason, RequestError

Answer = TypeVar("Answer", bound=Message)

_MESSAGE_BYTES_MAX = 64 * 1024 * 1024
_CONTEXT = re.compile(r"context (size|length|window)|maximum (context|model) length|max_seq_len", re.IGNORECASE)
# Metadata keys and values that gRPC takes (gRPC over HTTP/2, "Requests").
_KEY = re.compile(r"[a-z0-9_.-]+")
_VALUE = re.compile(r"[ -~]*")
_CODE = grpc.StatusCode
_REASONS: Mapping[grpc.StatusCode, Reason] = {
    _CODE.INVALID_ARGUMENT: Reason.ENGINE_REFUSED,
    _CODE.OUT_OF_RANGE: Reason.ENGINE_REFUSED,
    _CODE.UNIMPLEMENTED: Reason.ENGINE_REFUSED,
    _CODE.RESOURCE_EXHAUSTED: Reason.ENGINE_OVERLOADED,
    _CODE.DEADLINE_EXCEEDED: Reason.ENGINE_TIMEOUT,
}


class EngineChannel:
    """Calls the methods of one engine.

    Args:
        address: host:port.
        engine: its name, for messages.
        connect_timeout_s: for a connection to be made.
        idle_timeout_s: between two messages of an answer, the first included.
    """

    def __init__(self, address: str, *, engine: str, connect_timeout_s: float, idle_timeout_s: float) -> None:
        self.engine = engine
        self._address = address
        self._idle_timeout_s = idle_timeout_s
        self._options = _options(connect_timeout_s)
        self._opened: grpc.aio.Channel | None = None

    def open(
        self, method: str, request: Message, answer: type[Answer], headers: Mapping[str, str]
    ) -> "grpc.aio.UnaryStreamCall[Message, Answer]":
        """Begins a call that is answered by a stream; see `messages`."""
        multi = self._channel().unary_stream(
            method, request_serializer=_written, response_deserializer=answer.FromString
        )
        return multi(request, metadata=_metadata(headers))

    async def messages(self, call: "grpc.aio.UnaryStreamCall[Message, Answer]") -> AsyncIterator[Answer]:
        """The messages of a stream, to its end.

        Raises:
            EngineError: the engine was not reached, refused, failed, or was silent for too long.
            RequestError: CONTEXT_TOO_LONG.
        """
        while True:
            with self._mapped_errors():
                async with asyncio.timeout(self._idle_timeout_s):
                    message = await call.read()
            if message is grpc.aio.EOF:
                return
            yield message  # type: ignore[misc]  # the stubs do not know that EOF is one value

    async def call(
        self,
        method: str,
        request: Message,
        answer: type[Answer],
        headers: Mapping[str, str],
        *,
        timeout_s: float | None = None,
    ) -> Answer:
        """Calls a method that is answered by one message.

        Raises:
            EngineError: as `messages`.
            RequestError: as `messages`.
        """
        single = self._channel().unary_unary(
            method, request_serializer=_written, response_deserializer=answer.FromString
        )
        with self._mapped_errors():
            async with asyncio.timeout(self._idle_timeout_s if timeout_s is None else timeout_s):
                return await single(request, metadata=_metadata(headers))

    async def aclose(self) -> None:
        """Closes the connection and breaks what runs over it."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()

    def _channel(self) -> grpc.aio.Channel:
        """Opened at the first use: a channel belongs to the event loop that runs then."""
        if self._opened is None:
            self._opened = grpc.aio.insecure_channel(self._address, options=self._options)
        return self._opened

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            message = f"the engine {self.engine} was silent for too long; try again"
            raise EngineError(message, Reason.ENGINE_TIMEOUT, metadata={"engine": self.engine}) from None
        except grpc.aio.AioRpcError as error:
            raise _error_from_status(self.engine, error) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Nobody cancelled us: grpc.aio raises this for a call that the engine ended with the status CANCELLED.
            raise EngineError(
                f"the engine {self.engine} gave the request up", metadata={"engine": self.engine}
            ) from None


def _error_from_status(engine: str, error: grpc.aio.AioRpcError) -> EnginehouseError:
    code = error.code()
    metadata = {"engine": engine, "engine_status": code.name}
    if code in (_CODE.INVALID_ARGUMENT, _CODE.OUT_OF_RANGE) and _CONTEXT.search(error.details() or ""):
        message = f"the prompt does not fit the context of the engine {engine}; shorten it"
        return RequestError(message, Reason.CONTEXT_TOO_LONG, metadata={"engine": engine})
    reason = _REASONS.get(code, Reason.ENGINE_FAILED)
    if code is _CODE.UNAVAILABLE:
        return EngineError(f"the engine {engine} cannot be reached, or broke off its answer", reason, metadata=metadata)
    verb = "refused the request" if reason is Reason.ENGINE_REFUSED else "failed"
    return EngineError(f"the engine {engine} {verb} with status {code.name}", reason, metadata=metadata)


def _options(connect_timeout_s: float) -> tuple[tuple[str, int], ...]:
    return (
        ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
        # The engines close a connection whose pings come faster than every 10 seconds.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 0),
        # An engine that starts is asked again and again: a long wait between two attempts would count as its own.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.min_reconnect_backoff_ms", int(connect_timeout_s * 1000)),  # how long an attempt may take
        # Channels to one address share their backoff otherwise, with those of an engine that was there before.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),  # a generation cannot be repeated
        ("grpc.enable_http_proxy", 0),
    )


def _metadata(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    lowered = ((name.lower(), value) for name, value in headers.items())
    return tuple((name, value) for name, value in lowered if _KEY.fullmatch(name) and _VALUE.fullmatch(value))


def _written(message: Message) -> bytes:
    return message.SerializeToString()
