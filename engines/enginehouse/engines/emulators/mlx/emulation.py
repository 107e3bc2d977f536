"""mlx_lm.server, as of 0.32.2.

It is healthy as soon as its port is open; the model is loaded when the first request comes, which waits for it. There
are no metrics and no abort. SIGTERM ends the process at once.
"""

import time
from collections.abc import Iterable
from http import HTTPStatus

from aiohttp import web

from enginehouse.engines.emulators.core.answers import HttpError, StreamSender, json_response, send_whole
from enginehouse.engines.emulators.core.bodies import (
    Body,
    BodyError,
    ChatBody,
    CompletionBody,
    GenerationBody,
    parse_body,
)
from enginehouse.engines.emulators.core.emulation import Emulation, get
from enginehouse.engines.emulators.core.generation import Work
from enginehouse.engines.emulators.core.options import Defaults, EmulatorOptions, Shutdown, Startup
from enginehouse.engines.emulators.mlx import shapes, words

_DEFAULT_MODEL = "default_model"
_OUTPUT_DEFAULT = 512  # --max-tokens


class MlxEmulation(Emulation):
    """See the module."""

    kind = "mlx"
    version = "0.32.2"
    server_name = "BaseHTTP/0.6 Python/3.11"
    defaults = Defaults(context_tokens_max=8192, places=32, queue_max=65536)
    startup = Startup(listens_while_loading=True, loads_on_request=True, takes_while_loading=True)

    def __init__(self, options: EmulatorOptions) -> None:
        super().__init__(options)
        self.words = words.MlxWords()
        self._started_s = int(time.time())

    @property
    def shutdown(self) -> Shutdown:
        """At once."""
        return Shutdown(drain_s=0.0)

    def routes(self) -> Iterable[web.RouteDef]:
        """Generation, models, health."""
        return [
            get("/health", self._health),
            get("/v1/models", self._models),
            web.post("/v1/chat/completions", self._chat),
            web.post("/chat/completions", self._chat),
            web.post("/v1/completions", self._completions),
        ]

    async def _health(self, _request: web.Request) -> web.Response:
        return json_response({"status": "ok"})

    async def _models(self, _request: web.Request) -> web.Response:
        cards = [{"id": name, "object": "model", "created": self._started_s} for name in self.options.models]
        return json_response({"object": "list", "data": cards})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(request, ChatBody)
        return await self._answer(
            request, body, ("chatcmpl", "chat.completion"), body.said, body.prompt_tokens, bool(body.logprobs)
        )

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(request, CompletionBody)
        return await self._answer(
            request,
            body,
            ("cmpl", "text_completion"),
            body.prompts[0],
            body.prompt_lengths[0],
            body.logprobs is not None,
        )

    async def _answer(
        self,
        request: web.Request,
        body: GenerationBody,
        names: tuple[str, str],
        echoed: str,
        prompt_tokens: int,
        has_logprobs: bool,
    ) -> web.StreamResponse:
        """One choice, whatever `n` says. `names`: the prefix of the id, and the object of a whole answer."""
        self._check(body)
        prefix, kind = names
        left = self.context_tokens_max - prompt_tokens
        if left < 1:
            raise words.worded(f"The prompt of {prompt_tokens} tokens is too long", HTTPStatus.NOT_FOUND)
        limit = body.limit(left, _OUTPUT_DEFAULT)
        head = shapes.Head(prefix, body.model or _DEFAULT_MODEL)
        work = Work(head.number, prompt_tokens, body.plans([echoed], limit)[:1], limit)
        if body.stream:
            part = "chat.completion.chunk" if kind == "chat.completion" else kind
            stream = shapes.MlxStream(head, part, body, prompt_tokens)
            return await StreamSender(request, stream).send(self.engine, work)
        return await send_whole(
            self.engine, work, lambda admitted: json_response(shapes.whole(head, kind, has_logprobs, admitted))
        )

    async def _read(self, request: web.Request, kind: type[Body]) -> Body:
        try:
            return parse_body(await request.read(), kind)
        except BodyError as error:
            raise words.not_valid(error) from None

    def _check(self, body: GenerationBody) -> None:
        """Refuses what it refuses. Another model would be downloaded; where no hub is reached that is a 404."""
        if body.tokens_max is not None and body.tokens_max < 1:
            raise words.worded("max_tokens must be at least 1")
        if body.temperature is not None and body.temperature < 0:
            raise words.worded("temperature must be at least 0")
        if body.top_p is not None and not 0 <= body.top_p <= 1:
            raise words.worded("top_p must be at most 1" if body.top_p > 1 else "top_p must be at least 0")
        if body.model not in (None, _DEFAULT_MODEL, *self.options.models):
            raise self._no_hub(body.model)

    def _no_hub(self, model: str | None) -> HttpError:
        return words.worded(f"{model} is not a local folder and cannot be downloaded", HTTPStatus.NOT_FOUND)
