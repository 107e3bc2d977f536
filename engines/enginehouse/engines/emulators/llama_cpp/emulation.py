"""llama.cpp's own server (`llama-server`), as of October 2026.

The port is open at once; until the model is loaded everything answers 503. On SIGTERM (ran) a stream in flight stands
still and is closed without [DONE] after 30 s; a unary request keeps the process waiting for its client, here as long.
"""

import time
from collections.abc import Iterable
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import BaseModel, ConfigDict

from enginehouse.engines.echo._tokens import tokens_of
from enginehouse.engines.emulators.core import chatml
from enginehouse.engines.emulators.core.answers import HttpError, StreamSender, json_response, send_whole
from enginehouse.engines.emulators.core.auth import guard
from enginehouse.engines.emulators.core.bodies import (
    Body,
    BodyError,
    ChatBody,
    CompletionBody,
    GenerationBody,
    Message,
    parse_body,
)
from enginehouse.engines.emulators.core.emulation import Emulation, get, page
from enginehouse.engines.emulators.core.engine import Phase
from enginehouse.engines.emulators.core.errors import Unavailable
from enginehouse.engines.emulators.core.generation import Work
from enginehouse.engines.emulators.core.options import Defaults, EmulatorOptions, Shutdown, Startup
from enginehouse.engines.emulators.core.tokens import Vocabulary
from enginehouse.engines.emulators.llama_cpp import metrics, shapes, words

_OPEN = frozenset({"/health", "/v1/health", "/models", "/v1/models", "/"})
_LENIENT = ConfigDict(extra="allow", frozen=True)


class TokenizeBody(BaseModel):
    """POST /tokenize."""

    model_config = _LENIENT
    content: str = ""
    with_pieces: bool = False
    parse_special: bool = True


class DetokenizeBody(BaseModel):
    """POST /detokenize."""

    model_config = _LENIENT
    tokens: list[int] = []


class TemplateBody(BaseModel):
    """POST /apply-template."""

    model_config = _LENIENT
    messages: list[Message]


class LlamaCppEmulation(Emulation):
    """See the module."""

    kind = "llama-cpp"
    version = "b11549"
    server_name = "llama.cpp"
    defaults = Defaults(context_tokens_max=4096, places=4, queue_max=65536)
    startup = Startup(listens_while_loading=True)

    def __init__(self, options: EmulatorOptions) -> None:
        super().__init__(options)
        self.words = words.LlamaCppWords()
        self._vocabulary = Vocabulary()

    @property
    def shutdown(self) -> Shutdown:
        """Stands still, and then cuts."""
        return Shutdown(drain_s=30.0 if self.options.drain_s is None else self.options.drain_s, stalls=True)

    @property
    def middlewares(self) -> Iterable[Middleware]:
        """The key guards all but health and models; nothing is answered while the model is loaded."""
        refusal = words.worded("Invalid API Key", "authentication_error", HTTPStatus.UNAUTHORIZED)
        yield from guard(self.options.api_key, lambda request: request.path not in _OPEN, refusal)
        yield self._only_when_loaded

    @property
    def _only_when_loaded(self) -> Middleware:
        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            if self.engine.phase is Phase.LOADING and not request.path.startswith("/emulator/"):
                raise Unavailable(Phase.LOADING.value)
            return await handler(request)

        return check

    def routes(self) -> Iterable[web.RouteDef]:
        """Generation, tokens, models, state."""
        return [
            get("/health", self._health),
            get("/v1/health", self._health),
            get("/metrics", self._metrics),
            get("/slots", self._slots),
            get("/props", self._props),
            get("/models", self._models),
            get("/v1/models", self._models),
            web.post("/v1/chat/completions", self._chat),
            web.post("/chat/completions", self._chat),
            web.post("/v1/completions", self._completions),
            web.post("/v1/embeddings", self._no_embeddings),
            web.post("/tokenize", self._tokenize),
            web.post("/detokenize", self._detokenize),
            web.post("/apply-template", self._apply_template),
        ]

    async def _health(self, _request: web.Request) -> web.Response:
        return json_response({"status": "ok"})

    async def _metrics(self, _request: web.Request) -> web.Response:
        return page(metrics.families(self))

    async def _slots(self, _request: web.Request) -> web.Response:
        running = self.engine.batch.running
        slots = [
            {"id": number, "n_ctx": self.context_tokens_max, "speculative": False, "is_processing": number < running}
            for number in range(self.engine.batch.places)
        ]
        return json_response(slots)

    async def _props(self, _request: web.Request) -> web.Response:
        return json_response(
            {
                "default_generation_settings": {"n_ctx": self.context_tokens_max},
                "total_slots": self.engine.batch.places,
                "model_alias": self.model,
                "model_path": self.model,
                "build_info": self.version,
            }
        )

    async def _models(self, _request: web.Request) -> web.Response:
        card = {
            "id": self.model,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "llamacpp",
            "meta": {"n_ctx_train": self.context_tokens_max},
        }
        listed = {"name": self.model, "model": self.model, "type": "model", "capabilities": ["completion"]}
        return json_response({"models": [listed], "object": "list", "data": [card]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(request, ChatBody)
        limit = self._limit(body, body.prompt_tokens)
        head = shapes.Head(body.model or self.model)
        work = Work(head.id, body.prompt_tokens, body.plans([body.echoed], limit), limit)
        if body.stream:
            has_timings = bool((body.model_extra or {}).get("timings_per_token"))
            stream = shapes.ChatStream(head, body, has_timings=has_timings)
            return await StreamSender(request, stream).send(self.engine, work)
        return await send_whole(
            self.engine, work, lambda admitted: json_response(shapes.whole_chat(head, body, admitted))
        )

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(request, CompletionBody)
        limit = self._limit(body, max(body.prompt_lengths))
        head = shapes.Head(body.model or self.model)
        work = Work(head.id, sum(body.prompt_lengths), body.plans(body.prompts, limit), limit)
        if body.stream:
            stream = shapes.CompletionStream(head, body, body.logprobs)
            return await StreamSender(request, stream).send(self.engine, work)
        return await send_whole(
            self.engine, work, lambda admitted: json_response(shapes.whole_completion(head, body.logprobs, admitted))
        )

    async def _no_embeddings(self, _request: web.Request) -> web.Response:
        message = "This server does not support embeddings. Start it with `--embeddings`"
        raise words.worded(message, "not_supported_error", HTTPStatus.NOT_IMPLEMENTED)

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await self._read(request, TokenizeBody)
        texts = chatml.marked_tokens(body.content) if body.parse_special else tokens_of(body.content)
        tokens = self._vocabulary.number(texts)
        if body.with_pieces:
            return json_response({"tokens": [{"id": number, "piece": text} for number, text in tokens]})
        return json_response({"tokens": [number for number, _ in tokens]})

    async def _detokenize(self, request: web.Request) -> web.Response:
        body = await self._read(request, DetokenizeBody)
        return json_response({"content": self._vocabulary.decode(body.tokens)})

    async def _apply_template(self, request: web.Request) -> web.Response:
        body = await self._read(request, TemplateBody)
        return json_response({"prompt": chatml.templated(body.messages)})

    async def _read(self, request: web.Request, kind: type[Body]) -> Body:
        try:
            return parse_body(await request.read(), kind)
        except BodyError as error:
            raise words.not_valid(error) from None

    def _limit(self, body: GenerationBody, prompt_tokens: int) -> int:
        """How many tokens each choice gets: the first of the members that llama.cpp reads, in its order (ran)."""
        if prompt_tokens >= self.context_tokens_max:
            raise self._too_long(prompt_tokens)
        asked = (body.model_extra or {}).get("n_predict")
        left = self.context_tokens_max - prompt_tokens
        if isinstance(asked, int) and asked >= 0:
            return max(1, min(asked, left))
        return max(1, body.limit(left))

    def _too_long(self, prompt_tokens: int) -> HttpError:
        message = (
            f"request ({prompt_tokens} tokens) exceeds the available context size ({self.context_tokens_max} tokens), "
            "try increasing it"
        )
        sizes = {"n_prompt_tokens": prompt_tokens, "n_ctx": self.context_tokens_max}
        return words.worded(message, "exceed_context_size_error", HTTPStatus.BAD_REQUEST, **sizes)
