"""SGLang's HTTP server, as of 0.5.23.

The port opens when the model is loaded; until the warm-up request has come back /health says 503. SIGTERM makes /health
say 503 again; requests, new ones too, are answered for as long as there are any.
"""

import math
import time
import uuid
from collections.abc import Iterable
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Middleware
from pydantic import BaseModel, ConfigDict

from enginehouse.engines.emulators.core.answers import HttpError, StreamSender, json_response, send_whole
from enginehouse.engines.emulators.core.auth import guard
from enginehouse.engines.emulators.core.bodies import (
    Body,
    BodyError,
    ChatBody,
    CompletionBody,
    GenerationBody,
    parse_body,
)
from enginehouse.engines.emulators.core.emulation import Emulation, get, page
from enginehouse.engines.emulators.core.engine import Phase
from enginehouse.engines.emulators.core.errors import BrokenBy
from enginehouse.engines.emulators.core.generation import Work
from enginehouse.engines.emulators.core.options import Defaults, EmulatorOptions, Shutdown, Startup
from enginehouse.engines.emulators.core.plan import plan_echo
from enginehouse.engines.emulators.core.tokens import Vocabulary
from enginehouse.engines.emulators.sglang import metrics, shapes, words

_OUTPUT_DEFAULT = 128  # of /generate
_OPEN = frozenset({"/health", "/health_generate", "/metrics", "/ready"})
_LENIENT = ConfigDict(extra="allow", frozen=True)


class Sampling(BaseModel):
    """`sampling_params` of /generate."""

    model_config = _LENIENT
    max_new_tokens: int = _OUTPUT_DEFAULT
    stop: str | list[str] | None = None
    ignore_eos: bool = False

    @property
    def stops(self) -> list[str]:
        """The stop sequences."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class GenerateBody(BaseModel):
    """POST /generate, with one text."""

    model_config = _LENIENT
    text: str
    sampling_params: Sampling = Sampling()
    stream: bool = False
    rid: str | None = None


class AbortBody(BaseModel):
    """POST /abort_request. An id stands for all ids that begin with it."""

    model_config = _LENIENT
    rid: str = ""
    abort_all: bool = False


class SglangEmulation(Emulation):
    """See the module."""

    kind = "sglang"
    version = "0.5.23"
    server_name = "uvicorn"
    defaults = Defaults(context_tokens_max=8192, places=256, queue_max=65536)
    startup = Startup(takes_while_loading=True)

    def __init__(self, options: EmulatorOptions) -> None:
        super().__init__(options)
        self.words = words.SglangWords()
        self._vocabulary = Vocabulary()

    @property
    def shutdown(self) -> Shutdown:
        """Drains without a deadline, unless one is set here."""
        drain_s = math.inf if self.options.drain_s is None else self.options.drain_s
        return Shutdown(drain_s=drain_s, closes_port=False, takes_requests=True)

    @property
    def middlewares(self) -> Iterable[Middleware]:
        """The key guards all but health and metrics."""
        refusal = HttpError(HTTPStatus.UNAUTHORIZED, {"error": "Unauthorized"})
        return guard(self.options.api_key, lambda request: request.path not in _OPEN, refusal)

    def routes(self) -> Iterable[web.RouteDef]:
        """Generation, tokens, models, state."""
        return [
            get("/health", self._health),
            get("/health_generate", self._health),
            get("/ready", self._health),
            get("/metrics", self._metrics),
            get("/model_info", self._model_info),
            get("/get_model_info", self._model_info),
            get("/v1/models", self._models),
            web.post("/generate", self._generate),
            web.post("/abort_request", self._abort),
            web.post("/tokenize", self._tokenize),
            web.post("/v1/chat/completions", self._chat),
            web.post("/v1/completions", self._completions),
        ]

    async def _health(self, _request: web.Request) -> web.Response:
        """503 while it warms up and once it was told to end. The real one also generates a token."""
        is_ready = self.engine.phase is Phase.READY
        return web.Response(status=HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE)

    async def _metrics(self, _request: web.Request) -> web.Response:
        return page(metrics.families(self))

    async def _model_info(self, _request: web.Request) -> web.Response:
        return json_response(
            {
                "model_path": self.model,
                "tokenizer_path": self.model,
                "is_generation": True,
                "preferred_sampling_params": None,
                "weight_version": "default",
            }
        )

    async def _models(self, _request: web.Request) -> web.Response:
        card = {
            "id": self.model,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "sglang",
            "root": self.model,
            "parent": None,
            "max_model_len": self.context_tokens_max,
        }
        return json_response({"object": "list", "data": [card]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(request, ChatBody)
        limit = self._limit(body, body.prompt_tokens, None)
        head = shapes.Head(body.model or "default")
        work = Work(head.id, body.prompt_tokens, body.plans([body.echoed], limit), limit)
        if body.stream:
            stream = shapes.ChatStream(head, body, body.prompt_tokens, self.options.forces_usage)
            return await StreamSender(request, stream).send(self.engine, work)
        return await send_whole(
            self.engine, work, lambda admitted: json_response(shapes.whole_chat(head, body, admitted))
        )

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(request, CompletionBody)
        limit = self._limit(body, max(body.prompt_lengths), 16)
        head = shapes.Head(body.model or "default")
        work = Work(head.id, sum(body.prompt_lengths), body.plans(body.prompts, limit), limit)
        if body.stream:
            stream = shapes.CompletionStream(head, body, work.prompt_tokens, self.options.forces_usage)
            return await StreamSender(request, stream).send(self.engine, work)
        return await send_whole(
            self.engine, work, lambda admitted: json_response(shapes.whole_completion(head, admitted))
        )

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(request, GenerateBody)
        prompt_tokens = max(1, len(self._vocabulary.encode(body.text)))
        self._check_prompt(prompt_tokens)
        params = body.sampling_params
        limit = min(max(1, params.max_new_tokens), self.context_tokens_max - prompt_tokens)
        plan = plan_echo(body.text, limit, params.stops, ends=not params.ignore_eos)
        request_id = body.rid or uuid.uuid4().hex
        work = Work(request_id, prompt_tokens, (plan,), limit)
        if body.stream:
            return await StreamSender(request, shapes.NativeStream(request_id)).send(self.engine, work)
        return await send_whole(
            self.engine,
            work,
            lambda admitted: json_response(
                shapes.native(request_id, plan, len(plan.tokens), prompt_tokens, admitted.times.total_s)
            ),
        )

    async def _abort(self, request: web.Request) -> web.Response:
        body = await self._read(request, AbortBody)
        if body.abort_all or body.rid:
            self.engine.abort(BrokenBy.ABORT, lambda name: body.abort_all or name.startswith(body.rid))
        return web.Response()

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await self._read(request, CompletionBody)
        tokens = [number for text in body.prompts for number, _ in self._vocabulary.encode(text)]
        return json_response({"tokens": tokens, "count": len(tokens), "max_model_len": self.context_tokens_max})

    async def _read(self, request: web.Request, kind: type[Body]) -> Body:
        try:
            return parse_body(await request.read(), kind)
        except BodyError as error:
            raise words.not_valid(error) from None

    def _limit(self, body: GenerationBody, prompt_tokens: int, default: int | None) -> int:
        """How many tokens each choice gets; what SGLang refuses is refused."""
        self._check_prompt(prompt_tokens)
        if body.tokens_max is not None and body.tokens_max < 1:
            raise words.bad_request(f"max_completion_tokens must be positive, got {body.tokens_max}.")
        asked = prompt_tokens + (body.tokens_max or 0)
        if asked > self.context_tokens_max:
            raise words.bad_request(
                f"Requested token count exceeds the model's maximum context length of {self.context_tokens_max} "
                f"tokens. You requested a total of {asked} tokens: {prompt_tokens} tokens from the input messages and "
                f"{body.tokens_max} tokens for the completion."
            )
        return body.limit(self.context_tokens_max - prompt_tokens, default)

    def _check_prompt(self, prompt_tokens: int) -> None:
        if prompt_tokens >= self.context_tokens_max:
            raise words.bad_request(
                f"The input ({prompt_tokens} tokens) is longer than the model's context length "
                f"({self.context_tokens_max} tokens)."
            )
