"""Messages that are lost, delayed, duplicated and overtaken, and the calls made of them."""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status

from enginehouse.contract import EnginehouseError
from tests.simulation.loop import Process, VirtualLoop, exponential_s

_REFUSED_S = 0.005

Payload: TypeAlias = Any
"""Whatever a method takes or gives."""
_ONCE = frozenset({"Enroll"})
"""Never duplicated: gRPC does not, and its callers do not repeat it by themselves."""

STREAMS = frozenset({"WatchRecalls"})
"""Methods that are answered by many messages."""

Handler = Callable[[Payload], Payload]


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad the network is.

    Attributes:
        loss, duplication: chance for each message.
        delay_s_mean: of a message.
        slow: chance of a message that takes a hundred times as long.
    """

    loss: float = 0.0
    duplication: float = 0.0
    delay_s_mean: float = 0.002
    slow: float = 0.0


CLEAR = Weather()


class Service:
    """What a process answers, by method. It is found by its name, whichever process has it now."""

    def __init__(self, process: Process, handlers: dict[str, Handler]) -> None:
        self.process = process
        self.handlers = handlers


class Network:
    """Carries messages between processes.

    Args:
        loop: whose time it takes.
        rng: decides what happens to each message.
        say: is told of each arrival: who, what.
    """

    def __init__(self, loop: VirtualLoop, rng: random.Random, say: Callable[[str, str], None]) -> None:
        self.weather = CLEAR
        self.services: dict[str, Service] = {}
        self.cut: set[frozenset[str]] = set()
        self._loop = loop
        self._rng = rng
        self._say = say
        self._streams: list[tuple[Process, frozenset[str], Stream]] = []

    async def call(self, source: str, target: str, method: str, request: Payload, timeout_s: float) -> Payload:
        """One unary call, at most once unless the weather duplicates it.

        Raises:
            AioRpcError: as gRPC would: refused, an error of the handler, or no answer in time.
        """
        answer: asyncio.Future[Payload] = self._loop.create_future()

        def arrived() -> None:
            service = self.services.get(target)
            if service is None or service.process.is_dead:
                self._loop.call_later(_REFUSED_S, _fail, answer, _rpc_error(grpc.StatusCode.UNAVAILABLE, "refused"))
                return
            self._loop.start(service.process, self._serve(service, source, target, method, request, answer))

        copies = 1 if method in _ONCE or self._rng.random() >= self.weather.duplication else 2
        for _ in range(copies):
            self._carry(source, target, arrived)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise _rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer in time") from None

    def tell(self, source: str, target: str, method: str, message: Payload) -> None:
        """One message without an answer."""

        def arrived() -> None:
            service = self.services.get(target)
            if service is not None and not service.process.is_dead:
                self._loop.start(service.process, self._serve(service, source, target, method, message, None))

        self._carry(source, target, arrived)

    def stream(self, source: str, target: str, method: str, request: Payload) -> "Stream":
        """One call that is answered by a stream of messages."""
        stream = Stream()

        def arrived() -> None:
            service = self.services.get(target)
            if service is None or service.process.is_dead or self.is_cut(source, target):
                stream.put(_rpc_error(grpc.StatusCode.UNAVAILABLE, "refused"))
                return
            self._streams.append((service.process, frozenset({source, target}), stream))
            self._loop.start(service.process, self._pour(service, source, target, method, request, stream))

        self._loop.call_later(_REFUSED_S, arrived, context=_NOBODY)
        return stream

    def break_streams(self) -> None:
        """Tells callers of streams whose server died or can no longer be reached."""
        broken = [one for one in self._streams if one[0].is_dead or one[1] in self.cut]
        for one in broken:
            self._streams.remove(one)
            one[2].put(_rpc_error(grpc.StatusCode.UNAVAILABLE, "connection lost"))

    async def _pour(
        self, service: Service, source: str, target: str, method: str, request: Payload, stream: "Stream"
    ) -> None:
        try:
            async for message in service.handlers[method](_copy(request)):
                if stream.is_cancelled:
                    return
                self._loop.call_later(_REFUSED_S, stream.put, _copy(message), context=_NOBODY)
                self._say(target, f"{method} to {source}")
        except EnginehouseError as error:
            status = rpc_status.to_status(error.to_status())
            stream.put(_rpc_error(status.code, status.details, tuple(status.trailing_metadata)))
        else:
            stream.put(None)

    def is_cut(self, one: str, other: str) -> bool:
        """Whether nothing passes between the two."""
        return frozenset({one, other}) in self.cut

    async def _serve(
        self,
        service: Service,
        source: str,
        target: str,
        method: str,
        request: Payload,
        answer: "asyncio.Future[Payload] | None",
    ) -> None:
        given = _copy(request)
        try:
            result = await service.handlers[method](given)
        except EnginehouseError as error:
            self._say(target, f"{method} from {source} refused: {error.message}")
            status = rpc_status.to_status(error.to_status())
            failure = _rpc_error(status.code, status.details, tuple(status.trailing_metadata))
            if answer is not None:
                self._carry(target, source, lambda: _fail(answer, failure))
            return
        except Exception as error:  # noqa: BLE001 (no such error may come out of a service)
            self._loop.failures.append(f"{target} failed in {method}: {error!r}")
            return
        self._say(target, f"{method} from {source}")
        if answer is not None:
            self._carry(target, source, lambda: _succeed(answer, _copy(result)))

    def _carry(self, source: str, target: str, arrive: Callable[[], None]) -> None:
        if self.is_cut(source, target) or self._rng.random() < self.weather.loss:
            return
        delay_s = exponential_s(self._rng, self.weather.delay_s_mean)
        if self._rng.random() < self.weather.slow:
            delay_s *= 100
        self._loop.call_later(delay_s, arrive, context=_NOBODY)


_NOBODY = Process("network").context


class Stream(AsyncIterator[Payload]):
    """A server's stream of messages as its caller has it: in order while the connection lasts, and then an error."""

    def __init__(self) -> None:
        self._arrived: deque[Payload] = deque()
        self._wanted: asyncio.Future[None] | None = None
        self._is_cancelled = False

    def __aiter__(self) -> AsyncIterator[Payload]:
        """The messages."""
        return self

    async def __anext__(self) -> Payload:
        """The next message."""
        message = await self._next()
        if message is None:
            raise StopAsyncIteration
        if isinstance(message, Exception):
            raise message
        return message

    def cancel(self) -> bool:
        """The caller hangs up."""
        self._is_cancelled = True
        return True

    @property
    def is_cancelled(self) -> bool:
        """Whether the caller has hung up."""
        return self._is_cancelled

    def put(self, message: Payload) -> None:
        """A message arrives; an exception breaks the stream."""
        self._arrived.append(message)
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    async def _next(self) -> Payload:
        while not self._arrived:
            self._wanted = asyncio.get_running_loop().create_future()
            await self._wanted
        return self._arrived.popleft()


class Stub:
    """A gRPC stub of one service as one process has it: any method by its name."""

    def __init__(self, network: Network, source: str, target: str) -> None:
        self._network = network
        self._source = source
        self._target = target

    def __getattr__(self, method: str) -> Callable[..., Payload]:
        def call(request: Payload, timeout: float | None = None, **_options: object) -> Payload:
            if method in STREAMS:
                return self._network.stream(self._source, self._target, method, request)
            return self._network.call(self._source, self._target, method, request, timeout or 60.0)

        return call


def _copy(message: Payload) -> Payload:
    if not isinstance(message, Message):
        return message
    return type(message).FromString(message.SerializeToString())


def _rpc_error(code: grpc.StatusCode, details: str, trailing: tuple[Payload, ...] = ()) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details)


def _succeed(answer: "asyncio.Future[Payload]", result: Payload) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: "asyncio.Future[Payload]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
