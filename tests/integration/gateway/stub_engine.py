"""An engine's HTTP server that does what the test says, and remembers what it was asked."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Self

from aiohttp import web

from enginehouse.services.gateway import Address
from tests.integration.gateway.stub_router import Check

Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def usage_of_openai(request: web.Request) -> web.StreamResponse:
    """A unary chat completion."""
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 2}}
    return web.json_response({"id": "c", "usage": usage})


def status(code: int) -> Serve:
    """An engine that answers every request with `code`."""

    async def serve(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "engine", "code": code}}, status=code)

    return serve


async def reset(request: web.Request) -> web.StreamResponse:
    """An engine whose connection is reset before any answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def json_text(text: str, *, content_type: str = "application/json") -> Serve:
    """An engine that answers `text` in one piece."""

    async def serve(request: web.Request) -> web.StreamResponse:
        return web.Response(body=text.encode(), headers={"content-type": content_type})

    return serve


async def hang(request: web.Request) -> web.StreamResponse:
    """An engine that takes the request and never answers."""
    await asyncio.get_running_loop().create_future()
    return web.Response()


async def endless(request: web.Request) -> web.StreamResponse:
    """A stream that goes on until its reader leaves."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    with suppress(ConnectionError):
        while True:
            await response.write(b"data: {}\n\n")
            await asyncio.sleep(0.05)
    return response


async def ends(request: web.Request) -> web.StreamResponse:
    """An orderly end of a stream."""
    return web.Response()


class Stepped:
    """Streams bytes, each piece when the test says so."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._steps: asyncio.Queue[None] = asyncio.Queue()

    def send_next(self) -> None:
        """Lets one piece go."""
        self._steps.put_nowait(None)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """The stream, which ends with the last piece."""
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for piece in self._pieces:
            await self._steps.get()
            await response.write(piece)
        return response


class Gate:
    """Holds the end of a stream until it is opened."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()

    def open(self) -> None:
        """Lets the stream end."""
        self._opened.set()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """An orderly end, once it is opened."""
        await self._opened.wait()
        return web.Response()


def events(*data: str, end: Serve = ends) -> Serve:
    """An engine that streams `data` as server-sent events, and then does what `end` does."""

    async def serve(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for item in data:
            await response.write(f"data: {item}\n\n".encode())
        await end(request)
        return response

    return serve


class StubEngine:
    """The server."""

    def __init__(self) -> None:
        self.serve: Serve = usage_of_openai
        self.requests: list[Check] = []
        self._runner: web.AppRunner | None = None

    @property
    def address(self) -> Address:
        """Where it listens."""
        assert self._runner is not None
        return Address("127.0.0.1", self._runner.addresses[0][1])

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application, access_log=None, auto_decompress=False, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(Check(request.method, request.raw_path, headers, await request.read()))
        return await self.serve(request)
