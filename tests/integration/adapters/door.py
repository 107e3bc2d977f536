"""The least node that serves the adapter lane: what a client's SDK talks to in these tests."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from enginehouse.adapters import (
    AnswerHead,
    CollectedAnswer,
    Collector,
    GenerateCall,
    anthropic,
    dialect_of_path,
    encode_error,
    encode_stream_error,
    find_endpoint,
    openai,
)
from enginehouse.adapters.openai import Generation, OpenAIEngine, OpenAIQuirks
from enginehouse.contract import EnginehouseError
from enginehouse.v1 import common_pb2, inference_pb2

CHAT = common_pb2.OPERATION_CHAT
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Door:
    """A node in front of one engine. `refuse_with`: what it answers to everything instead."""

    def __init__(self, engine: OpenAIEngine, refuse_with: EnginehouseError | None) -> None:
        self._engine = engine
        self._refuse_with = refuse_with
        self._routes: dict[str, Handler] = {
            "/v1/chat/completions": self._chat,
            "/v1/messages": self._messages,
            "/v1/messages/count_tokens": self._count,
            "/v1/embeddings": self._embeddings,
        }

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answers one request."""
        try:
            find_endpoint(request.method, request.path_qs)
            if self._refuse_with:
                raise self._refuse_with
            return await self._routes[request.path](request)
        except EnginehouseError as error:
            answer = encode_error(dialect_of_path(request.path), error, "r1")
            return web.Response(status=answer.status, headers=dict(answer.headers), body=answer.body)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        call = openai.parse_chat(await request.read())
        head = AnswerHead("chatcmpl-1", call.request.model, 1_700_000_000)
        async with self._generate(call) as steps:
            if call.stream:
                encoder = openai.StreamEncoder(CHAT, head, include_usage=call.include_usage)
                return await _stream(request, steps, encoder.encode)
            return _json(openai.encode_unary(CHAT, head, await _collected(steps)))

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        call = anthropic.parse_messages(await request.read())
        head = AnswerHead("msg_1", call.request.model)
        async with self._generate(call) as steps:
            if call.stream:
                return await _stream(request, steps, anthropic.StreamEncoder(head).encode)
            return _json(anthropic.encode_message(head, await _collected(steps)))

    async def _count(self, request: web.Request) -> web.StreamResponse:
        asked = anthropic.parse_count_tokens(await request.read())
        return _json(anthropic.encode_token_count(await self._engine.count_tokens(asked, served_model="served")))

    async def _embeddings(self, request: web.Request) -> web.StreamResponse:
        call = openai.parse_embedding(await request.read())
        response = await self._engine.embed(call.request, served_model="e5")
        return _json(openai.encode_embeddings(response, call.encoding))

    def _generate(self, call: GenerateCall) -> Generation:
        return self._engine.generate(call.request, served_model="served", output_tokens_max=64, generation_id="g1")


@asynccontextmanager
async def door(
    engine_url: str,
    session: aiohttp.ClientSession,
    quirks: OpenAIQuirks = openai.LLAMA_CPP,
    refuse_with: EnginehouseError | None = None,
) -> AsyncIterator[str]:
    """Serves a door on a free port; gives its URL."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", Door(OpenAIEngine(engine_url, session, quirks), refuse_with).serve)
    runner = web.AppRunner(application, shutdown_timeout=0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield "http://{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


async def _stream(
    request: web.Request, steps: Generation, encode: Callable[[inference_pb2.GenerateResponse], bytes]
) -> web.StreamResponse:
    first = await anext(steps)  # an error before it is an answer of its own
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    await response.write(encode(first))
    try:
        async for step in steps:
            await response.write(encode(step))
    except EnginehouseError as error:
        await response.write(encode_stream_error(dialect_of_path(request.path), error, "r1"))
    return response


async def _collected(steps: Generation) -> CollectedAnswer:
    collector = Collector()
    async for step in steps:
        collector.add(step)
    return collector.answer()


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
