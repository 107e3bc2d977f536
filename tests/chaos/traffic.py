"""What goes through a mesh while one of its processes is killed: streams through every door, and chats."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from tests.support.caller import Caller, Reply, chat_body, generate_request
from tests.support.waiting import until

WORDS = 100
TEXT = " ".join(f"w{number}" for number in range(WORDS))
PROMPT_TOKENS = WORDS + 4 + 3
INPUT_NANOUSD, OUTPUT_NANOUSD = 1000, 2000  # a token's price: 1 and 2 USD per million
CHAT_NANOUSD = 1_000_000
_CHATS_AT_ONCE = 4
_BEGUN = 3


@dataclass(eq=False)
class Stream:
    """What a client has read of a stream.

    Attributes:
        request_id: Envoy's.
        tokens: read so far.
        is_whole: the client was told that this was all of it.
    """

    request_id: str = ""
    tokens: int = 0
    is_whole: bool = False

    @property
    def cost_nanousd(self) -> int:
        """What the tokens that were read cost."""
        return PROMPT_TOKENS * INPUT_NANOUSD + self.tokens * OUTPUT_NANOUSD


Read = Callable[[Caller, str, Stream], Awaitable[None]]


async def read_openai(caller: Caller, model: str, stream: Stream) -> None:
    """A stream in the direct lane, to its end."""
    async with caller.open("/v1/chat/completions", chat_body(model, TEXT, stream=True)) as answer:
        assert answer.status == 200, await answer.text()
        stream.request_id = answer.headers["x-request-id"]
        async for line in answer.content:
            stream.tokens += b'"content":"w' in line or b'"content":" w' in line
            stream.is_whole |= line.startswith(b"data: [DONE]")


async def read_anthropic(caller: Caller, model: str, stream: Stream) -> None:
    """A stream in the adapter lane, to its end."""
    body = chat_body(model, TEXT, stream=True, max_tokens=WORDS)
    async with caller.open("/v1/messages", body) as answer:
        assert answer.status == 200, await answer.text()
        stream.request_id = answer.headers["x-request-id"]
        async for line in answer.content:
            stream.tokens += b'"text_delta"' in line
            stream.is_whole |= b'"message_stop"' in line


async def read_grpc(caller: Caller, model: str, stream: Stream) -> None:
    """A stream of canonical steps, to its end."""
    call = caller.grpc.Generate(generate_request(model, TEXT, WORDS), metadata=caller.metadata)
    stream.request_id = str(dict(await call.initial_metadata() or ())["x-request-id"])
    async for step in call:
        stream.tokens += bool(step.delta.text)
        stream.is_whole |= step.HasField("finished")


READERS: tuple[Read, ...] = (read_openai, read_anthropic, read_grpc)


@dataclass(frozen=True)
class Streams:
    """Streams that run side by side."""

    seen: list[Stream]
    reading: Sequence["asyncio.Future[None]"]

    async def ends(self) -> list[BaseException | None]:
        """How reading each ended, once all have: None, or what the client raised."""
        return await asyncio.gather(*self.reading, return_exceptions=True)

    @property
    def cost_nanousd(self) -> int:
        """What was read, all together."""
        return sum(stream.cost_nanousd for stream in self.seen)


async def begin_streams(caller: Caller, model: str, of_each: int = 1) -> Streams:
    """So many streams through every door; each has begun when this returns."""
    readers = READERS * of_each
    seen = [Stream() for _ in readers]
    reading = [asyncio.ensure_future(read(caller, model, stream)) for read, stream in zip(readers, seen, strict=True)]

    def have_begun() -> bool:
        for one in reading:
            assert not one.done(), one.exception()
        return all(stream.tokens >= _BEGUN for stream in seen)

    await until(have_begun, "every stream has begun")
    return Streams(seen, reading)


@dataclass
class Chats:
    """Chats one after the other, and what became of them.

    Attributes:
        replies: every answer.
        broken: requests whose connection was refused or broke: nobody knows what became of them.
    """

    replies: list[Reply] = field(default_factory=list)
    broken: int = 0

    @property
    def served(self) -> int:
        """How many were served."""
        return sum(reply.status == 200 for reply in self.replies)

    @property
    def refused(self) -> list[Reply]:
        """Every answer that is an error."""
        return [reply for reply in self.replies if reply.status != 200]


@asynccontextmanager
async def chatting(caller: Caller, model: str = "echo") -> AsyncIterator[Chats]:
    """Four chats at a time for as long as the block runs; none is left over when it has ended."""
    chats, over = Chats(), asyncio.Event()

    async def chat() -> None:
        while not over.is_set():
            try:
                chats.replies.append(await caller.chat(model))
            except aiohttp.ClientError:
                chats.broken += 1
                await asyncio.sleep(0.01)  # a refused connection costs nothing, and must not starve what comes back

    asking = [asyncio.ensure_future(chat()) for _ in range(_CHATS_AT_ONCE)]
    try:
        yield chats
    finally:
        over.set()
        await asyncio.gather(*asking)
