"""TensorRT-LLM's HTTP server (`trtllm-serve`), as of 1.2.

The port opens when the engine is loaded. SIGTERM is uvicorn's: the port closes, what is at work goes on to its end.
"""

import math
import time
from collections.abc import Iterable

from aiohttp import web

from enginehouse.engines.emulators.core.answers import StreamSender, json_response, send_whole
from enginehouse.engines.emulators.core.bodies import (
    Body,
    BodyError,
    ChatBody,
    CompletionBody,
    GenerationBody,
    parse_body,
)
from enginehouse.engines.emulators.core.emulation import Emulation, GrpcFace, get, page
from enginehouse.engines.emulators.core.generation import Work
from enginehouse.engines.emulators.core.options import Defaults, EmulatorOptions, Shutdown
from enginehouse.engines.emulators.tensorrt_llm import metrics, shapes, words

_OUTPUT_DEFAULT = 16  # of completions


class TensorRtLlmEmulation(Emulation):
    """See the module."""

    kind = "tensorrt-llm"
    version = "1.2.0"
    server_name = "uvicorn"
    defaults = Defaults(context_tokens_max=8192, places=256, queue_max=65536)

    def __init__(self, options: EmulatorOptions) -> None:
        super().__init__(options)
        self.words = words.TensorRtLlmWords()
        self._iterations = metrics.Iterations(self)

    @property
    def shutdown(self) -> Shutdown:
        """Drains without a deadline, unless one is set here."""
        return Shutdown(drain_s=math.inf if self.options.drain_s is None else self.options.drain_s)

    def routes(self) -> Iterable[web.RouteDef]:
        """Generation, models, state."""
        return [
            get("/health", self._ok),
            get("/health_generate", self._health_generate),
            get("/version", self._version),
            get("/metrics", self._metrics),
            get("/prometheus/metrics", self._prometheus),
            get("/v1/models", self._models),
            web.post("/v1/chat/completions", self._chat),
            web.post("/v1/completions", self._completions),
        ]

    def grpc_face(self) -> GrpcFace:
        """`trtllm-serve --grpc`."""
        from enginehouse.engines.emulators.tensorrt_llm.grpc_face import TensorRtLlmGrpcFace

        return TensorRtLlmGrpcFace(self)

    async def _ok(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def _health_generate(self, request: web.Request) -> web.StreamResponse:
        """Generates one token."""
        body = ChatBody.model_validate({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1})
        work = Work("health_generate", body.prompt_tokens, body.plans([body.echoed], 1), 1)
        return await send_whole(self.engine, work, lambda _: web.Response(text="Generation health check OK"))

    async def _version(self, _request: web.Request) -> web.Response:
        return json_response({"version": self.version})

    async def _metrics(self, _request: web.Request) -> web.Response:
        return json_response(self._iterations.drain())

    async def _prometheus(self, _request: web.Request) -> web.Response:
        return page(metrics.families(self))

    async def _models(self, _request: web.Request) -> web.Response:
        card = {"id": self.model, "object": "model", "created": int(time.time()), "owned_by": "tensorrt_llm"}
        return json_response({"object": "list", "data": [card]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(request, ChatBody)
        limit = self._limit(body, body.prompt_tokens, None)
        head = shapes.Head("chatcmpl", self.model)
        work = Work(head.number, body.prompt_tokens, body.plans([body.echoed], limit), limit)
        return await self._answer(request, body, head, work, ("chat.completion", "chat.completion.chunk"))

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(request, CompletionBody)
        limit = self._limit(body, max(body.prompt_lengths), _OUTPUT_DEFAULT)
        head = shapes.Head("cmpl", self.model)
        work = Work(head.number, sum(body.prompt_lengths), body.plans(body.prompts, limit), limit)
        return await self._answer(request, body, head, work, ("text_completion", "text_completion"))

    async def _answer(
        self, request: web.Request, body: GenerationBody, head: shapes.Head, work: Work, kinds: tuple[str, str]
    ) -> web.StreamResponse:
        """`kinds`: the object of a whole answer, and of a chunk."""
        if body.stream:
            stream = shapes.TensorRtLlmStream(head, kinds[1], body, work.prompt_tokens)
            return await StreamSender(request, stream).send(self.engine, work)
        return await send_whole(
            self.engine, work, lambda admitted: json_response(shapes.whole(head, kinds[0], body, admitted))
        )

    async def _read(self, request: web.Request, kind: type[Body]) -> Body:
        try:
            return parse_body(await request.read(), kind)
        except BodyError as error:
            raise words.not_valid(error) from None

    def _limit(self, body: GenerationBody, prompt_tokens: int, default: int | None) -> int:
        """How many tokens each choice gets; what TensorRT-LLM refuses is refused."""
        if body.tokens_max is not None and body.tokens_max < 1:
            raise words.bad_request(f"max_tokens must be at least 1, got {body.tokens_max}")
        if prompt_tokens >= self.context_tokens_max:
            raise words.bad_request(
                f"The sum of prompt length ({prompt_tokens}) and max_tokens ({body.tokens_max or 1}) should not exceed "
                f"max_seq_len ({self.context_tokens_max})"
            )
        return body.limit(self.context_tokens_max - prompt_tokens, default)
