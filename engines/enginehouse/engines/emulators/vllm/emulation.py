"""vLLM's HTTP server, as of 0.32: `vllm serve`.

Ran against the real one: /health is an empty 200 also while the engine hangs or drains; the socket is bound before the
model is loaded but nobody listens on it, so connections are refused until then.
"""

from collections.abc import Iterable
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Middleware

from enginehouse.engines.emulators.core import chatml
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
from enginehouse.engines.emulators.core.emulation import Emulation, GrpcFace, get, page
from enginehouse.engines.emulators.core.errors import BrokenBy
from enginehouse.engines.emulators.core.generation import Work
from enginehouse.engines.emulators.core.options import Defaults, EmulatorOptions, Face, Shutdown
from enginehouse.engines.emulators.core.tokens import Vocabulary
from enginehouse.engines.emulators.vllm import metrics, shapes, words
from enginehouse.engines.emulators.vllm.bodies import DetokenizeBody, TokenizeBody
from enginehouse.engines.emulators.vllm.sleep import Sleep

_VERSION = "0.32.0"
_GRPC_GRACE_S = 5.0
_CHOICES_MAX = 16384  # VLLM_MAX_N_SEQUENCES
_GREEDY_BELOW = 1e-5
_FORGIVEN = (BrokenBy.ABORT,)  # which vLLM answers like an end, with a finish reason of its own


class VllmEmulation(Emulation):
    """See the module."""

    kind = "vllm"
    version = _VERSION
    server_name = "uvicorn"
    defaults = Defaults(context_tokens_max=8192, places=256, queue_max=65536)

    def __init__(self, options: EmulatorOptions) -> None:
        super().__init__(options)
        self.words = words.VllmWords()
        self.vocabulary = Vocabulary()
        self.sleep = Sleep(self.engine)
        self._fingerprint = f"vllm-{_VERSION}-00000000"

    @property
    def shutdown(self) -> Shutdown:
        """`--shutdown-timeout`, 0 by default: break all at once, with an error. The port stays open meanwhile.

        The gRPC server has no such setting: it gives 5 s.
        """
        if self.options.face is Face.GRPC:
            return Shutdown(drain_s=_GRPC_GRACE_S)
        return Shutdown(drain_s=self.options.drain_s or 0.0, closes_port=False, says_error=True)

    @property
    def middlewares(self) -> Iterable[Middleware]:
        """The key guards what is below /v1."""
        unauthorized = HttpError(HTTPStatus.UNAUTHORIZED, {"error": "Unauthorized"})
        return guard(self.options.api_key, lambda request: request.path.startswith("/v1"), unauthorized)

    def app(self) -> web.Application:
        """Its HTTP server."""
        app = super().app()
        app.on_response_prepare.append(_with_vary)
        return app

    def routes(self) -> Iterable[web.RouteDef]:
        """Generation, tokens, models, state."""
        return [
            *(self.sleep.routes() if self.options.sleep_mode else ()),
            get("/health", self._ok),
            get("/ping", self._ok),
            web.post("/ping", self._ok),
            get("/version", self._version),
            get("/load", self._load),
            get("/metrics", self._metrics),
            get("/v1/models", self._models),
            web.post("/v1/chat/completions", self._chat),
            web.post("/v1/completions", self._completions),
            web.post("/tokenize", self._tokenize),
            web.post("/detokenize", self._detokenize),
        ]

    def grpc_face(self) -> GrpcFace:
        """`vllm serve --grpc`."""
        from enginehouse.engines.emulators.vllm.grpc_face import VllmGrpcFace

        return VllmGrpcFace(self)

    async def _ok(self, _request: web.Request) -> web.Response:
        return web.Response(headers={"Content-Length": "0"})

    async def _version(self, _request: web.Request) -> web.Response:
        return json_response({"version": _VERSION})

    async def _load(self, _request: web.Request) -> web.Response:
        return json_response({"server_load": len(self.engine.at_work)})

    async def _metrics(self, _request: web.Request) -> web.Response:
        return page(metrics.families(self))

    async def _models(self, _request: web.Request) -> web.Response:
        root, context = self.model, self.context_tokens_max
        return json_response(
            {"object": "list", "data": [shapes.model_card(name, root, context) for name in self.options.models]}
        )

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(request, ChatBody)
        model = self._check(body)
        self._check_prompt(body.prompt_tokens)
        if body.top_logprobs and not body.logprobs:
            message = "when using `top_logprobs`, `logprobs` must be set to true."
            raise words.bad_request(message, "top_logprobs")
        tokens_max = body.limit(self.context_tokens_max - body.prompt_tokens)
        await self.sleep.awake.wait()
        head = shapes.Head(shapes.new_id("chatcmpl"), model, self._fingerprint)
        plans = body.plans([self.sleep.said(body.echoed)], tokens_max)
        work = Work(head.id, body.prompt_tokens, plans, tokens_max)
        if body.stream:
            stream = shapes.ChatStream(head, body, body.prompt_tokens, self.options.forces_usage)
            return await StreamSender(request, stream).send(self.engine, work)
        return await send_whole(
            self.engine, work, lambda admitted: json_response(shapes.whole_chat(head, body, admitted)), _FORGIVEN
        )

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(request, CompletionBody)
        model = self._check(body)
        self._check_prompt(max(body.prompt_lengths))
        tokens_max = body.limit(self.context_tokens_max - max(body.prompt_lengths), default=16)
        await self.sleep.awake.wait()
        head = shapes.Head(shapes.new_id("cmpl"), model, self._fingerprint)
        prompt_tokens = sum(body.prompt_lengths)
        work = Work(
            head.id, prompt_tokens, body.plans(list(map(self.sleep.said, body.prompts)), tokens_max), tokens_max
        )
        echoed = [prompt if body.echo else "" for prompt in body.prompts for _ in range(body.choices)]
        if body.stream:
            forces_usage = self.options.forces_usage
            stream = shapes.CompletionStream(head, body, prompt_tokens, forces_usage, echoed, body.logprobs)
            return await StreamSender(request, stream).send(self.engine, work)
        return await send_whole(
            self.engine,
            work,
            lambda admitted: json_response(shapes.whole_completion(head, echoed, body.logprobs, admitted)),
            _FORGIVEN,
        )

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await self._read(request, TokenizeBody)
        self._check_model(body.model)
        if body.prompt is not None:
            tokens = self.vocabulary.encode(body.prompt)
        elif body.messages is not None:
            tokens = self.vocabulary.number(chatml.marked_tokens(chatml.templated(body.messages)))
        else:
            raise words.missing(("prompt", "messages"), body.model_dump(exclude_unset=True))
        return json_response(
            {
                "count": len(tokens),
                "max_model_len": self.context_tokens_max,
                "tokens": [number for number, _ in tokens],
                "token_strs": [text for _, text in tokens] if body.return_token_strs else None,
            }
        )

    async def _detokenize(self, request: web.Request) -> web.Response:
        body = await self._read(request, DetokenizeBody)
        self._check_model(body.model)
        return json_response({"prompt": self.vocabulary.decode(body.tokens)})

    async def _read(self, request: web.Request, kind: type[Body]) -> Body:
        if request.content_type != "application/json":
            raise words.no_json_type()
        raw = await request.read()
        try:
            return parse_body(raw, kind)
        except BodyError as error:
            raise words.not_valid(error, raw) from None

    def _check(self, body: GenerationBody) -> str:
        """Refuses what vLLM refuses; the name that the answer carries."""
        if body.stream_options is not None and not body.stream:
            raise words.bad_request("Stream options can only be defined when `stream=True`.", "stream_options")
        self._check_model(body.model)
        n, temperature, limit = 1 if body.n is None else body.n, body.temperature, body.tokens_max
        if n < 1 or n > _CHOICES_MAX:
            raise words.bad_request(f"n must be at least 1, got {n}.")
        if limit is not None and limit < 1:
            raise words.bad_request(f"max_tokens must be at least 1, got {limit}.", "max_tokens", limit)
        if temperature is not None and temperature < 0:
            message = f"temperature must be non-negative, got {temperature}."
            raise words.bad_request(message, "temperature", temperature)
        if body.top_p is not None and not 0 < body.top_p <= 1:
            raise words.bad_request(f"top_p must be in (0, 1], got {body.top_p}.", "top_p", body.top_p)
        if n > 1 and temperature is not None and temperature < _GREEDY_BELOW:
            raise words.bad_request(f"n must be 1 when using greedy sampling, got {n}.")
        if limit is not None and limit > self.context_tokens_max:
            param = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
            raise words.bad_request(
                f"{param}={limit} cannot be greater than max_model_len="
                f"{self.context_tokens_max}. Please request fewer output tokens.",
                param,
                limit,
            )
        return body.model or self.model

    def _check_model(self, asked: str | None) -> None:
        if asked and asked not in self.options.models:
            raise words.unknown_model(asked, self.options.models)

    def _check_prompt(self, prompt_tokens: int) -> None:
        """Refuses a prompt that is too long. vLLM counts no further than that."""
        if prompt_tokens >= self.context_tokens_max:
            counted = self.context_tokens_max + 1
            raise words.bad_request(
                f"This model's maximum context length is {self.context_tokens_max} tokens. However, your prompt "
                f"contains at least {counted} input tokens, which exceeds this limit even without any output tokens. "
                "Please reduce the length of the input prompt.",
                "input_tokens",
                counted,
            )


async def _with_vary(_request: web.Request, response: web.StreamResponse) -> None:
    """As its CORS middleware marks every answer."""
    response.headers["Vary"] = "Origin"
