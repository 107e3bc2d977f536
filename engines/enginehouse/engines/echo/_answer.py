"""Sending a generation: in one piece, or as server-sent events."""

import json

from aiohttp import web

from enginehouse.engines.echo._bodies import GenerationBody
from enginehouse.engines.echo._faults import EngineFaultError, FaultBody
from enginehouse.engines.echo._generation import Generation
from enginehouse.engines.echo._shapes import Json, Shape, Tokens
from enginehouse.engines.echo._work import GeneratedToken, Worker

_SSE_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
_DONE = b"data: [DONE]\n\n"


class Answer:
    """One request's answer on its way."""

    def __init__(
        self,
        request: web.Request,
        body: GenerationBody,
        shape: Shape,
        generations: list[Generation],
        prompt_tokens: int,
    ) -> None:
        self._request = request
        self._body = body
        self._shape = shape
        self._generations = generations
        self._prompt_tokens = prompt_tokens
        self._sent_tokens = 0
        self._response = web.StreamResponse(headers=_SSE_HEADERS)

    async def send(self, worker: Worker) -> web.StreamResponse:
        """Generates and sends, as the body asks.

        Raises:
            ApiError: refused, or broken before the first byte.
        """
        async with worker.admitted(self._request, self._prompt_tokens) as fault:
            if not self._body.stream:
                return await self._send_whole(worker, fault)
            try:
                await self._send_stream(worker, fault)
            except EngineFaultError as error:
                await self._write(error.body)
            await self._response.write(_DONE)
            return self._response

    async def _send_whole(self, worker: Worker, fault: FaultBody | None) -> web.Response:
        async for _ in worker.tokens(self._generations, fault):
            pass
        completion_tokens = sum(len(generation.pieces) for generation in self._generations)
        return web.json_response(self._shape.unary(self._generations, Tokens(self._prompt_tokens, completion_tokens)))

    async def _send_stream(self, worker: Worker, fault: FaultBody | None) -> None:
        async for event in worker.tokens(self._generations, fault):
            if not self._response.prepared:
                await self._open()
            if isinstance(event, GeneratedToken):
                self._sent_tokens += 1
                await self._write_chunk(self._shape.token(event.index, event.piece))
            else:
                await self._write_chunk(self._shape.closing(event.index, event.finish_reason))
        if self._body.wants_usage_chunk:
            await self._write(self._shape.usage_chunk(self._tokens))

    async def _open(self) -> None:
        """Headers go out with the first token: until then another engine can still take over."""
        await self._response.prepare(self._request)
        for index in range(len(self._generations)):
            opening = self._shape.opening(index)
            if opening is not None:
                await self._write_chunk(opening)

    @property
    def _tokens(self) -> Tokens:
        return Tokens(self._prompt_tokens, self._sent_tokens)

    async def _write_chunk(self, chunk: Json) -> None:
        if self._body.wants_usage_in_every_chunk:
            chunk["usage"] = self._tokens.usage
        await self._write(chunk)

    async def _write(self, data: Json) -> None:
        if not self._response.prepared:
            await self._response.prepare(self._request)
        await self._response.write(
            b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
        )
