"""An engine that says what a test tells it to, byte by byte, over a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

RECORDINGS = Path(__file__).parent / "recordings"
EVENT_STREAM, JSON = "text/event-stream", "application/json"


@dataclass(frozen=True)
class Received:
    """One request, as it arrived. Header names are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def members(self) -> dict[str, object]:
        members: dict[str, object] = json.loads(self.body)
        return members


class Exchange:
    """One request and the pen for its answer."""

    def __init__(self, received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.received = received
        self._reader = reader
        self._writer = writer

    async def raw(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def begin(self, content_type: str = EVENT_STREAM, status: int = 200) -> None:
        """Sends the headers of a chunked answer."""
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nServer: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        await self.raw(head.encode())

    async def send(self, data: bytes) -> None:
        """Sends one chunk."""
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        """Ends a chunked answer as it should."""
        await self.raw(b"0\r\n\r\n")

    async def answer(self, body: bytes, content_type: str = JSON, status: int = 200) -> None:
        """Sends a whole answer."""
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        await self.raw(head.encode() + body)

    async def replay(self, name: str, piece_bytes: int = 500) -> None:
        """Sends a recorded stream in pieces that respect no event."""
        data = (RECORDINGS / name).read_bytes()
        await self.begin()
        for start in range(0, len(data), piece_bytes):
            await self.send(data[start : start + piece_bytes])
        await self.end()

    async def client_left(self) -> None:
        """Returns once the client has closed the connection."""
        try:
            while await self._reader.read(1024):
                pass
        except ConnectionError:
            pass

    def leave(self) -> None:
        """Closes the connection without a word."""
        self._writer.close()

    def abort(self) -> None:
        """Dies: the connection is reset."""
        self._writer.transport.abort()


Script = Callable[[Exchange], Awaitable[None]]


@dataclass
class ScriptedEngine:
    """Where the engine listens, and what it was asked."""

    url: str = ""
    received: list[Received] = field(default_factory=list)


@asynccontextmanager
async def scripted_engine(script: Script) -> AsyncIterator[ScriptedEngine]:
    """Runs `script` for every request, and keeps connections open as long as the client does."""
    engine = ScriptedEngine()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while received := await _receive(reader):
                engine.received.append(received)
                await script(Exchange(received, reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    engine.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield engine
    finally:
        server.close()


async def _receive(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Received(first.split(" ")[1], headers, await reader.readexactly(int(headers.get("content-length", "0"))))


def recorded(name: str) -> bytes:
    """A recorded body."""
    return (RECORDINGS / name).read_bytes()


def replaying(name: str) -> Script:
    """A script that sends a recorded stream."""

    async def script(exchange: Exchange) -> None:
        await exchange.replay(name)

    return script


def answering(name: str, status: int = 200) -> Script:
    """A script that sends a recorded whole answer."""

    async def script(exchange: Exchange) -> None:
        await exchange.answer(recorded(name), status=status)

    return script
